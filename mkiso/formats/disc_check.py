"""Checking a disc on its own, years later and without us: by its SHA256.TXT, its DICOMDIR and the rules of a conformant
patient disc.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from mkiso.errors import ProofFailed
from mkiso.formats.directory_check import DirectoryCheck, made_file
from mkiso.formats.envelope_reader import DICOMDIR, Opener, with_envelopes
from mkiso.formats.folder_check import CHECKS, hash_folder, read_folder
from mkiso.formats.image_hash import ImageHashes, hash_extents
from mkiso.formats.protocol import Contents, Extent, PasswordNeeded
from mkiso.formats.registry import claimed_format
from mkiso.storage.files import descriptor_of
from mkiso.storage.room import size_words
from mkiso.study.identity import one_line
from mkiso.study.models import count_words, instances_words

CHECKSUMS = PurePosixPath("SHA256.TXT")
_LINE = b"\n"
_PREFIX_BYTES = 132
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
        directory = DirectoryCheck(self.image, self.descriptor, self.one_patient, self.is_listed, self._find)
        directory.run()
        self.instances, self.patients = directory.instances, directory.patients
        self.checked += [directory.checked] if directory.checked else []
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
        lines = list(_checksum_lines(made_file(image, self.descriptor, extent, _LINE)))
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


def _checksum_lines(content: bytes) -> Iterator[tuple[PurePosixPath, str]]:
    for line in content.decode("utf-8", "replace").splitlines():
        sha256, _, path = line.partition("  ")
        yield PurePosixPath(path), sha256
