"""The ledger's database: opened, brought to today's tables, and written by one process at a time.

SQLite under the data directory, or the database that `archive.ledger_url` names. Whoever writes holds the one writer's
lock of the database (SQLite's own, an advisory lock in PostgreSQL), so a transition reads and writes what no other
process changes meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import uuid4

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    make_url,
    select,
    update,
)
from sqlalchemy.exc import ArgumentError, DatabaseError, InternalError, OperationalError

from mkiso.archive.belonging import Known, Mark, Meeting, meet, read_mark, write_mark
from mkiso.archive.tables import archive, places, volumes
from mkiso.config.settings import Settings
from mkiso.config.storage import Storage
from mkiso.errors import ConfigurationError, LedgerDamaged, LedgerUnavailable, why_refused
from mkiso.storage.data_format import require_known
from mkiso.storage.files import descriptor_of

SQLITE_BUSY_SECONDS = 60
CONNECT_SECONDS = 10
SILENT_MACHINE = {
    "tcp_keepalives_idle": 30,
    "tcp_keepalives_interval": 10,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""PostgreSQL's settings by which it notices within a minute that a client's machine has vanished; libpq has nearly the
same ones for the other direction. With the system's defaults that takes two hours. Until then a client waits for an
answer, or PostgreSQL keeps WRITER_LOCK for a client that is gone.
"""
NOT_ALLOWED = "42501"  # PostgreSQL's insufficient_privilege
WRITER_LOCK = 0x6D6B69736F  # "mkiso", among the advisory locks of a PostgreSQL database


LOOK = (
    "Is its disk well and not full? Only the user that mkiso runs as may use it, and everything in storage.data_dir "
    "must belong to that user."
)


class Ledger:
    """An open ledger. `id` is the archive's, `place` names the data directory whose volumes this process may touch;
    `storage` says where it is.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self.storage = settings.storage
        self.store_directory = settings.archive.directory
        self.id = ""
        self.place = ""

    @classmethod
    def open(cls, settings: Settings, *, adopt: bool = False) -> Ledger:
        """Open the ledger and bring its tables up to date; two processes may do so at once. `adopt`: whatever data
        directory this is, it belongs to it.

        Raises ConfigurationError where `archive.ledger_url` can't be used or a newer mkiso has written there,
        ArchiveUnusable where ledger and data directory are strangers, LedgerDamaged; then nothing was changed.
        LedgerUnavailable where the system refuses a file, or the database its service.
        """
        storage = settings.storage
        require_known(storage)
        with _alone(storage):
            mark = read_mark(_mark_file(storage))
            ledger = cls(_engine(settings.archive.ledger_url.get_secret_value(), storage.ledger_file), settings)
            try:
                with ledger.writing() as connection:
                    known = _known(connection)
                    meeting = Meeting.JOIN if adopt else meet(mark, _has_volumes(storage), known)
                    _migrate(connection)
                    ours = _introduce(
                        connection, mark, known.archive or (mark.archive if meeting is Meeting.RETURN else ""), storage
                    )
            except BaseException:
                ledger.close()
                raise
            if ours != mark:
                write_mark(_mark_file(storage), ours)
            ledger.id, ledger.place = ours.archive, ours.place
        return ledger

    @classmethod
    @contextmanager
    def as_it_is(cls, settings: Settings) -> Iterator[Ledger | None]:
        """The ledger for a look, which makes nothing and changes nothing; None where there is none yet. Raises
        ConfigurationError, LedgerDamaged, LedgerUnavailable.
        """
        url, file = settings.archive.ledger_url.get_secret_value(), settings.storage.ledger_file
        if not url and not os.path.lexists(file):
            yield None
            return
        with cls(_engine(url, file), settings) as ledger:
            with ledger.reading() as connection:
                known = _known(connection)
            ledger.id = known.archive
            yield None if known.is_new else ledger

    def note_planned(self, count: int, label: str) -> None:
        """Write down beside the data how many volumes this place has planned so far, and the last of them."""
        with _alone(self.storage):
            mark = read_mark(_mark_file(self.storage))
            if count > mark.planned:
                write_mark(_mark_file(self.storage), replace(mark, planned=count, label=label))

    @property
    def last_label(self) -> str:
        """The last label that was planned in this data directory, also where the ledger has forgotten it; empty
        before the first.
        """
        return read_mark(_mark_file(self.storage)).label

    @property
    def owed_from(self) -> date | None:
        """The archive's first day as this data directory noted it; None where it has planned volumes, since a ledger
        knew it then.
        """
        mark = read_mark(_mark_file(self.storage))
        return date.fromisoformat(mark.owed_from) if mark.owed_from and not mark.planned else None

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction. Raises LedgerUnavailable, LedgerDamaged."""
        with _told(self._engine), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that holds the writer's lock from its start; committed at the end, or rolled back by an
        exception. Raises LedgerUnavailable, LedgerDamaged.
        """
        with _told(self._engine), self._writer.begin() as connection:
            yield connection


@contextmanager
def _told(engine: Engine) -> Iterator[None]:
    """What the database can't do, in words."""
    try:
        yield
    except DatabaseError as error:
        reason = (str(error.orig).strip().splitlines() or [type(error).__name__])[0].removesuffix(".")
        file = engine.url.database if engine.dialect.name == "sqlite" else ""
        if file and type(error) is DatabaseError:  # SQLITE_CORRUPT, SQLITE_NOTADB
            raise _damaged(file, reason) from error
        if isinstance(error, OperationalError | InternalError) or getattr(error.orig, "sqlstate", "") == NOT_ALLOWED:
            named, advice = (f"The archive's ledger {file}", f" {LOOK}") if file else ("The archive's ledger", "")
            raise LedgerUnavailable(f"{named} can't be used ({reason}).{advice}") from error
        raise


def _damaged(file: str, reason: str) -> LedgerDamaged:
    return LedgerDamaged(
        f"The archive's ledger {file} is damaged ({reason}). It was left as it is. End mkiso, move it away "
        "together with its -wal and -shm, put the last backup of it there, and start mkiso again. Without a "
        "backup: `mkiso archive adopt`, then `mkiso archive import` of each volume."
    )


def require_file(storage: Storage) -> bool:
    """Whether there is a ledger under storage.data_dir; all of it is read. Raises ConfigurationError where a newer
    mkiso has written there, LedgerDamaged, LedgerUnavailable.
    """
    file = storage.ledger_file
    if not os.path.lexists(file):
        return False
    engine = _engine("", file)
    try:
        with _told(engine), engine.connect() as connection:
            verdict = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
            if verdict != "ok":
                raise _damaged(str(file), verdict)
            _are_older(connection)
    finally:
        engine.dispose()
    return True


def require_postgresql(url: str) -> None:
    """The server of archive.ledger_url answers, and no newer mkiso has written there. Raises ConfigurationError,
    LedgerUnavailable.
    """
    engine = postgresql_engine(url)
    try:
        with _told(engine), engine.connect() as connection:
            _are_older(connection)
    finally:
        engine.dispose()


def note_owed_from(storage: Storage, day: date) -> None:
    """Write down beside the data from which day on the archive owes, once: the ledger may not be there on its first
    night. Raises LedgerUnavailable, ArchiveUnusable.
    """
    with _alone(storage):
        mark = read_mark(_mark_file(storage))
        if not mark.owed_from and not mark.planned:
            write_mark(_mark_file(storage), replace(mark, owed_from=day.isoformat()))


def clock(connection: Connection) -> float:
    """Seconds since the epoch by the ledger's own clock: machines that share a PostgreSQL ledger needn't agree on the
    time.
    """
    if connection.dialect.name == "sqlite":
        return time.time()
    return float(connection.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0.0)


def _engine(url: str, file: Path) -> Engine:
    if not url:
        try:
            os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its -wal and -shm the same mode
        except OSError as error:
            words = f"The archive's ledger can't be used: {file}: {why_refused(error)}. {LOOK}"
            raise LedgerUnavailable(words) from error
        engine = create_engine(
            URL.create("sqlite", database=str(file)),
            connect_args={"timeout": SQLITE_BUSY_SECONDS, "isolation_level": None},
        )
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    engine = postgresql_engine(url)
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def postgresql_engine(url: str) -> Engine:
    """The engine of archive.ledger_url, not connected. Raises ConfigurationError where there can't be one."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError(
            "archive.ledger_url is no database URL; it looks like postgresql://user:password@host/database."
        ) from None
    if parsed.get_backend_name() != "postgresql":
        raise ConfigurationError(
            "archive.ledger_url must begin with postgresql://; leave it empty for SQLite under storage.data_dir."
        )
    try:
        wanted = {name.replace("tcp_keepalives", "keepalives"): value for name, value in SILENT_MACHINE.items()}
        wanted["connect_timeout"] = CONNECT_SECONDS
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            connect_args={name: value for name, value in wanted.items() if name not in parsed.query},
        )
        event.listen(engine, "connect", _set_up_postgresql)
        return engine
    except ModuleNotFoundError:
        raise ConfigurationError(
            "archive.ledger_url names PostgreSQL, and its driver isn't installed. Install '.[postgresql]' from mkiso's "
            "clone by pip, and restart it."
        ) from None


def _set_up_sqlite(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _set_up_postgresql(connection: object, _record: object) -> None:
    """By statements, since a pool between us and PostgreSQL refuses a connection that says such things at its start."""
    known = "SELECT set_config(name, %s, false) FROM pg_settings WHERE name = %s"
    with connection.cursor() as cursor:  # type: ignore[attr-defined]
        cursor.executemany(known, [(str(value), name) for name, value in SILENT_MACHINE.items()])
    connection.commit()  # type: ignore[attr-defined]


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get("writes"):
        connection.execute(select(func.pg_advisory_xact_lock(WRITER_LOCK)))


def _migrate(connection: Connection) -> None:
    if _are_older(connection):
        config = _migrations()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def _are_older(connection: Connection) -> bool:
    """Whether the tables are an older mkiso's, or none yet. Raises ConfigurationError where they are a newer one's."""
    scripts = ScriptDirectory.from_config(_migrations())
    known = {script.revision for script in scripts.walk_revisions()}
    found = set(MigrationContext.configure(connection).get_current_heads())
    if newer := found - known:
        raise ConfigurationError(
            f"The archive's ledger was written by a newer mkiso (tables {', '.join(sorted(newer))}; this one knows "
            f"{max(known)}): install that one again. To go back all the same, see docs/operating.md, Upgrade."
        )
    return found != set(scripts.get_heads())


@contextmanager
def _alone(storage: Storage) -> Iterator[None]:
    """One process at a time: turning on SQLite's WAL doesn't wait for a lock as its statements do. Raises
    LedgerUnavailable where the system refuses a file.
    """
    try:
        storage.volumes_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with descriptor_of(storage.data_dir / "ledger.lock", os.O_RDWR | os.O_CREAT) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            file = _mark_file(storage)
            for unfinished in file.parent.glob(f"{file.name}.*"):  # of a process that was killed; nobody else is here
                unfinished.unlink()
            yield
    except OSError as error:
        where = error.filename or storage.data_dir
        raise LedgerUnavailable(f"The archive's ledger can't be used: {where}: {why_refused(error)}. {LOOK}") from error


def _mark_file(storage: Storage) -> Path:
    return storage.volumes_dir / ".place"


def _has_volumes(storage: Storage) -> bool:
    return any(not entry.name.startswith(".") for entry in storage.volumes_dir.iterdir())


def _known(connection: Connection) -> Known:
    """What the database says before its tables are brought up to date; a stranger's are left as they are."""
    tables = set(inspect(connection).get_table_names())
    ids = connection.scalars(select(archive.c.id)).all() if archive.name in tables else []
    of_places = [table for table in (places.c.id, volumes.c.place) if table.table.name in tables]
    known = {place for column in of_places for place in connection.scalars(select(column).distinct())}
    return Known(ids[0] if ids else "", is_new=volumes.name not in tables, places=known)


def _introduce(connection: Connection, mark: Mark, archive_id: str, storage: Storage) -> Mark:
    """Write the data directory down in the ledger; the mark that says the same from the other side.

    Where the directory has planned more volumes than the ledger knows of, the ledger is an older copy of itself. What
    it then has as planned may have been finished since: it forgets these rows, so that nobody clears their folders
    away.
    """
    if connection.scalar(select(archive.c.id)) is None:
        connection.execute(insert(archive).values(id=archive_id or uuid4().hex, made=datetime.now(UTC)))
    ours = replace(mark, place=mark.place or uuid4().hex, archive=connection.scalar(select(archive.c.id)) or "")
    now = {"host": socket.gethostname(), "directory": str(storage.data_dir)}
    row = connection.execute(select(places).where(places.c.id == ours.place)).one_or_none()
    if row is None:
        row = connection.execute(insert(places).values(id=ours.place, planned=0, **now).returning(*places.c)).one()
    here = places.c.id == ours.place
    if row.planned < ours.planned:
        connection.execute(delete(volumes).where(volumes.c.place == ours.place, volumes.c.state == "planned"))
        connection.execute(update(places).where(here).values(planned=ours.planned, restored=datetime.now(UTC)))
    if (row.host, row.directory) != (now["host"], now["directory"]):
        connection.execute(update(places).where(here).values(**now))
    return ours
