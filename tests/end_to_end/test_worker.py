"""What mkiso relies on in Prefect beside its public API, and what it was measured to do: a newer Prefect that changes it fails here."""

from __future__ import annotations

import inspect

import pytest
from prefect.runner._control_channel import ControlChannel
from prefect.runner._flow_run_executor import FlowRunExecutor, FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle, ProcessManager
from prefect.server.database.configurations import AioSqliteConfiguration

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
    ],
)
def test_the_private_names_are_there(function: object, parameters: set[str]) -> None:
    assert callable(function)
    assert parameters <= set(inspect.signature(function).parameters)


@pytest.mark.end_to_end
@pytest.mark.timeout(180)
def test_a_schedule_makes_runs(open_hospital: Open) -> None:
    """With SQLAlchemy 2.1 the server's scheduler makes none; the bound in pyproject.toml is held by this."""
    service = open_hospital("dcmqrscp", []).service
    wanted = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, "deployments": {"name": {"any_": ["housekeeping"]}}}
    assert service.when(lambda: service.prefect.post("/flow_runs/filter", json=wanted).json() or None, 60)
