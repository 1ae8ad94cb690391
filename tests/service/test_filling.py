"""What the benchmark fills a Prefect database with holds together as what Prefect writes does."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import uuid4

from bench.filling import FAILS_ONE_IN, TABLES, Sqlite, fill
from mkiso_service.prefect.database import make_database

RUNS = 2 * FAILS_ONE_IN
NOW = "2026-11-28 12:00:00.123456"


def one_run(connection: sqlite3.Connection, state: str) -> str:
    """A run with a step, a state of each, a log line and an artifact; its id."""
    run, step, flow, run_state, step_state = (str(uuid4()) for _ in range(5))
    connection.execute("INSERT INTO flow (id, name) VALUES (?, ?)", (flow, flow))
    connection.execute(
        "INSERT INTO flow_run (id, name, flow_id, state_type, state_id, end_time, tags) "
        "VALUES (?, 'Disc', ?, ?, ?, ?, ?)",
        (run, flow, state, run_state, NOW, '["question:1"]'),
    )
    of_run = (run_state, run, state, state.title(), NOW)
    connection.execute(
        "INSERT INTO flow_run_state (id, flow_run_id, type, name, timestamp) VALUES (?, ?, ?, ?, ?)", of_run
    )
    connection.execute(
        "INSERT INTO task_run (id, flow_run_id, name, task_key, dynamic_key, state_id) VALUES (?, ?, 'a', 'a', 'a', ?)",
        (step, run, step_state),
    )
    of_step = (step_state, step, state, state.title(), NOW)
    connection.execute(
        "INSERT INTO task_run_state (id, task_run_id, type, name, timestamp) VALUES (?, ?, ?, ?, ?)", of_step
    )
    connection.execute(
        "INSERT INTO log (name, level, flow_run_id, message, timestamp) VALUES ('a', 20, ?, 'b', ?)", (run, NOW)
    )
    connection.execute("INSERT INTO artifact (key, flow_run_id) VALUES ('studies', ?)", (run,))
    return run


def test_copies_hold_together_and_every_index_is_made_anew(tmp_path: Path) -> None:
    database = tmp_path / "prefect.db"
    make_database(database)
    with closing(sqlite3.connect(database)) as connection, connection:
        completed, failed = one_run(connection, "COMPLETED"), one_run(connection, "FAILED")
        indexes = set(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index'"))
    with Sqlite.opened(database) as opened:
        fill(opened, completed, failed, RUNS, runs_a_day=500)
        assert opened.size() == database.stat().st_size
    with closing(sqlite3.connect(database)) as connection:
        assert set(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index'")) == indexes
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        for table in TABLES:
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (RUNS + 2,), table
        runs = connection.execute(
            "SELECT tags, idempotency_key, end_time, state_type FROM flow_run WHERE name LIKE 'Disc H%' "
            "ORDER BY end_time"
        ).fetchall()
    assert len({key for _, key, _, _ in runs}) == len({moment for _, _, moment, _ in runs}) == RUNS
    assert all(json.loads(tags)[0] == f"question:{key.removesuffix(':first')}" for tags, key, _, _ in runs)
    assert [state for *_, state in runs].count("FAILED") == RUNS // FAILS_ONE_IN
    assert (runs[0][2], runs[-1][2]) == ("2026-11-28 10:08:12.123456", NOW)
