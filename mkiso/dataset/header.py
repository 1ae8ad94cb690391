"""The header of a Part 10 file: what identity, layout and DICOMDIR need of it, and never its pixels.

The file is mapped, not read: a header costs the same whatever the size of the pixels behind it. The whole data set is
walked to its last byte, so what is returned belongs to an instance that is structurally whole.
"""

from __future__ import annotations

import mmap
import tempfile
import zlib
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydicom import DataElement, Dataset, Sequence
from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pydicom.valuerep import STR_VR

from mkiso.dataset.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Element,
    Encoded,
    Encoding,
    elements,
    elements_so_far,
    elements_up_to,
    items,
    unpadded,
    value_so_far,
)
from mkiso.dataset.part10 import HEAD_BYTES, data_set_offset, transfer_syntax_uid_in
from mkiso.errors import DamagedInstance
from mkiso.study.rejections import reason_of

MAX_VALUE_BYTES = 64 * 1024
"""Of one attribute of a header; what we read of real ones is far shorter."""
MAX_SHARED_BYTES, SHARED_ELEMENTS = 128, 2048
MAX_SEQUENCE_BYTES = 1024 * 1024  # a longer sequence is left out of the header, unless it says whose the image is
MAX_SEQUENCE_DEPTH = 3  # Blending Sequence > Referenced Series Sequence > Referenced Image Sequence
MAX_INFLATED_BYTES = 256 * 1024 * 1024  # a deflated data set; deflate reaches 1:1000, so a bound is needed

_IMPLICIT = frozenset({"1.2.840.10008.1.2", "1.2.840.113619.5.2"})
"""Implicit VR Little Endian, and GE's, whose pixels alone are big endian."""
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
"""The transfer syntaxes whose data set is deflated (PS3.5 A.5, A.7 and A.11)."""
_BIG_ENDIAN = "1.2.840.10008.1.2.2"


MAX_INFLATED_BEGINNING_BYTES = 16 * 1024 * 1024
MAX_BEGINNING_BYTES = 256 * 1024  # of a data set, deflated or inflated, that is looked at for its study

_STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID = 0x0020000D, 0x0020000E
_SPECIFIC_CHARACTER_SET = 0x00080005
_CONTENT_SEQUENCE, _RELATIONSHIP_TYPE = 0x0040A730, 0x0040A010


def _tags(keywords: str) -> dict[int, BaseTag]:
    tags = {keyword: tag_for_keyword(keyword) for keyword in keywords.split()}
    return {tag: BaseTag(tag) for tag in tags.values() if tag is not None}


# Sequences whose items are read too: the record types of PS3.3 F.5 and the items' content below them.
_SEQUENCES = _tags("""
    ConceptNameCodeSequence ReferencedSeriesSequence ReferencedImageSequence BlendingSequence
    ReferencedImageEvidenceSequence VerifyingObserverSequence ContentSequence ConceptCodeSequence
    IssuerOfPatientIDQualifiersSequence OtherPatientIDsSequence ReferencedSOPSequence
    CurrentRequestedProcedureEvidenceSequence PredecessorDocumentsSequence
    PurposeOfReferenceCodeSequence
    SharedFunctionalGroupsSequence PixelMeasuresSequence PlanePositionSequence PlaneOrientationSequence
""")

# What a document is about: read of those alone that reject it (mkiso.study.rejections).
_EVIDENCE = frozenset(_tags("CurrentRequestedProcedureEvidenceSequence"))

# Those that say whose an image is: none may be left out.
_WHOSE = _EVIDENCE.union(_tags("IssuerOfPatientIDQualifiersSequence OtherPatientIDsSequence"))

# What identity, layout and the records of PS3.3 F.5 are made from, with the keys that PS3.11 adds (H.3.3.1).
_HEADER = (
    _tags("""
    SpecificCharacterSet SOPClassUID SOPInstanceUID InstanceNumber ImageType ContentDate ContentTime PatientName
    PatientID IssuerOfPatientID PatientBirthDate PatientSex OtherPatientIDs StudyInstanceUID StudyDate StudyTime StudyID
    StudyDescription AccessionNumber ReferringPhysicianName SeriesInstanceUID SeriesNumber SeriesDescription SeriesDate
    SeriesTime Modality BodyPartExamined Laterality InstitutionName InstitutionAddress PerformingPhysicianName
    OperatorsName ProtocolName Manufacturer ManufacturerModelName AcquisitionNumber AcquisitionDate AcquisitionTime
    AcquisitionDateTime FrameOfReferenceUID ImagePositionPatient ImageOrientationPatient Rows Columns NumberOfFrames
    SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored PlanarConfiguration LossyImageCompression
    CompletionFlag VerificationFlag VerificationDateTime InstanceCreationDate InstanceCreationTime ContentLabel
    ContentDescription ContentCreatorName PresentationCreationDate PresentationCreationTime DoseSummationType
    DoseComment StructureSetLabel StructureSetDate StructureSetTime RTPlanLabel RTPlanDate RTPlanTime TreatmentDate
    TreatmentTime UserContentLabel UserContentLongLabel DocumentTitle HL7InstanceIdentifier
    MIMETypeOfEncapsulatedDocument DataPointRows DataPointColumns ImplantName ImplantPartNumber ImplantSize
    ImplantTemplateGroupName ImplantTemplateGroupDescription ImplantTemplateGroupIssuer EffectiveDateTime
    ImplantAssemblyTemplateName ImplantAssemblyTemplateVersion ProcedureType HangingProtocolName
    HangingProtocolDescription HangingProtocolLevel HangingProtocolCreator HangingProtocolCreationDateTime
    SpectrallySelectedExcitation RelatedGeneralSOPClassUID CalibrationImage LossyImageCompressionRatio
    SynchronizationFrameOfReferenceUID AcquisitionTimeSynchronized PixelSpacing
""")
    | _SEQUENCES
)

_ITEM = (
    _tags("""
    SpecificCharacterSet TextValue
    CodeValue LongCodeValue URNCodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning
    StudyInstanceUID SeriesInstanceUID ReferencedSOPClassUID ReferencedSOPInstanceUID ReferencedFrameNumber
    RetrieveAETitle StorageMediaFileSetID StorageMediaFileSetUID
    RelationshipType ValueType VerificationDateTime
    ReferencedSegmentNumber ContextIdentifier ContextUID MappingResource MappingResourceUID MappingResourceName
    ContextGroupVersion PixelSpacing ImagePositionPatient ImageOrientationPatient
    PatientID IssuerOfPatientID UniversalEntityID UniversalEntityIDType
""")
    | _SEQUENCES
)

_IDENTITY = _tags("SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID PatientID")

# Of those that say whose and which instance it is, and the first of what comes behind them.
_BEGINNING = frozenset(_tags("SpecificCharacterSet SOPClassUID SOPInstanceUID PatientID"))
_BEHIND = frozenset(_tags("StudyInstanceUID SeriesInstanceUID PixelData"))

_TEXTS = {tag: dictionary_VR(tag) for tag in {**_HEADER, **_ITEM} if dictionary_VR(tag) in STR_VR}

_HEADER_TAGS, _ITEM_TAGS = frozenset(_HEADER) - _EVIDENCE, frozenset(_ITEM) - _EVIDENCE
_IDENTITY_TAGS = frozenset(_IDENTITY)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which instance a file holds; empty strings where it is silent."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    patient_id: str


def read_header(path: Path) -> Dataset:
    """What identity, layout and DICOMDIR need of a Part 10 file: raw elements that pydicom decodes on first use, and
    short sequences.

    Raises DamagedInstance where the file isn't a whole instance or a wanted value is longer than a header's has any
    reason to be.
    """
    with encoded_data_set(path) as (dataset, start, encoding):
        found = elements(dataset, start, len(dataset), encoding, _HEADER_TAGS)
        header = _dataset(dataset, found, encoding)
        if reason_of(header):
            found |= elements(dataset, start, len(dataset), encoding, _EVIDENCE)
            header = _dataset(dataset, found, encoding)
        return header


@contextmanager
def encoded_data_set(path: Path) -> Iterator[tuple[mmap.mmap, int, Encoding]]:
    """The data set of a Part 10 file as it is encoded, mapped: its bytes, where it begins in them, and how to read it.

    A deflated one is inflated into an unnamed file beside it. Raises DamagedInstance where there is no data set.
    """
    with _mapped_file(path) as data:
        offset = data_set_offset(data[:HEAD_BYTES], len(data))
        transfer_syntax_uid = transfer_syntax_uid_in(data[HEAD_BYTES:offset])
        with _inflated(data, offset, transfer_syntax_uid, path.parent) as (dataset, start):
            yield dataset, start, encoding_of(transfer_syntax_uid)


def read_identity(descriptor: int, offset: int, transfer_syntax_uid: str, folder: Path) -> Identity:
    """Which instance the data set at `offset` of an open file holds; `folder` takes a deflated one while it is
    inflated.

    Raises DamagedInstance where the data set isn't whole.
    """
    with _mapped(descriptor) as data, _inflated(data, offset, transfer_syntax_uid, folder) as (dataset, start):
        return _identity(
            dataset, elements(dataset, start, len(dataset), encoding_of(transfer_syntax_uid), _IDENTITY_TAGS)
        )


def begin_identity(beginning: bytes, transfer_syntax_uid: str) -> tuple[Identity, int] | None:
    """Which instance a data set is, by its beginning, and the size in bytes that the whole must have for this to be
    true.

    None where `read_identity` has to look at the whole.
    """
    if transfer_syntax_uid in _DEFLATED:
        return None
    begun = elements_so_far(beginning, encoding_of(transfer_syntax_uid), _IDENTITY_TAGS)
    try:
        return (_identity(beginning, begun[0]), begun[1]) if begun else None
    except DamagedInstance:
        return None


def begin_header(beginning: bytes, transfer_syntax_uid: str) -> Dataset:
    """Whose and which instance a data set is, by its beginning, or all of it: SOP class, SOP instance, Patient ID and
    what this is written in.

    Raises DamagedInstance where the beginning doesn't tell.
    """
    if transfer_syntax_uid in _DEFLATED:
        beginning = _inflated_beginning(beginning, MAX_INFLATED_BEGINNING_BYTES)
    encoding = encoding_of(transfer_syntax_uid)
    found = elements_up_to(beginning, 0, encoding, _BEGINNING | _BEHIND, _BEHIND)
    return _dataset(beginning, {tag: element for tag, element in found.items() if tag in _BEGINNING}, encoding)


def begin_study(beginning: bytes, transfer_syntax_uid: str) -> str:
    """The Study Instance UID of a data set by its beginning, empty where that doesn't tell; for what isn't stored and
    needs no more than a name."""
    return _begun(beginning, transfer_syntax_uid, _STUDY_INSTANCE_UID)


def begin_series(beginning: bytes, transfer_syntax_uid: str) -> str:
    """As begin_study, the Series Instance UID."""
    return _begun(beginning, transfer_syntax_uid, _SERIES_INSTANCE_UID)


def _begun(beginning: bytes, transfer_syntax_uid: str, tag: int) -> str:
    if transfer_syntax_uid in _DEFLATED:
        beginning = _inflated_beginning(beginning, MAX_BEGINNING_BYTES)
    return unpadded(value_so_far(beginning, encoding_of(transfer_syntax_uid), tag) or b"")


def _inflated_beginning(deflated: bytes, most: int) -> bytes:
    """At most so many bytes of what was deflated; none where it can't be inflated."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, most)
    except zlib.error:
        return b""


def _identity(data: Encoded, found: dict[int, Element]) -> Identity:
    return Identity(*(_text(data, found.get(tag)) for tag in _IDENTITY))


def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """How a transfer syntax encodes elements: Explicit VR Little Endian but for two (PS3.5 A.4)."""
    if transfer_syntax_uid in _IMPLICIT:
        return IMPLICIT_LITTLE
    return EXPLICIT_BIG if transfer_syntax_uid == _BIG_ENDIAN else EXPLICIT_LITTLE


def is_deflated(transfer_syntax_uid: str) -> bool:
    """Whether data sets of a transfer syntax are deflated as a whole."""
    return transfer_syntax_uid in _DEFLATED


@contextmanager
def _mapped_file(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb", buffering=0) as file, _mapped(file.fileno()) as data:
        yield data


@contextmanager
def _mapped(descriptor: int) -> Iterator[mmap.mmap]:
    try:
        data = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
    except ValueError:  # an empty file
        raise DamagedInstance("The file is empty.") from None
    with data:
        yield data


@contextmanager
def _inflated(data: mmap.mmap, offset: int, transfer_syntax_uid: str, folder: Path) -> Iterator[tuple[mmap.mmap, int]]:
    """The data set's bytes: those of the file, or of an unnamed file beside it that a deflated one is inflated into
    (PS3.5 A.5).
    """
    if transfer_syntax_uid not in _DEFLATED:
        yield data, offset
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            for start in range(offset, len(data), 65_536):
                chunk = data[start : start + 65_536]
                while chunk and not inflate.eof:
                    file.write(inflate.decompress(chunk, 1024 * 1024))
                    if file.tell() > MAX_INFLATED_BYTES:
                        raise DamagedInstance(
                            f"The deflated data set inflates to more than {MAX_INFLATED_BYTES / 1e6:.0f} MB."
                        )
                    chunk = inflate.unconsumed_tail
        except zlib.error:
            raise DamagedInstance("The deflated data set can't be inflated.") from None
        # A byte of padding (PS3.5 A.5), or the CRC and length of gzip that some writers leave, may follow.
        if not inflate.eof or len(inflate.unused_data) > 8:
            raise DamagedInstance("The deflated data set is cut short or has something after it.")
        file.flush()
        with _mapped(file.fileno()) as inflated:
            yield inflated, 0


def _dataset(
    data: Encoded, found: dict[int, Element], encoding: Encoding, charset: list[str] | None = None, depth: int = 0
) -> Dataset:
    """The elements as a pydicom data set. A sequence becomes one here, item by item, since pydicom would follow any
    depth of nesting.
    """
    raw: dict[BaseTag, DataElement | RawDataElement] = {}
    sequences: dict[BaseTag, Element] = {}
    for number, element in found.items():
        tag = _HEADER.get(number) or _ITEM[number]
        if number in _SEQUENCES:
            if depth < MAX_SEQUENCE_DEPTH:
                if element.vr in (None, b"SQ", b"UN") and element.length <= MAX_SEQUENCE_BYTES:
                    sequences[tag] = element
                elif number in _WHOSE:
                    raise DamagedInstance(f"The attribute {tag} has no value that it can have.")
            continue
        if element.vr == b"SQ" or element.delimited or element.length > MAX_VALUE_BYTES:
            raise DamagedInstance(f"The attribute {tag} has no value that it can have.")
        value = data[element.offset : element.offset + element.length]
        made = _raw if len(value) > MAX_SHARED_BYTES else _shared_raw
        raw[tag] = made(tag, _vr(tag, element), value, encoding.explicit, encoding.little_endian)
    if _SPECIFIC_CHARACTER_SET in raw:
        charset = encodings_of(raw[_HEADER[_SPECIFIC_CHARACTER_SET]].value or b"")
    for tag, element in sequences.items():
        found_items = items(data, element, _ITEM_TAGS)
        if tag == _CONTENT_SEQUENCE:
            found_items = [item for item in found_items if _modifies_title(data, item)]
        entries = [_dataset(data, item, element.encoding, charset, depth + 1) for item in found_items]
        raw[tag] = DataElement(tag, "SQ", Sequence(entries))
    dataset = Dataset(_Elements(raw))
    dataset.set_original_encoding(not encoding.explicit, encoding.little_endian, charset)
    return dataset


class _Elements(MutableMapping[BaseTag, DataElement | RawDataElement]):
    """Elements by their tags, of which headers that have the same ones share a table: that is half of a header."""

    __slots__ = ("_places", "_values")

    def __init__(self, elements: Mapping[BaseTag, DataElement | RawDataElement]) -> None:
        self._places, self._values = _places(tuple(elements)), list(elements.values())

    def __getitem__(self, tag: BaseTag) -> DataElement | RawDataElement:
        return self._values[self._places[tag]]

    def get(self, tag: BaseTag, default: Any = None) -> Any:
        place = self._places.get(tag)
        return default if place is None else self._values[place]

    def __contains__(self, tag: object) -> bool:
        return tag in self._places

    def __setitem__(self, tag: BaseTag, element: DataElement | RawDataElement) -> None:
        if tag in self._places:
            self._values[self._places[tag]] = element
        else:
            self._places, self._values = _places((*self._places, tag)), [*self._values, element]

    def __delitem__(self, tag: BaseTag) -> None:
        place = self._places[tag]
        left = tuple(other for other in self._places if other != tag)
        self._places, self._values = _places(left), self._values[:place] + self._values[place + 1 :]

    def __iter__(self) -> Iterator[BaseTag]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@lru_cache(maxsize=256)
def _places(tags: tuple[BaseTag, ...]) -> dict[BaseTag, int]:
    return {tag: place for place, tag in enumerate(tags)}


def _raw(tag: BaseTag, vr: str | None, value: bytes, explicit: bool, little_endian: bool) -> RawDataElement:
    return RawDataElement(tag, vr, len(value), value, 0, not explicit, little_endian)


_shared_raw = lru_cache(maxsize=SHARED_ELEMENTS)(_raw)
"""Nobody can change one, and the headers of a series are alike in most: each of these is in memory once."""


def _modifies_title(data: Encoded, item: dict[int, Element]) -> bool:
    """Whether an item of a report's content is one that its record repeats (PS3.3 F.5.25); the others are the report
    itself."""
    return _text(data, item.get(_RELATIONSHIP_TYPE)) == "HAS CONCEPT MOD"


def encodings_of(character_set: bytes) -> list[str]:
    """Python's names of a Specific Character Set. Raises DamagedInstance where one can't be asked for (a NUL in it) or
    is no alphabet (`hex`).
    """
    try:
        encodings = convert_encodings(character_set.decode("ascii", "replace").strip(" \0").split("\\"))
        for encoding in encodings:
            b"    ".decode(encoding)
    except (LookupError, ValueError):
        raise DamagedInstance("The Specific Character Set names none that there is.") from None
    return encodings


def _vr(tag: BaseTag, element: Element) -> str | None:
    """The VR to decode an attribute by: of a text the dictionary's, whatever it was sent with, as `read_identity` takes
    it too; None where it was sent without, so that pydicom looks it up.
    """
    return _TEXTS.get(tag) or (element.vr.decode("ascii") if element.vr else None)


def _text(data: Encoded, element: Element | None) -> str:
    if element is None:
        return ""
    if element.length > MAX_VALUE_BYTES:
        raise DamagedInstance("An identifying attribute is longer than it can be.")
    return unpadded(data[element.offset : element.offset + element.length])
