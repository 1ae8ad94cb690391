"""`mkiso service backup`: what can't be made anew, copied while everything runs: configuration, archive ledger, order
books, and the format number of the data.

Discs are made anew from the PACS, and Prefect's database is history; neither is copied.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

from mkiso.config.archive import Archive
from mkiso.config.storage import Storage
from mkiso.errors import ConfigurationError, LedgerDamaged, LedgerUnavailable
from mkiso.storage.data_format import format_file
from mkiso.storage.files import seconds_old, sync_file, sync_folder
from mkiso.storage.room import NO_ROOM

ABANDONED_SECONDS = 86_400


def back_up(storage: Storage, archive: Archive, config: Path | None, target: Path) -> Path:
    """Copy into a new folder below `target`, mode 0700, which appears whole; that folder. Raises ConfigurationError
    where it is there already, `target` or a folder of the data isn't, there is nothing to copy, or something can't be
    read or written; LedgerDamaged, LedgerUnavailable.
    """
    try:
        return _backed_up(storage, archive, config, target)
    except OSError as error:
        # Where a copy finds no room the system names the file that is copied, which lies on another disk.
        where = target if error.errno in NO_ROOM else error.filename or target
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(f"Nothing is backed up: {where}: {reason}.") from None


def _backed_up(storage: Storage, archive: Archive, config: Path | None, target: Path) -> Path:
    if not (files := list(_files(storage, archive, config))):
        raise ConfigurationError(
            f"There is nothing to copy: {config or 'a configuration'} isn't there, and {storage.data_dir} has no "
            "ledger and no order books. Name the configuration: mkiso -c FILE service backup FOLDER."
        )
    if not target.is_dir():  # and isn't made: on the disk below a mount point nobody would look for it
        raise ConfigurationError(
            f"Nothing is backed up: the folder {target} isn't there. Make it on the disk that it is to lie on; if you "
            "have, that disk isn't mounted."
        )
    for place in filter(None, (storage.data_dir, storage.shared_dir)):
        if not place.exists():
            raise ConfigurationError(
                f"Nothing is backed up: {place}, which the configuration names, isn't there. Is its disk mounted?"
            )
    if (number := format_file(storage.data_dir)).is_file():
        files.append((number, number.name))
    folder = target / f"mkiso-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    unfinished = target / f".{folder.name}"
    if folder.exists():
        raise ConfigurationError(f"{folder} is there already.")
    for left in target.glob(".mkiso-*Z"):  # of a backup that was killed: it holds secrets, and nobody looks for it
        if seconds_old(left) > ABANDONED_SECONDS:
            shutil.rmtree(left)
    unfinished.mkdir(mode=0o700)
    try:
        _fill(unfinished, files)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)  # what didn't become a backup holds secrets, too
    with suppress(OSError):  # a share may have no such thing
        sync_folder(target)
    return folder


def _fill(folder: Path, files: Iterable[tuple[Path, str]]) -> None:
    for file, name in files:
        copy = folder / name
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _copy_database(file, copy) if file.suffix == ".sqlite" else _copy(file, copy)
    for copy in folder.rglob("*"):
        if copy.is_file():
            sync_file(copy)


def _copy(file: Path, copy: Path) -> None:
    with suppress(FileNotFoundError):  # an order book that was forgotten meanwhile
        shutil.copy2(file, copy)


def _files(storage: Storage, archive: Archive, config: Path | None) -> Iterator[tuple[Path, str]]:
    """Each file and its name in the backup. A ledger in PostgreSQL is its administrator's to dump. Raises OSError where
    nobody can say which there are.
    """
    if config is not None and config.is_file():
        yield config, "config.yaml"
    ledger = storage.ledger_file
    if not archive.ledger_url.get_secret_value():
        with suppress(FileNotFoundError):
            ledger.lstat()
            yield ledger, ledger.name
    with suppress(FileNotFoundError):
        yield from ((book, f"orders/{book.name}") for book in storage.orders_dir.iterdir() if book.suffix == ".json")


def _copy_database(file: Path, copy: Path) -> None:
    """SQLite's own online backup: consistent whatever is being written, its WAL included."""
    try:
        with (
            closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            [(verdict,)] = target.execute("PRAGMA integrity_check(1)").fetchall()
            if not target.execute("SELECT 1 FROM sqlite_master").fetchone():
                verdict = "it is empty"
    except sqlite3.OperationalError as error:
        raise LedgerUnavailable(
            f"Nothing is backed up: the archive's ledger {file} can't be read, or its copy not be written ({error})."
        ) from None
    except sqlite3.DatabaseError as error:
        verdict = str(error)
    copy.chmod(0o600)
    if verdict != "ok":
        raise LedgerDamaged(
            f"Nothing is backed up: the archive's ledger {file} is damaged ({verdict}). Keep the last good backup, and "
            "restore it."
        )
