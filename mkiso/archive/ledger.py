"""The ledger's database: opened, brought to today's tables, and written by one process at a time.

SQLite under the data directory, or the database that `archive.ledger_url` names. Whoever writes holds the one writer's lock of the database
(SQLite's own, an advisory lock in PostgreSQL), so a transition reads and writes what no other process changes meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError

from mkiso.config import Settings, Storage
from mkiso.errors import ConfigurationError
from mkiso.files import write_whole

SQLITE_BUSY_SECONDS = 60
WRITER_LOCK = 0x6D6B69736F  # "mkiso", among the advisory locks of a PostgreSQL database


class Ledger:
    """An open ledger. `place` names the data directory whose volumes this process may touch; `storage` says where it is."""

    def __init__(self, engine: Engine, storage: Storage, place: str) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self.storage = storage
        self.place = place

    @classmethod
    def open(cls, settings: Settings) -> Ledger:
        """Open the ledger and bring its tables up to date; two processes may do so at once.

        Raises ConfigurationError where `archive.ledger_url` can't be used or a newer mkiso has written the ledger.
        """
        storage = settings.storage
        storage.volumes_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(storage.data_dir / "ledger.lock"):
            place = _place(storage.volumes_dir / ".place")
            engine = _engine(settings.archive.ledger_url.get_secret_value(), storage.data_dir / "ledger.sqlite")
            ledger = cls(engine, storage, place)
            with ledger.writing() as connection:
                _migrate(connection)
        return ledger

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that holds the writer's lock from its start; committed at the end, or rolled back by an exception."""
        with self._writer.begin() as connection:
            yield connection


def clock(connection: Connection) -> float:
    """Seconds since the epoch by the ledger's own clock: machines that share a PostgreSQL ledger needn't agree on the time."""
    if connection.dialect.name == "sqlite":
        return time.time()
    return float(connection.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0.0)


def _engine(url: str, file: Path) -> Engine:
    if not url:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its -wal and -shm the same mode
        engine = create_engine(URL.create("sqlite", database=str(file)), connect_args={"timeout": SQLITE_BUSY_SECONDS, "isolation_level": None})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError("archive.ledger_url is no database URL; it looks like postgresql://user:password@host/database.") from None
    if parsed.get_backend_name() != "postgresql":
        raise ConfigurationError("archive.ledger_url must begin with postgresql://; leave it empty for SQLite under storage.data_dir.")
    try:
        engine = create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    except ModuleNotFoundError:
        raise ConfigurationError("archive.ledger_url names PostgreSQL, and its driver isn't installed: pip install 'mkiso[postgresql]'.") from None
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _set_up_sqlite(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get("writes"):
        connection.execute(select(func.pg_advisory_xact_lock(WRITER_LOCK)))


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigurationError(f"The ledger was written by a newer mkiso; update this one. ({error})") from None


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """One process at a time: turning on SQLite's WAL doesn't wait for a lock as its statements do."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _place(file: Path) -> str:
    """The name of this data directory, made once; a host name would change with every new container."""
    for unfinished in file.parent.glob(f"{file.name}.*"):  # of a process that was killed; the caller is alone
        unfinished.unlink()
    if not file.exists():
        write_whole(file, uuid4().hex, durable=True)
    return file.read_text(encoding="utf-8")
