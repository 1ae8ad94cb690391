"""The attributes of each directory record and what stands there when an image lacks a required one (PS3.3 F.5), with
those that the profiles for CD-R and for the other media add (PS3.11 D.3.3.1, H.3.3.1).

Type 1 is required with a value, type 2 may be empty, type 3 is written where the image has it. A type 1 value that an
image lacks is filled in the record alone, never in the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import pydicom.uid
from pydicom.datadict import dictionary_VR

from mkiso.dataset.items import tag_of

Meaning = Literal["", "identifier", "label", "uid"]


@dataclass(frozen=True, slots=True)
class Key:
    """One attribute of a record, or of an item in one.

    `instead_of` names the attributes whose value stands in for a missing type 1 value, `fill` the last resort.
    `meaning`: an `identifier` is never shortened, a `label` is free text though its VR is CS, a `uid` names a study or
    series. `values` are the only ones that there are, value by value. `several`: VM is 1-n. `classes`: of type 1 for
    these SOP classes, of type `otherwise` for others, where 0 is never. `items`: a sequence's keys, at least `fewest`
    and at most `most` items of them. `within`: the sequences, each in the one before, in whose first item the attribute
    is looked for where the data set itself hasn't got it. `count`: of several values so many, 0: any number.
    """

    keyword: str
    tag: int
    vr: str
    type: int
    instead_of: tuple[int, ...] = ()
    fill: bytes = b""
    meaning: Meaning = ""
    values: tuple[frozenset[bytes], ...] = ()
    several: bool = False
    classes: frozenset[str] = frozenset()
    otherwise: int = 3
    items: tuple[Key, ...] = ()
    fewest: int = 1
    most: int = 100_000
    within: tuple[int, ...] = ()
    count: int = 0

    def type_for(self, sop_class_uid: str) -> int:
        """Its type in a record of this SOP class."""
        return self.otherwise if self.classes and sop_class_uid not in self.classes else self.type


def _key(
    keyword: str,
    type_: int,
    fill: str = "",
    *instead_of: str,
    meaning: Meaning = "",
    values: tuple[str, ...] = (),
    several: bool = False,
) -> Key:
    allowed = tuple(frozenset(value.encode().split(b"|")) for value in values)
    vr = dictionary_VR(tag_of(keyword))
    others = tuple(map(tag_of, instead_of))
    return Key(keyword, tag_of(keyword), vr, type_, others, fill.encode(), meaning, allowed, several)


def _sequence(
    keyword: str, type_: int, *items: Key, fewest: int = 1, most: int = 100_000, classes: tuple[str, ...] = ()
) -> Key:
    uids = frozenset(str(getattr(pydicom.uid, name)) for name in classes)
    return Key(keyword, tag_of(keyword), "SQ", type_, items=items, fewest=fewest, most=most, classes=uids)


def _date(keyword: str) -> Key:
    return _key(
        keyword, 1, "19000101", "ContentDate", "InstanceCreationDate", "AcquisitionDate", "SeriesDate", "StudyDate"
    )


def _time(keyword: str) -> Key:
    return _key(
        keyword, 1, "000000", "ContentTime", "InstanceCreationTime", "AcquisitionTime", "SeriesTime", "StudyTime"
    )


BY_ORDER = "1"  # the last resort of the attributes in ORDERED: replaced by the record's place among its siblings
ORDERED = frozenset({tag_of("InstanceNumber"), tag_of("SeriesNumber"), tag_of("StudyID")})

_NUMBER = _key("InstanceNumber", 1, BY_ORDER)
_CONTENT = (_NUMBER, _date("ContentDate"), _time("ContentTime"))
_IDENTIFIED = (  # PS3.3 Table 10-12
    _NUMBER, _key("ContentLabel", 1, "UNNAMED", meaning="label"), _key("ContentDescription", 2),
    _key("ContentCreatorName", 2),
)  # fmt: skip
_CONTENT_IDENTIFIED = (*_IDENTIFIED, *_CONTENT[1:])
_IMAGE_TYPE = _key(  # MIXED: of enhanced objects (C.8.16.1.1)
    "ImageType", 3, "ORIGINAL\\PRIMARY", values=("ORIGINAL|DERIVED|MIXED", "PRIMARY|SECONDARY"), several=True
)

_CODE = (  # Table 8.8-1; a value, and the scheme where it isn't a URN, are conditional: mkiso.media.record_values
    _key("CodeValue", 3, meaning="identifier"),
    _key("CodingSchemeDesignator", 3, meaning="identifier"),
    _key("CodingSchemeVersion", 3, meaning="identifier"),
    _key("CodeMeaning", 1, "", "CodeValue", "LongCodeValue", "URNCodeValue"),
    _key("LongCodeValue", 3, "", "CodeValue", meaning="identifier"),
    _key("URNCodeValue", 3),
)
_REFERENCE = (  # Table 10-11; a UID here must find an instance, so it stays what that instance's file has
    _key("ReferencedSOPClassUID", 1),
    _key("ReferencedSOPInstanceUID", 1, meaning="identifier"),
    _key("ReferencedFrameNumber", 3, several=True),
)
_CONTEXT = (  # Table 8.8-1: where a code comes from
    _key("ContextIdentifier", 3), _key("ContextUID", 3), _key("MappingResource", 3), _key("MappingResourceUID", 3),
    _key("MappingResourceName", 3), _key("ContextGroupVersion", 3),
)  # fmt: skip
_SERIES_UID, _STUDY_UID = _key("SeriesInstanceUID", 1, meaning="uid"), _key("StudyInstanceUID", 1, meaning="uid")
_REFERENCED_SERIES = (_SERIES_UID, _sequence("ReferencedImageSequence", 1, *_REFERENCE))
_EVIDENCE_SERIES = (_SERIES_UID, _sequence("ReferencedSOPSequence", 1, *_REFERENCE))  # Table C.17-3
_TITLE = _sequence("ConceptNameCodeSequence", 1, *_CODE, most=1)
_TITLE_MODIFIER = (  # Table C.17-5, of the items that modify a title
    _key("RelationshipType", 1, values=("HAS CONCEPT MOD",)),
    _key("ValueType", 1, values=("CODE|TEXT",)),
    _TITLE,
    _sequence("ConceptCodeSequence", 3, *_CODE, most=1),
    _key("TextValue", 3),
)
_DOCUMENT_TITLE = (_TITLE, _sequence("ContentSequence", 3, *_TITLE_MODIFIER))

_SHARED = (tag_of("SharedFunctionalGroupsSequence"),)


def _shared(keyword: str, sequence: str, count: int) -> Key:
    """Of the data set, or of the functional groups that all its frames have."""
    return replace(_key(keyword, 3, several=True), within=(*_SHARED, tag_of(sequence)), count=count)


_SEEN = (  # PS3.11 Table H.3-2, of images and spectroscopy; Table D.3-2 has ReferencedImageSequence alone
    replace(
        _sequence(
            "ReferencedImageSequence",
            3,
            *_REFERENCE,
            _key("ReferencedSegmentNumber", 3, several=True),
            _sequence("PurposeOfReferenceCodeSequence", 3, *_CODE, *_CONTEXT, most=1),
        ),
        within=_SHARED,
    ),
    _key("FrameOfReferenceUID", 3),
    _key("SynchronizationFrameOfReferenceUID", 3),
    _key("AcquisitionTimeSynchronized", 3, values=("Y|N",)),
    _key("AcquisitionDateTime", 3),
    _shared("ImagePositionPatient", "PlanePositionSequence", 3),
    _shared("ImageOrientationPatient", "PlaneOrientationSequence", 6),
    _shared("PixelSpacing", "PixelMeasuresSequence", 2),
)

_RELATED = (  # whose IODs have the Presentation State Relationship Module
    "GrayscaleSoftcopyPresentationStateStorage",
    "ColorSoftcopyPresentationStateStorage",
    "PseudoColorSoftcopyPresentationStateStorage",
    "XAXRFGrayscaleSoftcopyPresentationStateStorage",
    "VariableModalityLUTSoftcopyPresentationStateStorage",
)

KEYS: Mapping[str, tuple[Key, ...]] = {
    "PATIENT": (  # F.5.1
        _key("PatientName", 2),
        _key("PatientID", 1, meaning="identifier"),
        _key("PatientBirthDate", 3),
        _key("PatientSex", 3, values=("M|F|O",)),
    ),
    "STUDY": (  # F.5.2
        _key("StudyDate", 1, "19000101", "SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate"),
        _key("StudyTime", 1, "000000", "SeriesTime", "AcquisitionTime", "ContentTime", "InstanceCreationTime"),
        _key("StudyDescription", 2),
        _STUDY_UID,
        _key("StudyID", 1, BY_ORDER, "AccessionNumber", meaning="identifier"),
        _key("AccessionNumber", 2, meaning="identifier"),
    ),
    "SERIES": (  # F.5.3
        _key("Modality", 1, "OT"),
        _SERIES_UID,
        _key("SeriesNumber", 1, BY_ORDER),
        _key("SeriesDescription", 3),
        _key("InstitutionName", 3),
        _key("InstitutionAddress", 3),
        _key("PerformingPhysicianName", 3, several=True),
    ),
    "IMAGE": (  # F.5.4
        _NUMBER,
        _IMAGE_TYPE,
        _key("CalibrationImage", 3, values=("YES|NO",)),
        _key("LossyImageCompressionRatio", 3, several=True),
        _key("NumberOfFrames", 3),
        _key("Rows", 1, "1"),
        _key("Columns", 1, "1"),
        *_SEEN,
    ),
    "RT DOSE": (_NUMBER, _key("DoseSummationType", 1, "PLAN")),  # F.5.19
    "RT STRUCTURE SET": (
        _NUMBER,
        _key("StructureSetLabel", 1, "UNNAMED"),
        _key("StructureSetDate", 2),
        _key("StructureSetTime", 2),
    ),  # F.5.20
    "RT PLAN": (_NUMBER, _key("RTPlanLabel", 1, "UNNAMED"), _key("RTPlanDate", 2), _key("RTPlanTime", 2)),  # F.5.21
    "RT TREAT RECORD": (_NUMBER, _key("TreatmentDate", 2), _key("TreatmentTime", 2)),  # F.5.22
    "PRESENTATION": (  # F.5.23
        *_IDENTIFIED,
        _date("PresentationCreationDate"),
        _time("PresentationCreationTime"),
        _sequence("ReferencedSeriesSequence", 1, *_REFERENCED_SERIES, classes=_RELATED),
        _sequence(
            "BlendingSequence",
            1,
            _STUDY_UID,
            _sequence("ReferencedSeriesSequence", 1, *_REFERENCED_SERIES),
            fewest=2,
            most=2,
            classes=("BlendingSoftcopyPresentationStateStorage",),
        ),
    ),
    "WAVEFORM": _CONTENT,  # F.5.24
    "SR DOCUMENT": (  # F.5.25; VerificationDateTime is conditional: mkiso.media.records
        *_CONTENT,
        _key("CompletionFlag", 1, "PARTIAL", values=("PARTIAL|COMPLETE",)),
        _key("VerificationFlag", 1, "UNVERIFIED", values=("UNVERIFIED|VERIFIED",)),
        *_DOCUMENT_TITLE,
    ),
    "KEY OBJECT DOC": (*_CONTENT, *_DOCUMENT_TITLE),  # F.5.26
    "SPECTROSCOPY": (  # F.5.27
        *_CONTENT,
        replace(_IMAGE_TYPE, type=1),
        _sequence(
            "ReferencedImageEvidenceSequence",
            3,
            _STUDY_UID,
            _sequence("ReferencedSeriesSequence", 1, *_EVIDENCE_SERIES),
        ),
        _key("NumberOfFrames", 1, "1"),
        _key("Rows", 1, "1"),
        _key("Columns", 1, "1"),
        _key("DataPointRows", 1, "1"),
        _key("DataPointColumns", 1, "1"),
        *_SEEN,
    ),
    "RAW DATA": (replace(_NUMBER, type=2), *_CONTENT[1:]),  # F.5.28
    "REGISTRATION": _CONTENT_IDENTIFIED,  # F.5.29
    "FIDUCIAL": _CONTENT_IDENTIFIED,  # F.5.30
    "ENCAP DOC": (  # F.5.32
        _NUMBER,
        _key("ContentDate", 2),
        _key("ContentTime", 2),
        _key("DocumentTitle", 2),
        replace(
            _key("HL7InstanceIdentifier", 1), classes=frozenset({str(pydicom.uid.EncapsulatedCDAStorage)}), otherwise=0
        ),
        replace(_TITLE, type=2),
        _key("MIMETypeOfEncapsulatedDocument", 1, "application/octet-stream"),
    ),
    "VALUE MAP": _CONTENT_IDENTIFIED,  # F.5.34
    "STEREOMETRIC": _IDENTIFIED,  # F.5.35
    "PLAN": (),  # F.5.40
    "MEASUREMENT": _CONTENT_IDENTIFIED,  # F.5.41
    "SURFACE": _CONTENT_IDENTIFIED,
    "SURFACE SCAN": (_date("ContentDate"), _time("ContentTime")),
    "TRACT": _CONTENT_IDENTIFIED,
    "ASSESSMENT": (
        _NUMBER,
        _key("InstanceCreationDate", 1, "19000101", "ContentDate", "SeriesDate", "StudyDate"),
        _key("InstanceCreationTime", 2),
    ),
    "RADIOTHERAPY": (  # F.5.46
        _NUMBER,
        _key("UserContentLabel", 3),
        _key("UserContentLongLabel", 3),
        _key("ContentDescription", 2),
        _key("ContentCreatorName", 2),
    ),
    "ANNOTATION": _CONTENT_IDENTIFIED,
}

RELATED_GENERAL_SOP_CLASS_UID = _key("RelatedGeneralSOPClassUID", 3, several=True)  # Table F.3-3
VERIFICATION_DATE_TIME = _key("VerificationDateTime", 1)  # of a verified report only (F.5.25)
