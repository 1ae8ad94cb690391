"""The DICOMDIR: the tree of a file-set as records with exact offsets (PS3.3 F, PS3.10 8.6)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from mkiso.dataset.part10 import file_head
from mkiso.media.conforming import conforming, is_valid_uid
from mkiso.media.elements import element, item
from mkiso.media.file_set import Leaf, PatientBranch, StudyBranch
from mkiso.media.file_set import Series as SeriesBranch
from mkiso.media.patient_ids import patient_ids
from mkiso.media.record_keys import RELATED_GENERAL_SOP_CLASS_UID
from mkiso.media.record_values import FILLED, KEPT, made_uid
from mkiso.media.records import Notes, Subject, record_body
from mkiso.study.models import count_words
from mkiso.study.text import Text, raw_value

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_PATIENT_NAME, _PATIENT_ID, _STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID = 0x00100010, 0x00100020, 0x0020000D, 0x0020000E


@dataclass(slots=True)
class _Record:
    """A record whose offsets aren't known yet."""

    kind: bytes
    body: bytes
    reference: bytes = b""
    lower: list[_Record] = field(default_factory=list)
    offset: int = 0

    @property
    def length(self) -> int:
        """Of the whole item in bytes: its header, the three elements of fixed size, the record type and the rest."""
        return 8 + 34 + 8 + len(self.kind) + len(self.reference) + len(self.body)

    def encoded(self, next_offset: int) -> bytes:
        """The item with its two offsets (PS3.3 F.3.2.2)."""
        return item(
            _offset(0x1400, next_offset)
            + struct.pack("<HH2sHH", 0x0004, 0x1410, b"US", 2, 0xFFFF)
            + _offset(0x1420, self.lower[0].offset if self.lower else 0)
            + element(0x00041430, "CS", self.kind)
            + self.reference
            + self.body
        )


def dicomdir(tree: Collection[PatientBranch], file_set_id: str) -> tuple[bytes, tuple[str, ...]]:
    """The DICOMDIR of a file-set as a whole Part 10 file, and notes on what its records say that the images don't.

    The notes hold counts and keywords, no patient data. The same tree gives the same bytes.
    """
    notes = Notes()
    known = zip(tree, patient_ids(tree, notes), strict=True)
    roots = [_patient(patient, patient_id, number, notes) for number, (patient, patient_id) in enumerate(known, 1)]
    identifier = element(0x00041130, "CS", file_set_id.encode())
    meta = file_head(MEDIA_STORAGE_DIRECTORY, _instance_uid(identifier, roots), EXPLICIT_VR_LITTLE_ENDIAN)
    # Two offsets, the consistency flag, the sequence's own header.
    end = len(meta) + len(identifier) + 2 * 12 + 10 + 12
    for record in _walk(roots):
        record.offset, end = end, end + record.length
    dataset = (
        identifier
        + _offset(0x1200, roots[0].offset if roots else 0)
        + _offset(0x1202, roots[-1].offset if roots else 0)
        + struct.pack("<HH2sHH", 0x0004, 0x1212, b"US", 2, 0)
        + element(0x00041220, "SQ", b"".join(_encoded(roots)))
    )
    return meta + dataset, tuple(note.format(count_words(count, "record")) for note, count in sorted(notes.items()))


def _patient(branch: PatientBranch, patient_id: Text, number: int, notes: Notes) -> _Record:
    given = {_PATIENT_ID: patient_id, _PATIENT_NAME: branch.name}
    body = record_body("PATIENT", Subject(branch.persons, number, given), notes)
    lower = [_study(study, number, notes) for number, study in enumerate(branch.studies, 1)]
    return _Record(b"PATIENT ", body, lower=lower)


def _study(branch: StudyBranch, number: int, notes: Notes) -> _Record:
    uid = Text(branch.study_instance_uid.encode())
    body = record_body("STUDY", Subject(branch.headers, number, {_STUDY_INSTANCE_UID: uid}), notes)
    lower = [_series(series, number, uid, notes) for number, series in enumerate(branch.series, 1)]
    return _Record(b"STUDY ", body, lower=lower)


def _series(branch: SeriesBranch, number: int, study_uid: Text, notes: Notes) -> _Record:
    uid = Text(branch.series_instance_uid)
    if not uid:
        uid = made_uid(study_uid.value + b"/%d" % number)
        notes[f"SERIES, SeriesInstanceUID: {FILLED}"] += 1
    given = {_STUDY_INSTANCE_UID: study_uid, _SERIES_INSTANCE_UID: uid}
    body = record_body("SERIES", Subject(branch.headers, number, given), notes)
    lower = [_leaf(leaf, number, given, notes) for number, leaf in enumerate(branch.leaves, 1)]
    return _Record(b"SERIES", body, lower=lower)


def _leaf(leaf: Leaf, number: int, given: dict[int, Text], notes: Notes) -> _Record:
    """An instance's record. The UIDs of its reference are those of the file's meta information whatever they are
    (PS3.10 8.6)."""
    arrival, kind = leaf.instance.on_disc, leaf.record_type.encode()
    reference = (
        element(0x00041500, "CS", "\\".join(leaf.path.parts).encode())
        + element(0x00041510, "UI", arrival.sop_class_uid.encode())
        + element(0x00041511, "UI", arrival.sop_instance_uid.encode())
        + element(0x00041512, "UI", arrival.transfer_syntax_uid.encode())
    )
    related = Text(raw_value(leaf.instance.header, RELATED_GENERAL_SOP_CLASS_UID.tag))
    if found := conforming(RELATED_GENERAL_SOP_CLASS_UID, related).value:
        reference += element(0x0004151A, "UI", found.value)
    if not is_valid_uid(arrival.sop_instance_uid.encode()):
        notes[f"{leaf.record_type}, ReferencedSOPInstanceUIDInFile: {KEPT}"] += 1
    subject = Subject((leaf.instance.header,), number, given, arrival.sop_class_uid, arrival.sop_instance_uid)
    return _Record(kind + b" " * (len(kind) % 2), record_body(leaf.record_type, subject, notes), reference)


def _walk(records: Sequence[_Record]) -> Iterator[_Record]:
    for record in records:
        yield record
        yield from _walk(record.lower)


def _encoded(siblings: Sequence[_Record]) -> Iterator[bytes]:
    for number, record in enumerate(siblings, 1):
        yield record.encoded(siblings[number].offset if number < len(siblings) else 0)
        yield from _encoded(record.lower)


def _offset(element_number: int, value: int) -> bytes:
    return struct.pack("<HH2sHI", 0x0004, element_number, b"UL", 4, value)


def _instance_uid(identifier: bytes, roots: Sequence[_Record]) -> str:
    digest = hashlib.sha256(identifier)
    for record in _walk(roots):
        digest.update(record.reference + record.body)
    return made_uid(digest.digest()).value.decode("ascii")
