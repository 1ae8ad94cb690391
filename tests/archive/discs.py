"""Studies and small stand-ins for mastered images: the ledger takes any bytes for an image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import PurePosixPath

from mkiso.archive.nights import Night, NightRange
from mkiso.archive.volumes import ArchiveVolume, MasteredVolume, StudyOnVolume
from mkiso.study.models import DiscFile, Expected, Study

DAY = date(2026, 2, 13)
RANGE = NightRange(DAY, DAY)


def study(
    uid: str,
    *sop_instance_uids: str,
    accession_number: str = "A1",
    study_date: str = "20260213",
    study_time: str = "0915",
) -> Study:
    expected = Expected("image", len(sop_instance_uids), {f"{uid}.1": frozenset(sop_instance_uids)})
    return Study(accession_number, uid, "P1", study_date=study_date, study_time=study_time, expected=expected)


def file(sop_instance_uid: str) -> DiscFile:
    content = sop_instance_uid.encode()
    path = PurePosixPath("DICOM") / f"I{int(hashlib.sha256(content).hexdigest()[:6], 16):07d}"
    return DiscFile(path, len(content), hashlib.sha256(content).hexdigest(), sop_instance_uid=sop_instance_uid)


def master(
    volume: ArchiveVolume, contents: Mapping[str, Sequence[str]], accession_numbers: Mapping[str, str] | None = None
) -> MasteredVolume:
    """Write an image whose bytes are the UIDs on it, and say what is on it."""
    studies = [
        StudyOnVolume(uid, (accession_numbers or {}).get(uid, "A1"), "20260213", [file(sop) for sop in uids])
        for uid, uids in contents.items()
    ]
    image = "\n".join(sop for uids in contents.values() for sop in uids).encode()
    volume.image.write_bytes(image)
    readme = DiscFile(PurePosixPath("README.TXT"), 4, hashlib.sha256(b"read").hexdigest())
    return MasteredVolume(volume, hashlib.sha256(image).hexdigest(), studies, [readme])


def archive(
    night: Night, contents: Mapping[str, Sequence[str]], accession_numbers: Mapping[str, str] | None = None
) -> ArchiveVolume:
    """One volume, claimed, planned and mastered."""
    assert night.claim(list(contents)) == frozenset(contents)
    (volume,) = night.plan("dvd", "store", DAY)
    night.mastered([master(volume, contents, accession_numbers)])
    return volume


class Nobody:
    """Is told of a night."""

    is_progress_due = True

    def progress(self, done: int, total: int | None, words: str) -> None:
        """A bar."""

    def table(self, key: str, rows: Sequence[Mapping[str, object]], description: str) -> None:
        """A table."""

    def link(self, key: str, address: str, words: str) -> None:
        """A link."""
