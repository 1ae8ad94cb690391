"""Old runs go from Prefect: mkiso's own, and nobody else's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.states import Completed, Failed, Running

from mkiso.config.archive import Archive
from mkiso_service.worker.deployments import deployments
from tasks.cleaning import OURS, remove_runs
from tests.webhook.prefect_server import PrefectServer, asked_here, deploy

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with asked_here(tmp_path_factory.mktemp("prefect")) as server:
        deploy(server.api_url)
        yield server


async def _ended(client: PrefectClient, count: int, tags: list[str]) -> list[UUID]:
    deployment = await client.read_deployment_by_name("make_disc/download")
    runs = [
        (await client.create_flow_run_from_deployment(deployment.id, tags=tags, parameters={"a": number})).id
        for number in range(count)
    ]
    for run in runs:
        await client.set_flow_run_state(run, Running(), force=True)
        await client.set_flow_run_state(run, Failed() if run == runs[0] else Completed(), force=True)
    return runs


def ended(count: int, tags: list[str]) -> list[UUID]:
    """Runs that have just ended."""

    async def scenario() -> list[UUID]:
        async with get_client() as client:
            return await _ended(client, count, tags)

    return asyncio.run(scenario())


def there(runs: list[UUID]) -> list[bool]:
    """Which of these runs Prefect has."""
    with get_client(sync_client=True) as client:
        known = {run.id for run in client.read_flow_runs(limit=200)}
    return [run in known for run in runs]


def test_another_team_s_runs_stay(server: PrefectServer) -> None:
    """A site may have a Prefect server of its own (prefect.api_url)."""
    ours, others = ended(2, [OURS, "download"]), ended(2, ["reports"])
    assert remove_runs(datetime.now(UTC) - timedelta(days=1)) == 0
    assert remove_runs(datetime.now(UTC) + timedelta(seconds=5)) == 2
    assert (there(ours), there(others)) == ([False] * 2, [True] * 2)


def test_every_run_of_ours_has_the_tag_by_which_it_is_known() -> None:
    assert all(OURS in each.tags for each in deployments(Archive(enabled=True)))


def test_two_machines_that_remove_at_once_both_come_to_an_end(server: PrefectServer) -> None:
    runs, begin = ended(30, [OURS]), threading.Barrier(2)

    def remove() -> int:
        begin.wait()
        return remove_runs(datetime.now(UTC) + timedelta(seconds=5))

    with ThreadPoolExecutor(2) as machines:  # Prefect's settings are of a context
        removed = [machines.submit(copy_context().run, remove) for _ in range(2)]
    assert (sum(each.result() for each in removed), there(runs)) == (30, [False] * 30)
