"""The disc store: whole discs or none, and no damaged file stops the others."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import pytest

from mkiso.config.storage import Storage
from mkiso.errors import JobNotFound, ProofFailed
from mkiso.storage.marks import marks_of
from mkiso.storage.shelf import (
    UNFINISHED,
    Manifest,
    image_of,
    is_young,
    manifest_of,
    manifests,
    new_disc_id,
    remove_old,
    reusable,
    shelve,
    take_off,
)

IMAGE = b"an image" * 1000
NOBODY = 65534


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(data_dir=tmp_path)


def manifest(**facts: object) -> Manifest:
    made = Manifest(
        disc_id=new_disc_id(),
        job_id="job",
        created=datetime.now(UTC).isoformat(),
        volume_id="A1",
        filename="A1.iso",
        accession_numbers=("A1",),
        fingerprint="same",
        size=len(IMAGE),
        sha256=hashlib.sha256(IMAGE).hexdigest(),
        instances=3,
        medium="cd",
    )
    return replace(made, **facts)  # type: ignore[arg-type]


def shelved(storage: Storage, **facts: object) -> Manifest:
    image = storage.data_dir / "disc.iso"
    image.write_bytes(IMAGE)
    return shelve(storage, image, manifest(**facts), marks_of(IMAGE))


def test_a_shelved_disc_is_whole_and_private(storage: Storage) -> None:
    disc = shelved(storage)
    assert manifest_of(storage, disc.disc_id) == disc
    image = image_of(storage, disc)
    assert image.read_bytes() == IMAGE
    assert (image.stat().st_mode & 0o777, image.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_copy_to_another_file_system_is_proved(storage: Storage, tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    image = other / f"{new_disc_id()}.iso"
    try:
        image.write_bytes(IMAGE[:-1] + b"?")
        with pytest.raises(ProofFailed):
            shelve(storage, image, manifest(), marks_of(IMAGE))
        assert not manifests(storage)
        assert not list(storage.discs_dir.glob(f"{UNFINISHED}*"))
    finally:
        image.unlink(missing_ok=True)


def test_one_damaged_manifest_does_not_hide_the_other_discs(storage: Storage) -> None:
    good, bad = shelved(storage), shelved(storage)
    (storage.discs_dir / bad.disc_id / "manifest.json").write_text("{")
    assert manifests(storage) == [good]
    assert remove_old(storage, keep_hours=1) == 0


def test_a_disc_of_another_user_goes_out_of_sight_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Such as one of a mkiso that root has started by hand."""
    before = os.geteuid()
    with TemporaryDirectory() as name:
        data_dir = Path(name)
        disc = shelved(storage := Storage(data_dir=data_dir))
        dated(storage, disc, -48)
        folder = storage.discs_dir / disc.disc_id
        folder.chmod(0)
        if not before:
            data_dir.chmod(0o755)
            os.chown(storage.discs_dir, NOBODY, NOBODY)
            os.seteuid(NOBODY)  # root may remove everything
        try:
            assert remove_old(storage, keep_hours=24) == 1 and not folder.exists()
            (left,) = storage.discs_dir.glob(f"{UNFINISHED}*")
        finally:
            os.seteuid(before)
        left.chmod(0o700)
    assert f"{left} isn't to be kept and can't be removed: Permission denied" in caplog.text


def test_only_a_whole_set_is_served_again(storage: Storage) -> None:
    first = shelved(storage, number=1, total=2)
    assert reusable(storage, "same", 60) == []
    second = shelved(storage, number=2, total=2, first_disc=first.disc_id)
    assert reusable(storage, "same", 60) == [first, second]
    assert reusable(storage, "other", 60) == []
    assert reusable(storage, "same", 0) == []


def dated(storage: Storage, disc: Manifest, hours: float) -> None:
    """As if the clock had been so many hours ahead (behind: negative) when the disc was shelved."""
    then = (datetime.now(UTC) + timedelta(hours=hours)).timestamp()
    file = storage.discs_dir / disc.disc_id / "manifest.json"
    created = datetime.fromtimestamp(then, UTC).isoformat()
    file.write_text(json.dumps({**json.loads(file.read_text()), "created": created}))
    for path in (file, file.parent):
        os.utime(path, (then, then))


def test_a_disc_of_a_clock_that_was_ahead_is_not_served_again_and_goes_in_its_time(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    disc = shelved(storage)
    dated(storage, disc, 72)
    assert reusable(storage, "same", 60) == []
    assert remove_old(storage, keep_hours=24) == 0
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 23 * 3600)
    assert remove_old(storage, keep_hours=24) == 0
    monkeypatch.setattr("time.time", lambda: now + 25 * 3600)
    assert remove_old(storage, keep_hours=24) == 1


def test_a_disc_made_while_the_clock_was_ahead_never_counts_as_young(storage: Storage) -> None:
    disc = shelved(storage)
    dated(storage, disc, 2)
    assert reusable(storage, "same", 60) == []  # the first look
    file = storage.discs_dir / disc.disc_id / "manifest.json"
    seen = file.stat().st_mtime
    assert seen <= time.time()
    # Two hours later: what it says of itself is true of the present, and its file was seen two hours ago.
    file.write_text(json.dumps({**json.loads(file.read_text()), "created": datetime.now(UTC).isoformat()}))
    os.utime(file, (seen - 7200, seen - 7200))
    assert reusable(storage, "same", 60) == []
    assert reusable(storage, "same", 180) != []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"created": "yesterday"}', '{"created": "2020-01-01T00:00:00"}', '{"created": 5}']
)
def test_a_disc_whose_manifest_is_damaged_goes_when_it_is_old(storage: Storage, text: str) -> None:
    disc, good = shelved(storage), shelved(storage)
    file = storage.discs_dir / disc.disc_id / "manifest.json"
    file.write_text(text)
    assert remove_old(storage, keep_hours=1) == 0
    assert reusable(storage, "same", 60) == [good]
    then = time.time() - 7200
    os.utime(file, (then, then))
    assert remove_old(storage, keep_hours=1) == 1
    assert [path.name for path in storage.discs_dir.iterdir()] == [good.disc_id]


def test_a_manifest_whose_date_is_none_is_never_young(storage: Storage) -> None:
    for created in ("yesterday", "2020-01-01T00:00:00", datetime.now().isoformat()):
        disc = shelved(storage, created=created)
        assert not is_young(storage, disc, 60)
        assert reusable(storage, "same", 60) == []


def test_what_a_crash_left_unfinished_goes_after_an_hour_whatever_the_clock_said(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelved(storage)
    left = storage.discs_dir / f"{UNFINISHED}x"
    left.mkdir()
    os.utime(left, (time.time() + 1e6,) * 2)
    remove_old(storage, keep_hours=24)
    assert left.exists()
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 3700)
    remove_old(storage, keep_hours=24)
    assert not left.exists()


def test_discs_of_two_attempts_of_one_job_are_no_set(storage: Storage) -> None:
    """The first attempt was killed between its discs; the study grew before the second."""
    shelved(storage, number=1, total=2)
    ended = shelved(storage, number=2, total=2, first_disc=new_disc_id())
    assert reusable(storage, "same", 60) == []
    first = shelved(storage, number=1, total=2)
    second = shelved(storage, number=2, total=2, first_disc=first.disc_id)
    assert reusable(storage, "same", 60) == [first, second]
    take_off(storage, first)
    assert {disc.disc_id for disc in manifests(storage)} & {first.disc_id, second.disc_id} == set()
    assert ended in manifests(storage)


def test_a_set_grows_old_in_one_moment(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much time passes between looking at the one disc and at the other."""
    made = datetime(2026, 5, 4, 12, tzinfo=UTC)
    first = shelved(storage, number=1, total=2, created=made.isoformat())
    shelved(storage, number=2, total=2, first_disc=first.disc_id, created=made.isoformat())

    class Clock(datetime):
        told = made + timedelta(minutes=60, seconds=-1)

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            cls.told += timedelta(seconds=1)
            return cls.combine(cls.told, cls.told.timetz())

    monkeypatch.setattr("mkiso.storage.shelf.datetime", Clock)
    for _ in range(4):
        assert remove_old(storage, keep_hours=1) in (0, 2)
    assert not manifests(storage)


def test_old_discs_go_and_leave_nothing(storage: Storage) -> None:
    disc = shelved(storage, created=(datetime.now(UTC) - timedelta(hours=2)).isoformat())
    assert remove_old(storage, keep_hours=1) == 1
    assert not [path for path in storage.discs_dir.iterdir() if path.name != "jobs"]
    with pytest.raises(JobNotFound):
        manifest_of(storage, disc.disc_id)
    shutil.rmtree(storage.discs_dir)
