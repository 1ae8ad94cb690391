"""Ensures that Prefect has the work pool, its queues and the deployments of mkiso_service/deployments.py."""

from __future__ import annotations

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate, WorkQueueUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName, WorkPoolFilter, WorkPoolFilterName
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.schedules import Schedule

from mkiso.config.settings import Settings
from mkiso.errors import ConfigurationError
from mkiso_service.deployments import Deployment, deployments, parameter_form
from mkiso_service.orchestration import NOT_TAKEN, ONE_AT_A_TIME, QUEUES, api_url
from mkiso_service.worker.worker import WarmWorker


async def ensure_deployments(settings: Settings) -> None:
    """Create or update the work pool, its queues and the deployments; running it again changes nothing. Raises
    ConfigurationError where Prefect doesn't take our password.
    """
    async with get_client() as client:
        try:
            await _ensure_pool(client, settings.prefect.work_pool)
        except PrefectHTTPStatusError as error:
            if error.response.status_code == 401:
                raise ConfigurationError(f"{api_url(settings.prefect)}: {NOT_TAKEN}") from None
            raise
        for wanted in deployments(settings):
            await _deploy(client, wanted, settings.prefect.work_pool)


async def is_missing(settings: Settings) -> bool:
    """Whether a deployment, its queue, or the work pool isn't there (any more)."""
    names = DeploymentFilterName(any_=[each.name for each in deployments(settings)])
    pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[settings.prefect.work_pool]))
    async with get_client() as client:
        there = await client.read_deployments(deployment_filter=DeploymentFilter(name=names), work_pool_filter=pool)
    return not {each.name for each in deployments(settings)} <= {each.name for each in there}


async def _ensure_pool(client: PrefectClient, pool: str) -> None:
    template = WarmWorker.get_default_base_job_template()
    try:
        await client.create_work_pool(WorkPoolCreate(name=pool, type=WarmWorker.type, base_job_template=template))
    except ObjectAlreadyExists:
        await client.update_work_pool(pool, WorkPoolUpdate(base_job_template=template))
    for name, priority in QUEUES.items():
        try:
            queue = await client.read_work_queue_by_name(name, work_pool_name=pool)
        except ObjectNotFound:
            queue = await client.create_work_queue(name, work_pool_name=pool)
        wanted = WorkQueueUpdate(priority=priority, **({"concurrency_limit": 1} if name in ONE_AT_A_TIME else {}))
        changed = {
            key: value for key, value in wanted.model_dump(exclude_unset=True).items() if getattr(queue, key) != value
        }
        if changed:
            await client.update_work_queue(queue.id, **changed)


async def _deploy(client: PrefectClient, wanted: Deployment, pool: str) -> None:
    deployment = RunnerDeployment.from_entrypoint(
        wanted.entrypoint,
        name=wanted.name,
        description=wanted.description,
        tags=list(wanted.tags),
        parameters=wanted.parameters,
        schedules=[Schedule(cron=wanted.schedule[0], timezone=wanted.schedule[1])] if wanted.schedule else [],
        enforce_parameter_schema=True,
        work_pool_name=pool,
        work_queue_name=wanted.queue,
    )
    deployment_id = await deployment.apply()  # type: ignore[misc]
    await client.update_deployment(
        deployment_id, DeploymentUpdate(parameter_openapi_schema=parameter_form(wanted.flow))
    )
