"""The disc store: whole discs or none, and no damaged file stops the others."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mkiso.config import Storage
from mkiso.errors import JobNotFound, ProofFailed
from mkiso.store import UNFINISHED, Manifest, image_of, manifest_of, manifests, new_disc_id, remove_old, reusable, shelve

IMAGE = b"an image" * 1000


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
    disc = manifest(**facts)
    shelve(storage, image, disc)
    return disc


def test_a_shelved_disc_is_whole_and_private(storage: Storage) -> None:
    disc = shelved(storage)
    assert manifest_of(storage, disc.disc_id) == disc
    image = image_of(storage, disc.disc_id)
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
            shelve(storage, image, manifest())
        assert not manifests(storage)
        assert not list(storage.discs_dir.glob(f"{UNFINISHED}*"))
    finally:
        image.unlink(missing_ok=True)


def test_one_damaged_manifest_does_not_hide_the_other_discs(storage: Storage) -> None:
    good, bad = shelved(storage), shelved(storage)
    (storage.discs_dir / bad.disc_id / "manifest.json").write_text("{")
    assert manifests(storage) == [good]
    assert remove_old(storage, keep_hours=1) == 0


def test_only_a_whole_set_is_served_again(storage: Storage) -> None:
    first = shelved(storage, number=1, total=2)
    assert reusable(storage, "same", 60) == []
    second = shelved(storage, number=2, total=2)
    assert reusable(storage, "same", 60) == [first, second]
    assert reusable(storage, "other", 60) == []
    assert reusable(storage, "same", 0) == []


def test_old_discs_go_and_leave_nothing(storage: Storage) -> None:
    disc = shelved(storage, created=(datetime.now(UTC) - timedelta(hours=2)).isoformat())
    assert remove_old(storage, keep_hours=1) == 1
    assert not [path for path in storage.discs_dir.iterdir() if path.name != "jobs"]
    with pytest.raises(JobNotFound):
        manifest_of(storage, disc.disc_id)
    shutil.rmtree(storage.discs_dir)
