"""The work pool and the deployments on a real Prefect server: made, left as they are, and made right again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolUpdate
from prefect.states import AwaitingRetry, Failed

from mkiso.config.archive import Archive
from mkiso.config.settings import Prefect, Settings
from mkiso_service.prefect.environment import QUEUES
from mkiso_service.worker.deploy import end_stranded, ensure_deployments, is_missing
from tests.webhook.prefect_server import AUTH, asked_here

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with asked_here(tmp_path_factory.mktemp("prefect")) as server:
        yield Settings(prefect=Prefect(api_url=server.api_url, api_auth_string=AUTH), archive=Archive(enabled=True))


async def there() -> dict[str, Any]:
    """What Prefect has of us, with the time of each one's last change."""
    async with get_client() as client:
        pool = await client.read_work_pool("mkiso")
        queues = {
            queue.name: (queue.priority, queue.concurrency_limit, queue.updated)
            for queue in await client.read_work_queues(work_pool_name="mkiso")
            if queue.name in QUEUES
        }
        deployments = {each.name: (each.id, each.updated, each.schedules) for each in await client.read_deployments()}
    return {"pool": (pool.id, pool.base_job_template), "queues": queues, "deployments": deployments}


def test_a_second_time_changes_nothing(settings: Settings) -> None:
    async def scenario() -> None:
        await ensure_deployments(settings)
        made = await there()
        assert made["deployments"].keys() == {"download", "print", "inbox", "nightly", "housekeeping"}
        assert {name: facts[:2] for name, facts in made["queues"].items()} == {
            "downloads": (1, None),
            "prints": (2, None),
            "inboxes": (3, None),
            "archives": (4, 1),
            "housekeeping": (5, None),
        }
        await ensure_deployments(settings)
        assert await there() == made
        assert not await is_missing(settings)

    asyncio.run(scenario())


def test_a_queue_that_somebody_makes_meanwhile_is_taken(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def none_yet(self: PrefectClient, **_: Any) -> list[Any]:
        return []

    async def scenario() -> None:
        await ensure_deployments(settings)
        made = await there()
        with monkeypatch.context() as patch:
            patch.setattr(PrefectClient, "read_work_queues", none_yet)
            await ensure_deployments(settings)
        assert await there() == made

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "change",
    [
        DeploymentUpdate(entrypoint="flows.print.print_disc"),
        DeploymentUpdate(description="another"),
        DeploymentUpdate(tags=["another"]),
        DeploymentUpdate(parameters={"accession_numbers": ["A1"]}),
        DeploymentUpdate(parameter_openapi_schema={}),
        DeploymentUpdate(enforce_parameter_schema=False),
        DeploymentUpdate(pull_steps=[{"prefect.deployments.steps.run_shell_script": {"script": "true"}}]),
        DeploymentUpdate(job_variables={"env": {"A": "B"}}),
        DeploymentUpdate(work_queue_name="prints"),
    ],
    ids=lambda change: next(iter(change.model_fields_set)),
)
def test_what_somebody_has_changed_is_made_right_and_nothing_else(settings: Settings, change: DeploymentUpdate) -> None:
    async def scenario() -> None:
        await ensure_deployments(settings)
        before = await there()
        (field,) = change.model_fields_set
        async with get_client() as client:
            own = await client.read_deployment_by_name("make_disc/download")
            await client.update_deployment(own.id, change)
            assert getattr(await client.read_deployment(own.id), field) != getattr(own, field)
            await ensure_deployments(settings)
            assert getattr(await client.read_deployment(own.id), field) == getattr(own, field)
        after = await there()
        for name in ("print", "inbox", "nightly", "housekeeping"):
            assert after["deployments"][name] == before["deployments"][name]

    asyncio.run(scenario())


def test_schedule_pool_and_queues_are_made_right(settings: Settings) -> None:
    async def scenario() -> None:
        await ensure_deployments(settings)
        before = await there()
        async with get_client() as client:
            own = await client.read_deployment_by_name("nightly_archive/nightly")
            await client.delete_deployment_schedule(own.id, own.schedules[0].id)
            template = (await client.read_work_pool("mkiso")).base_job_template
            template["variables"]["description"] = "another"
            await client.update_work_pool("mkiso", WorkPoolUpdate(base_job_template=template))
            queue = await client.read_work_queue_by_name("archives", work_pool_name="mkiso")
            await client.update_work_queue(queue.id, priority=7, concurrency_limit=5)
        await ensure_deployments(settings)
        after = await there()
        assert after["pool"] == before["pool"]
        assert after["queues"]["archives"][:2] == (4, 1)
        ((_, _, (schedule,)),) = [after["deployments"]["nightly"]]
        assert schedule.active and schedule.schedule == before["deployments"]["nightly"][2][0].schedule
        await _remove("print_disc/print")
        assert await is_missing(settings)

    asyncio.run(scenario())


def test_who_waits_in_a_queue_that_is_removed_is_told(settings: Settings) -> None:
    async def scenario() -> None:
        await ensure_deployments(settings)
        async with get_client() as client:
            own = await client.read_deployment_by_name("make_disc/download")
            printing = await client.read_deployment_by_name("print_disc/print")
            flow_id = await client.create_flow_from_name("others")
            others = await client.create_deployment(flow_id=flow_id, name="download")  # without a pool: nobody's of us
            asked = {"accession_numbers": ["A1"]}
            waits, ended = [await client.create_flow_run_from_deployment(own.id, parameters=asked) for _ in range(2)]
            elsewhere = await client.create_flow_run_from_deployment(printing.id, parameters=asked)
            foreign = await client.create_flow_run_from_deployment(others)
            await client.set_flow_run_state(ended.id, Failed(), force=True)
            assert await end_stranded(settings) == 0
            queue = await client.read_work_queue_by_name("downloads", work_pool_name="mkiso")
            await client.delete_work_queue_by_id(queue.id)
            assert await is_missing(settings)
            await ensure_deployments(settings)
            assert await end_stranded(settings) == 1
            state = (await client.read_flow_run(waits.id)).state
            assert state and state.is_crashed() and "removed its work queue" in (state.message or "")
            for run in (elsewhere, foreign):
                state = (await client.read_flow_run(run.id)).state
                assert state and state.is_scheduled()
            await client.set_flow_run_state(ended.id, AwaitingRetry(), force=True)  # as Retry in the UI does
            assert await end_stranded(settings) == 1
            assert await end_stranded(settings) == 0

    asyncio.run(scenario())


async def _remove(name: str) -> None:
    async with get_client() as client:
        await client.delete_deployment((await client.read_deployment_by_name(name)).id)
