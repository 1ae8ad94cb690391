"""The webhook's only door to Prefect: ask a question and get a job, learn where a job stands, wait for its end. A job's
id is its flow run's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, Self
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

import httpx
from pydantic import BaseModel, TypeAdapter

from mkiso.config.settings import Settings
from mkiso.errors import JobNotFound, MkisoError, OrchestratorUnavailable, PrintUncertain, QueueFull, error_of
from mkiso.storage.report import find_report
from mkiso.study.question import Kind, Question
from mkiso_service.prefect import workers
from mkiso_service.prefect.api import PrefectApi
from mkiso_service.prefect.environment import INBOX, REQUEST_ID_LABEL, api_url, not_taken
from mkiso_service.prefect.schedules import why_schedules_rest

Standing = Literal["waiting", "running", "suspended", "completed", "failed", "crashed", "cancelled"]
SUSPENDED: Standing = "suspended"
"""Halted in Prefect by an operator, until they resume or cancel it; the stage of such a job."""
ENDED: frozenset[Standing] = frozenset(("completed", "failed", "crashed", "cancelled"))

DEPLOYMENTS: Mapping[Kind, str] = {"download": "make_disc/download", "print": "print_disc/print"}
FLOWS: Mapping[str, Kind] = {
    **{deployment.partition("/")[0]: kind for kind, deployment in DEPLOYMENTS.items()},
    INBOX.partition("/")[0]: "print",
}
"""The flows whose runs are jobs, and of which kind; what was sent to an inbox may be a print."""

ASK_LABEL = "mkiso.ask"
"""The label of a run that holds which single question made it."""
JOINABLE = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED")  # AwaitingRetry is a kind of SCHEDULED
QUEUED = ("SCHEDULED", "PENDING")
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_STANDINGS: dict[str, Standing] = {
    "SCHEDULED": "waiting",
    "PENDING": "waiting",
    "PAUSED": "suspended",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CRASHED": "crashed",
    "CANCELLED": "cancelled",
}

DUE_WITHIN = timedelta(minutes=1)
"""How far ahead a run may be scheduled, by the server's clock, that counts as asked now. One for later, by a schedule
or by hand, is nobody's job yet.
"""
LOOKED_AT = 20
"""Runs of a question that are looked at: the newest is it, unless somebody has tagged others by hand."""
MOST_AT_ONCE = 100
CALL_SECONDS = 20.0  # within which a busy server is asked again
TURN_SECONDS = 60.0  # how long a question waits for those before it
POLL_SECONDS = 5.0  # the safety net under the events, which tell of an end after 0.07 s
RECONNECT_SECONDS = 2.0
RETRY_AFTER_SECONDS = 30
UNSURE_SECONDS = 3600.0
"""So long who asks again for a print that may have begun is given the one that did: later another one is meant."""
UNSURE = (
    "Prefect didn't say whether this print has begun. Look at the list of jobs and at the robot; ask again only where "
    "it is in neither."
)

logger = logging.getLogger("mkiso.webhook.orchestrator")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question's job. `joined`: it was in flight already. `ended_before`: when the last such job ended well, if any
    did.
    """

    job_id: str
    joined: bool = False
    ended_before: datetime | None = None


class RunState(BaseModel):
    """What a run says of its state."""

    message: str | None = None


class Run(BaseModel):
    """A flow run, as far as we look at it."""

    id: UUID
    flow_id: UUID
    created: datetime
    state_type: str | None = None
    state: RunState | None = None
    parameters: dict[str, Any] = {}
    labels: dict[str, Any] = {}
    next_scheduled_start_time: datetime | None = None
    work_queue_id: UUID | None = None
    end_time: datetime | None = None

    @property
    def error(self) -> MkisoError | None:
        """What it says itself of why it failed."""
        return error_of((self.state and self.state.message) or "")


_RUNS = TypeAdapter(list[Run])


class Orchestrator(Protocol):
    """What the HTTP layer needs to know of jobs."""

    async def ask(self, question: Question, request_id: str = "") -> Asked:
        """The job of a question: the one in flight, else a new one, which keeps `request_id`. Raises QueueFull,
        OrchestratorUnavailable; of a print that may have begun PrintUncertain.
        """

    async def standing(self, job_id: str) -> Standing:
        """Where a job stands. Raises JobNotFound, OrchestratorUnavailable."""

    async def failure_of(self, job_id: str) -> tuple[Kind, MkisoError | None]:
        """The kind of a job, and the error that its run tells of, if any. Raises JobNotFound,
        OrchestratorUnavailable.
        """

    async def standings_of(self, job_ids: Collection[str]) -> Mapping[str, Standing]:
        """Where these jobs stand, of which it is known. Raises OrchestratorUnavailable."""

    async def failures_of(self, job_ids: Collection[str]) -> Mapping[str, MkisoError]:
        """The errors that the runs of these jobs tell of. Raises OrchestratorUnavailable."""

    async def cancel(self, job_id: str) -> None:
        """Have a job end. Raises JobNotFound, OrchestratorUnavailable."""

    async def wait(self, job_id: str, timeout_seconds: float) -> Standing | None:
        """How a job ended, None where it hasn't after `timeout_seconds`. Raises JobNotFound."""

    async def queued(self) -> int:
        """How many jobs wait for a worker. Raises OrchestratorUnavailable."""

    async def why_jobs_wait(self) -> str:
        """Why nobody works at jobs, in words; empty where a worker does. Raises OrchestratorUnavailable."""

    async def silent_workers(self) -> list[str]:
        """Workers of which nothing is heard, though nobody has stopped them. Raises OrchestratorUnavailable."""

    async def why_schedules_rest(self) -> str:
        """Why the archive's nights or housekeeping don't come, or that the last night failed, in words; empty where
        all is well. Raises OrchestratorUnavailable.
        """

    async def version(self) -> str:
        """Which version of Prefect answers. Raises OrchestratorUnavailable."""


class PrefectOrchestrator:
    """Jobs as flow runs of Prefect; use it as `async with PrefectOrchestrator.connected(settings)`."""

    def __init__(self, settings: Settings, api: PrefectApi) -> None:
        self._settings = settings
        self._api = api
        self._turn = asyncio.Lock()
        self._coming = 0
        self._failed = 0.0, ""
        self._is_creating = False
        self._unsure: dict[str, tuple[float, str]] = {}
        """By their keys the questions for prints whose runs may have begun unheard: when, and what those runs carry."""
        self._deployment_ids: dict[str, str] = {}
        self._flows: dict[UUID, Kind] = {}
        self._ends: WeakValueDictionary[str, asyncio.Future[None]] = WeakValueDictionary()

    @classmethod
    @asynccontextmanager
    async def connected(cls, settings: Settings) -> AsyncIterator[Self]:
        """An orchestrator with its client open and the ends of runs listened to, by one subscription however
        many wait.
        """
        password = settings.prefect.api_auth_string.get_secret_value()
        async with PrefectApi.connected(api_url(settings.prefect), password) as api:
            orchestrator = cls(settings, api)
            listener = asyncio.create_task(orchestrator._listen())
            try:
                yield orchestrator
            finally:
                listener.cancel()
                with suppress(asyncio.CancelledError):
                    await listener

    async def ask(self, question: Question, request_id: str = "") -> Asked:
        # One after another: 0.06 s each. Eight at once on SQLite: 7 to 14 s, since writers that find the database
        # locked back off for seconds. On a machine that is full each may take seconds, so that nobody waits whose job
        # couldn't wait either.
        if self._coming >= self._settings.server.max_queued_jobs:
            raise self._full()
        self._coming += 1
        begun = time.monotonic()
        try:
            async with self._my_turn():
                failed_at, words = self._failed
                if failed_at > begun:  # whoever asked before had no answer: nobody waits for the same again
                    raise OrchestratorUnavailable(words)
                return await self._ask_now(question, request_id)
        finally:
            self._coming -= 1

    async def _ask_now(self, question: Question, request_id: str) -> Asked:
        """Ask Prefect, once it is this question's turn. If nobody knows whether the run of a print was made, the next
        question within UNSURE_SECONDS has the same id.
        """
        asked_at = time.monotonic()
        unsure = self._unsure.get(question.key)
        if unsure is None or asked_at - unsure[0] > UNSURE_SECONDS:
            unsure = asked_at, uuid4().hex
        try:
            async with self._prefect():
                asked = await self._asked(question, request_id, unsure[1])
        except OrchestratorUnavailable as error:
            if (now := time.monotonic()) - asked_at > CALL_SECONDS / 2:  # else it had one, of its own question
                self._failed = now, error.words
            if self._is_creating and question.kind == "print":
                self._unsure[question.key] = unsure
                raise PrintUncertain(UNSURE) from None
            raise
        self._unsure.pop(question.key, None)
        return asked

    async def _asked(self, question: Question, request_id: str, ask: str) -> Asked:
        self._is_creating = False
        # What has to be known is asked at once: under load each answer takes its time in the server's queue.
        name = DEPLOYMENTS[question.kind]
        expected = self._deployment_ids.get(name) or await self._deployment_id(name, question)
        deployment_id, running, last, queued = await asyncio.gather(
            self._deployment_id(name, question),
            self._newest(question, expected, JOINABLE),
            self._newest(question, expected, FINAL),
            self._queued(),
        )
        if deployment_id != expected:  # it was removed, and a worker has made it anew
            running = await self._newest(question, deployment_id, JOINABLE)
            last = await self._newest(question, deployment_id, FINAL)
        if running and not await self._has_told(running):
            return Asked(str(running.id), joined=True)
        if last and last.labels.get(ASK_LABEL) == ask:  # it has begun, unheard, and ended before it was asked for again
            return Asked(str(last.id), joined=True)
        if queued >= self._settings.server.max_queued_jobs:
            raise self._full()
        labels = {REQUEST_ID_LABEL: request_id, ASK_LABEL: ask}
        run = await self._made(question, deployment_id, last, labels)
        return Asked(str(run.id), ended_before=last.end_time if last and last.state_type == "COMPLETED" else None)

    async def _made(self, question: Question, deployment_id: str, before: Run | None, labels: dict[str, str]) -> Run:
        """The run of a question, made under the question's key and the id of the run before it: so webhooks that race
        make one run.

        The chain is followed to its end, since the newest run by time need not be the last link: an operator may have
        retried an older one. Its end is the run that this makes, whatever is said of it: no question makes two. That it
        is made by this the run says itself: the answer that it was created may have been lost, and by a server's clock
        that was set back an old run is a new one.
        """
        wanted = {
            "parameters": question.parameters,
            "name": question.run_name,
            "state": {"type": "SCHEDULED"},
            "tags": [question.tag],
            "labels": labels,
        }
        while True:
            key = f"{question.key}:{before.id if before else 'first'}"
            address = f"/deployments/{deployment_id}/create_flow_run"
            self._is_creating = True
            run = Run.model_validate(await self._api.post(address, {**wanted, "idempotency_key": key}))
            self._is_creating = False
            joins = run.state_type in JOINABLE and _answers(run.parameters, question) and self._is_due(run)
            if run.labels.get(ASK_LABEL) == labels[ASK_LABEL] or (joins and not await self._has_told(run)):
                return run
            before = run

    async def standing(self, job_id: str) -> Standing:
        async with self._prefect(
            not_found=lambda: JobNotFound(f"There is no job {job_id}; jobs are forgotten some time after they end.")
        ):
            run = await self._job(job_id)
        return _standing(run)

    async def failure_of(self, job_id: str) -> tuple[Kind, MkisoError | None]:
        async with self._prefect(not_found=lambda: JobNotFound(f"There is no job {job_id}.")):
            run = await self._job(job_id)
        return self._flows[run.flow_id], run.error

    async def standings_of(self, job_ids: Collection[str]) -> Mapping[str, Standing]:
        return {str(run.id): _standing(run) for run in await self._runs(job_ids)}

    async def failures_of(self, job_ids: Collection[str]) -> Mapping[str, MkisoError]:
        return {str(run.id): run.error for run in await self._runs(job_ids) if run.error}

    async def _runs(self, job_ids: Collection[str]) -> list[Run]:
        ids = [str(_uuid(job_id)) for job_id in job_ids]
        found: list[Run] = []
        async with self._prefect():
            for begin in range(0, len(ids), MOST_AT_ONCE):
                wanted = {"flow_runs": {"id": {"any_": ids[begin : begin + MOST_AT_ONCE]}}}
                found += _RUNS.validate_python(await self._api.post("/flow_runs/filter", wanted))
        return found

    async def cancel(self, job_id: str) -> None:
        state = {"type": "CANCELLING", "name": "Cancelling", "message": "Cancelled at the counter."}
        async with self._prefect(not_found=lambda: JobNotFound(f"There is no job {job_id}.")):
            await self._job(job_id)
            await self._api.post(f"/flow_runs/{_uuid(job_id)}/set_state", {"state": state})

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
        async with self._prefect():
            return await self._queued()

    async def why_jobs_wait(self) -> str:
        async with self._prefect(
            not_found=lambda: OrchestratorUnavailable("Prefect has no work pool of mkiso yet: start a worker.")
        ):
            return await workers.why_jobs_wait(self._api, self._settings)

    async def silent_workers(self) -> list[str]:
        async with self._prefect():
            return await workers.silent_workers(self._api, self._settings)

    async def why_schedules_rest(self) -> str:
        async with self._prefect():
            return await why_schedules_rest(self._api, self._settings)

    async def version(self) -> str:
        async with self._prefect():
            return str(await self._api.get("/admin/version"))

    async def _job(self, job_id: str) -> Run:
        """The run of a job. Raises JobNotFound where it is another flow's: the archive's, or no flow of mkiso."""
        run = Run.model_validate(await self._api.get(f"/flow_runs/{_uuid(job_id)}"))
        if run.flow_id not in self._flows:
            name = (await self._api.get(f"/flows/{run.flow_id}"))["name"]
            if name not in FLOWS:
                raise JobNotFound(f"There is no job {job_id}.")
            self._flows[run.flow_id] = FLOWS[name]
        return run

    async def _newest(self, question: Question, deployment_id: str, states: tuple[str, ...]) -> Run | None:
        """The newest run of a question. A tag alone says nothing: anybody with the password can give one to any run.
        Those that have ended are found by their name, of which Prefect has an index, as it has none of tags; of those
        that haven't there are few, and one may have been named by an earlier version.
        """
        named = {} if states == JOINABLE else {"name": {"any_": [question.run_name]}}
        wanted = {
            "flow_runs": {**named, "tags": {"all_": [question.tag]}, **self._due_in(states)},
            "deployments": {"id": {"any_": [deployment_id]}},
            "sort": "EXPECTED_START_TIME_DESC",
            "limit": LOOKED_AT,
        }
        runs = _RUNS.validate_python(await self._api.post("/flow_runs/filter", wanted))
        return next((run for run in runs if _answers(run.parameters, question) and self._is_due(run)), None)

    async def _has_told(self, run: Run) -> bool:
        """Whether a job has told of its discs, and is run again or hasn't been written down as ended. It gives the same
        ones without asking the PACS, so it is no answer to a question that comes now.
        """
        report = await asyncio.to_thread(find_report, self._settings.storage, str(run.id))
        return bool(report and report.disc_ids)

    async def _queued(self) -> int:
        """How many wait where a worker finds them: those of a queue that was removed would be counted for ever."""
        names = [name.partition("/")[2] for name in DEPLOYMENTS.values()]
        waiting = {
            "flow_runs": self._due_in(QUEUED),
            "deployments": {"name": {"any_": names}},
            "work_pools": {"name": {"any_": [self._settings.prefect.work_pool]}},
        }
        return int(await self._api.post("/flow_runs/count", waiting))

    def _due_in(self, states: tuple[str, ...]) -> dict[str, Any]:
        """Runs in these states that count as asked now."""
        return {
            "state": {"type": {"any_": states}},
            "expected_start_time": {"before_": (self._api.now + DUE_WITHIN).isoformat()},
        }

    def _is_due(self, run: Run) -> bool:
        """Whether a run isn't put off (an expected start is the first one, and a retry may be for much later) and,
        where it waits, has a queue in which a worker finds it. One that was made before the server's clock was set back
        isn't put off: it starts once that time has come again, and another one would make a second disc.
        """
        start = run.next_scheduled_start_time
        return start is None or (
            start <= max(self._api.now, run.created) + DUE_WITHIN and run.work_queue_id is not None
        )

    async def _deployment_id(self, name: str, question: Question) -> str:
        """The id of a deployment. Raises OrchestratorUnavailable where its runs would answer nobody: somebody has
        removed its queue, or given it parameters that ask for something else.
        """
        deployment = await self._api.get(f"/deployments/name/{name}")
        if deployment["work_queue_id"] is None:
            raise _not_deployed()
        if not _answers({**deployment["parameters"], **question.parameters}, question):
            raise OrchestratorUnavailable(
                f"Somebody has given the deployment {name} parameters of its own in Prefect, which ask for another "
                "disc: an administrator restores it by `mkiso deploy`."
            )
        self._deployment_ids[name] = str(deployment["id"])
        return self._deployment_ids[name]

    @asynccontextmanager
    async def _my_turn(self) -> AsyncIterator[None]:
        """Raises QueueFull where it doesn't come in time: those before it are as many as can be begun."""
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            raise self._full() from None
        try:
            yield
        finally:
            self._turn.release()

    def _full(self) -> QueueFull:
        limit = self._settings.server.max_queued_jobs
        return QueueFull(
            f"{limit} jobs are waiting already, or about to. Try again in a minute.",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )

    async def _listen(self) -> None:
        """Wake whoever waits for a run as soon as Prefect tells of its end; reconnects for as long as the webhook
        lives.
        """
        ends = [f"prefect.flow-run.{state.title()}" for state in FINAL]
        while True:
            try:
                async for run in self._api.events(ends):
                    end = self._ends.pop(run.removeprefix("prefect.flow-run."), None)
                    if end is not None and not end.done():
                        end.set_result(None)
            except Exception as error:  # whatever the connection breaks with, polls go on and it is made again
                logger.debug("The events of Prefect can't be had: %s", type(error).__name__)
            await asyncio.sleep(RECONNECT_SECONDS)

    @asynccontextmanager
    async def _prefect(self, not_found: Callable[[], Exception] | None = None) -> AsyncIterator[None]:
        """Every failure of Prefect's API as OrchestratorUnavailable; what isn't there as `not_found`."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                yield
        except (httpx.HTTPError, TimeoutError, ValueError, LookupError) as error:
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
            if status == 404:
                raise (not_found or _not_deployed)() from None
            if status == 401:
                raise OrchestratorUnavailable(not_taken(self._settings.prefect)) from None
            raise OrchestratorUnavailable(
                f"The orchestrator (Prefect) can't be reached or doesn't answer ({type(error).__name__}). Try again "
                "in a minute."
            ) from None


def _not_deployed() -> OrchestratorUnavailable:
    return OrchestratorUnavailable(
        "Prefect doesn't know mkiso's deployments yet: start a worker, or wait until it has started."
    )


def _standing(run: Run) -> Standing:
    return _STANDINGS.get(run.state_type, "running") if run.state_type else "waiting"


def _answers(parameters: Mapping[str, Any], question: Question) -> bool:
    """Whether a run of these parameters was asked what the question asks; the accession numbers may stand in another
    order, another number of earlier orders may have been told (Question.key), and what is meant where nothing is said
    may be said.
    """
    numbers = parameters.get("accession_numbers")
    if not isinstance(numbers, list) or sorted(map(str, numbers)) != sorted(question.accession_numbers):
        return False
    try:
        asked = Question.of_run(question.kind, parameters)
    except (TypeError, ValueError):  # anybody with Prefect's password can give a run any parameters
        return False
    return replace(asked, accession_numbers=question.accession_numbers, orders_told=question.orders_told) == question


def _uuid(job_id: str) -> UUID:
    try:
        return UUID(job_id)
    except ValueError:
        raise JobNotFound("A job's id looks like 123e4567-e89b-12d3-a456-426614174000.") from None
