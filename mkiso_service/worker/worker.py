"""The worker: a Prefect worker whose runs are forks of a warm process, and which events and ends wake before its next
poll would.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable
from typing import Any, Self
from uuid import UUID

import anyio
import anyio.abc
import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse, WorkerFlowRunResponse
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.states import Failed
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

from mkiso_service.worker import loops  # noqa: F401
from mkiso_service.worker.admission import NotAdmitted, admitted
from mkiso_service.worker.deployments import Deployment
from mkiso_service.worker.executor import FlowRunExecution
from mkiso_service.worker.infrastructure import Infrastructure, worker_label
from mkiso_service.worker.orphans import Orphans

log = logging.getLogger("mkiso.worker")

WAKING_EVENTS = ["prefect.flow-run.Scheduled", "prefect.flow-run.AwaitingRetry"]
ORPHAN_CHECK_SECONDS = 15


class WarmWorkerResult(BaseWorkerResult):
    """How a flow run's process ended."""


class RunConfiguration(BaseJobConfiguration):
    """What the worker has to know of a run: its deployment. No job variables, which count for nothing here."""

    deployment: DeploymentResponse | None = None

    @classmethod
    async def resolve_for_flow_run(cls, flow_run: FlowRun, *, client: PrefectClient, **others: Any) -> Self:
        """As Prefect's own, without its questions for the flow and what its templates name."""
        deployment = await client.read_deployment(flow_run.deployment_id) if flow_run.deployment_id else None
        configuration = cls(deployment=deployment)
        configuration._related_objects = {"deployment": deployment, "flow-run": flow_run}  # of the worker's events
        return configuration


class WarmWorker(BaseWorker[RunConfiguration, BaseVariables, WarmWorkerResult]):
    """Runs the flows of mkiso's `own` deployments, and no others. `limit` is how many at a time on this machine."""

    type = "mkiso"
    job_configuration = RunConfiguration
    _description = "Runs mkiso's jobs in forks of a warm process."
    _display_name = "mkiso"

    def __init__(self, execution: FlowRunExecution, own: Iterable[Deployment], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._own = {deployment.name: deployment for deployment in own}
        self._execution = execution
        self._fetching = anyio.Lock()
        self._run_ended = anyio.Event()
        self._run_broken = anyio.Event()
        self._stopping = False

    async def run(
        self,
        flow_run: FlowRun,
        configuration: RunConfiguration,
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> WarmWorkerResult:
        """Run an admitted flow run to its end in a process of its own."""
        status = task_status or anyio.TASK_STATUS_IGNORED
        try:
            deployment = admitted(flow_run, configuration.deployment, self._own, self.work_pool.name)
            ended = await self._execution.execute(flow_run, deployment, status)
        except NotAdmitted as refused:
            await self._refuse(flow_run, refused)
            status.started("refused")
            return WarmWorkerResult(status_code=0, identifier="refused")
        finally:
            # whoever waits for it runs after our caller has given the place free, since nothing is awaited until then
            self._run_ended.set()
        if ended is None or ended[1] is None:
            raise RuntimeError("the flow run's process could not be started")
        process, exit_code = ended
        if exit_code != 0:
            self._run_broken.set()
        # A crash has been reported by the executor; a second report from here would undo the operator's retry that came
        # between.
        return WarmWorkerResult(status_code=0, identifier=worker_label(process.pid))

    async def _refuse(self, flow_run: FlowRun, refused: NotAdmitted) -> None:
        """Forced, so that no retries of the run's own bring it back."""
        log.error("Run %s isn't taken. %s", flow_run.id, refused.words)
        await self.client.set_flow_run_state(flow_run.id, Failed(name="Refused", message=refused.words), force=True)

    async def _submit_run(self, flow_run: FlowRun) -> None:
        """As Prefect's own, of which an exception ends the worker, and with it all of its jobs."""
        try:
            await super()._submit_run(flow_run)
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            log.warning(
                "Run %s doesn't begin, since Prefect can't be asked (%s): it is fetched again.",
                flow_run.id,
                type(error).__name__,
            )
            self._submitting_flow_run_ids.discard(flow_run.id)
            self._release_limit_slot(flow_run.id)

    async def _propose_submitting_state(self, flow_run: FlowRun) -> None:
        """Not told: a run is Pending until it is Running, since a fork takes no time that anybody watches, and telling
        takes 0.1 s.
        """

    async def _give_worker_labels_to_flow_run(self, flow_run_id: UUID) -> None:
        """Not given: a run says where its process is."""

    async def _mark_flow_run_as_cancelled(self, flow_run: FlowRun, state_updates: dict[str, Any] | None = None) -> None:
        """As Prefect's own, which keeps the place for ever of a run whose deployment went after it was fetched."""
        await super()._mark_flow_run_as_cancelled(flow_run, state_updates)
        if flow_run.id not in self._submitting_flow_run_ids:
            self._release_limit_slot(flow_run.id)

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """Without job variables: nobody is offered what would be refused, and Prefect checks none for each run."""
        return {"job_configuration": {"env": {}}, "variables": {"type": "object", "properties": {}}}

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Fetch what is due, unless the worker is about to end or has no place free: an end wakes it then, and Prefect
        isn't asked by each full machine of a group for each job. Polls and events don't fetch at the same time.
        """
        async with self._fetching:
            return [] if self._stopping or self._is_full() else await super().get_and_submit_flow_runs()

    def _is_full(self) -> bool:
        return self.limiter.available_tokens < 1

    async def _submit_scheduled_flow_runs(self, flow_run_response: list[WorkerFlowRunResponse]) -> list[FlowRun]:
        """Leave out those whose last process still runs, whatever state somebody has given them: its end wakes us."""
        return await super()._submit_scheduled_flow_runs(
            [found for found in flow_run_response if not self._still_runs(found.flow_run)]
        )

    def _still_runs(self, flow_run: FlowRun) -> bool:
        process = Infrastructure.parse(flow_run.infrastructure_pid)
        is_here = process is not None and process.host == socket.gethostname() and process.lives()
        return is_here or flow_run.id in self.limiter.statistics().borrowers

    async def wake_by_ends(self) -> None:
        """Fetch as soon as a run has ended: what waits for its place announced itself when there was none."""
        while True:
            await self._run_ended.wait()
            self._run_ended = anyio.Event()
            try:
                await self.get_and_submit_flow_runs()
            except Exception as error:
                log.warning("Fetching the next run failed (%s); the next poll finds it.", type(error).__name__)

    async def wake_by_events(self) -> None:
        """Fetch as soon as a run is scheduled; where the subscription breaks, the poll goes on alone until it
        is back.
        """
        waking, is_told = EventFilter(event=EventNameFilter(name=WAKING_EVENTS)), False
        while True:
            try:
                async with get_events_subscriber(filter=waking) as subscriber:
                    is_told = False
                    async for _ in subscriber:
                        if self.is_setup:
                            await self.get_and_submit_flow_runs()
            except Exception as error:
                if not is_told:
                    log.warning(
                        "The subscription to Prefect's events broke (%s); runs are found by polling until it is back.",
                        type(error).__name__,
                    )
                is_told = True
            await anyio.sleep(2)

    async def watch_orphans(self, orphans: Orphans) -> None:
        """Look regularly for runs whose process is gone (Prefect itself leaves them Running for ever)."""
        while True:
            try:
                own = self._execution.running()
                if self.is_setup and await orphans.look(self.client, own):
                    self._run_broken.set()
            except Exception as error:
                log.warning("Looking for runs without a process failed (%s); it is tried again.", type(error).__name__)
            await anyio.sleep(ORPHAN_CHECK_SECONDS)

    async def run_broken(self, timeout_seconds: float) -> None:
        """Wait until the process of a run has ended, or was found to have, before the run did; no longer than this."""
        with anyio.move_on_after(timeout_seconds):
            await self._run_broken.wait()
        self._run_broken = anyio.Event()

    async def finish_or_end_runs(self, grace_seconds: float) -> None:
        """Start nothing more and let running jobs finish within the grace time; then end their processes."""
        self._stopping = True
        with anyio.move_on_after(grace_seconds):
            while self._execution.running():
                await anyio.sleep(0.2)
        async with anyio.create_task_group() as task_group:
            for flow_run_id in self._execution.running():
                log.warning(
                    "Job %s is still running after %s s: it is ended and can be retried.", flow_run_id, grace_seconds
                )
                task_group.start_soon(self._execution.kill, flow_run_id, 5)
