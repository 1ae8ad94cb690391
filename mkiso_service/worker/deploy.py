"""Ensures that Prefect has the work pool, its queues and the deployments of mkiso_service/worker/deployments.py."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import StateType, WorkQueue
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.schedules import Schedule
from prefect.states import Crashed

from mkiso.config.settings import Settings
from mkiso.errors import ConfigurationError, OrchestratorUnavailable
from mkiso_service.prefect.environment import ONE_AT_A_TIME, QUEUES, api_url, not_taken
from mkiso_service.worker.deployments import Deployment, deployments, parameter_form
from mkiso_service.worker.worker import WarmWorker

STRANDED = (
    "Somebody has removed its work queue in Prefect, so no worker finds it. Ask again; where a print had begun before, "
    "look at the robot first."
)


async def ensure_deployments(settings: Settings) -> None:
    """Create or update the work pool, its queues and the deployments, as far as they aren't as they should be. Raises
    ConfigurationError where Prefect doesn't take our password, OrchestratorUnavailable where it doesn't answer.
    """
    pool = settings.prefect.work_pool
    try:
        async with get_client() as client:
            await _ensure_pool(client, pool)
            there = await _deployments_there(client, settings)
            for wanted in deployments(settings.archive):
                if wanted.name not in there or _facts(there[wanted.name]) != _wanted_facts(wanted, pool):
                    await _deploy(client, wanted, pool)
    except httpx.HTTPError as error:
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 401:
            raise ConfigurationError(not_taken(settings.prefect)) from None
        raise OrchestratorUnavailable(
            f"Prefect's API at {api_url(settings.prefect)} can't be reached or doesn't answer "
            f"({type(error).__name__}). Is `mkiso serve` running, or the server at prefect.api_url?"
        ) from None


async def is_missing(settings: Settings) -> bool:
    """Whether a deployment, its queue, or the work pool isn't there (any more)."""
    async with get_client() as client:
        there = await _deployments_there(client, settings)
    return not {each.name for each in deployments(settings.archive)} <= there.keys()


async def end_stranded(settings: Settings) -> int:
    """End what waits without a work queue, since no worker finds it: somebody has removed its queue, which is made anew
    without its runs, or has retried a run of a removed one; how many there were.
    """
    async with get_client() as client:
        there = await _deployments_there(client, settings)
        ours = DeploymentFilter.model_validate({"id": {"any_": [each.id for each in there.values()]}})
        waiting = FlowRunFilter.model_validate({"state": {"type": {"any_": [StateType.SCHEDULED]}}})
        runs = await client.read_flow_runs(flow_run_filter=waiting, deployment_filter=ours) if there else []
        stranded = [run for run in runs if run.work_queue_id is None]
        for run in stranded:
            await client.set_flow_run_state(run.id, Crashed(message=STRANDED), force=True)
    return len(stranded)


async def _deployments_there(client: PrefectClient, settings: Settings) -> dict[str, DeploymentResponse]:
    """Our deployments in our work pool, by name."""
    ours = {"name": {"any_": [each.name for each in deployments(settings.archive)]}}
    there = await client.read_deployments(
        deployment_filter=DeploymentFilter.model_validate(ours),
        work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [settings.prefect.work_pool]}}),
    )
    return {each.name: each for each in there}


async def _ensure_pool(client: PrefectClient, pool: str) -> None:
    template = WarmWorker.get_default_base_job_template()
    try:
        if (await client.read_work_pool(pool)).base_job_template != template:
            await client.update_work_pool(pool, WorkPoolUpdate(base_job_template=template))
    except ObjectNotFound:
        wanted = WorkPoolCreate(name=pool, type=WarmWorker.type, base_job_template=template)
        with suppress(ObjectAlreadyExists):  # by another machine's worker, just now
            await client.create_work_pool(wanted)
    there = {queue.name: queue for queue in await client.read_work_queues(work_pool_name=pool)}
    for name, priority in QUEUES.items():
        queue = there.get(name) or await _queue(client, name, pool)
        limit = 1 if name in ONE_AT_A_TIME else queue.concurrency_limit
        if (queue.priority, queue.concurrency_limit) != (priority, limit):
            await client.update_work_queue(queue.id, priority=priority, concurrency_limit=limit)


async def _queue(client: PrefectClient, name: str, pool: str) -> WorkQueue:
    """A new one, or the one that another machine's worker has made just now."""
    try:
        return await client.create_work_queue(name, work_pool_name=pool)
    except ObjectAlreadyExists:
        return await client.read_work_queue_by_name(name, work_pool_name=pool)


def _facts(deployment: DeploymentResponse) -> tuple[Any, ...]:
    """What we say of a deployment, and what we want nobody to have said."""
    return (
        deployment.entrypoint,
        deployment.description,
        deployment.tags,
        deployment.parameters,
        [(each.active, each.schedule.model_dump(include={"cron", "timezone"})) for each in deployment.schedules],
        deployment.enforce_parameter_schema,
        deployment.parameter_openapi_schema,
        (deployment.work_pool_name, deployment.work_queue_name),
        bool(deployment.pull_steps or deployment.job_variables),
        deployment.storage_document_id or deployment.infrastructure_document_id,
    )


def _wanted_facts(wanted: Deployment, pool: str) -> tuple[Any, ...]:
    return (
        wanted.entrypoint,
        wanted.description,
        list(wanted.tags),
        {},
        [(True, {"cron": wanted.schedule[0], "timezone": wanted.schedule[1]})] if wanted.schedule else [],
        True,
        parameter_form(wanted.flow),
        (pool, wanted.queue),
        False,
        None,
    )


async def _deploy(client: PrefectClient, wanted: Deployment, pool: str) -> None:
    deployment = RunnerDeployment.from_entrypoint(
        wanted.entrypoint,
        name=wanted.name,
        description=wanted.description,
        tags=list(wanted.tags),
        schedules=[Schedule(cron=wanted.schedule[0], timezone=wanted.schedule[1])] if wanted.schedule else [],
        enforce_parameter_schema=True,
        work_pool_name=pool,
        work_queue_name=wanted.queue,
    )
    deployment_id = await deployment.apply()  # type: ignore[misc]
    await client.update_deployment(
        deployment_id, DeploymentUpdate(parameter_openapi_schema=parameter_form(wanted.flow))
    )
