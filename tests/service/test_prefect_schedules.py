"""What is said of nights and housekeeping that don't come, on a real Prefect server."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.states import Completed, Crashed, Running

from mkiso.config.archive import Archive
from mkiso.config.settings import Prefect, Settings
from mkiso_service.prefect.environment import HOUSEKEEPING, NIGHTLY_ARCHIVE
from mkiso_service.prefect.orchestrator import PrefectOrchestrator
from mkiso_service.worker.deploy import ensure_deployments
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
            await client.set_flow_run_state(await begin(client, nightly, {}), Completed(), force=True)
            assert await prefect.why_schedules_rest() == ""
            await client.pause_deployment(nightly)
            off = settings.model_copy(update={"archive": Archive()})
            async with PrefectOrchestrator.connected(off) as without:
                assert await without.why_schedules_rest() == ""

    with asked_here(tmp_path) as server:
        asyncio.run(scenario(server.api_url, server.database))


async def begin(client: PrefectClient, deployment_id: UUID, parameters: dict[str, Any]) -> UUID:
    run = await client.create_flow_run_from_deployment(deployment_id, parameters=parameters)
    await client.set_flow_run_state(run.id, Running(), force=True)
    return run.id
