"""Questions and jobs on a real Prefect server: joining, racing, waiting, a full queue, a server that is down."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import DeploymentResponse
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending, Running, Scheduled

from mkiso.config.settings import Prefect, Server, Settings
from mkiso.config.storage import Storage
from mkiso.errors import ConfigurationError, JobNotFound, OrchestratorUnavailable, PrintUncertain, QueueFull
from mkiso.storage.report import JobReport, write_report
from mkiso.study.question import Kind, Question
from mkiso_service.prefect import api as api_module
from mkiso_service.prefect import orchestrator as module
from mkiso_service.prefect.api import PrefectApi
from mkiso_service.prefect.orchestrator import FINAL, JOINABLE, Asked, PrefectOrchestrator, Standing
from mkiso_service.worker.deploy import ensure_deployments
from peers.link import Link
from peers.patience import LONG
from peers.ports import free_port
from tests.webhook.prefect_server import AUTH, PrefectServer, deploy

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with PrefectServer(tmp_path_factory.mktemp("prefect"), warm=False) as server:
        deploy(server.api_url)
        yield server


@pytest.fixture(scope="module")
def api_url(server: PrefectServer) -> str:
    return server.api_url


def question(kind: Kind = "download") -> Question:
    return Question(kind, (uuid4().hex[:16],), "rimage" if kind == "print" else "")


class Here(PrefectOrchestrator):
    """A webhook's door to Prefect; the client is the test's own."""

    client: PrefectClient


@asynccontextmanager
async def desk(api_url: str, max_queued_jobs: int = 10_000, **storage: Path) -> AsyncIterator[Here]:
    settings = Settings(
        prefect=Prefect(api_url=api_url, api_auth_string=AUTH),
        server=Server(max_queued_jobs=max_queued_jobs),
        storage=Storage(**storage),
    )
    async with (
        Here.connected(settings) as orchestrator,
        PrefectClient(api_url, auth_string=AUTH) as client,
    ):
        orchestrator.client = client
        yield orchestrator


async def move(desk: Here, job_id: str, *states: State) -> None:
    for state in states:
        await desk.client.set_flow_run_state(UUID(job_id), state, force=True)


def test_a_question_in_flight_is_joined_whatever_its_state(api_url: str) -> None:
    async def scenario() -> None:
        async with desk(api_url) as here, desk(api_url) as there:
            asked = question()
            first = await here.ask(asked)
            run = await here.client.read_flow_run(UUID(first.job_id))
            assert (run.parameters, run.tags, run.name) == (
                {"accession_numbers": list(asked.accession_numbers)},
                [f"question:{asked.key}"],
                f"Disc {asked.accession_numbers[0]}",
            )
            assert not first.joined and await here.standing(first.job_id) == "waiting"
            states: tuple[State, ...] = (Pending(), Running(), Scheduled(name="AwaitingRetry"))
            for state in states:
                await move(here, first.job_id, state)
                again = await there.ask(asked)
                assert (again.job_id, again.joined) == (first.job_id, True)
            assert (await here.ask(question())).job_id != first.job_id
            printed = await here.ask(Question("print", asked.accession_numbers, "rimage"))
            assert printed.job_id != first.job_id
            assert (await here.client.read_flow_run(UUID(printed.job_id))).parameters["publisher"] == "rimage"
            for told in (0, 1):  # of earlier orders: no other question, and one disc
                more = await there.ask(Question("print", asked.accession_numbers, "rimage", orders_told=told))
                assert (more.job_id, more.joined) == (printed.job_id, True)
            anew = await here.ask(Question("print", asked.accession_numbers, "rimage", confirm_reprint=True))
            assert anew.job_id != printed.job_id and not anew.joined
            assert (await here.client.read_flow_run(UUID(anew.job_id))).parameters["confirm_reprint"] is True

    asyncio.run(scenario())


def test_webhooks_that_race_make_one_run(api_url: str) -> None:
    async def scenario() -> None:
        async with desk(api_url) as here, desk(api_url) as there:
            asked = question()
            ends: tuple[State, ...] = (Completed(), Failed(), Crashed(), Cancelled())
            for end in ends:
                jobs = {
                    answer.job_id for answer in await asyncio.gather(*(each.ask(asked) for each in (here, there) * 2))
                }
                assert len(jobs) == 1
                await move(here, jobs.pop(), Running(), end)

    asyncio.run(scenario())


def test_many_questions_at_once_are_asked_in_turn(api_url: str) -> None:
    async def scenario() -> None:
        async with desk(api_url) as here:
            begun = time.monotonic()
            jobs = {answer.job_id for answer in await asyncio.gather(*(here.ask(question()) for _ in range(20)))}
            assert len(jobs) == 20
            assert time.monotonic() - begun < LONG

    asyncio.run(scenario())


def test_a_question_that_has_ended_gets_a_new_run_each_time(api_url: str) -> None:
    async def scenario() -> None:
        async with desk(api_url) as here:
            asked = question("print")
            seen: list[str] = []
            ends: tuple[State, ...] = (Failed(), Completed(), Crashed(), Completed())
            for end in ends:
                answer = await here.ask(asked)
                assert answer.job_id not in seen and not answer.joined
                assert (answer.ended_before is not None) == (len(seen) == 2)
                seen.append(answer.job_id)
                await move(here, answer.job_id, Running(), end)
            # An operator retries the first of them, and it ends last: the chain of runs is followed all the same.
            await move(here, seen[0], Scheduled(name="AwaitingRetry"))
            assert (await here.ask(asked)).job_id == seen[0]
            await move(here, seen[0], Running(), Completed())
            assert (await here.ask(asked)).job_id not in seen

    asyncio.run(scenario())


def test_what_was_asked_before_is_found_by_the_name_of_its_runs(api_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their tag alone Prefect read all runs that had ended: 200,000 of them took seconds."""

    async def scenario() -> None:
        async with desk(api_url) as here:
            numbers = [uuid4().hex[:16] for _ in range(2)]
            first = await here.ask(Question("download", tuple(numbers)))
            name = (await here.client.read_flow_run(UUID(first.job_id))).name
            await move(here, first.job_id, Running(), Completed())
            sent, post = [], PrefectApi.post

            async def noted(api: PrefectApi, path: str, body: dict[str, Any]) -> Any:
                sent.append(body.get("flow_runs", {}))
                return await post(api, path, body)

            monkeypatch.setattr(PrefectApi, "post", noted)
            again = await here.ask(Question("download", tuple(reversed(numbers))))
            assert again.job_id != first.job_id and again.ended_before is not None
            by_tag = [
                (len(filters["state"]["type"]["any_"]), filters.get("name")) for filters in sent if "tags" in filters
            ]
            assert by_tag == [(len(JOINABLE), None), (len(FINAL), {"any_": [name]})]
            assert name == f"Disc {', '.join(sorted(numbers))}"

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["download", "print"])
def test_a_run_that_an_earlier_version_named_is_joined(api_url: str, kind: Kind) -> None:
    """While it runs, nobody makes another one: of a print there would be two."""

    async def scenario() -> None:
        async with desk(api_url) as here:
            question = Question(kind, (uuid4().hex[:12],), "rimage" if kind == "print" else "")
            first = await here.ask(question)
            await move(here, first.job_id, Running(), Completed())
            second = await here.ask(question)
            await here.client.update_flow_run(UUID(second.job_id), name="Named otherwise")
            await move(here, second.job_id, Pending(), Running())
            await here.client.delete_flow_run(UUID(first.job_id))  # as old runs go
            assert await here.ask(question) == Asked(second.job_id, joined=True)

    asyncio.run(scenario())


def test_a_run_for_later_is_nobodys_job_and_takes_no_place_in_the_queue(api_url: str) -> None:
    """An operator's schedule makes a hundred runs ahead; a run or a retry of the same question for tomorrow would have
    its clerk wait until then.
    """

    async def scenario() -> None:
        async with desk(api_url) as here:
            asked, tomorrow = question(), datetime.now(UTC) + timedelta(days=1)
            deployment = await here.client.read_deployment_by_name("make_disc/download")
            waiting = await here.queued()
            states: tuple[State, ...] = (Scheduled(scheduled_time=tomorrow), Cancelled())
            for state in states:
                later = await here.client.create_flow_run_from_deployment(
                    deployment.id,
                    parameters=asked.parameters,
                    tags=[asked.tag],
                    state=Scheduled(scheduled_time=tomorrow),
                )
                await move(here, str(later.id), state)
            assert await here.queued() == waiting
            first = await here.ask(asked)
            assert first.job_id != str(later.id) and not first.joined
            assert await here.queued() == waiting + 1 and (await here.ask(asked)).job_id == first.job_id
            await move(
                here, first.job_id, Running(), Failed(), Scheduled(name="AwaitingRetry", scheduled_time=tomorrow)
            )
            second = await here.ask(asked)
            assert second.job_id != first.job_id and not second.joined

    asyncio.run(scenario())


def test_a_run_whose_queue_is_gone_is_nobodys_job(api_url: str) -> None:
    """No worker finds it any more, nor one of a deployment that has lost its work pool."""

    async def scenario() -> None:
        async with desk(api_url) as here:
            queue = await here.client.create_work_queue("brief", work_pool_name="mkiso")
            deployment = await here.client.read_deployment_by_name("make_disc/download")
            await here.client.update_deployment(deployment.id, DeploymentUpdate(work_queue_name="brief"))
            asked = question()
            first = await here.ask(asked)
            await here.client.delete_work_queue_by_id(queue.id)
            with pytest.raises(OrchestratorUnavailable, match="worker"):
                await here.ask(asked)
            await here.client.update_deployment(
                deployment.id, DeploymentUpdate(work_pool_name="mkiso", work_queue_name="default")
            )
            second = await here.ask(asked)
            assert second.job_id != first.job_id and not second.joined
            assert (await here.ask(asked)).job_id == second.job_id

    asyncio.run(scenario())


def test_a_job_that_has_told_of_its_discs_answers_no_new_question(api_url: str, tmp_path: Path) -> None:
    """It may be from this morning: an operator runs it again, or its process was killed before Prefect knew the end."""

    async def scenario() -> None:
        async with desk(api_url, data_dir=tmp_path) as here, desk(api_url, data_dir=tmp_path) as there:
            asked = question()
            first = await here.ask(asked)
            await move(here, first.job_id, Running())
            told = JobReport(first.job_id, "download", asked.accession_numbers, status="done", disc_ids=("x",))
            write_report(here._settings.storage, told)
            second = await here.ask(asked)
            assert second.job_id != first.job_id and not second.joined
            assert (await there.ask(asked)).job_id == second.job_id
            await move(here, first.job_id, Crashed(), Scheduled(name="AwaitingRetry"))
            assert (await there.ask(asked)).job_id == second.job_id
            await move(here, second.job_id, Running(), Completed())
            write_report(here._settings.storage, replace(told, status="running"))
            third = await here.ask(asked)
            assert third.job_id not in (first.job_id, second.job_id)

    asyncio.run(scenario())


def test_a_run_that_is_being_cancelled_is_not_joined(api_url: str) -> None:
    async def scenario() -> None:
        from prefect.states import Cancelling

        async with desk(api_url) as here:
            asked = question()
            first = await here.ask(asked)
            await move(here, first.job_id, Running(), Cancelling())
            assert await here.standing(first.job_id) == "running"
            assert (await here.ask(asked)).job_id != first.job_id

    asyncio.run(scenario())


async def until_subscribed(desk: Here) -> None:
    """Until the subscription stands: ends are told by it, one after the other, from then on."""
    probes: dict[str, asyncio.Future[None]] = {}
    while not any(told.done() for told in probes.values()):
        probe = (await desk.ask(question())).job_id
        probes[probe] = desk._ends[probe] = asyncio.get_running_loop().create_future()
        await move(desk, probe, Running(), Completed())
        await asyncio.wait(probes.values(), timeout=1, return_when=asyncio.FIRST_COMPLETED)
    for probe in probes:
        desk._ends.pop(probe, None)


def test_many_wait_for_one_run_and_know_at_once(api_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 3600)  # by the event, not by the poll

    async def scenario() -> None:
        async with desk(api_url) as here:
            job_id = (await here.ask(question())).job_id
            await until_subscribed(here)
            waiters = [asyncio.create_task(here.wait(job_id, 3600)) for _ in range(20)]
            while job_id not in here._ends:
                await asyncio.sleep(0.01)
            assert len(here._ends) == 1
            await move(here, job_id, Running())
            await asyncio.sleep(0.2)
            assert not any(waiter.done() for waiter in waiters)
            await move(here, job_id, Completed())
            assert set(await asyncio.wait_for(asyncio.gather(*waiters), LONG)) == {"completed"}
            assert len(here._ends) == 0
            assert await here.wait(job_id, LONG) == "completed"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("state", "standing"), [(Crashed(), "crashed"), (Cancelled(), "cancelled"), (Failed(), "failed")]
)
def test_every_end_is_told(api_url: str, state: State, standing: Standing) -> None:
    async def scenario() -> None:
        async with desk(api_url) as here:
            job_id = (await here.ask(question())).job_id
            waiting = asyncio.create_task(here.wait(job_id, LONG))
            await move(here, job_id, Running(), state)
            assert await waiting == standing == await here.standing(job_id)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("message", "code"), [("The disk is full. [storage_full]", "storage_full"), ("Something else", ""), (None, "")]
)
def test_why_a_run_failed_is_told_as_it_tells_it(api_url: str, message: str | None, code: str) -> None:
    async def scenario() -> None:
        async with desk(api_url) as here:
            job_id = (await here.ask(question())).job_id
            await move(here, job_id, Running(), Failed(message=message))
            kind, why = await here.failure_of(job_id)
            assert (kind, why.code if why else "") == ("download", code)
            printed = (await here.ask(question("print"))).job_id
            assert await here.failure_of(printed) == ("print", None)
            told = await here.failures_of([job_id, printed])
            assert {each: why.code for each, why in told.items()} == ({job_id: code} if code else {})

    asyncio.run(scenario())


def test_waiting_has_an_end_and_polls_where_events_are_missing(api_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with desk(api_url) as here:
            job_id = (await here.ask(question())).job_id
            begun = time.monotonic()
            assert await here.wait(job_id, 0.5) is None
            assert time.monotonic() - begun < LONG

            async def deaf() -> None:
                await asyncio.Event().wait()

            monkeypatch.setattr(here, "_listen", deaf)
            monkeypatch.setattr(module, "POLL_SECONDS", 0.2)
            here._ends.clear()
            waiting = asyncio.create_task(here.wait(job_id, LONG))
            await asyncio.sleep(0.1)
            await move(here, job_id, Running(), Completed())
            assert await waiting == "completed"

    asyncio.run(scenario())


def test_a_full_queue_says_so_and_still_joins(api_url: str) -> None:
    async def scenario() -> None:
        async with desk(api_url) as here:
            asked = question()
            job_id = (await here.ask(asked)).job_id
            queued = await here.queued()
            assert queued >= 1
            async with desk(api_url, max_queued_jobs=queued) as full:
                with pytest.raises(QueueFull) as error:
                    await full.ask(question())
                assert int(str(error.value.details["retry_after_seconds"])) > 0
                assert (await full.ask(asked)).job_id == job_id
            await move(here, job_id, Running())
            assert await here.queued() == queued - 1

    asyncio.run(scenario())


def test_many_at_once_are_refused_only_because_the_queue_is_full(api_url: str) -> None:
    async def scenario() -> None:
        async with desk(api_url) as here:
            most = await here.queued() + 3
        async with desk(api_url, max_queued_jobs=most) as first, desk(api_url, max_queued_jobs=most) as other:
            asked = [desk.ask(question()) for desk in (first, other) for _ in range(most + 5)]
            told = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(each) for each in told} == {Asked, QueueFull}
            assert 3 <= sum(isinstance(each, Asked) for each in told) <= 4  # two webhooks may count at the same moment
            assert await first.queued() >= most

    asyncio.run(scenario())


def test_who_waits_behind_a_question_without_an_answer_waits_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        connections = 0

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += b"/deployments/" in await reader.readline()
            while await reader.read(1000):
                pass
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, desk(f"http://127.0.0.1:{port}/api") as here:
            told = await asyncio.gather(*(here.ask(question()) for _ in range(5)), return_exceptions=True)
            assert {type(each) for each in told} == {OrchestratorUnavailable}
            assert connections == 1

    monkeypatch.setattr(module, "CALL_SECONDS", 0.5)
    asyncio.run(scenario())


def test_who_has_no_turn_in_time_is_told_that_the_queue_is_full(api_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with desk(api_url) as here, here._turn:
            with pytest.raises(QueueFull):
                await here.ask(question())

    monkeypatch.setattr(module, "TURN_SECONDS", 0.1)
    asyncio.run(scenario())


def test_what_prefect_does_not_know(api_url: str) -> None:
    async def scenario() -> None:
        async with desk(api_url) as here:
            for job_id in (str(uuid4()), "x", "../x"):
                with pytest.raises(JobNotFound):
                    await here.standing(job_id)
            with pytest.raises(JobNotFound):
                await here.wait(str(uuid4()), LONG)
            assert "start" in await here.why_jobs_wait()

    asyncio.run(scenario())


def test_what_somebody_has_paused_in_prefect_is_named(api_url: str) -> None:
    async def scenario() -> None:
        async with desk(api_url) as here:
            queue = await here.client.create_work_queue("prints", work_pool_name="mkiso")
            await here.client.update_work_queue(queue.id, is_paused=True)
            assert "Paused in Prefect: prints." in await here.why_jobs_wait()
            await here.client.update_work_pool("mkiso", WorkPoolUpdate(is_paused=True))
            assert "work pool mkiso is paused" in await here.why_jobs_wait()
            await here.client.update_work_pool("mkiso", WorkPoolUpdate(is_paused=False))
            await here.client.update_work_queue(queue.id, is_paused=False)
            assert "paused" not in (await here.why_jobs_wait()).lower()
            await here.client.update_work_queue(queue.id, concurrency_limit=0)
            assert "With a limit of 0 in Prefect: prints." in await here.why_jobs_wait()
            await here.client.update_work_pool("mkiso", WorkPoolUpdate(concurrency_limit=0))
            assert "work pool mkiso has a limit of 0" in await here.why_jobs_wait()
            await here.client.update_work_pool("mkiso", WorkPoolUpdate(concurrency_limit=None))
            await here.client.update_work_queue(queue.id, concurrency_limit=10)
            assert "limit" not in await here.why_jobs_wait()

    asyncio.run(scenario())


def test_a_worker_that_is_silent_is_missed_unless_its_machine_has_another(api_url: str) -> None:
    async def scenario() -> None:
        async with desk(api_url) as here:
            for name, seconds in (("OLD on a", 1), ("NEW on a", 1000), ("LOST on b", 1)):
                await here.client.send_worker_heartbeat("mkiso", name, seconds)
            while (silent := await here.silent_workers()) == []:
                await asyncio.sleep(0.1)
            assert silent == ["LOST on b"]

    asyncio.run(scenario())


def test_a_deployment_that_is_missing_is_said(api_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.DEPLOYMENTS, "download", "make_disc/elsewhere")

    async def scenario() -> None:
        async with desk(api_url) as here:
            with pytest.raises(OrchestratorUnavailable, match="worker"):
                await here.ask(question())

    asyncio.run(scenario())


def test_a_password_that_prefect_does_not_take_is_said(api_url: str) -> None:
    settings = Settings(prefect=Prefect(api_url=api_url, api_auth_string="mkiso:another-password"))

    async def scenario() -> None:
        async with PrefectOrchestrator.connected(settings) as orchestrator:
            with pytest.raises(OrchestratorUnavailable, match="api_auth_string"):
                await orchestrator.queued()
        with (
            temporary_settings({PREFECT_API_URL: api_url, PREFECT_API_AUTH_STRING: "mkiso:another-password"}),
            pytest.raises(ConfigurationError, match="api_auth_string"),
        ):
            await ensure_deployments(settings)

    asyncio.run(scenario())


def test_prefect_that_is_down_is_told_soon() -> None:
    async def scenario() -> None:
        async with desk(f"http://127.0.0.1:{free_port()}/api") as here:
            begun = time.monotonic()
            for call in (here.ask(question()), here.standing(str(uuid4())), here.queued(), here.why_jobs_wait()):
                with pytest.raises(OrchestratorUnavailable):
                    await call
            assert time.monotonic() - begun < LONG
            assert await here.wait(str(uuid4()), 0.2) is None

    asyncio.run(scenario())


def test_a_run_tagged_with_a_question_is_joined_only_if_it_asks_the_same(api_url: str) -> None:
    async def scenario() -> None:
        async with desk(api_url) as here:
            asked = question("print")
            deployment = await here.client.read_deployment_by_name("print_disc/print")
            other = await here.client.read_deployment_by_name("make_disc/download")

            async def tagged(of: DeploymentResponse, parameters: dict[str, object], key: str | None = None) -> FlowRun:
                return await here.client.create_flow_run_from_deployment(
                    of.id, parameters=parameters, tags=[asked.tag], idempotency_key=key
                )

            for wrong in (
                {**asked.parameters, "accession_numbers": ["ANOTHER1"]},
                {**asked.parameters, "accession_numbers": [*asked.accession_numbers, "ANOTHER1"]},
                {**asked.parameters, "accession_numbers": None},
                {**asked.parameters, "publisher": "another"},
                {**asked.parameters, "confirm_reprint": True},
                {},
            ):
                await tagged(deployment, wrong)
            await tagged(other, asked.parameters)
            taken = await tagged(deployment, {**asked.parameters, "confirm_reprint": True}, key=f"{asked.key}:first")
            job = await here.ask(asked)
            run = await here.client.read_flow_run(UUID(job.job_id))
            assert not job.joined and run.id != taken.id
            assert (run.deployment_id, run.parameters) == (deployment.id, asked.parameters)
            assert (await here.ask(asked)).job_id == job.job_id

    asyncio.run(scenario())


def test_a_run_of_another_flow_is_no_job(api_url: str) -> None:
    """The archive's nights are runs of the same server, and anybody may know their ids."""

    async def scenario() -> None:
        async with desk(api_url) as here:
            flow_id = await here.client.create_flow_from_name("archive_night")
            deployment = await here.client.create_deployment(flow_id=flow_id, name="nightly", work_pool_name="mkiso")
            night = await here.client.create_flow_run_from_deployment(deployment)
            for ask in (here.standing, here.cancel):
                with pytest.raises(JobNotFound):
                    await ask(str(night.id))
            state = (await here.client.read_flow_run(night.id)).state
            assert state is not None and state.is_scheduled()

    asyncio.run(scenario())


def test_a_job_is_cancelled_and_many_are_asked_for_at_once(api_url: str) -> None:
    async def scenario() -> None:
        async with desk(api_url) as here:
            waiting, running = [await here.ask(question()) for _ in range(2)]
            await move(here, running.job_id, Pending(), Running())
            nobody = str(uuid4())
            stood = await here.standings_of([waiting.job_id, running.job_id, nobody])
            assert stood == {waiting.job_id: "waiting", running.job_id: "running"}
            await here.cancel(waiting.job_id)
            assert await here.standing(waiting.job_id) == "cancelled"  # nothing runs that would have to end first
            await here.cancel(running.job_id)
            state = (await here.client.read_flow_run(UUID(running.job_id))).state
            assert state is not None and state.is_cancelling()
            with pytest.raises(JobNotFound):
                await here.cancel(nobody)

    asyncio.run(scenario())


async def runs_of(desk: Here, asked: Question) -> list[UUID]:
    """The runs that there are of a question."""
    named = FlowRunFilter(name=FlowRunFilterName(any_=[asked.run_name]))
    return [run.id for run in await desk.client.read_flow_runs(flow_run_filter=named)]


@asynccontextmanager
async def deployed_with(desk: Here, kind: Kind, parameters: dict[str, Any]) -> AsyncIterator[UUID]:
    """The deployment with parameters of its own, as whoever edits it in Prefect's UI gives it."""
    deployment = await desk.client.read_deployment_by_name(module.DEPLOYMENTS[kind])
    await desk.client.update_deployment(deployment.id, DeploymentUpdate(parameters=parameters))
    try:
        yield deployment.id
    finally:
        await desk.client.update_deployment(deployment.id, DeploymentUpdate(parameters={}))


@pytest.mark.parametrize("kind", ["download", "print"])
def test_what_a_deployment_says_needlessly_makes_no_second_run(api_url: str, kind: Kind) -> None:
    """Its form in Prefect's UI writes down what is meant anyway. Each question made runs for 20 seconds, and a robot a
    disc of each.
    """
    meant: dict[str, Any] = {"shown": "", "language": "", "study_uids": [], "series_uids": [], "priors": False}
    meant |= {"format": "iso", "seal": ""} if kind == "download" else {"publisher": "", "orders_told": -1}

    async def scenario() -> None:
        async with desk(api_url) as here, desk(api_url) as there, deployed_with(here, kind, meant):
            asked = question(kind)
            first = await here.ask(asked)
            assert await there.ask(asked) == Asked(first.job_id, joined=True)
            assert await runs_of(here, asked) == [UUID(first.job_id)]

    asyncio.run(scenario())


def test_a_deployment_that_asks_for_something_else_makes_no_run(api_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with desk(api_url) as here:
            asked, later = question("print"), question("print")
            async with deployed_with(here, "print", {"language": "de"}):
                with pytest.raises(OrchestratorUnavailable, match="mkiso deploy"):
                    await here.ask(asked)
                assert await runs_of(here, asked) == []
            post = PrefectApi.post

            async def changed_just_before(api: PrefectApi, path: str, body: dict[str, Any]) -> Any:
                if not path.endswith("create_flow_run"):
                    return await post(api, path, body)
                async with deployed_with(here, "print", {"language": "de"}):
                    return await post(api, path, body)

            monkeypatch.setattr(PrefectApi, "post", changed_just_before)
            job = await here.ask(later)
            assert await runs_of(here, later) == [UUID(job.job_id)], "which the worker refuses"

    asyncio.run(scenario())


@pytest.mark.parametrize("minutes", [-5, 5])
def test_a_clock_that_differs_from_prefect_s_makes_no_second_run(
    api_url: str, minutes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook whose clock was behind took the run that it had just made for one of later, and made the next one."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(minutes=minutes)

    for each in (module, api_module):
        monkeypatch.setattr(each, "datetime", Wrong)

    async def scenario() -> None:
        async with desk(api_url) as here, desk(api_url) as there:
            asked = question("print")
            first = await here.ask(asked)
            waiting = await here.queued()
            assert await there.ask(asked) == Asked(first.job_id, joined=True)
            await there.ask(question())
            assert await here.queued() == waiting + 1
            assert await runs_of(here, asked) == [UUID(first.job_id)]
            deployment = await here.client.read_deployment_by_name("make_disc/download")
            put_off = question()
            later = await here.client.create_flow_run_from_deployment(
                deployment.id,
                parameters=put_off.parameters,
                tags=[put_off.tag],
                name=put_off.run_name,
                state=Scheduled(scheduled_time=datetime.now(UTC) + timedelta(minutes=3)),
            )
            assert (await here.ask(put_off)).job_id != str(later.id)

    asyncio.run(scenario())


def test_what_no_worker_of_ours_finds_takes_no_place_in_the_queue(api_url: str) -> None:
    """Jobs of a queue that was removed were counted for ever, and so were those of another team's deployment."""

    async def scenario() -> None:
        async with desk(api_url) as here:
            queue = await here.client.create_work_queue(f"brief {uuid4()}", work_pool_name="mkiso")
            deployment = await here.client.read_deployment_by_name("make_disc/download")
            await here.client.update_deployment(deployment.id, DeploymentUpdate(work_queue_name=queue.name))
            waiting = await here.queued()
            await here.ask(question())
            assert await here.queued() == waiting + 1
            await here.client.delete_work_queue_by_id(queue.id)
            await here.client.update_deployment(
                deployment.id, DeploymentUpdate(work_pool_name="mkiso", work_queue_name="default")
            )
            assert await here.queued() == waiting
            await here.client.create_work_pool(WorkPoolCreate(name="reports", type="process"))
            flow_id = await here.client.create_flow_from_name("daily_report")
            other = await here.client.create_deployment(flow_id=flow_id, name="print", work_pool_name="reports")
            await here.client.create_flow_run_from_deployment(other)
            assert await here.queued() == waiting
            async with desk(api_url, max_queued_jobs=waiting + 1) as full:
                await full.ask(question())

    asyncio.run(scenario())


def test_a_question_that_prefect_answers_badly_fails_for_nobody_else(
    api_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.DEPLOYMENTS, "print", "print_disc/elsewhere")

    async def scenario() -> None:
        async with desk(api_url) as here:
            asked = [question("print"), *(question() for _ in range(3))]
            told = await asyncio.gather(*map(here.ask, asked), return_exceptions=True)
            assert [type(each) for each in told] == [OrchestratorUnavailable, Asked, Asked, Asked]

    asyncio.run(scenario())


@pytest.mark.parametrize(("kind", "error"), [("print", PrintUncertain), ("download", OrchestratorUnavailable)])
def test_a_print_that_prefect_may_have_begun_is_not_to_be_asked_for_again(
    api_url: str, monkeypatch: pytest.MonkeyPatch, kind: Kind, error: type[Exception]
) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 10)
    port = urlsplit(api_url).port or 0

    async def scenario() -> None:
        with Link(port, hush_at=b"create_flow_run") as link:
            async with desk(f"http://127.0.0.1:{link.port}/api") as here:
                with pytest.raises(error):
                    await here.ask(question(kind))
                assert link.hushed.is_set()

    asyncio.run(scenario())


def test_a_print_that_was_not_begun_may_be_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with desk(f"http://127.0.0.1:{free_port()}/api") as here:
            with pytest.raises(OrchestratorUnavailable):
                await here.ask(question("print"))

    asyncio.run(scenario())


CREATED = b"HTTP/1.1 201"


@pytest.mark.parametrize("end", [Completed(), Failed()])
def test_a_print_that_ends_before_its_answer_comes_is_not_asked_for_twice(
    api_url: str, monkeypatch: pytest.MonkeyPatch, end: State
) -> None:
    """The answer to its creation was lost, and who asked anew took the run, which had ended, for an older one."""
    monkeypatch.setattr(module, "CALL_SECONDS", LONG)
    monkeypatch.setattr(api_module, "READ_SECONDS", LONG)
    port = urlsplit(api_url).port or 0

    async def scenario() -> None:
        with Link(port, lose_at=CREATED) as link:
            async with desk(f"http://127.0.0.1:{link.port}/api") as through, desk(api_url) as here:
                asked, loop = question("print"), asyncio.get_running_loop()

                async def ended() -> None:
                    [run] = await runs_of(here, asked)
                    await move(here, str(run), Running(), end)

                link.on_lost = lambda: asyncio.run_coroutine_threadsafe(ended(), loop).result(LONG)
                told = await through.ask(asked)
                assert not link.lose_at
                assert await runs_of(here, asked) == [UUID(told.job_id)]
                assert (await through.ask(asked)).job_id != told.job_id, "who asks later wants another one"

    asyncio.run(scenario())


def an_hour_ahead(server: PrefectServer, job_id: str) -> None:
    """As if the server's clock had been an hour ahead when this run was made, and was set back since."""
    later = "strftime('%Y-%m-%d %H:%M:%f000', {0}, '+1 hour')"
    columns = ("created", "expected_start_time", "next_scheduled_start_time")
    changes = ", ".join(f"{column} = {later.format(column)}" for column in columns)
    with closing(sqlite3.connect(server.database, timeout=LONG)) as database, database:
        changed = database.execute(f"UPDATE flow_run SET {changes} WHERE id IN (?, ?)", (job_id, UUID(job_id).hex))
        assert changed.rowcount == 1


@pytest.mark.parametrize("kind", ["download", "print"])
def test_a_clock_that_was_ahead_has_nobody_told_of_an_old_job(server: PrefectServer, kind: Kind) -> None:
    """For that hour who asked again got the disc of before, without the images that came since, or no print at all."""

    async def scenario() -> None:
        async with desk(server.api_url) as here, desk(server.api_url) as there:
            asked = question(kind)
            first = await here.ask(asked)
            await move(here, first.job_id, Running(), Completed())
            an_hour_ahead(server, first.job_id)
            second = await here.ask(asked)
            assert second.job_id != first.job_id
            assert (await there.ask(asked)).job_id == second.job_id
            assert len(await runs_of(here, asked)) == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("state", [None, Running()])
def test_a_clock_that_was_ahead_has_no_job_in_flight_made_twice(server: PrefectServer, state: State | None) -> None:
    async def scenario() -> None:
        async with desk(server.api_url) as here:
            asked = question("print")
            first = await here.ask(asked)
            if state:
                await move(here, first.job_id, state)
            an_hour_ahead(server, first.job_id)
            assert (await here.ask(asked)).job_id == first.job_id
            assert await runs_of(here, asked) == [UUID(first.job_id)]

    asyncio.run(scenario())


@pytest.mark.parametrize("is_late", [False, True])
def test_a_print_that_began_unheard_is_not_made_again_by_who_repeats_it(
    api_url: str, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    """The second question made a second disc where the first one had ended: a clerk loads a page anew, a program tries
    again.
    """
    monkeypatch.setattr(module, "CALL_SECONDS", LONG)
    port = urlsplit(api_url).port or 0

    async def scenario() -> None:
        with Link(port, lose_at=CREATED) as link:
            async with desk(f"http://127.0.0.1:{link.port}/api") as through, desk(api_url) as here:
                asked = question("print")
                link.on_lost = lambda: setattr(link, "target", 0)
                with pytest.raises(PrintUncertain):
                    await through.ask(asked)
                link.target = port
                [run] = await runs_of(here, asked)
                await move(here, str(run), Running(), Completed())
                if is_late:
                    monkeypatch.setattr(module, "UNSURE_SECONDS", 0)
                    assert (await through.ask(asked)).job_id != str(run)
                    return
                assert await through.ask(asked) == Asked(str(run), joined=True)
                assert await runs_of(here, asked) == [run]
                assert (await through.ask(asked)).job_id != str(run), "who knows of it wants another one"

    asyncio.run(scenario())
