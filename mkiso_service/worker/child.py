"""What a flow's process is: a fork of a warm process in which Prefect's engine and the flows are imported already.

The imports below are what is warm: `import prefect` alone takes over a second in a new interpreter. Nothing here may
start a thread, open a connection or read the configuration, since all of that would be shared by every run.
"""

from __future__ import annotations

import gc
import logging
import os
import signal

import anyio._backends._asyncio  # noqa: F401
import prefect.events.clients
import prefect.results
import prefect.runner.storage
import prefect.task_engine
import prefect.task_runners
import prefect.utilities.visualization
from prefect._internal.control_listener import configure_from_env
from prefect.artifacts import LinkArtifact, ProgressArtifact, TableArtifact
from prefect.client.schemas.actions import ArtifactCreate, FlowRunUpdate, LogCreate
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.engine import handle_engine_signals
from prefect.events.filters import EventFilter
from prefect.events.related import RESOURCE_CACHE
from prefect.events.schemas.events import Event
from prefect.flow_engine import run_flow
from prefect.types._datetime import now

import flows.archive
import flows.download
import flows.housekeeping
import flows.inbox
import flows.print  # noqa: F401
from mkiso.config.in_force import use
from mkiso.config.settings import Settings
from mkiso.errors import MkisoError
from mkiso.media.pages import compile_templates
from mkiso.study.question import run_name
from mkiso_service.ending import Root, end_with, jobs_grace_seconds
from mkiso_service.log_lines import frames_of, name_job
from mkiso_service.prefect.environment import REQUEST_ID_LABEL
from mkiso_service.process_title import name_process
from mkiso_service.worker import loops  # noqa: F401
from mkiso_service.worker.deployments import Deployment

# pydantic completes a model when it is first used, in 5 ms, and Jinja compiles a template then: here it is done once
# for every run.
for model in (
    ArtifactCreate,
    Artifact,
    Event,
    EventFilter,
    FlowRun,
    FlowRunUpdate,
    LinkArtifact,
    LogCreate,
    ProgressArtifact,
    TableArtifact,
):
    model.model_rebuild()
compile_templates()

_MANY = 20_000
"""Of new objects, until somebody looks for garbage among them: a job makes thousands for each image and little garbage,
and ends soon."""


async def _no_storage_block() -> None:
    """No result is stored, and the server isn't asked three times a run where it would have it."""


prefect.results._aread_server_default_result_storage_block_id = _no_storage_block
prefect.results._read_server_default_result_storage_block_id = lambda: None


def run_flow_run(
    settings: Settings, environment: dict[str, str], deployment: Deployment, flow_run: FlowRun, root: Root
) -> None:
    """Run one flow run, as the worker has just fetched and admitted it, as `python -m prefect.engine` does, but for two
    things: our own deployment says which flow it is and not Prefect's, and its log holds words and no traceback.

    `settings` are the worker's own, and so is `root`, which it outlives by the grace time of jobs at most.
    """
    use(settings)
    name_process("mkiso job")
    end_with(root, jobs_grace_seconds(settings.server))
    gc.set_threshold(_MANY)
    os.setsid()  # a group of its own, so that the worker's end isn't its end
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.update(environment)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_in_words)
    configure_from_env()
    relate_to_nothing(flow_run, settings.prefect.work_pool)
    with handle_engine_signals(flow_run.id):
        name_job(str(flow_run.id), flow_run.name, str(flow_run.labels.get(REQUEST_ID_LABEL, "")))
        flow = deployment.flow
        if deployment.kind and flow_run.name == run_name(deployment.kind, flow_run.parameters):
            flow.flow_run_name = None  # the webhook has called it so already, and Prefect needn't be told again
        run_flow(flow, flow_run=flow_run, return_type="state")


def relate_to_nothing(flow_run: FlowRun, pool: str) -> None:
    """Have the events of a run's steps name their run alone: for its flow, deployment, queue and pool Prefect would ask
    its server four questions a run.
    """
    whose = {
        "flow": flow_run.flow_id,
        "deployment": flow_run.deployment_id,
        "work-queue": flow_run.work_queue_id,
        "work-pool": pool,
    }
    for kind, own in whose.items():
        RESOURCE_CACHE[f"{kind}.{own}"] = ({"kind": kind, "object": None}, now("UTC"))  # type: ignore[assignment]


def _in_words(record: logging.LogRecord) -> bool:
    """An error of mkiso is told in its own words, once; of any other one its type and place, since its text may quote a
    patient's data.
    """
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        told = (
            error.line if isinstance(error, MkisoError) else f"{type(error).__name__} at {', '.join(frames_of(error))}"
        )
        record.msg, record.args, record.exc_info = told, (), None
    if record.name == "prefect.task_runs" and record.getMessage() == "Finished in state Completed()":
        record.msg, record.args = f"{record.task_run_name}: done", ()  # type: ignore[attr-defined]
    return not (record.name == "prefect.task_runs" and record.getMessage().startswith("Finished in state Failed"))
