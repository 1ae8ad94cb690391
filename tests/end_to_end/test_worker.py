"""What mkiso relies on in Prefect beside its public API, and what it was measured to do: a newer Prefect that changes
it fails here.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from prefect.runner._control_channel import ControlChannel
from prefect.runner._flow_run_executor import FlowRunExecutor, FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle, ProcessManager
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.workers.base import BaseWorker

from peers.corpus import make_ct_series
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
    ],
)
def test_the_private_names_are_there(function: object, parameters: set[str]) -> None:
    assert callable(function)
    assert parameters <= set(inspect.signature(function).parameters)


@pytest.mark.end_to_end
def test_a_schedule_makes_runs(open_hospital: Open) -> None:
    """With SQLAlchemy 2.1 the server's scheduler makes none; the bound in pyproject.toml is held by this."""
    service = open_hospital("dcmqrscp", []).service
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
