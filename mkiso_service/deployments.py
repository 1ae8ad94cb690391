"""The deployments: what an operator finds in the Prefect UI, by what name, in which queue, on what schedule.

`deployments/prefect.yaml` says the same for `prefect deploy`; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, get_type_hints

from prefect import Flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate, WorkQueueUpdate
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.schedules import Schedule
from pydantic.fields import FieldInfo

from mkiso.config.settings import Settings
from mkiso_service.orchestration import ONE_AT_A_TIME, QUEUES
from mkiso_service.worker.worker import WarmWorker


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment: the flow's dotted path, its name, queue, words for the operator, and its schedule (a cron line
    and a time zone) if any.
    """

    entrypoint: str
    name: str
    queue: str
    description: str
    tags: tuple[str, ...] = ()
    schedule: tuple[str, str] | None = None
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def flow(self) -> Flow[Any, Any]:
        module, _, name = self.entrypoint.rpartition(".")
        flow: Flow[Any, Any] = getattr(import_module(module), name)
        return flow


def parameter_form(flow: Flow[Any, Any]) -> dict[str, Any]:
    """The JSON schema of Custom run's form: Prefect's own, with the titles of flows/parameters.py for names, and
    nothing beside what is listed.
    """
    schema = flow.parameters.model_dump_for_openapi()
    for name, annotation in get_type_hints(flow.fn, include_extras=True).items():
        for note in getattr(annotation, "__metadata__", ()):
            if isinstance(note, FieldInfo) and note.title:
                schema["properties"][name]["title"] = note.title
    return {**schema, "additionalProperties": False}


def deployments(settings: Settings) -> tuple[Deployment, ...]:
    """Every deployment of mkiso under this configuration."""
    archive = settings.archive
    return (
        Deployment(
            "flows.download.make_disc",
            "download",
            "downloads",
            "Makes a disc image of one patient's studies for download.",
            ("mkiso", "download"),
        ),
        Deployment(
            "flows.print.print_disc",
            "print",
            "prints",
            "Has a disc of one patient's studies made by a disc publisher.",
            ("mkiso", "print"),
        ),
        Deployment(
            "flows.archive.nightly_archive",
            "nightly",
            "archives",
            "Archives the studies of the days before; without dates, what the schedule owes.",
            ("mkiso", "archive"),
            (archive.schedule, archive.timezone) if archive.enabled else None,
        ),
        Deployment(
            "flows.housekeeping.keep_house",
            "housekeeping",
            "housekeeping",
            "Removes discs, failed jobs and runs that are older than they are kept.",
            ("mkiso", "housekeeping"),
            ("17 * * * *", "UTC"),
        ),
    )


async def bring_about(settings: Settings) -> None:
    """Create or update the work pool, its queues and the deployments; running it again changes nothing."""
    async with get_client() as client:
        await _bring_about_pool(client, settings.prefect.work_pool)
        for wanted in deployments(settings):
            await _deploy(client, wanted, settings.prefect.work_pool)


async def _bring_about_pool(client: PrefectClient, pool: str) -> None:
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
        # Without it a run's process asks Prefect which flow it is to run, for 0.05 s.
        job_variables={"env": {"PREFECT__FLOW_ENTRYPOINT": wanted.entrypoint}},
    )
    deployment_id = await deployment.apply()  # type: ignore[misc]
    await client.update_deployment(
        deployment_id, DeploymentUpdate(parameter_openapi_schema=parameter_form(wanted.flow))
    )
