"""The shelf read again: whatever isn't what was proved goes, before somebody else sends it and in its turn."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import rmtree

import pytest

from mkiso.config.storage import Storage
from mkiso.errors import JobNotFound, ProofFailed
from mkiso.storage import reread
from mkiso.storage.marks import marks_of
from mkiso.storage.reread import (
    BEGIN_WITHIN_SECONDS,
    BYTES_PER_SECOND,
    Reread,
    read_whole,
    require_right,
    reread_shelf,
)
from mkiso.storage.shelf import Manifest, image_of, last_seen, manifests, new_disc_id, remove_old, shelve

IMAGE = bytes(range(256)) * 8000


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(data_dir=tmp_path)


def shelved(storage: Storage, hours_ago: float = 10, **facts: object) -> Manifest:
    """A disc that was last read so long ago."""
    image = storage.data_dir / "disc.iso"
    image.write_bytes(IMAGE)
    sha256 = hashlib.sha256(IMAGE).hexdigest()
    made = Manifest(
        new_disc_id(), "job", datetime.now(UTC).isoformat(), "A1", "A1.iso", ("A1",), "f", len(IMAGE), sha256, 3, "cd"
    )
    disc = shelve(storage, image, replace(made, **facts), marks_of(IMAGE))  # type: ignore[arg-type]
    seen = image_of(storage, disc).with_name("seen.json")
    seen.write_text(
        json.dumps(
            {**json.loads(seen.read_text()), "when": (datetime.now(UTC) - timedelta(hours=hours_ago)).isoformat()}
        )
    )
    return disc


def damage(storage: Storage, disc: Manifest, *, unseen: bool = False) -> None:
    """Flip a bit; `unseen`: the file looks as before but for its time of change, which nobody can set."""
    image = image_of(storage, disc)
    before = image.stat()
    with image.open("r+b") as file:
        file.seek(1_234_567)
        file.write(b"?")
    if unseen:
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_looks_as_it_did_is_not_read_and_anything_else_is(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    disc = shelved(storage)
    reads = 0
    reading = reread.read_whole

    def counted(*values: object) -> None:
        nonlocal reads
        reads += 1
        reading(*values)  # type: ignore[arg-type]

    monkeypatch.setattr(reread, "read_whole", counted)
    require_right(storage, disc)
    assert reads == 0
    image = image_of(storage, disc)
    os.utime(image)  # touched, and right
    require_right(storage, disc)
    require_right(storage, disc)
    assert reads == 1
    image.with_name("seen.json").write_text("{")
    require_right(storage, disc)
    require_right(storage, disc)
    assert reads == 2
    (storage.data_dir / "another").write_bytes(IMAGE)
    (storage.data_dir / "another").replace(image)
    require_right(storage, disc)
    assert reads == 3


@pytest.mark.parametrize("unseen", [False, True])
def test_a_damaged_one_is_not_handed_over(storage: Storage, unseen: bool) -> None:
    disc = shelved(storage)
    damage(storage, disc, unseen=unseen)
    with pytest.raises(ProofFailed):
        require_right(storage, disc)
    with pytest.raises(ProofFailed):
        require_right(storage, disc)


def test_housekeeping_takes_damaged_discs_off_with_their_sets(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    good, first = shelved(storage, 10), shelved(storage, 12, number=1, total=2)
    second = shelved(storage, 11, number=2, total=2, first_disc=first.disc_id)
    damage(storage, second)
    assert reread_shelf(storage) == Reread(discs=3, taken_off=1)
    assert manifests(storage) == [good]
    assert second.disc_id in caplog.text and "taken off the shelf" in caplog.text
    assert just_seen(storage, good)
    assert reread_shelf(storage) == Reread(0, 0)


def test_a_disc_that_is_removed_while_it_is_read_was_not_damaged(storage: Storage) -> None:
    """Its time on the shelf is over, or an administrator makes room: no memory and no disk is to be checked."""
    shelved(storage, 10)
    assert reread_shelf(storage, lambda: 0.0, lambda seconds: rmtree(storage.discs_dir, ignore_errors=True)) == (
        Reread(discs=0, taken_off=0)
    )
    disc = shelved(storage, 10)

    def end_its_time(size: int) -> None:
        remove_old(storage, 0)

    with pytest.raises(JobNotFound):
        read_whole(storage, disc, end_its_time)


def test_a_disc_that_was_taken_off_is_an_error_that_names_the_cause() -> None:
    Reread(3, 0).require_all_right()
    with pytest.raises(ProofFailed, match=r"1 of 3 discs.*memory and the disk"):
        Reread(3, 1).require_all_right()


def test_it_reads_slowly_and_only_what_is_due(storage: Storage) -> None:
    ages = {hours: shelved(storage, hours) for hours in (7, 30, 1, 12, -2)}
    clock = 0.0

    def wait(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    assert reread_shelf(storage, lambda: clock, wait).discs == 4
    assert clock == pytest.approx(4 * len(IMAGE) / BYTES_PER_SECOND)
    assert [hours for hours, disc in ages.items() if not just_seen(storage, disc)] == [1]


def test_it_begins_with_what_waits_longest_and_no_other_disc_when_its_time_is_over(storage: Storage) -> None:
    discs = {hours: shelved(storage, hours) for hours in (20, 30, 25)}
    ticks = iter(
        range(0, 10_000, int(BEGIN_WITHIN_SECONDS / 4))
    )  # each look at the clock finds it later: a disc of four pieces takes too long
    assert reread_shelf(storage, lambda: next(ticks), lambda seconds: None).discs == 1
    assert [hours for hours, disc in discs.items() if just_seen(storage, disc)] == [30]


def just_seen(storage: Storage, disc: Manifest) -> bool:
    return datetime.now(UTC) - last_seen(storage, disc)[1] < timedelta(minutes=10)
