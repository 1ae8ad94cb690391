"""Checking DICOMDIR: its records against each other, and each against the file that it names (PS3.10 8.6, PS3.3 F)."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from pydicom import Dataset, dcmread
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from mkiso.dataset.elements import elements
from mkiso.dataset.header import begin_header, encoding_of, is_deflated
from mkiso.dataset.part10 import data_set_offset
from mkiso.errors import DamagedInstance, ProofFailed
from mkiso.formats.envelope_reader import DICOMDIR
from mkiso.formats.protocol import Contents, Extent
from mkiso.media.names import is_file_id, path_told_by
from mkiso.study.models import count_words, instances_words

_MAX_MADE_BYTES = 512 * 1024 * 1024  # of DICOMDIR or SHA256.TXT
_MAX_MADE_ENTRIES = 1_000_000  # items of DICOMDIR, which may be of 8 bytes, and lines of SHA256.TXT
_ITEM = b"\xfe\xff\x00\xe0"
_GROUP_LENGTH = 0x00020000
_SOP_CLASS_UID, _SOP_INSTANCE_UID, _TRANSFER_SYNTAX_UID = 0x00020002, 0x00020003, 0x00020010
_REFERENCED = {  # by the element of group 0002 that each repeats
    _SOP_CLASS_UID: "ReferencedSOPClassUIDInFile",
    _SOP_INSTANCE_UID: "ReferencedSOPInstanceUIDInFile",
    _TRANSFER_SYNTAX_UID: "ReferencedTransferSyntaxUIDInFile",
}
_WALKED_BYTES = 256 * 1024 * 1024  # in memory
_HEAD_BYTES = 16 * 1024  # more than any group 0002
_LEVELS = {
    "PATIENT": "",
    "STUDY": "PATIENT",
    "SERIES": "STUDY",
}  # PS3.3 F.4: what stands above; every other type stands below SERIES
_FEW_BYTES, _MANY_BYTES = 64 * 1024, 16 * 1024 * 1024  # of a data set, up to what says whose it is; nobody needs more
_PREFIX_BYTES = 132
_HASH_CHARACTERS = 16


@dataclass(slots=True)
class DirectoryCheck:
    """One DICOMDIR while it is checked; `checked` says what was, empty where it can't be read. `is_listed`: each file
    has its SHA-256 in SHA256.TXT, so none is walked to its end. `find` is told what is wrong, in words.
    """

    image: Contents
    descriptor: int
    one_patient: bool
    is_listed: bool
    find: Callable[[str], None]
    instances: int = 0
    patients: int = 0
    checked: str = ""

    def run(self) -> None:
        """Raises ProofFailed where it is larger than any disc needs, OSError where the disc can't be read."""
        image, extent = self.image, self.image.files.get(DICOMDIR)
        if extent is None:
            self.find("There is no DICOMDIR.")
            return
        content = made_file(image, self.descriptor, extent, _ITEM)
        if any(content[:128]):
            self.find("DICOMDIR has a preamble that isn't zero.")
        try:
            if _is_deflated(io.BytesIO(content)):
                self.find("DICOMDIR isn't in Explicit VR Little Endian (PS3.10 8.6).")
                return
            self._records(dcmread(io.BytesIO(content)))
        except (ProofFailed, OSError):
            raise
        except Exception:  # what pydicom makes of broken bytes is any exception at all
            self.find("DICOMDIR can't be read.")

    def _records(self, directory: Dataset) -> None:
        records = list(directory.DirectoryRecordSequence)
        if self.image.label and directory.get("FileSetID") != self.image.label:
            self.find("The file-set ID of DICOMDIR is not the volume identifier.")
        owners, wrong = _followed(directory, records)
        for words in wrong:
            self.find(words)
        self._references(records, owners)

    def _references(self, records: list[Dataset], owners: Mapping[int, str]) -> None:
        referenced: set[PurePosixPath] = set()
        patient_ids: list[str] = []
        for record in records:
            if record.DirectoryRecordType == "PATIENT":
                patient_ids.append(str(record.get("PatientID", "")).strip())
            if "ReferencedFileID" not in record:
                continue
            file_id = record.ReferencedFileID
            path = PurePosixPath(*([file_id] if isinstance(file_id, str) else file_id))
            extent = self.image.files.get(path)
            if path in referenced:
                self.find(f"DICOMDIR names {path} twice.")
            referenced.add(path)
            if not is_file_id(path):
                self.find(f"{path} is no File ID: at most 8 names of at most 8 of A-Z, 0-9 and _ (PS3.10 8.2).")
            if extent is None:
                self.find(f"DICOMDIR names {path}, which is missing.")
            else:
                self._instance(path, extent, record, owners.get(record.seq_item_tell, ""))
        self._other_trees(referenced | {DICOMDIR})
        for path, extent in self.image.files.items():
            if path not in referenced and path != DICOMDIR and (path.parts[0] == "DICOM" or self._is_dicom(extent)):
                self.find(f"{path} is a DICOM file that DICOMDIR doesn't name.")
        self.instances, self.patients = len(referenced), len(patient_ids)
        if not all(patient_ids):  # PS3.3 F.5.1: whose the images below it are, nobody can say
            self.find("DICOMDIR has a patient without a Patient ID.")
        if len(set(patient_ids)) != len(patient_ids):
            self.find("DICOMDIR has several patients of one Patient ID.")
        if self.one_patient and len(patient_ids) != 1:
            self.find(f"DICOMDIR has {len(patient_ids)} patients.")
        self.checked = (
            f"DICOMDIR: {count_words(len(records), 'record')}, {instances_words(len(referenced))}, "
            f"{count_words(len(patient_ids), 'patient')}"
        )

    def _other_trees(self, needed: Collection[PurePosixPath]) -> None:
        """Whichever tree a system shows, a name leads to the same file in it, and those that are needed are there."""
        for name, tree in [*self.image.trees.items()][1:]:
            odd = {path: extent for path, extent in self.image.files.items() if tree.get(path) != extent}
            told = {path_told_by(path): extent for path, extent in tree.items()} if odd else {}
            for path, extent in odd.items():
                there = told.get(path_told_by(path))
                if there is None and path in needed:
                    self.find(f"{path} is missing in the {name} tree.")
                elif there not in (None, extent):
                    self.find(f"{path} is another file in the {name} tree.")

    def _is_dicom(self, extent: Extent) -> bool:
        return self.image.read(self.descriptor, extent, 128, 4) == b"DICM"

    def _instance(self, path: PurePosixPath, extent: Extent, record: Dataset, owner: str) -> None:
        """The record against the file: its preamble, its meta information and its data set (PS3.10 7.1 and 8.6);
        `owner` is the Patient ID that it stands below.
        """
        if self.image.envelopes and extent not in self.image.envelopes:
            return  # it isn't encrypted as others are, or can't be opened, which was told
        try:
            head = self.image.read(self.descriptor, extent, 0, _HEAD_BYTES)
        except OSError:  # of a folder's file, which was told
            return
        if any(head[:128]):
            self.find(f"{path} has a preamble that isn't zero.")
        meta, begin = _file_meta(head)
        transfer_syntax_uid = meta.get(_TRANSFER_SYNTAX_UID, "")
        if [meta.get(tag, "") for tag in _REFERENCED] != [
            str(record.get(keyword, "")) for keyword in _REFERENCED.values()
        ]:
            self.find(f"DICOMDIR and {path} differ in SOP class, SOP instance or transfer syntax.")
        try:
            if not meta:
                raise DamagedInstance("The file has no DICOM File Meta Information.")
            header = self._header(extent, begin, transfer_syntax_uid)
            encoded = getattr(header.get_item("PatientID"), "value", None) or b""
            patient_id = str(header.get("PatientID", "")).strip()
            identity = [str(header.get("SOPClassUID", "")), str(header.get("SOPInstanceUID", ""))]
        except OSError:  # of a folder's file, which was told
            return
        except Exception:  # what pydicom makes of broken bytes is any exception at all
            self.find(f"{path} is no DICOM file that can be read.")
            return
        if identity != [meta.get(_SOP_CLASS_UID, ""), meta.get(_SOP_INSTANCE_UID, "")]:
            self.find(f"The meta information of {path} names another instance than its data set.")
        if owner and patient_id and not _is_of(owner, patient_id, encoded):
            self.find(f"{path} is of another patient than DICOMDIR says.")
        if self.is_listed or _GROUP_LENGTH not in meta or is_deflated(transfer_syntax_uid):
            return
        if self.image.size_of(extent) <= _WALKED_BYTES:
            self._walk(path, extent, transfer_syntax_uid)

    def _header(self, extent: Extent, begin: int, transfer_syntax_uid: str) -> Dataset:
        """What says whose an instance is, by as much of its beginning as that takes. Raises DamagedInstance."""
        try:
            return begin_header(self.image.read(self.descriptor, extent, begin, _FEW_BYTES), transfer_syntax_uid)
        except DamagedInstance:
            return begin_header(self.image.read(self.descriptor, extent, begin, _MANY_BYTES), transfer_syntax_uid)

    def _walk(self, path: PurePosixPath, extent: Extent, transfer_syntax_uid: str) -> None:
        """Whether the elements of a data set end where the file does, which is all that tells without a hash."""
        try:
            data = self.image.read(self.descriptor, extent)
        except OSError:  # of a folder's file, which was told
            return
        try:
            begin = data_set_offset(data, len(data))
            elements(data, begin, len(data), encoding_of(transfer_syntax_uid), frozenset())
        except DamagedInstance as error:
            self.find(f"{path} is damaged or cut short: {error}")


def made_file(image: Contents, descriptor: int, extent: Extent, of_entry: bytes) -> bytes:
    """DICOMDIR or SHA256.TXT; `of_entry` stands once in each of its entries at least. Raises ProofFailed, OSError."""
    content = image.read(descriptor, extent) if image.size_of(extent) <= _MAX_MADE_BYTES else None
    if content is None or content.count(of_entry) > _MAX_MADE_ENTRIES:
        raise ProofFailed("DICOMDIR or SHA256.TXT is larger than any disc needs.")
    return content


def _is_deflated(file: BinaryIO) -> bool:
    """Whether pydicom would inflate a file, which has no bound for a stranger's: by its own reading of the file's head,
    since another may differ. Leaves it at its beginning.
    """
    read_preamble(file, force=False)
    meta = _read_file_meta_info(file)
    file.seek(0)
    return bool(meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian)


def _file_meta(head: bytes) -> tuple[dict[int, str], int]:
    """Group 0002 of a Part 10 file, its UIDs as text (PS3.10 7.1: always Explicit VR Little Endian), empty where it is
    none; and where it ends.
    """
    values: dict[int, str] = {}
    position = _PREFIX_BYTES
    while head[128:132] == b"DICM" and position + 8 <= len(head):
        group, element, vr, length = struct.unpack_from("<HH2sH", head, position)
        if group != 0x0002:
            break
        position += 8
        if vr in (b"OB", b"UN", b"UT"):
            length = int.from_bytes(head[position : position + 4], "little")
            position += 4
        values[group << 16 | element] = head[position : position + length].decode("latin-1").rstrip("\0 ")
        position += length
    return values, position


def _is_of(owner: str, patient_id: str, encoded: bytes) -> bool:
    """Whether an image of this Patient ID belongs below the PATIENT record of `owner`: that has the same, perhaps with
    the issuer behind it, or in place of one that no record can have its hash (mkiso.media.patient_ids).
    """
    digest = hashlib.sha256(encoded.strip(b" \0")).hexdigest()[:_HASH_CHARACTERS]
    return owner == patient_id or owner.startswith(f"{patient_id} (") or f"#{digest}" in owner


def _followed(directory: Dataset, records: list[Dataset]) -> tuple[dict[int, str], list[str]]:
    """Below which Patient ID each record stands, by where it lies; and what is wrong with the tree that their offsets
    say: each is reached once, each below the type it belongs below (PS3.3 F.2.1, F.4).
    """
    by_offset = {record.seq_item_tell: record for record in records}
    owners: dict[int, str] = {}
    wrong: list[str] = []
    is_broken = False
    waiting = [(int(directory.get("OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity", 0)), "", "")]
    while waiting:
        offset, above, owner = waiting.pop()
        last = 0
        while offset:
            record = by_offset.get(offset)
            if record is None or offset in owners:
                is_broken = True
                break
            kind = str(record.get("DirectoryRecordType", ""))
            if _LEVELS.get(kind, "SERIES") != above:
                wrong.append(f"DICOMDIR has a record of type {kind} below {above or 'its root'}.")
            owners[offset] = str(record.get("PatientID", "")).strip() if kind == "PATIENT" else owner
            waiting.append((int(record.get("OffsetOfReferencedLowerLevelDirectoryEntity", 0)), kind, owners[offset]))
            last, offset = offset, int(record.get("OffsetOfTheNextDirectoryRecord", 0))
        if not above and last != int(directory.get("OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity", 0)):
            wrong.append("DICOMDIR names another last record than its last.")
    if is_broken:
        wrong.append("DICOMDIR has offsets that lead nowhere or in circles.")
    elif len(owners) != len(records):
        wrong.append(f"DICOMDIR has {count_words(len(records) - len(owners), 'record')} that no offset leads to.")
    return owners, wrong
