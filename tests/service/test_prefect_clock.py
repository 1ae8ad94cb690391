"""Prefect's schedules after its server's clock was ahead: they go on, by a real docket and a real database."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa
from docket import Docket
from prefect.server.database import provide_database_interface
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import temporary_database_config
from prefect.server.services.perpetual_services import get_enabled_perpetual_services

from mkiso_service.prefect import server
from mkiso_service.prefect.database import make_database
from peers.patience import LONG, until
from peers.ports import free_port
from peers.process import Process
from peers.service import Service
from peers.warm import Warm

YEAR = timedelta(days=365)
NOW = datetime.now(UTC)
NIGHT = NOW + timedelta(hours=5)
RUNS: dict[str, dict[str, Any]] = {
    "by a clock ahead": {"created": NOW + YEAR, "expected_start_time": NIGHT + YEAR},
    "by hand": {"created": NOW + YEAR, "expected_start_time": NOW + YEAR, "auto_scheduled": False},
    "tonight": {"created": NOW, "expected_start_time": NIGHT},
    "begun too early": {
        "created": NOW,
        "expected_start_time": NIGHT,
        "start_time": NOW + YEAR,
        "state_type": "COMPLETED",
        "run_count": 1,
    },
    "cancelled": {"created": NOW, "expected_start_time": NIGHT, "state_type": "CANCELLED"},
    "last night": {"created": NOW - YEAR, "expected_start_time": NOW, "start_time": NOW, "state_type": "COMPLETED"},
}


@contextmanager
def going(docket: Docket, *offsets: float) -> Iterator[asyncio.Task[None]]:
    """The look at a clock that is so many seconds ahead at each look, the last ones again."""
    told = iter(offsets)
    last = 0.0

    def clock() -> float:
        nonlocal last
        last = next(told, last)
        return time.time() + last

    watch = asyncio.create_task(server.go_on_by(docket, clock))
    try:
        yield watch
    finally:
        watch.cancel()


def test_what_a_clock_that_was_ahead_has_scheduled_is_made_anew(tmp_path: Path) -> None:
    make_database(database := tmp_path / "prefect.db")

    async def scenario() -> dict[str, bool]:
        db = provide_database_interface()
        async with db.session_context(begin_transaction=True) as session:
            session.add(flow := db.Flow(name="nightly_archive"))
            await session.flush()
            usual = {"flow_id": flow.id, "auto_scheduled": True, "state_type": "SCHEDULED"}
            for name, facts in RUNS.items():
                session.add(db.FlowRun(**{**usual, "name": name, "idempotency_key": str(uuid4()), **facts}))
        async with Docket(name="a", url="memory://") as docket:
            with going(docket) as watch, suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(watch), 1)
        async with db.session_context() as session:
            keys = (await session.execute(sa.select(db.FlowRun.name, db.FlowRun.idempotency_key))).tuples().all()
        await (await db.engine()).dispose()
        return {name: key is None for name, key in keys}

    with temporary_database_config(AioSqliteConfiguration(f"sqlite+aiosqlite:///{database}")):
        may_come_again = asyncio.run(scenario())
    assert may_come_again == {name: name == "begun too early" for name in RUNS if name != "by a clock ahead"}


@pytest.mark.parametrize(("offsets", "go_on"), [((YEAR.total_seconds(), 0), True), ((0, 3600, 3600), False)])
def test_services_go_on_where_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offsets: tuple[float, ...], go_on: bool
) -> None:
    make_database(database := tmp_path / "prefect.db")
    monkeypatch.setattr(server, "CLOCK_LOOK_SECONDS", 0.2)

    async def scenario() -> set[bool]:
        async with Docket(name="b", url="memory://") as docket:
            for service in get_enabled_perpetual_services():
                docket.register(service.function)
                await docket.add(service.function, datetime.now(UTC) + YEAR, service.function.__name__)()
            with going(docket, *offsets) as watch, suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(watch), 2)
            state = await docket.snapshot()
        await (await provide_database_interface().engine()).dispose()
        assert any(each.key == "schedule_deployments" for each in state.future)
        return {each.when < datetime.now(UTC) for each in state.future}

    with temporary_database_config(AioSqliteConfiguration(f"sqlite+aiosqlite:///{database}")):
        assert asyncio.run(scenario()) == {go_on}


@pytest.mark.peer
def test_nights_are_scheduled_after_a_start_by_a_right_clock(tmp_path: Path) -> None:
    """Of a server whose clock was a year ahead when it made the next three; its runs would have been in a year."""
    service = Service(tmp_path, ("NOBODY", free_port()), {"archive": {"enabled": True}}, warm=True)
    nightly = {"deployments": {"name": {"any_": ["nightly"]}}}

    def nights() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = service.prefect.post("/flow_runs/filter", json=nightly).json()
        return [run for run in told if datetime.fromisoformat(run["expected_start_time"]) < NOW + YEAR]

    service.start()
    try:
        service.when(lambda: len(nights()) == 3)
        Process.stop(service)  # whose clients stay open
        later = "strftime('%Y-%m-%d %H:%M:%f', {0}, '+1 year')"
        columns = ("created", "expected_start_time", "next_scheduled_start_time")
        with closing(sqlite3.connect(service.data_dir / "prefect" / "prefect.db")) as database, database:
            database.execute(f"UPDATE flow_run SET {', '.join(f'{each} = {later.format(each)}' for each in columns)}")
        service.start()
        service.when(lambda: len(nights()) == 3)
    finally:
        service.stop()


@pytest.mark.peer
@pytest.mark.parametrize("skew", [timedelta(hours=-1), timedelta(days=1)], ids=["behind", "ahead"])
def test_what_is_due_a_workers_clock_doesnt_decide(tmp_path: Path, skew: timedelta) -> None:
    """Each job would wait for as long as the clock of its machine is behind."""
    auth, port = "mkiso:password-of-a-test", free_port()
    settings = {
        "prefect": {"server_port": port, "api_auth_string": auth},
        "storage": {"data_dir": str(tmp_path / "data")},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
    environment = {"MKISO_CONFIG": str(tmp_path / "config.yaml")}
    with (
        Warm(["prefect"], tmp_path / "prefect.log", port=port, environment=environment) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=LONG, auth=tuple(auth.split(":"))) as prefect,  # type: ignore[arg-type]
    ):

        def told(address: str, **body: Any) -> Any:
            return until(
                lambda: (answer := prefect.post(address, json=body)).is_success and answer, told=server.log
            ).json()

        pool = told("/work_pools/", name="a_pool", type="mkiso")["name"]
        flow = told("/flows/", name="a_flow")["id"]
        deployment = told("/deployments/", name="a_deployment", flow_id=flow, work_pool_name=pool)["id"]
        runs = f"/deployments/{deployment}/create_flow_run"
        now = told(runs, state={"type": "SCHEDULED"})["id"]
        later = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
        told(runs, state={"type": "SCHEDULED", "state_details": {"scheduled_time": later}})
        asked = (datetime.now(UTC) + skew).isoformat()
        due = told(f"/work_pools/{pool}/get_scheduled_flow_runs", scheduled_before=asked)
    assert [each["flow_run"]["id"] for each in due] == [now]
