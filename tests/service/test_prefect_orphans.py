"""What is left of runs that are gone from Prefect's database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from uuid import uuid4

import sqlalchemy as sa
from prefect.server.database import PrefectDBInterface, provide_database_interface
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import temporary_database_config
from prefect.server.services import db_vacuum

from mkiso_service.prefect.database import make_database
from mkiso_service.prefect.server import delete_old_runs, delete_orphans

RUNS, GONE = 60, 25
AT_ONCE = 10


def written(database: Path) -> None:
    """Runs with a log line and an artifact each, and as much of runs that are gone."""
    make_database(database)
    flow, runs, gone = str(uuid4()), [str(uuid4()) for _ in range(RUNS)], [str(uuid4()) for _ in range(GONE)]
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("INSERT INTO flow (id, name) VALUES (?, 'make_disc')", (flow,))
        connection.executemany(
            "INSERT INTO flow_run (id, name, flow_id) VALUES (?, 'Disc', ?)", [(r, flow) for r in runs]
        )
        for run in (*runs, *gone):
            connection.execute(
                "INSERT INTO log (name, level, flow_run_id, message, timestamp) VALUES ('a', 20, ?, 'b', '2026-11-28')",
                (run,),
            )
            connection.execute("INSERT INTO artifact (key, flow_run_id) VALUES ('studies', ?)", (run,))


def counted(database: Path, table: str) -> tuple[int, int]:
    """Rows of runs that are there, and of others."""
    with closing(sqlite3.connect(database)) as connection:
        there = "flow_run_id IN (SELECT id FROM flow_run)"
        [row] = connection.execute(f"SELECT sum({there}), sum(NOT {there}) FROM {table}")
    return int(row[0]), int(row[1])


@asynccontextmanager
async def noted() -> AsyncIterator[tuple[PrefectDBInterface, list[str]]]:
    """Prefect's database, and each statement that it is sent."""
    db, asked = provide_database_interface(), list[str]()
    engine = await db.engine()
    sa.event.listen(engine.sync_engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    yield db, asked
    await engine.dispose()


def test_what_is_left_of_runs_goes_and_runs_are_not_walked(tmp_path: Path) -> None:
    """Prefect asks for every 200 runs anew: 2,000 transactions after each start with 200,000 runs."""
    database = tmp_path / "prefect.db"
    written(database)

    async def scenario() -> list[str]:
        async with noted() as (db, asked):
            assert await delete_orphans(db, db.Log, AT_ONCE) == GONE
            assert await delete_orphans(db, db.Artifact, AT_ONCE) == GONE
            asked.clear()
            assert await delete_orphans(db, db.Log, AT_ONCE) == 0
        return asked

    with temporary_database_config(AioSqliteConfiguration(f"sqlite+aiosqlite:///{database}")):
        asked = asyncio.run(scenario())
    assert counted(database, "log") == counted(database, "artifact") == (RUNS, 0)
    assert len([statement for statement in asked if "flow_run_id" in statement]) == 1


def test_nobody_waits_for_a_look_at_old_runs_that_finds_none(tmp_path: Path) -> None:
    """On SQLite it held the only writer's lock for half a second of each start."""
    database = tmp_path / "prefect.db"
    written(database)

    async def scenario() -> None:
        async with noted() as (db, asked):
            named = db.FlowRun.name == "Print"
            assert await delete_old_runs(db, named, AT_ONCE, AT_ONCE) == []
            assert "BEGIN IMMEDIATE" not in asked
            asked.clear()
            assert len(await delete_old_runs(db, db.FlowRun.name == "Disc", AT_ONCE, AT_ONCE)) == AT_ONCE
            assert "BEGIN IMMEDIATE" in asked

    with temporary_database_config(AioSqliteConfiguration(f"sqlite+aiosqlite:///{database}")):
        asyncio.run(scenario())
    assert counted(database, "log") == (RUNS - AT_ONCE, GONE + AT_ONCE)


def test_prefect_still_has_the_functions_that_are_replaced() -> None:
    assert "_delete_orphaned_by_flow_run" in db_vacuum.vacuum_orphaned_logs.__code__.co_names
    assert "_delete_flow_run_batch" in db_vacuum.vacuum_old_flow_runs.__code__.co_names
    assert callable(db_vacuum._batch_delete)
    assert callable(db_vacuum._maintenance_session)
