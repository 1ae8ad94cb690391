"""Files that grow by lines: what a full disk has left of one costs no other, and no half of one is taken for it."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mkiso.config.disc import Disc
from mkiso.config.settings import Settings
from mkiso.config.storage import Storage
from mkiso.receiver.pushed import PushedStudy
from mkiso.storage.askings import asking, askings_of, write_asking
from mkiso.storage.files import sha256_of
from mkiso.storage.job import Job
from mkiso.study.models import Arrival
from mkiso.study.question import Question

JOB = "0b0a1b2c-0000-4000-8000-000000000001"
STUDY = "1.2.840.99999"
FIRST, SECOND, THIRD = "1.2.840.99999.1.11111111", "1.2.840.99999.1.22222222", "1.2.840.99999.1.33333333"

Lines = tuple[Callable[[str], None], Callable[[], set[str]], Path]
"""What adds a line of a UID, what tells the UIDs of all lines, and their file."""


@contextmanager
def room_for(file: Path, size: int) -> Iterator[None]:
    """The system lets a file grow by so many bytes, as where a disk has no more room."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def of_askers(folder: Path) -> Lines:
    storage = Storage(data_dir=folder)

    def add(uid: str) -> None:
        write_asking(storage, JOB, asking(uid, "program", Question("download", ("A1",)), Disc()))

    return add, lambda: {each.who for each in askings_of(storage, JOB)}, storage.reports_dir / f"{JOB}.asked"


def of_arrivals(folder: Path) -> Lines:
    job = Job(JOB, "download", Settings(storage=Storage(data_dir=folder)))
    job.open()

    def add(uid: str) -> None:
        path = job.instances_dir / uid
        path.write_text(uid)
        job.remember(Arrival(uid, "1.2", "1.2", STUDY, path, len(uid), sha256_of(path)))

    def told() -> set[str]:
        return {each.sop_instance_uid for each in job.kept(STUDY, frozenset((FIRST, SECOND, THIRD)))}

    return add, told, job.folder / f"arrivals-{STUDY}.jsonl"


def of_conflicts(folder: Path) -> Lines:
    study = PushedStudy(Storage(data_dir=folder), "BURN", STUDY)
    study.folder.mkdir(parents=True)

    def told() -> set[str]:
        return set(study.read().conflicts & {FIRST, SECOND, THIRD})

    return study.note_conflict, told, study.folder / "conflicts"


@pytest.mark.parametrize("of", [of_askers, of_arrivals, of_conflicts])
def test_a_line_that_finds_room_for_half_of_it_is_told_and_costs_no_other(
    of: Callable[[Path], Lines], tmp_path: Path
) -> None:
    add, told, file = of(tmp_path)
    add(FIRST)
    with room_for(file, 10), pytest.raises(OSError, match="No space left"):
        add(SECOND)
    add(THIRD)
    assert told() == {FIRST, THIRD}
