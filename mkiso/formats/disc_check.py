"""Checking a disc on its own, years later and without us: by its SHA256.TXT, its DICOMDIR and the rules of a conformant
patient disc.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from pydicom import Dataset, dcmread
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from mkiso.dataset.elements import elements
from mkiso.dataset.header import begin_header, encoding_of, is_deflated
from mkiso.dataset.part10 import data_set_offset
from mkiso.errors import DamagedInstance, ProofFailed
from mkiso.formats.envelope_reader import DICOMDIR, Opener, with_envelopes
from mkiso.formats.folder_check import CHECKS, hash_folder, read_folder
from mkiso.formats.image_hash import ImageHashes, hash_extents
from mkiso.formats.protocol import Contents, Extent, PasswordNeeded
from mkiso.formats.registry import claimed_format
from mkiso.media.names import is_file_id, path_told_by
from mkiso.storage.files import descriptor_of
from mkiso.storage.room import size_words
from mkiso.study.identity import one_line
from mkiso.study.models import count_words, instances_words

CHECKSUMS = PurePosixPath("SHA256.TXT")
_MAX_MADE_BYTES = 512 * 1024 * 1024  # of DICOMDIR or SHA256.TXT
_MAX_MADE_ENTRIES = 1_000_000  # items of DICOMDIR, which may be of 8 bytes, and lines of SHA256.TXT
_ITEM, _LINE = b"\xfe\xff\x00\xe0", b"\n"
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
_NAMED = 5  # how many findings the words of an error name
_FORGED = {  # by whether it is in an encrypted ZIP file, and whether it is an encrypted DICOM file
    (False, False): "{} has another CRC-32 than the image says.",
    (True, False): "{} has another authentication code than the image says.",
    (False, True): "{} isn't what was encrypted: it has another digest than its envelope says.",
}
_TAKEN = (
    "mkiso verify takes an image as it was downloaded, a ZIP file, a drive with a disc, or the folder of a DICOMDIR."
)
_Contents = TypeVar("_Contents", bound=Contents)


@dataclass(frozen=True, slots=True)
class DiscReport:
    """What was checked on a disc and what was found to be wrong; it is sound where nothing was. Sizes in bytes; no
    patient data.
    """

    volume_id: str = ""
    sha256: str = ""
    size: int = 0
    files: int = 0
    instances: int = 0
    patients: int = 0
    checked: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        return not self.findings

    def __str__(self) -> str:
        name = f"{self.volume_id}: " if self.volume_id else ""
        whole = f", SHA-256 {self.sha256}" if self.sha256 else ""
        files, instances = count_words(self.files, "file"), instances_words(self.instances)
        what = f"{name}{files}, {instances}, {size_words(self.size)}{whole}"
        return "\n".join(
            [
                what,
                *(f"checked: {entry}" for entry in self.checked),
                *(f"WRONG: {finding}" for finding in self.findings),
            ]
        )


def _no_disc(head: bytes) -> str:
    """What something is that claims to be of no format, in words."""
    if not head:
        return "This is no disc: it is empty."
    if head[128:] == b"DICM":
        return "This is one DICOM file, and no disc."
    return "This is no disc, or its beginning is damaged: it is neither an ISO image, a ZIP file nor a stick's image."


def check_disc(
    disc: Path,
    *,
    one_patient: bool = True,
    password: str = "",
    key: RSAPrivateKey | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DiscReport:
    """Check an image, a device, or a folder such as a mounted disc, by what is on it. `one_patient`: more than one is
    a finding, as on any disc but an archive's. `password` is of an encrypted one, `key` of somebody whom it was made
    for.

    Nothing is raised for a bad disc: the report says what is wrong with it. Raises OSError where `disc` can't be
    opened, and PasswordNeeded where neither opens it.
    """
    with descriptor_of(disc, os.O_RDONLY | os.O_NONBLOCK) as descriptor:  # opening a pipe would wait for a writer
        check = _Check(descriptor, one_patient, password, Opener(password, key), disc if disc.is_dir() else None)
        try:
            return check.run(progress)
        except PasswordNeeded:
            raise
        except ProofFailed as error:
            return check.report(error.words)
        except OSError as error:
            return check.report(f"The disc can't be read: {error.strerror}.")


def verify_disc(
    disc: Path,
    *,
    one_patient: bool = True,
    password: str = "",
    key: RSAPrivateKey | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DiscReport:
    """Prove a disc by what is on it without a manifest: an image, or a device.

    Raises ProofFailed, whose `findings` are all that is wrong, PasswordNeeded, and OSError where `disc` can't be
    opened.
    """
    report = check_disc(disc, one_patient=one_patient, password=password, key=key, progress=progress)
    if not report.sound:
        more = f" And {len(report.findings) - _NAMED} more." if len(report.findings) > _NAMED else ""
        raise ProofFailed(
            f"The disc is not sound. {' '.join(report.findings[:_NAMED])}{more}", findings=list(report.findings)
        )
    return report


@dataclass(slots=True)
class _Check:
    """One disc while it is checked."""

    descriptor: int
    one_patient: bool
    password: str
    opener: Opener
    folder: Path | None = None
    image: Contents | None = None
    sha256: str = ""
    is_listed: bool = True
    instances: int = 0
    patients: int = 0
    checked: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    def run(self, progress: Callable[[int, int], None] | None) -> DiscReport:
        hashes = self._hash_folder(self.folder, progress) if self.folder else self._hash_image(progress)
        assert self.image
        self.findings += [
            f"{path} stands where IHE PDI allows IHE_PDI alone."
            for path in self.image.files
            if path.parts[0].startswith("IHE") and path.parts[0] != "IHE_PDI"
        ]
        self.sha256 = hashes.sha256
        self._checksums(self.image, hashes.files)
        self._dicomdir(self.image)
        return self.report()

    def _hash_image(self, progress: Callable[[int, int], None] | None) -> ImageHashes:
        form = claimed_format(self.descriptor)
        if form is None:
            raise ProofFailed(f"{_no_disc(os.pread(self.descriptor, _PREFIX_BYTES, 0))} {_TAKEN}")
        form = form.opened(self.password) if self.password else form
        image = self._opened(form.read(self.descriptor))
        read, sought = form.checks
        self.checked += [f"{read}: {count_words(len(image.files), 'file')}", sought]
        self.findings += form.faults(image)
        hashes = hash_extents(self.descriptor, image, progress)
        self.findings += [
            _FORGED[extent in image.locks, extent in image.envelopes].format(path)
            for path, extent in image.files.items()
            if extent in hashes.wrong
        ]
        return hashes

    def _hash_folder(self, folder: Path, progress: Callable[[int, int], None] | None) -> ImageHashes:
        image = self._opened(read_folder(folder))
        if DICOMDIR not in image.files and CHECKSUMS not in image.shown:
            raise ProofFailed(f"This folder is no disc: it has no DICOMDIR. {_TAKEN}")
        read, sought = CHECKS
        self.checked += [f"{read}: {count_words(len(image.files), 'file')}", sought]
        hashes, unreadable = hash_folder(image, progress)
        self.findings += [*image.faults, *unreadable]
        self.findings += [
            _FORGED[False, True].format(path) for path, extent in image.files.items() if extent in hashes.wrong
        ]
        return hashes

    def _opened(self, image: _Contents) -> _Contents:
        """With the files out of their envelopes, where they are in some."""
        self.image = image
        image, findings = with_envelopes(image, self.descriptor, self.opener)
        self.image = image
        self.findings += findings
        if image.envelopes:
            self.checked.append(
                f"{len(image.envelopes)} encrypted DICOM files, each against the digest in its envelope"
            )
        return image

    def report(self, *fatal: str) -> DiscReport:
        image = self.image
        return DiscReport(
            volume_id=one_line(image.label) if image else "",
            sha256=self.sha256,
            size=image.size if image else 0,
            files=len(image.files) if image else 0,
            instances=self.instances,
            patients=self.patients,
            checked=tuple(self.checked),
            findings=tuple(map(one_line, (*self.findings, *fatal))),  # a name may hold what steers a terminal
        )

    def _find(self, words: str) -> None:
        self.findings.append(words)

    def _checksums(self, image: Contents, hashes: Mapping[Extent, str]) -> None:
        extent = image.shown.get(CHECKSUMS)
        if extent is None:
            self._find("There is no SHA256.TXT: whether the files are what they were can't be told.")
            self.is_listed = False
            return
        lines = list(_checksum_lines(self._made(extent, _LINE)))
        listed = dict(lines)
        if len(listed) != len(lines):
            self._find("SHA256.TXT names a file twice.")
        found = {path: hashes.get(extent, "") for path, extent in image.shown.items() if path != CHECKSUMS}
        for path in sorted(listed.keys() - found.keys()):
            self._find(f"{path} is missing.")
        for path in sorted(found.keys() - listed.keys()):
            self._find(f"{path} is not in SHA256.TXT.")
        for path in sorted(path for path in listed.keys() & found.keys() if found[path] not in ("", listed[path])):
            self._find(f"{path} is not what it was: its SHA-256 differs from SHA256.TXT.")
        self.checked.append(f"SHA-256 of {count_words(len(found), 'file')} against SHA256.TXT, both ways")

    def _made(self, extent: Extent, of_entry: bytes) -> bytes:
        """DICOMDIR or SHA256.TXT; `of_entry` stands once in each of its entries at least."""
        assert self.image
        content = self.image.read(self.descriptor, extent) if self.image.size_of(extent) <= _MAX_MADE_BYTES else None
        if content is None or content.count(of_entry) > _MAX_MADE_ENTRIES:
            raise ProofFailed("DICOMDIR or SHA256.TXT is larger than any disc needs.")
        return content

    def _dicomdir(self, image: Contents) -> None:
        extent = image.files.get(DICOMDIR)
        if extent is None:
            self._find("There is no DICOMDIR.")
            return
        content = self._made(extent, _ITEM)
        if any(content[:128]):
            self._find("DICOMDIR has a preamble that isn't zero.")
        try:
            if _is_deflated(io.BytesIO(content)):
                self._find("DICOMDIR isn't in Explicit VR Little Endian (PS3.10 8.6).")
                return
            self._records(image, dcmread(io.BytesIO(content)))
        except (ProofFailed, OSError):
            raise
        except Exception:  # what pydicom makes of broken bytes is any exception at all
            self._find("DICOMDIR can't be read.")

    def _records(self, image: Contents, directory: Dataset) -> None:
        records = list(directory.DirectoryRecordSequence)
        if image.label and directory.get("FileSetID") != image.label:
            self._find("The file-set ID of DICOMDIR is not the volume identifier.")
        owners, wrong = _followed(directory, records)
        self.findings += wrong
        self._references(image, records, owners)

    def _references(self, image: Contents, records: list[Dataset], owners: Mapping[int, str]) -> None:
        referenced: set[PurePosixPath] = set()
        patient_ids: list[str] = []
        for record in records:
            if record.DirectoryRecordType == "PATIENT":
                patient_ids.append(str(record.get("PatientID", "")).strip())
            if "ReferencedFileID" not in record:
                continue
            file_id = record.ReferencedFileID
            path = PurePosixPath(*([file_id] if isinstance(file_id, str) else file_id))
            extent = image.files.get(path)
            if path in referenced:
                self._find(f"DICOMDIR names {path} twice.")
            referenced.add(path)
            if not is_file_id(path):
                self._find(f"{path} is no File ID: at most 8 names of at most 8 of A-Z, 0-9 and _ (PS3.10 8.2).")
            if extent is None:
                self._find(f"DICOMDIR names {path}, which is missing.")
            else:
                self._instance(path, extent, record, owners.get(record.seq_item_tell, ""))
        self._other_trees(image, referenced | {DICOMDIR})
        for path, extent in image.files.items():
            if path not in referenced and path != DICOMDIR and (path.parts[0] == "DICOM" or self._is_dicom(extent)):
                self._find(f"{path} is a DICOM file that DICOMDIR doesn't name.")
        self.instances, self.patients = len(referenced), len(patient_ids)
        if not all(patient_ids):  # PS3.3 F.5.1: whose the images below it are, nobody can say
            self._find("DICOMDIR has a patient without a Patient ID.")
        if len(set(patient_ids)) != len(patient_ids):
            self._find("DICOMDIR has several patients of one Patient ID.")
        if self.one_patient and len(patient_ids) != 1:
            self._find(f"DICOMDIR has {len(patient_ids)} patients.")
        self.checked.append(
            f"DICOMDIR: {count_words(len(records), 'record')}, {instances_words(len(referenced))}, "
            f"{count_words(len(patient_ids), 'patient')}"
        )

    def _other_trees(self, image: Contents, needed: Collection[PurePosixPath]) -> None:
        """Whichever tree a system shows, a name leads to the same file in it, and those that are needed are there."""
        for name, tree in [*image.trees.items()][1:]:
            odd = {path: extent for path, extent in image.files.items() if tree.get(path) != extent}
            told = {path_told_by(path): extent for path, extent in tree.items()} if odd else {}
            for path, extent in odd.items():
                there = told.get(path_told_by(path))
                if there is None and path in needed:
                    self._find(f"{path} is missing in the {name} tree.")
                elif there not in (None, extent):
                    self._find(f"{path} is another file in the {name} tree.")

    def _is_dicom(self, extent: Extent) -> bool:
        assert self.image
        return self.image.read(self.descriptor, extent, 128, 4) == b"DICM"

    def _instance(self, path: PurePosixPath, extent: Extent, record: Dataset, owner: str) -> None:
        """The record against the file: its preamble, its meta information and its data set (PS3.10 7.1 and 8.6);
        `owner` is the Patient ID that it stands below.
        """
        assert self.image
        if self.image.envelopes and extent not in self.image.envelopes:
            return  # it isn't encrypted as others are, or can't be opened, which was told
        try:
            head = self.image.read(self.descriptor, extent, 0, _HEAD_BYTES)
        except OSError:  # of a folder's file, which was told
            return
        if any(head[:128]):
            self._find(f"{path} has a preamble that isn't zero.")
        meta, begin = _file_meta(head)
        transfer_syntax_uid = meta.get(_TRANSFER_SYNTAX_UID, "")
        if [meta.get(tag, "") for tag in _REFERENCED] != [
            str(record.get(keyword, "")) for keyword in _REFERENCED.values()
        ]:
            self._find(f"DICOMDIR and {path} differ in SOP class, SOP instance or transfer syntax.")
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
            self._find(f"{path} is no DICOM file that can be read.")
            return
        if identity != [meta.get(_SOP_CLASS_UID, ""), meta.get(_SOP_INSTANCE_UID, "")]:
            self._find(f"The meta information of {path} names another instance than its data set.")
        if owner and patient_id and not _is_of(owner, patient_id, encoded):
            self._find(f"{path} is of another patient than DICOMDIR says.")
        if self.is_listed or _GROUP_LENGTH not in meta or is_deflated(transfer_syntax_uid):
            return
        if self.image.size_of(extent) <= _WALKED_BYTES:
            self._walk(path, extent, transfer_syntax_uid)

    def _header(self, extent: Extent, begin: int, transfer_syntax_uid: str) -> Dataset:
        """What says whose an instance is, by as much of its beginning as that takes. Raises DamagedInstance."""
        assert self.image
        try:
            return begin_header(self.image.read(self.descriptor, extent, begin, _FEW_BYTES), transfer_syntax_uid)
        except DamagedInstance:
            return begin_header(self.image.read(self.descriptor, extent, begin, _MANY_BYTES), transfer_syntax_uid)

    def _walk(self, path: PurePosixPath, extent: Extent, transfer_syntax_uid: str) -> None:
        """Whether the elements of a data set end where the file does, which is all that tells without a hash."""
        assert self.image
        try:
            data = self.image.read(self.descriptor, extent)
        except OSError:  # of a folder's file, which was told
            return
        try:
            begin = data_set_offset(data, len(data))
            elements(data, begin, len(data), encoding_of(transfer_syntax_uid), frozenset())
        except DamagedInstance as error:
            self._find(f"{path} is damaged or cut short: {error}")


def _checksum_lines(content: bytes) -> Iterator[tuple[PurePosixPath, str]]:
    for line in content.decode("utf-8", "replace").splitlines():
        sha256, _, path = line.partition("  ")
        yield PurePosixPath(path), sha256


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
