"""What mkiso relies on in Prefect beside its public API, and what it was measured to do: a newer Prefect that changes
it fails here.
"""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import prefect.results
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.context import FlowRunContext
from prefect.events.related import related_resources_from_run_context
from prefect.runner._control_channel import ControlChannel
from prefect.runner._flow_run_executor import FlowRunExecutor, FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle, ProcessManager
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.workers.base import BaseJobConfiguration, BaseWorker

from mkiso_service.worker.child import relate_to_nothing
from mkiso_service.worker.worker import RunConfiguration
from peers.corpus import make_ct_series
from peers.service import Service
from tests.end_to_end.conftest import Open


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (FlowRunExecutorContext.create_executor, {"flow_run", "starter", "resolve_flow", "propose_submitting"}),
        (FlowRunExecutor.submit, {"task_status"}),
        (ControlChannel.register, {"flow_run_id"}),
        (ProcessManager.flow_run_ids, set()),
        (ProcessManager.get, {"flow_run_id"}),
        (ProcessManager.kill, {"flow_run_id", "grace_seconds"}),
        (ProcessHandle, {"_process"}),
        (AioSqliteConfiguration.begin_transaction, {"session", "with_for_update"}),
        (BaseWorker._propose_submitting_state, {"flow_run"}),
        (BaseWorker._submit_scheduled_flow_runs, {"flow_run_response"}),
        (BaseWorker._mark_flow_run_as_cancelled, {"flow_run", "state_updates"}),
        (BaseWorker._release_limit_slot, {"flow_run_id"}),
        (BaseWorker._give_worker_labels_to_flow_run, {"flow_run_id"}),
        (BaseJobConfiguration.resolve_for_flow_run, {"flow_run", "client"}),
    ],
)
def test_the_private_names_are_there(function: object, parameters: set[str]) -> None:
    assert callable(function)
    assert parameters <= set(inspect.signature(function).parameters)


def test_a_run_asks_nobody_where_results_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object, **__: object) -> None:
        raise AssertionError("Prefect's server is asked")

    monkeypatch.setattr("prefect.client.orchestration.get_client", ask)
    assert prefect.results.get_default_result_storage(_sync=True)  # type: ignore[call-arg]
    assert asyncio.run(prefect.results.aget_default_result_storage())


def test_a_run_asks_nobody_what_its_events_belong_to() -> None:
    run = FlowRun(flow_id=uuid4(), deployment_id=uuid4(), work_queue_id=uuid4(), work_pool_name="mkiso")
    relate_to_nothing(run, "mkiso")
    nobody = SimpleNamespace(read_flow=None, read_deployment=None, read_work_queue=None, read_work_pool=None)
    with FlowRunContext.model_construct(flow_run=run):  # type: ignore[call-arg]
        related = asyncio.run(related_resources_from_run_context(client=nobody))  # type: ignore[arg-type]
    assert [each.id for each in related] == [f"prefect.flow-run.{run.id}"]


def test_the_worker_asks_for_a_runs_deployment_alone() -> None:
    deployment = DeploymentResponse(id=uuid4(), name="download", flow_id=uuid4(), labels={})
    run = FlowRun(flow_id=deployment.flow_id, deployment_id=deployment.id)

    async def read_deployment(_: UUID) -> DeploymentResponse:
        return deployment

    alone: Any = SimpleNamespace(read_deployment=read_deployment)
    known = asyncio.run(RunConfiguration.resolve_for_flow_run(run, client=alone, work_pool=None, worker_name="it"))
    assert known.deployment is deployment
    related = {each.id for each in known._related_resources()}
    assert related == {f"prefect.deployment.{deployment.id}", f"prefect.flow-run.{run.id}"}


@pytest.fixture(scope="module")
def service(open_hospital: Open, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """Its PACS has a study for each test that asks for one, since a disc is served again."""
    folder = tmp_path_factory.mktemp("studies")
    files = [file for number in ("NAMED1", "STEPS1") for file in make_ct_series(folder / number, number, 1, size=64)]
    return open_hospital("dcmqrscp", files).service


@pytest.mark.end_to_end
def test_each_run_is_named_after_its_question(service: Service) -> None:
    deployment = service.prefect.get("/deployments/name/make_disc/download").json()["id"]
    parameters = {"parameters": {"accession_numbers": ["NAMED1"]}}
    custom = service.prefect.post(f"/deployments/{deployment}/create_flow_run", json=parameters).json()
    assert custom["name"] != "Disc NAMED1"
    service.run_ended(custom["id"])
    asked = service.ask("/api/iso/download", accession_number="NAMED1")
    names = [service.prefect.get(f"/flow_runs/{run}").json()["name"] for run in (custom["id"], asked)]
    assert names == ["Disc NAMED1"] * 2


@pytest.mark.end_to_end
def test_a_job_has_the_steps_that_have_something_to_do(service: Service) -> None:
    job = service.ask("/api/iso/download", accession_number="STEPS1")
    service.run_ended(job)
    wanted = {"flow_runs": {"id": {"any_": [job]}}, "sort": "EXPECTED_START_TIME_ASC"}

    def steps() -> list[str] | None:
        runs = service.prefect.post("/task_runs/filter", json=wanted).json()
        return [run["name"] for run in runs] if any(run["name"].startswith("Put disc") for run in runs) else None

    assert set(service.when(steps)) == {
        "Find STEPS1 in the PACS",
        "Check that it is one patient",
        "Look for a disc of the same content",
        "Retrieve STEPS1",
        "Check that it is complete",
        "Finish pictures",
        "Lay out disc",
        "Master image",
        "Read image back",
        "Put disc on the shelf",
    }


@pytest.mark.end_to_end
def test_a_schedule_makes_runs(service: Service) -> None:
    """With SQLAlchemy 2.1 the server's scheduler makes none; the bound in pyproject.toml is held by this."""
    wanted = {
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        "deployments": {"name": {"any_": ["housekeeping"]}},
    }
    assert service.when(lambda: service.prefect.post("/flow_runs/filter", json=wanted).json() or None)


@pytest.mark.end_to_end
def test_a_job_that_waits_for_a_place_starts_when_one_is_free(
    open_hospital: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its event came when there was no place, and the poll, which would find it as well, is an hour away."""
    monkeypatch.setenv("PREFECT_WORKER_QUERY_SECONDS", "3600")
    numbers = ["A1", "A2", "A3"]
    files = [file for number in numbers for file in make_ct_series(tmp_path / number, number, 2, size=64)]
    service = open_hospital("dcmqrscp", files, {"server": {"max_running_jobs": 1}}).service
    jobs = [service.ask("/api/iso/download", accession_number=number) for number in numbers]
    assert [service.ended(job)["state"] for job in jobs] == ["done"] * 3
