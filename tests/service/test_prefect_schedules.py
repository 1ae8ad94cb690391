"""What is said of nights and housekeeping that don't come, on a real Prefect server."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import State
from prefect.server.schemas.schedules import CronSchedule
from prefect.states import Completed, Crashed, Failed, Running, Scheduled

from mkiso.archive.days import owe
from mkiso.archive.ledger import Ledger
from mkiso.archive.schedule import last_fire
from mkiso.config.archive import Archive
from mkiso.config.settings import Prefect, Settings
from mkiso.config.storage import Storage
from mkiso_service.prefect.environment import HOUSEKEEPING, NIGHTLY_ARCHIVE
from mkiso_service.prefect.orchestrator import PrefectOrchestrator
from mkiso_service.worker import missed_night
from mkiso_service.worker.deploy import ensure_deployments
from mkiso_service.worker.missed_night import catch_up_regularly, is_unbegun
from peers.patience import LONG
from tests.webhook.prefect_server import AUTH, asked_here

pytestmark = pytest.mark.peer


def test_nights_and_housekeeping_that_do_not_come_are_named(tmp_path: Path) -> None:
    async def scenario(api_url: str, database: Path) -> None:
        archive = Archive(enabled=True, schedule="0 2 * * *")
        settings = Settings(prefect=Prefect(api_url=api_url, api_auth_string=AUTH), archive=archive)
        await ensure_deployments(settings)
        async with PrefectOrchestrator.connected(settings) as prefect, get_client() as client:
            nightly = (await client.read_deployment_by_name(NIGHTLY_ARCHIVE)).id
            keeping = await client.read_deployment_by_name(HOUSEKEEPING)
            assert await prefect.why_schedules_rest() == ""

            await client.pause_deployment(nightly)
            words = "The archive's nights are paused in Prefect: resume the schedule of the deployment nightly there."
            assert await prefect.why_schedules_rest() == words
            await client.resume_deployment(nightly)
            schedule = keeping.schedules[0].id
            await client.update_deployment_schedule(keeping.id, schedule, active=False)
            assert "Housekeeping is paused" in await prefect.why_schedules_rest()
            await client.delete_deployment_schedule(keeping.id, schedule)
            assert "run `mkiso deploy`" in await prefect.why_schedules_rest()
            await ensure_deployments(settings)
            assert await prefect.why_schedules_rest() == ""

            with closing(sqlite3.connect(database)) as opened, opened:
                opened.execute("UPDATE deployment_schedule SET created = datetime(created, '-3 days')")
            assert "nights are overdue" in await prefect.why_schedules_rest()
            by_hand = await begin(client, nightly, {"date_from": "2026-01-02"})
            await client.set_flow_run_state(by_hand, Completed(), force=True)
            assert "nights are overdue" in await prefect.why_schedules_rest()
            night = await begin(client, nightly, {})
            assert await prefect.why_schedules_rest() == ""
            await client.set_flow_run_state(night, Crashed(), force=True)
            assert "nights are overdue" in await prefect.why_schedules_rest()
            await client.set_flow_run_state(await begin(client, nightly, {}), Failed(), force=True)
            assert "The archive's last night failed" in await prefect.why_schedules_rest()
            by_hand = await begin(client, nightly, {"date_from": "2026-01-02"})
            await client.set_flow_run_state(by_hand, Completed(), force=True)
            assert "The archive's last night failed" in await prefect.why_schedules_rest()
            again = await begin(client, nightly, {})
            assert "The archive's last night failed" in await prefect.why_schedules_rest()
            await client.set_flow_run_state(again, Completed(), force=True)
            assert await prefect.why_schedules_rest() == ""
            await client.set_flow_run_state(await begin(client, nightly, {}), Crashed(), force=True)
            assert "The archive's last night failed" in await prefect.why_schedules_rest()
            await client.set_flow_run_state(await begin(client, nightly, {}), Completed(), force=True)
            assert await prefect.why_schedules_rest() == ""
            await client.pause_deployment(nightly)
            off = settings.model_copy(update={"archive": Archive()})
            async with PrefectOrchestrator.connected(off) as without:
                assert await without.why_schedules_rest() == ""

    with asked_here(tmp_path) as server:
        asyncio.run(scenario(server.api_url, server.database))


def test_prefect_begins_a_night_that_the_clocks_skip_before_the_gap() -> None:
    """Why the worker looks for nights that no run has begun. From Python 3.13 on Prefect reckons with another library,
    and begins it after the gap.
    """

    async def begun(zone: str, schedule: str, day: datetime) -> datetime:
        [night] = await CronSchedule(cron=schedule, timezone=zone).get_dates(n=1, start=day)
        return night

    for zone, schedule, day in (
        ("Europe/Berlin", "0 2 * * *", datetime(2026, 3, 28, 12, tzinfo=UTC)),
        ("Africa/Cairo", "30 0 * * *", datetime(2026, 4, 23, 12, tzinfo=UTC)),
    ):
        night = asyncio.run(begun(zone, schedule, day))
        if sys.version_info >= (3, 13):
            assert day < last_fire(schedule, zone, night) <= night
            continue
        assert last_fire(schedule, zone, night) < day < night
        assert last_fire(schedule, zone, night + timedelta(hours=1)) > night
        assert last_fire(schedule, zone, night + timedelta(hours=1)).date() == day.date() + timedelta(days=1)


def test_a_night_that_no_run_has_begun_is_caught_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(api_url: str) -> None:
        now = datetime.now(UTC)
        night = (now - timedelta(minutes=40)).replace(second=0, microsecond=0)
        archive = Archive(enabled=True, schedule=f"{night.minute} {night.hour} * * *")
        settings = Settings(
            prefect=Prefect(api_url=api_url, api_auth_string=AUTH),
            storage=Storage(data_dir=tmp_path),
            archive=archive,
        )
        await ensure_deployments(settings)
        first = night.date() - timedelta(days=3)
        with Ledger.open(settings) as ledger:
            owe(ledger, first, now.date())
        async with get_client() as client:
            nightly = (await client.read_deployment_by_name(NIGHTLY_ARCHIVE)).id
            await ended(client, nightly, night - timedelta(hours=1), {})
            await ended(client, nightly, night + timedelta(minutes=5), {"date_from": "2026-01-02"})
            assert await is_unbegun(archive, now)
            await client.pause_deployment(nightly)
            assert not await is_unbegun(archive, now)
            await client.resume_deployment(nightly)

            monkeypatch.setattr(missed_night, "LOOK_SECONDS", 0.1)
            looking = asyncio.create_task(catch_up_regularly(settings))
            try:
                async with asyncio.timeout(LONG):
                    while await is_unbegun(archive, now):
                        await asyncio.sleep(0.1)
            finally:
                looking.cancel()
            wanted = FlowRunFilter.model_validate(
                {"expected_start_time": {"after_": night, "before_": datetime.now(UTC)}}
            )
            caught_up = [run for run in await client.read_flow_runs(flow_run_filter=wanted) if not run.parameters]
            assert [run.idempotency_key for run in caught_up] == [f"caught-up-{night:%Y-%m-%d}"]

    with asked_here(tmp_path) as server:
        asyncio.run(scenario(server.api_url))


async def ended(client: PrefectClient, deployment_id: UUID, at: datetime, parameters: dict[str, Any]) -> None:
    state: State = Scheduled(scheduled_time=at)
    run = await client.create_flow_run_from_deployment(deployment_id, parameters=parameters, state=state)
    await client.set_flow_run_state(run.id, Completed(), force=True)


async def begin(client: PrefectClient, deployment_id: UUID, parameters: dict[str, Any]) -> UUID:
    run = await client.create_flow_run_from_deployment(deployment_id, parameters=parameters)
    await client.set_flow_run_state(run.id, Running(), force=True)
    return run.id
