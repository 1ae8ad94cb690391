"""A backup holds the ledger as it was at one moment, while it is written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from mkiso.config.archive import Archive
from mkiso.config.settings import Settings
from mkiso.config.storage import Storage
from mkiso.errors import ConfigurationError
from mkiso_service.cli.main import cli, run
from mkiso_service.installation.backup import back_up
from peers.small_disk import small_disk


def test_a_backup_taken_while_the_ledger_is_written_can_be_restored(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "discs" / "orders").mkdir(parents=True)
    (data / "discs" / "orders" / "abc.json").write_text("[]")
    (data / "format").write_text("1\n")
    (tmp_path / "backups").mkdir()
    config = tmp_path / "mkiso.yaml"
    config.write_text("storage: {data_dir: data}\n")
    with closing(sqlite3.connect(data / "ledger.sqlite", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE volumes (label TEXT)")
        writer.execute("INSERT INTO volumes VALUES ('A1')")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO volumes VALUES ('half written')")
        told = CliRunner().invoke(
            cli, ["service", "backup", str(tmp_path / "backups")], env={"MKISO_CONFIG": str(config)}
        )
        writer.execute("COMMIT")
    assert told.exit_code == 0, told.output
    [folder] = (tmp_path / "backups").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()} == {
        "config.yaml",
        "format",
        "ledger.sqlite",
        "orders/abc.json",
    }
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as restored:
        assert restored.execute("SELECT label FROM volumes").fetchall() == [("A1",)]
    assert (folder / "config.yaml").read_text() == config.read_text()


def test_remains_of_a_killed_backup_go_and_a_book_that_vanishes_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(storage=Storage(data_dir=tmp_path / "data"))
    settings.storage.orders_dir.mkdir(parents=True)
    for name in ("gone", "kept"):
        (settings.storage.orders_dir / f"{name}.json").write_text("[]")
    for name, hours in ((".mkiso-20240101T000000Z", 25), (".mkiso-20240101T000001Z", 1), ("elsewhere", 25)):
        (tmp_path / "backups" / name).mkdir(parents=True)
        os.utime(tmp_path / "backups" / name, (time.time() - hours * 3600,) * 2)
    copy = shutil.copy2

    def late(file: Path, target: Path) -> None:
        if file.stem == "gone":
            file.unlink()
        copy(file, target)

    monkeypatch.setattr("mkiso_service.installation.backup.shutil.copy2", late)
    folder = back_up(settings.storage, settings.archive, None, tmp_path / "backups")
    assert [file.name for file in folder.rglob("*.json")] == ["kept.json"]
    assert {path.name for path in (tmp_path / "backups").iterdir()} == {
        folder.name,
        ".mkiso-20240101T000001Z",
        "elsewhere",
    }


def test_a_backup_that_cant_be_made_leaves_nothing_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, ledger, backups = tmp_path / "mkiso.yaml", tmp_path / "data" / "ledger.sqlite", tmp_path / "backups"
    config.write_text("storage: {data_dir: data}\n")
    monkeypatch.setenv("MKISO_CONFIG", str(config))
    ledger.mkdir(parents=True)
    backups.mkdir()
    assert run(["service", "backup", str(backups)]) == 1
    assert f"{ledger} can't be read" in capsys.readouterr().err
    ledger.rmdir()
    ledger.touch()
    assert run(["service", "backup", str(backups)]) == 1
    assert f"{ledger} is damaged (it is empty)" in capsys.readouterr().err
    assert list(backups.iterdir()) == []
    ledger.unlink()
    backups.rmdir()
    config.write_text("storage: {data_dir: data}\n")
    backups.symlink_to("/proc/self")
    assert run(["service", "backup", str(backups)]) == 2
    assert f"Nothing is backed up: {backups}" in capsys.readouterr().err


def test_what_cant_be_looked_into_or_is_away_is_no_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before, a backup without the ledger or the orders was taken for one."""
    (tmp_path / "mkiso.yaml").write_text("storage: {data_dir: data}\n")
    monkeypatch.setenv("MKISO_CONFIG", str(tmp_path / "mkiso.yaml"))
    (backups := tmp_path / "backups").mkdir()
    data = tmp_path / "data"
    assert run(["service", "backup", str(backups)]) == 2
    assert f"{data}, which the configuration names, isn't there" in capsys.readouterr().err
    for loop in (data / "ledger.sqlite", data / "discs"):  # in a folder of these nobody can look
        loop.parent.mkdir(exist_ok=True)
        loop.symlink_to(loop)
        monkeypatch.setattr(Storage, "ledger_file", property(lambda storage: storage.data_dir / "ledger.sqlite" / "x"))
        assert run(["service", "backup", str(backups)]) == 2
        assert f"Nothing is backed up: {loop}" in capsys.readouterr().err
        loop.unlink()
    assert list(backups.iterdir()) == []


def test_a_folder_that_is_missing_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It lies on a disk that isn't mounted, and would be made on the disk below."""
    (tmp_path / "mkiso.yaml").write_text("storage: {data_dir: data}\n")
    monkeypatch.setenv("MKISO_CONFIG", str(tmp_path / "mkiso.yaml"))
    (disk := tmp_path / "disk").mkdir()
    assert run(["service", "backup", str(disk / "mkiso")]) == 2
    assert f"the folder {disk / 'mkiso'} isn't there" in capsys.readouterr().err
    assert list(disk.iterdir()) == []


def test_a_backup_of_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MKISO__STORAGE__DATA_DIR", str(tmp_path / "data"))
    assert run(["service", "backup", str(tmp_path / "backups")]) == 2
    assert "There is nothing to copy: config.yaml isn't there" in capsys.readouterr().err
    assert not (tmp_path / "backups").exists()


@pytest.mark.parametrize("options", ["size=64k", "nr_inodes=12"])
def test_a_disk_for_backups_without_room_is_named_and_nothing_is_left_on_it(tmp_path: Path, options: str) -> None:
    """The system names the order book that is copied, and its disk has room."""
    storage = Storage(data_dir=tmp_path / "data")
    storage.orders_dir.mkdir(parents=True)
    for number in range(30):
        (storage.orders_dir / f"{number}.json").write_bytes(bytes(4096))
    with small_disk(tmp_path / "backups", options) as disk:
        with pytest.raises(ConfigurationError) as refused:
            back_up(storage, Archive(), None, disk)
        assert refused.value.words == f"Nothing is backed up: {disk}: No space left on device."
        assert list(disk.iterdir()) == []
