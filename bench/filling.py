"""Fills a Prefect database with ended runs as mkiso leaves them: copies of the rows of a job that was, in bulk, each
with ids, times, a name and a question of its own.

Events are left out: they are kept for a day, so they don't grow with the runs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import psycopg

DAY_SECONDS = 86_400
BUSY_SECONDS = 60
FAILS_ONE_IN = 20
MORE_THAN_EVER = 4_294_967_295  # the first 32 bits of an id, odd multiples of which are all different
SPREAD = 2_654_435_761  # Knuth's multiplier: ids of flow runs are random, all others go with the time

TABLES: Mapping[str, str] = {
    "flow_run_state": "flow_run_id = '{run}'",
    "flow_run": "id = '{run}'",
    "task_run": "flow_run_id = '{run}'",
    "task_run_state": "task_run_id IN (SELECT id FROM task_run WHERE flow_run_id = '{run}')",
    "log": "flow_run_id = '{run}'",
    "artifact": "flow_run_id = '{run}'",
}
"""What holds a run's rows, and which are a run's."""
IDS = frozenset(("id", "task_run_id", "state_id", "result_artifact_id"))
TIMES = frozenset(
    ("created", "updated", "timestamp", "start_time", "end_time", "expected_start_time", "state_timestamp")
)


class Database(Protocol):
    """A database of Prefect, and how its SQL says what is needed here. `n` is a run's number, from 1; the last one is
    as old as the run that it is a copy of.
    """

    def run(self, sql: str) -> None: ...
    def rows(self, sql: str) -> list[tuple[Any, ...]]: ...
    def columns(self, table: str) -> dict[str, str]:
        """The type of each column, by name."""

    def indexes(self) -> dict[str, str]:
        """The statement that makes each index that could be made anew, by name."""

    def numbers(self, count: int) -> str: ...
    def hexadecimal(self, number: str) -> str:
        """Eight digits of a number."""

    def uuid(self, digits: str, column: str) -> str:
        """The id in a column, with other first digits."""

    def ago(self, column: str, seconds: str) -> str:
        """The time in a column, so many seconds earlier."""

    @contextmanager
    def loading(self) -> Iterator[None]:
        """While much is written, and nobody else has it open."""

    def size(self) -> int:
        """In bytes."""


class Sqlite:
    """SQLite, as one file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def opened(cls, file: Path) -> Iterator[Sqlite]:
        with closing(sqlite3.connect(file, isolation_level=None, timeout=BUSY_SECONDS)) as connection:
            yield cls(connection)

    def run(self, sql: str) -> None:
        self._connection.execute(sql)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql).fetchall()

    def columns(self, table: str) -> dict[str, str]:
        return {name: kind for _, name, kind, *_ in self.rows(f"PRAGMA table_info({table})")}

    def indexes(self) -> dict[str, str]:
        tables = ", ".join(f"'{name}'" for name in TABLES)
        wanted = f"type = 'index' AND sql IS NOT NULL AND tbl_name IN ({tables})"
        return dict(self.rows(f"SELECT name, sql FROM sqlite_master WHERE {wanted}"))

    def numbers(self, count: int) -> str:
        return (
            f"(WITH RECURSIVE each(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM each WHERE n < {count}) "
            "SELECT n FROM each) AS numbers"
        )

    def hexadecimal(self, number: str) -> str:
        return f"printf('%08x', {number})"

    def uuid(self, digits: str, column: str) -> str:
        return f"{digits} || substr({column}, 9)"

    def ago(self, column: str, seconds: str) -> str:
        return f"strftime('%Y-%m-%d %H:%M:%S', {column}, -({seconds}) || ' seconds') || substr({column}, 20)"

    @contextmanager
    def loading(self) -> Iterator[None]:
        for pragma in ("foreign_keys = off", "synchronous = off", "journal_mode = off", "cache_size = -1000000"):
            self.run(f"PRAGMA {pragma}")
        yield
        self.run("PRAGMA journal_mode = WAL")

    def size(self) -> int:
        [(pages, each)] = self.rows("SELECT page_count, page_size FROM pragma_page_count, pragma_page_size")
        return int(pages * each)


class Postgresql:
    """PostgreSQL, as a superuser."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def opened(cls, url: str) -> Iterator[Postgresql]:
        with psycopg.connect(url, autocommit=True) as connection:
            yield cls(connection)

    def run(self, sql: str) -> None:
        self._connection.execute(sql)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return list(self._connection.execute(sql))

    def columns(self, table: str) -> dict[str, str]:
        where = f"table_schema = current_schema AND table_name = '{table}'"
        return dict(self.rows(f"SELECT column_name, udt_name FROM information_schema.columns WHERE {where}"))

    def indexes(self) -> dict[str, str]:
        tables = ", ".join(f"'{name}'" for name in TABLES)
        made = "indexname NOT IN (SELECT conname FROM pg_constraint)"
        return dict(self.rows(f"SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ({tables}) AND {made}"))

    def numbers(self, count: int) -> str:
        return f"generate_series(1::bigint, {count}) AS numbers(n)"

    def hexadecimal(self, number: str) -> str:
        return f"lpad(to_hex({number}), 8, '0')"

    def uuid(self, digits: str, column: str) -> str:
        return f"({digits} || substr({column}::text, 9))::uuid"

    def ago(self, column: str, seconds: str) -> str:
        return f"{column} - ({seconds}) * interval '1 second'"

    @contextmanager
    def loading(self) -> Iterator[None]:
        self.run("SET session_replication_role = replica")  # foreign keys aren't looked at
        self.run("SET maintenance_work_mem = '1GB'")
        yield
        self.run("VACUUM ANALYZE")  # as its autovacuum does in the course of such a time
        self.run("CHECKPOINT")

    def size(self) -> int:
        [(size,)] = self.rows("SELECT pg_database_size(current_database())")
        return int(size)


def fill(database: Database, completed: str, failed: str, runs: int, runs_a_day: int) -> None:
    """Make `runs` copies of two runs, by their ids: one in twenty of the failed one."""
    with database.loading():
        indexes = database.indexes()
        for name in indexes:
            database.run(f"DROP INDEX {name}")
        for table, where in TABLES.items():
            columns = database.columns(table)
            values = ", ".join(_value(database, table, *column, runs, runs_a_day) for column in columns.items())
            for template, which in ((completed, "<>"), (failed, "=")):
                database.run(
                    f"CREATE TEMPORARY TABLE copied AS SELECT * FROM {table} WHERE {where.format(run=template)}"
                )
                database.run(
                    f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} "
                    f"FROM {database.numbers(runs)}, copied WHERE n % {FAILS_ONE_IN} {which} 0"
                )
                database.run("DROP TABLE copied")
        for made in indexes.values():
            database.run(made)


def _value(database: Database, table: str, column: str, kind: str, runs: int, runs_a_day: int) -> str:
    """What a copy has in a column, as SQL."""
    number = database.hexadecimal("n")
    key = f"{number} || '{'0' * 24}'"
    own = {
        "name": "'Disc H' || n",
        "idempotency_key": f"{key} || ':first'",
        "tags": f"""'["question:' || {key} || '", "download", "mkiso"]'""",
        "parameters": """'{"accession_numbers": ["H' || n || '"]}'""",
    }
    qualified = f"copied.{column}"
    if table == "flow_run" and column in own:
        return f"CAST({own[column]} AS {kind})" if kind.startswith("json") else own[column]
    if column == "flow_run_id" or (table == "flow_run" and column == "id"):
        return database.uuid(database.hexadecimal(f"(n * {SPREAD}) & {MORE_THAN_EVER}"), qualified)
    if column in IDS:
        return database.uuid(number, qualified)
    if column in TIMES:
        return database.ago(qualified, f"({runs} - n) * {DAY_SECONDS // runs_a_day}")
    return qualified
