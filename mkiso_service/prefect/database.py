"""Prefect's SQLite database as its migrations leave it, made in one step: they take six seconds of a first start, and
this a hundredth of one.

`schema.sql` is what the migrations of one version of Prefect make of an empty file. Any other version migrates
by itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import sys
import tempfile
from contextlib import closing
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from threading import Timer

from mkiso.errors import ConfigurationError
from mkiso.storage.room import makeable

log = logging.getLogger("mkiso.prefect")

SCHEMA = files("mkiso_service.prefect") / "schema.sql"
CHECK_SECONDS = 0.5
"""A database of 12 GB takes minutes where it isn't in memory, and every start would wait for it."""
_FIRST_LINE = "-- Prefect {version}, SQLite, revision {revision}\n"


def make_database(database: Path) -> None:
    """Make an empty database where there is none; it appears whole, mode 0600. Nothing happens where the schema is of
    another version of Prefect.
    """
    first, _, schema = SCHEMA.read_text(encoding="utf-8").partition("\n")
    if database.exists() or not first.startswith(f"-- Prefect {version('prefect')},"):
        return
    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = database.with_name(f"{database.name}.new")
    for left in database.parent.glob(f"{beside.name}*"):
        left.unlink()
    os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(beside)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(schema)
    beside.rename(database)


def is_migrated(database: Path) -> bool:
    """Whether a database is at the revision of the schema, and the schema of this Prefect: then there is nothing to
    migrate.
    """
    first = SCHEMA.read_text(encoding="utf-8").partition("\n")[0]
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            revisions = [revision for (revision,) in connection.execute("SELECT version_num FROM alembic_version")]
    except sqlite3.Error:
        return False
    return [f"{first}\n"] == [
        _FIRST_LINE.format(version=version("prefect"), revision=revision) for revision in revisions
    ]


def check_whole(database: Path) -> None:
    """Raises ConfigurationError where a database is damaged or can't be written: Prefect's server would end at each
    start, or refuse every other request, and neither says why. Of a large one as much is looked at as CHECK_SECONDS
    allow.
    """
    if found := next(makeable("The folder of Prefect's database,", database.parent), ""):
        raise ConfigurationError(f"{found}. Give it to the user that mkiso runs as.")
    if not os.path.lexists(database):
        return
    if not database.is_file():
        raise ConfigurationError(f"{database} is no file: move it away, and start mkiso again, which makes a new one.")
    if not os.access(database, os.R_OK | os.W_OK):
        raise ConfigurationError(f"{database} can't be written by this user. Give it to the user that mkiso runs as.")
    try:
        address = f"{database.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, check_same_thread=False)) as connection:
            enough = Timer(CHECK_SECONDS, connection.interrupt)
            enough.start()
            try:
                (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            finally:
                enough.cancel()
                enough.join()
    except sqlite3.OperationalError as error:  # time is up, locked, or nothing that SQLite may open: not damage
        log.debug("%s can't be checked: %s", database, error)
        return
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        raise ConfigurationError(
            f"{database} is damaged ({found.splitlines()[0]}). End mkiso, move it away together with "
            f"{database.name}-wal and {database.name}-shm, and start mkiso again: it makes a new one. What is lost is "
            "the history of runs; discs, orders and the archive's ledger lie elsewhere."
        )


def schema_of(database: Path) -> str:
    """A migrated database without rows as the text of `schema.sql`."""
    with closing(sqlite3.connect(database)) as connection:
        [(revision,)] = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        dump = "\n".join(connection.iterdump())
    return f"{_FIRST_LINE.format(version=version('prefect'), revision=revision)}{dump}\n"


def main() -> None:
    """Print the schema that the installed Prefect makes, migration by migration."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PREFECT_HOME"] = folder
        from prefect.server.database import provide_database_interface

        asyncio.run(provide_database_interface().create_db())
        sys.stdout.write(schema_of(Path(folder) / "prefect.db"))


if __name__ == "__main__":
    main()
