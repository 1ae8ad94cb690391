"""Files that are used again: nothing of what they were stays, nobody else's is taken, and each is taken once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mkiso.storage import spare_files
from mkiso.storage.spare_files import SPARE_BYTES, SpareFiles, clear_away


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "instances"
    folder.mkdir()
    for number in range(5):
        (folder / f"1.2.{number}").write_bytes(b"pixels of somebody")
    return folder


def test_of_what_is_cleared_away_one_byte_is_left_and_no_name(tmp_path: Path, job: Path) -> None:
    clear_away(job, tmp_path / "spares")
    spares = list((tmp_path / "spares").iterdir())
    assert not job.exists()
    assert [spare.stat().st_size for spare in spares] == [SPARE_BYTES] * 5
    assert not {spare.name for spare in spares} & {f"1.2.{number}" for number in range(5)}
    assert (tmp_path / "spares").stat().st_mode & 0o777 == 0o700


def test_a_file_that_another_job_has_too_stays_as_it_is(tmp_path: Path, job: Path) -> None:
    other = tmp_path / "other"
    os.link(job / "1.2.3", other)
    clear_away(job, tmp_path / "spares")
    assert other.read_bytes() == b"pixels of somebody"
    assert len(list((tmp_path / "spares").iterdir())) == 4


def test_links_and_folders_are_removed_and_not_followed(tmp_path: Path, job: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"kept")
    (job / "link").symlink_to(kept)
    (job / "folder").mkdir()
    (job / "folder" / "file").write_bytes(b"x")
    clear_away(job, tmp_path / "spares")
    assert not job.exists()
    assert kept.read_bytes() == b"kept"
    assert len(list((tmp_path / "spares").iterdir())) == 5


def test_no_more_are_kept_than_are_of_use(tmp_path: Path, job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare_files, "MAX_SPARES", 3)
    clear_away(job, tmp_path / "spares")
    assert not job.exists()
    assert len(list((tmp_path / "spares").iterdir())) == 3


def test_what_isnt_there_is_no_matter(tmp_path: Path) -> None:
    clear_away(tmp_path / "nowhere", tmp_path / "spares")
    assert SpareFiles(tmp_path / "none").take(tmp_path) is None


def test_each_spare_is_taken_once_however_many_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare_files, "LOOK_SECONDS", 0.0)  # who finds another thread looking looks, too
    folder, into = tmp_path / "spares", tmp_path / "into"
    folder.mkdir()
    into.mkdir()
    for number in range(400):
        (folder / str(number)).touch()
    takers = [SpareFiles(folder) for _ in range(2)]  # as two processes would be
    with ThreadPoolExecutor(8) as threads:
        taken = [got for got in threads.map(lambda number: takers[number % 2].take(into), range(500)) if got]
    for descriptor, _ in taken:
        os.close(descriptor)
    assert len(taken) == len({path for _, path in taken}) == 400
    assert not list(folder.iterdir())


@pytest.mark.parametrize("wrong", ["not empty", "of two names"])
def test_a_spare_that_is_no_spare_is_not_taken(tmp_path: Path, wrong: str) -> None:
    folder, into = tmp_path / "spares", tmp_path / "into"
    folder.mkdir()
    into.mkdir()
    (folder / "1").write_bytes(b"left over" if wrong == "not empty" else b"")
    if wrong == "of two names":
        os.link(folder / "1", tmp_path / "theirs")
    assert SpareFiles(folder).take(into) is None
    assert not list(into.iterdir())
    assert wrong == "not empty" or (tmp_path / "theirs").exists()
