"""The webhook's only door to Prefect: ask a question and get a job, learn where a job stands, wait for its end. A job's
id is its flow run's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol
from uuid import UUID
from weakref import WeakValueDictionary

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.clients import PrefectEventSubscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

from mkiso.config.settings import Settings
from mkiso.errors import JobNotFound, OrchestratorUnavailable, QueueFull
from mkiso.storage.report import read_report
from mkiso_service.orchestration import NOT_TAKEN, REQUEST_ID_LABEL, api_url
from mkiso_service.webhook.question import Question

Standing = Literal["waiting", "running", "completed", "failed", "crashed", "cancelled"]
ENDED: frozenset[Standing] = frozenset(("completed", "failed", "crashed", "cancelled"))

DEPLOYMENTS = {"download": "make_disc/download", "print": "print_disc/print"}
RUN_NAMES = {"download": "Disc", "print": "Print"}
"""As the flows name their runs once they have begun."""

JOINABLE = (
    StateType.SCHEDULED,
    StateType.PENDING,
    StateType.RUNNING,
    StateType.PAUSED,
)  # AwaitingRetry is a kind of Scheduled
QUEUED = (StateType.SCHEDULED, StateType.PENDING)
FINAL = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
_STANDINGS: dict[StateType, Standing] = {
    StateType.SCHEDULED: "waiting",
    StateType.PENDING: "waiting",
    StateType.COMPLETED: "completed",
    StateType.FAILED: "failed",
    StateType.CRASHED: "crashed",
    StateType.CANCELLED: "cancelled",
}

DUE_WITHIN = timedelta(minutes=1)
"""How far ahead a run may be scheduled that counts as asked now: clocks of machines differ. One for later, by a
schedule or by hand, is nobody's job yet.
"""
LOOKED_AT = 20
"""Runs of a question that are looked at: the newest is it, unless somebody has tagged others by hand."""
CALL_SECONDS = 20.0  # Prefect's client backs off by itself on 503 (SQLite: "database is locked", about 2 s)
POLL_SECONDS = 5.0  # the safety net under the events, which tell of an end after 0.07 s
RECONNECT_SECONDS = 2.0
RETRY_AFTER_SECONDS = 30

logger = logging.getLogger("mkiso.webhook.orchestrator")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question's job. `joined`: it was in flight already. `ended_before`: when the last such job ended well, if any
    did.
    """

    job_id: str
    joined: bool = False
    ended_before: datetime | None = None


class Orchestrator(Protocol):
    """What the HTTP layer needs to know of jobs."""

    async def ask(self, question: Question, request_id: str = "") -> Asked:
        """The job of a question: the one in flight, else a new one, which keeps `request_id`. Raises QueueFull,
        OrchestratorUnavailable.
        """

    async def standing(self, job_id: str) -> Standing:
        """Where a job stands. Raises JobNotFound, OrchestratorUnavailable."""

    async def wait(self, job_id: str, timeout_seconds: float) -> Standing | None:
        """How a job ended, None where it hasn't after `timeout_seconds`. Raises JobNotFound."""

    async def queued(self) -> int:
        """How many jobs wait for a worker. Raises OrchestratorUnavailable."""

    async def why_jobs_wait(self) -> str:
        """Why nobody works at jobs, in words; empty where a worker does. Raises OrchestratorUnavailable."""

    async def version(self) -> str:
        """Which version of Prefect answers. Raises OrchestratorUnavailable."""


class PrefectOrchestrator:
    """Jobs as flow runs of Prefect; use it as `async with PrefectOrchestrator.connected(settings)`."""

    def __init__(self, settings: Settings, client: PrefectClient) -> None:
        self._settings = settings
        self._client = client
        self._turn = asyncio.Lock()
        self._ends: WeakValueDictionary[str, asyncio.Future[None]] = WeakValueDictionary()

    @classmethod
    @asynccontextmanager
    async def connected(cls, settings: Settings) -> AsyncIterator[PrefectOrchestrator]:
        """An orchestrator with its client open and the ends of runs listened to, by one subscription however
        many wait.
        """
        auth = settings.prefect.api_auth_string.get_secret_value() or None
        async with PrefectClient(api_url(settings.prefect), auth_string=auth) as client:
            orchestrator = cls(settings, client)
            listener = asyncio.create_task(orchestrator._listen(auth))
            try:
                yield orchestrator
            finally:
                listener.cancel()
                with suppress(asyncio.CancelledError):
                    await listener

    async def ask(self, question: Question, request_id: str = "") -> Asked:
        # One after another: 0.06 s each. Eight at once on SQLite: 7 to 14 s, since writers that find the database
        # locked back off for seconds.
        async with self._prefect(), self._turn:
            deployment = await self._client.read_deployment_by_name(DEPLOYMENTS[question.kind])
            if deployment.work_queue_id is None:  # somebody has removed it, and no worker would find the run
                raise _not_deployed()
            running = await self._newest(question, deployment.id, JOINABLE)
            if running and not await self._has_told(running):
                return Asked(str(running.id), joined=True)
            await self._refuse_if_full()
            last = await self._newest(question, deployment.id, FINAL)
            # Each run is created under the question's key and the id of the run before it, so webhooks that race make
            # one run. The chain is followed to its end, since the newest run by time need not be the last link: an
            # operator may have retried an older one.
            before = last
            while True:
                run = await self._client.create_flow_run_from_deployment(
                    deployment.id,
                    parameters=question.parameters,
                    name=f"{RUN_NAMES[question.kind]} {', '.join(question.accession_numbers)}"[:200],
                    tags=[question.tag],
                    labels={REQUEST_ID_LABEL: request_id},
                    idempotency_key=f"{question.key}:{before.id if before else 'first'}",
                )
                if (
                    run.state_type in JOINABLE
                    and _answers(run, question)
                    and _is_due(run)
                    and not await self._has_told(run)
                ):
                    return Asked(
                        str(run.id),
                        ended_before=last.end_time if last and last.state_type is StateType.COMPLETED else None,
                    )
                before = run

    async def standing(self, job_id: str) -> Standing:
        async with self._prefect(
            not_found=lambda: JobNotFound(f"There is no job {job_id}; jobs are forgotten some time after they end.")
        ):
            run = await self._client.read_flow_run(_uuid(job_id))
        return _STANDINGS.get(run.state_type, "running") if run.state_type else "waiting"

    async def wait(self, job_id: str, timeout_seconds: float) -> Standing | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while True:
            end = self._ends.get(job_id) or self._ends.setdefault(job_id, loop.create_future())
            try:
                if (standing := await self.standing(job_id)) in ENDED:
                    return standing
            except OrchestratorUnavailable:  # the job goes on without it, and so does the waiting
                logger.warning("Prefect can't be asked about a job that is waited for", extra={"job_id": job_id})
            left = deadline - loop.time()
            if left <= 0:
                return None
            await asyncio.wait([end], timeout=min(left, POLL_SECONDS))

    async def queued(self) -> int:
        names = [name.partition("/")[2] for name in DEPLOYMENTS.values()]
        async with self._prefect():
            return await self._client.count_flow_runs(
                flow_run_filter=FlowRunFilter(state=_in_states(QUEUED), expected_start_time=_by_now()),
                deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=names)),
            )

    async def why_jobs_wait(self) -> str:
        name = self._settings.prefect.work_pool
        async with self._prefect(
            not_found=lambda: OrchestratorUnavailable("Prefect has no work pool of mkiso yet: start a worker.")
        ):
            pool = await self._client.read_work_pool(name)
            paused = [queue.name for queue in await self._client.read_work_queues(name) if queue.is_paused]
        if pool.is_paused:
            return f"The work pool {name} is paused in Prefect: jobs wait until somebody resumes it there."
        if paused:
            return f"Paused in Prefect: {', '.join(paused)}. Jobs of such a work queue wait until somebody resumes it."
        ready = pool.status and pool.status.value == "READY"
        return "" if ready else "No worker takes jobs: they wait until one is started."

    async def version(self) -> str:
        async with self._prefect():
            return await self._client.api_version()

    async def _newest(self, question: Question, deployment_id: UUID, states: tuple[StateType, ...]) -> FlowRun | None:
        """The newest run of a question. A tag alone says nothing: anybody with the password can give one to any run."""
        runs = await self._client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                tags=FlowRunFilterTags(all_=[question.tag]), state=_in_states(states), expected_start_time=_by_now()
            ),
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=LOOKED_AT,
        )
        return next((run for run in runs if _answers(run, question) and _is_due(run)), None)

    async def _has_told(self, run: FlowRun) -> bool:
        """Whether a job has told of its discs, and is run again or hasn't been written down as ended. It gives the same
        ones without asking the PACS, so it is no answer to a question that comes now.
        """
        try:
            report = await asyncio.to_thread(read_report, self._settings.storage, str(run.id))
        except JobNotFound:
            return False
        return bool(report.disc_ids)

    async def _refuse_if_full(self) -> None:
        limit = self._settings.server.max_queued_jobs
        if await self.queued() >= limit:
            raise QueueFull(
                f"{limit} jobs are waiting already. Try again in a minute.", retry_after_seconds=RETRY_AFTER_SECONDS
            )

    async def _listen(self, auth: str | None) -> None:
        """Wake whoever waits for a run as soon as Prefect tells of its end; reconnects for as long as the webhook
        lives.
        """
        ends = EventFilter(event=EventNameFilter(name=[f"prefect.flow-run.{state.value.title()}" for state in FINAL]))
        with temporary_settings(
            {PREFECT_API_AUTH_STRING: auth} if auth else {}
        ):  # the subscriber takes it from nowhere else
            while True:
                try:
                    async with PrefectEventSubscriber(api_url(self._settings.prefect), ends) as subscriber:
                        async for event in subscriber:
                            end = self._ends.get(event.resource.id.removeprefix("prefect.flow-run."))
                            if end is not None and not end.done():
                                end.set_result(None)
                            self._ends.pop(event.resource.id.removeprefix("prefect.flow-run."), None)
                except Exception as error:  # whatever the line breaks with, the polls go on and it is tied again
                    logger.debug("The events of Prefect can't be had: %s", type(error).__name__)
                await asyncio.sleep(RECONNECT_SECONDS)

    @asynccontextmanager
    async def _prefect(self, not_found: Callable[[], Exception] | None = None) -> AsyncIterator[None]:
        """Every failure of Prefect's API as OrchestratorUnavailable; what isn't there as `not_found`."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                yield
        except ObjectNotFound:
            raise (not_found or _not_deployed)() from None
        except (httpx.HTTPError, PrefectHTTPStatusError, TimeoutError) as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 401:
                raise OrchestratorUnavailable(NOT_TAKEN) from None
            raise OrchestratorUnavailable(
                f"The orchestrator (Prefect) can't be reached or doesn't answer ({type(error).__name__}). Try again "
                "in a minute."
            ) from None


def _not_deployed() -> OrchestratorUnavailable:
    return OrchestratorUnavailable(
        "Prefect doesn't know mkiso's deployments yet: start a worker, or wait until it has started."
    )


def _in_states(states: tuple[StateType, ...]) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states)))


def _by_now() -> FlowRunFilterExpectedStartTime:
    return FlowRunFilterExpectedStartTime(before_=datetime.now(UTC) + DUE_WITHIN)


def _is_due(run: FlowRun) -> bool:
    """Whether a run isn't put off (an expected start is the first one, and a retry may be for much later) and, where it
    waits, has a queue in which a worker finds it.
    """
    start = run.next_scheduled_start_time
    return start is None or (start <= datetime.now(UTC) + DUE_WITHIN and run.work_queue_id is not None)


def _answers(run: FlowRun, question: Question) -> bool:
    """Whether a run was asked what the question asks; the accession numbers may stand in another order."""
    asked, numbers = question.parameters, run.parameters.get("accession_numbers")
    same = isinstance(numbers, list) and sorted(map(str, numbers)) == sorted(question.accession_numbers)
    return same and {**run.parameters, "accession_numbers": numbers} == {**asked, "accession_numbers": numbers}


def _uuid(job_id: str) -> UUID:
    try:
        return UUID(job_id)
    except ValueError:
        raise JobNotFound("A job's id looks like 123e4567-e89b-12d3-a456-426614174000.") from None


def minutes_since(moment: datetime) -> int:
    """Whole minutes, 0 also for what another machine's clock takes for later than now."""
    return max(0, int((datetime.now(UTC) - moment).total_seconds() // 60))
