"""Prefect's database of a first start: what its own migrations would have made, and theirs alone where the version is
another.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from socket import EAI_AGAIN, gaierror
from threading import Event, Thread

import asyncpg  # type: ignore[import-untyped]
import httpx
import pytest

from mkiso.errors import ConfigurationError
from mkiso_service.prefect import database as prefect_database
from mkiso_service.prefect.database import SCHEMA, check_whole, is_migrated, make_database, schema_of
from mkiso_service.prefect.server import is_retryable
from peers.patience import LONG, until
from peers.ports import free_port
from peers.postgresql import BIN, running_postgresql
from peers.warm import Warm

MIGRATE = (
    "import asyncio; from prefect.server.database import provide_database_interface as i; asyncio.run(i().create_db())"
)


def migrate(home: Path) -> Path:
    """Let Prefect's own migrations have their way."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    subprocess.run(
        [sys.executable, "-c", MIGRATE], env={**environment, "PREFECT_HOME": str(home)}, check=True, timeout=LONG
    )
    return home / "prefect.db"


def described(database: Path) -> tuple[dict[str, list[tuple[object, ...]]], list[tuple[str, ...]]]:
    """The columns of every table in their order, and the lines of every statement in none: Prefect's migrations order
    constraints by chance.
    """
    with closing(sqlite3.connect(database)) as connection:
        statements = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        columns = {
            name: connection.execute(f"PRAGMA table_xinfo({name})").fetchall()
            for kind, name, _ in statements
            if kind == "table"
        }
    return columns, [
        tuple(sorted(line.strip(" \t,") for line in (sql or name).splitlines())) for _, name, sql in statements
    ]


@pytest.mark.peer
def test_the_schema_is_what_the_migrations_of_this_prefect_make(tmp_path: Path) -> None:
    """After Prefect's version was raised:
    `python -m mkiso_service.prefect.database > mkiso_service/prefect/schema.sql`.
    """
    migrated = migrate(tmp_path / "migrated")
    made = tmp_path / "made" / "prefect.db"
    make_database(made)
    assert is_migrated(migrated) and is_migrated(made)
    assert described(made) == described(migrated)
    inserts = [line for line in schema_of(migrated).splitlines() if line.startswith("INSERT")]
    assert [line for line in SCHEMA.read_text(encoding="utf-8").splitlines() if line.startswith("INSERT")] == inserts
    before = schema_of(made)
    migrate(made.parent)
    assert schema_of(made) == before, "Prefect found something to do"


def test_a_database_is_made_whole_and_private_and_never_over_another(tmp_path: Path) -> None:
    database = tmp_path / "prefect" / "prefect.db"
    database.parent.mkdir()
    database.with_name("prefect.db.new").write_text("half of one, of a start that was killed")
    make_database(database)
    assert is_migrated(database)
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    assert not list(database.parent.glob("*.new*"))
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        connection.execute("CREATE TABLE mine (x)")
    make_database(database)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT * FROM mine").fetchall() == []


@pytest.mark.parametrize("version", ["3.8.7", "3.8.80", "3.9.0"])
def test_another_prefect_migrates_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    make_database(tmp_path / "old.db")
    monkeypatch.setattr(prefect_database, "version", lambda _: version)
    assert not is_migrated(tmp_path / "old.db")
    make_database(tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()


def test_what_is_older_or_nothing_is_to_be_migrated(tmp_path: Path) -> None:
    assert not is_migrated(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "noise.db").write_text("no database")
    assert not is_migrated(tmp_path / "noise.db")
    make_database(tmp_path / "older.db")
    with closing(sqlite3.connect(tmp_path / "older.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'before'")
    assert not is_migrated(tmp_path / "older.db")


@pytest.mark.parametrize("page", [0, 2, 40, -1])
def test_a_damaged_database_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    """Prefect's server ended at each start with a traceback, and was started again for ever."""
    monkeypatch.setattr(prefect_database, "CHECK_SECONDS", LONG)
    database = tmp_path / "prefect.db"
    check_whole(database)
    make_database(database)
    check_whole(database)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with database.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(page * 4096 if page >= 0 else size + page * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(ConfigurationError, match=r"damaged .* move it away"):
        check_whole(database)


def seems_damaged(database: Path) -> bool:
    try:
        check_whole(database)
    except ConfigurationError:
        return True
    return False


class OutOfTime:
    """A timer whose time is always up."""

    def __init__(self, seconds: float, stop: Callable[[], None]) -> None:
        self._ended = Event()
        self._thread = Thread(target=self._stop, args=(stop,))

    def _stop(self, stop: Callable[[], None]) -> None:
        while not self._ended.is_set():
            stop()

    def start(self) -> None:
        self._thread.start()

    def cancel(self) -> None:
        self._ended.set()

    def join(self) -> None:
        self._thread.join()


def test_a_large_database_is_looked_at_no_longer_than_a_start_can_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start read all of 12 GB. What lies beyond isn't seen by it."""
    database = tmp_path / "prefect.db"
    make_database(database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE many (each BLOB)")
        connection.executemany("INSERT INTO many VALUES (zeroblob(3000))", [()] * 20_000)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with database.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(b"\xff" * 4096)
    monkeypatch.setattr(prefect_database, "CHECK_SECONDS", LONG)
    with pytest.raises(ConfigurationError, match="damaged"):
        check_whole(database)
    monkeypatch.setattr(prefect_database, "Timer", OutOfTime)
    until(lambda: not seems_damaged(database))  # on a busy machine a look may end before its thread runs at all


def test_a_database_that_cant_be_used_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "prefect" / "prefect.db"
    database.mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"is no file: move it away"):
        check_whole(database)
    database.rmdir()
    database.touch()
    for refused, words in ((database, "prefect.db can't be written"), (database.parent, "prefect can't be written")):
        with monkeypatch.context() as patch, pytest.raises(ConfigurationError, match=f"{words}.*user that mkiso runs"):
            patch.setattr(os, "access", lambda place, _, refused=refused: place != refused)
            check_whole(database)


@pytest.mark.peer
@pytest.mark.skipif(not (BIN / "initdb").exists(), reason="PostgreSQL isn't installed")
def test_where_its_postgresql_is_away_prefect_says_to_ask_again(tmp_path: Path) -> None:
    """It said 500: a job that was about to begin or to end was Crashed, and a worker ended."""
    auth, port = "mkiso:password-of-a-test", free_port()
    settings = {
        "prefect": {"server_port": port, "api_auth_string": auth},
        "storage": {"data_dir": str(tmp_path / "data")},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
    with running_postgresql() as database:
        environment = {
            "MKISO_CONFIG": str(tmp_path / "config.yaml"),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database.database("prefect").replace("://", "+asyncpg://"),
        }
        with (
            Warm(["prefect"], tmp_path / "prefect.log", port=port, environment=environment) as server,
            httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=LONG, auth=tuple(auth.split(":"))) as prefect,  # type: ignore[arg-type]
        ):

            def answers_with(status: int) -> bool:
                alone = {"Connection": "close"}  # it closes a connection after such an answer
                with suppress(httpx.TransportError):  # where it has only just started
                    return prefect.post("/flow_runs/count", json={}, headers=alone).status_code == status
                return False

            until(lambda: answers_with(200), told=server.log)
            database.stop()
            assert all(answers_with(503) for _ in range(5)), server.log()
            database.start()
            until(lambda: answers_with(200), told=server.log)


def test_a_postgresql_without_a_free_connection_is_asked_again() -> None:
    assert is_retryable(asyncpg.TooManyConnectionsError("sorry, too many clients already"))
    assert not is_retryable(ValueError("a fault of ours"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "full", "a lease"), "No space left on device"),
        (gaierror(EAI_AGAIN, "resolving"), "gaierror"),
        (TimeoutError(), "TimeoutError"),
        (asyncpg.TooManyConnectionsError("too many"), "TooManyConnectionsError"),
    ],
)
def test_why_prefect_says_to_ask_again_stands_in_its_log(
    error: Exception, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Prefect's own says nothing of a 503: of a full disk under its leases nobody was told."""
    assert is_retryable(error)
    assert f"can't be answered just now: {words}." in caplog.text
