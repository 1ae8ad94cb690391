"""The disc store on a disk that is full: nothing half stays there, and what is only remembered stops nobody."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import mkiso.storage.shelf as shelf
from mkiso.config.disc import Viewer
from mkiso.config.storage import Storage
from mkiso.media.viewer import bundle_viewer
from mkiso.storage.marks import marks_of
from mkiso.storage.reread import Reread, require_right, reread_shelf
from mkiso.storage.shelf import Manifest, image_of, manifests, new_disc_id, shelve, shelve_set
from peers.small_disk import fill, small_disk

IMAGE = bytes(range(256)) * 2500
MARKS = marks_of(IMAGE)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "size=1m") as disk:
        yield disk


def disc_in(folder: Path, number: int = 1, total: int = 1) -> tuple[Path, Manifest, bytes]:
    image = folder / f"disc{number}.iso"
    image.write_bytes(IMAGE)
    sha256, now = hashlib.sha256(IMAGE).hexdigest(), datetime.now(UTC).isoformat()
    made = Manifest(new_disc_id(), "job", now, "A1", "A1.iso", ("A1",), "f", len(IMAGE), sha256, 3, "cd")
    return image, replace(made, number=number, total=total), MARKS


def test_a_disc_that_finds_no_room_on_the_shelf_leaves_nothing_there(disk: Path) -> None:
    storage = Storage(data_dir=disk)
    disc = disc_in(disk)
    filler = fill(disk)
    with pytest.raises(OSError, match="No space left"):
        shelve(storage, *disc)
    assert list(storage.discs_dir.iterdir()) == []
    assert shutil.disk_usage(disk).free >= len(IMAGE)
    filler.unlink()
    shelved = shelve(storage, *disc_in(disk))
    assert manifests(storage) == [shelved]


def test_a_disc_whose_name_does_not_reach_the_disk_is_not_on_the_shelf(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was moved there already; no file system here fails at that moment by itself."""
    storage = Storage(data_dir=disk)

    def fails(folder: Path) -> None:
        assert list(folder.glob("*/manifest.json"))
        raise OSError(errno.EIO, "Input/output error")

    disc = disc_in(disk)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
        patch.setattr(shelf, "sync_folder", fails)
        shelve(storage, *disc)
    assert list(storage.discs_dir.iterdir()) == []


def test_a_set_of_which_one_disc_finds_no_room_leaves_none_on_the_shelf(disk: Path, tmp_path: Path) -> None:
    """The store is another file system, so that images are copied there."""
    storage = Storage(data_dir=tmp_path / "own", shared_dir=disk)
    before = shutil.disk_usage(disk).free
    with pytest.raises(OSError, match="No space left"):
        shelve_set(storage, [disc_in(tmp_path, number, 2) for number in (1, 2)])
    assert list(storage.discs_dir.iterdir()) == []
    assert shutil.disk_usage(disk).free == before


def test_a_disc_that_is_right_is_sent_though_that_cant_be_remembered(disk: Path) -> None:
    storage = Storage(data_dir=disk)
    disc = shelve(storage, *disc_in(disk))
    image = image_of(storage, disc)
    image.with_name("seen.json").unlink()
    os.utime(image)
    fill(disk)
    require_right(storage, disc)
    assert reread_shelf(storage) == Reread(discs=1, taken_off=0)


def test_a_viewer_goes_onto_a_disc_though_its_hashes_cant_be_remembered(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "viewer").mkdir()
    (tmp_path / "viewer" / "VIEW.EXE").write_bytes(b"MZ")
    fill(disk)
    viewer = bundle_viewer(Viewer(directory=str(tmp_path / "viewer")), Storage(data_dir=disk).viewer_hashes)
    assert [str(file.path) for file in viewer.files] == ["VIEW.EXE"]
