"""Data folders have a format number. A mkiso that finds a larger one than its own writes nothing there."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from mkiso.archive.ledger import Ledger
from mkiso.config.settings import Settings
from mkiso.config.storage import Storage
from mkiso.errors import ConfigurationError, StorageUnreadable
from mkiso.storage import data_format
from mkiso.storage.data_format import FORMAT, newer_data, note_format, require_known
from peers.small_disk import failing


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    (tmp_path / "shared").mkdir()
    return Storage(data_dir=tmp_path / "own", shared_dir=tmp_path / "shared")


def numbers(storage: Storage) -> list[str]:
    assert storage.shared_dir
    return [(folder / "format").read_text() for folder in (storage.data_dir, storage.shared_dir)]


def test_data_from_before_there_was_a_number_gets_one(storage: Storage) -> None:
    assert list(newer_data(storage)) == [] and not storage.data_dir.exists()
    note_format(storage)
    assert numbers(storage) == [f"{FORMAT}\n"] * 2
    assert [entry.name for entry in storage.data_dir.iterdir()] == ["format"]
    assert ((storage.data_dir / "format").stat().st_mode & 0o777, storage.data_dir.stat().st_mode & 0o777) == (
        0o600,
        0o700,
    )


def test_a_number_that_is_right_is_written_once(storage: Storage) -> None:
    note_format(storage)
    before = (storage.data_dir / "format").stat().st_ino
    note_format(storage)
    assert (storage.data_dir / "format").stat().st_ino == before


def test_a_newer_mkiso_takes_older_data_over_and_the_older_one_then_refuses_it(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_format(storage)
    with monkeypatch.context() as newer:
        newer.setattr(data_format, "FORMAT", FORMAT + 1)
        require_known(storage)
        note_format(storage)
    assert numbers(storage) == [f"{FORMAT + 1}\n"] * 2
    for refused in (require_known, note_format):
        with pytest.raises(
            ConfigurationError, match=rf"data_dir .*newer mkiso \(format {FORMAT + 1}; this one knows {FORMAT}\)"
        ) as told:
            refused(storage)
        assert len(told.value.problems) == 2 and "shared_dir" in told.value.problems[1]
    assert numbers(storage) == [f"{FORMAT + 1}\n"] * 2


@pytest.mark.parametrize("is_there", [False, True])
def test_of_two_that_start_at_once_the_older_one_leaves_the_number_and_ends(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """It had looked before the newer one wrote its own, and wrote its own over that."""
    if is_there:
        note_format(storage)
    look = data_format.require_known

    def looks_before_the_newer_one(storage: Storage) -> None:
        monkeypatch.setattr(data_format, "require_known", look)
        look(storage)
        for folder in (storage.data_dir, storage.shared_dir):
            assert folder
            folder.mkdir(exist_ok=True)
            (folder / "format").write_text(f"{FORMAT + 1}\n")

    monkeypatch.setattr(data_format, "require_known", looks_before_the_newer_one)
    with pytest.raises(ConfigurationError, match="newer mkiso"):
        note_format(storage)
    assert numbers(storage) == [f"{FORMAT + 1}\n"] * 2


@pytest.mark.parametrize("content", [b"", b"one", b"1.5", b"\0\0", None])
def test_a_number_that_can_not_be_read_is_no_small_one(storage: Storage, content: bytes | None) -> None:
    file = storage.data_dir / "format"
    file.mkdir(parents=True) if content is None else file.parent.mkdir()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"its file format can't be read .*remove that file"):
        note_format(storage)


def test_a_number_that_can_not_be_read_just_now_is_not_to_be_removed(storage: Storage) -> None:
    note_format(storage)
    with failing(storage.data_dir / "format"), pytest.raises(StorageUnreadable, match="its file format, can't") as told:
        note_format(storage)
    assert "remove" not in told.value.words


def test_a_full_disk_keeps_nobody_from_starting_and_one_that_is_read_only_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting isn't allowed here")
    try:
        with suppress(OSError):
            (folder / "full").write_bytes(bytes(1 << 20))
        note_format(Storage(data_dir=folder))
        assert f"{folder} can't be written: the disk is full." in caplog.text
        assert [entry.name for entry in folder.iterdir()] == ["full"]
        (folder / "full").unlink()
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        with pytest.raises(ConfigurationError, match="can't be written: Read-only file system"):
            note_format(Storage(data_dir=folder))
    finally:
        subprocess.run(["umount", folder], check=True)


def test_the_archives_commands_touch_nothing_of_a_newer_mkiso(storage: Storage) -> None:
    storage.data_dir.mkdir()
    (storage.data_dir / "format").write_text(f"{FORMAT + 1}\n")
    with pytest.raises(ConfigurationError, match="newer mkiso"):
        Ledger.open(Settings(storage=storage))
    assert [entry.name for entry in storage.data_dir.iterdir()] == ["format"]
