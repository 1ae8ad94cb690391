"""The attributes of each directory record and what stands there when an image lacks a required one (PS3.3 F.5).

Type 1 is required with a value, type 2 may be empty, type 3 is written where the image has it. A type 1 value that an image lacks is filled in the
record alone, never in the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.datadict import dictionary_VR, tag_for_keyword


@dataclass(frozen=True, slots=True)
class Key:
    """One attribute of a record: `instead_of` names the attributes whose value stands in for a missing type 1 value, `fill` the last resort."""

    keyword: str
    tag: int
    vr: str
    type: int
    instead_of: tuple[int, ...] = ()
    fill: bytes = b""


def _key(keyword: str, type_: int, fill: str = "", *instead_of: str) -> Key:
    return Key(keyword, _tag(keyword), dictionary_VR(_tag(keyword)), type_, tuple(map(_tag, instead_of)), fill.encode())


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return tag


def _date(keyword: str) -> Key:
    return _key(keyword, 1, "19000101", "ContentDate", "InstanceCreationDate", "AcquisitionDate", "SeriesDate", "StudyDate")


def _time(keyword: str) -> Key:
    return _key(keyword, 1, "000000", "ContentTime", "InstanceCreationTime", "AcquisitionTime", "SeriesTime", "StudyTime")


BY_ORDER = "1"  # the last resort of the attributes in ORDERED: replaced by the record's place among its siblings
ORDERED = frozenset({_tag("InstanceNumber"), _tag("SeriesNumber"), _tag("StudyID")})

_NUMBER = _key("InstanceNumber", 1, BY_ORDER)
_CONTENT = (_NUMBER, _date("ContentDate"), _time("ContentTime"))
_IDENTIFIED = (_NUMBER, _key("ContentLabel", 1, "UNNAMED"), _key("ContentDescription", 2), _key("ContentCreatorName", 2))  # PS3.3 Table 10-12
_CONTENT_IDENTIFIED = (*_IDENTIFIED, *_CONTENT[1:])

KEYS: Mapping[str, tuple[Key, ...]] = {
    "PATIENT": (_key("PatientName", 2), _key("PatientID", 1), _key("PatientBirthDate", 3), _key("PatientSex", 3)),  # F.5.1
    "STUDY": (  # F.5.2
        _key("StudyDate", 1, "19000101", "SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate"),
        _key("StudyTime", 1, "000000", "SeriesTime", "AcquisitionTime", "ContentTime", "InstanceCreationTime"),
        _key("StudyDescription", 2),
        _key("StudyInstanceUID", 1),
        _key("StudyID", 1, BY_ORDER, "AccessionNumber"),
        _key("AccessionNumber", 2),
    ),
    "SERIES": (  # F.5.3
        _key("Modality", 1, "OT"),
        _key("SeriesInstanceUID", 1),
        _key("SeriesNumber", 1, BY_ORDER),
        _key("SeriesDescription", 3),
        _key("InstitutionName", 3),
    ),
    "IMAGE": (_NUMBER, _key("ImageType", 3)),  # F.5.4
    "RT DOSE": (_NUMBER, _key("DoseSummationType", 1, "PLAN")),  # F.5.19
    "RT STRUCTURE SET": (_NUMBER, _key("StructureSetLabel", 1, "UNNAMED"), _key("StructureSetDate", 2), _key("StructureSetTime", 2)),  # F.5.20
    "RT PLAN": (_NUMBER, _key("RTPlanLabel", 1, "UNNAMED"), _key("RTPlanDate", 2), _key("RTPlanTime", 2)),  # F.5.21
    "RT TREAT RECORD": (_NUMBER, _key("TreatmentDate", 2), _key("TreatmentTime", 2)),  # F.5.22
    "PRESENTATION": (  # F.5.23
        *_IDENTIFIED,
        _date("PresentationCreationDate"),
        _time("PresentationCreationTime"),
        _key("ReferencedSeriesSequence", 3),
        _key("BlendingSequence", 3),
    ),
    "WAVEFORM": _CONTENT,  # F.5.24
    "SR DOCUMENT": (  # F.5.25; VerificationDateTime and ContentSequence are conditional, see mkiso.media.records
        *_CONTENT,
        _key("CompletionFlag", 1, "PARTIAL"),
        _key("VerificationFlag", 1, "UNVERIFIED"),
        _key("ConceptNameCodeSequence", 1),
    ),
    "KEY OBJECT DOC": (*_CONTENT, _key("ConceptNameCodeSequence", 1)),  # F.5.26
    "SPECTROSCOPY": (  # F.5.27
        *_CONTENT,
        _key("ImageType", 1, "ORIGINAL\\PRIMARY"),
        _key("NumberOfFrames", 1, "1"),
        _key("Rows", 1, "1"),
        _key("Columns", 1, "1"),
        _key("DataPointRows", 1, "1"),
        _key("DataPointColumns", 1, "1"),
    ),
    "RAW DATA": _CONTENT,  # F.5.28
    "REGISTRATION": _CONTENT_IDENTIFIED,  # F.5.29
    "FIDUCIAL": _CONTENT_IDENTIFIED,  # F.5.30
    "ENCAP DOC": (  # F.5.32
        _NUMBER,
        _key("ContentDate", 2),
        _key("ContentTime", 2),
        _key("DocumentTitle", 2),
        _key("HL7InstanceIdentifier", 3),
        _key("ConceptNameCodeSequence", 2),
        _key("MIMETypeOfEncapsulatedDocument", 1, "application/octet-stream"),
    ),
    "VALUE MAP": _CONTENT_IDENTIFIED,  # F.5.33
    "STEREOMETRIC": (),  # F.5.34
    "PLAN": (),  # F.5.39
    "MEASUREMENT": _CONTENT_IDENTIFIED,  # F.5.40
    "SURFACE": _CONTENT_IDENTIFIED,  # F.5.41
    "SURFACE SCAN": (_date("ContentDate"), _time("ContentTime")),  # F.5.42
    "TRACT": _CONTENT_IDENTIFIED,  # F.5.43
    "ASSESSMENT": (  # F.5.44
        _NUMBER,
        _key("InstanceCreationDate", 1, "19000101", "ContentDate", "SeriesDate", "StudyDate"),
        _key("InstanceCreationTime", 2),
    ),
    "RADIOTHERAPY": (  # F.5.45
        _NUMBER,
        _key("UserContentLabel", 3),
        _key("UserContentLongLabel", 3),
        _key("ContentDescription", 2),
        _key("ContentCreatorName", 2),
    ),
    "ANNOTATION": _CONTENT_IDENTIFIED,  # F.5.46
}
