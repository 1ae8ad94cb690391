"""Runs whose process is gone: Prefect leaves them Running for ever and their slots taken, so the worker looks for them and says Crashed.

A run's infrastructure id names the machine, the process and when that process started, so that a number used again isn't taken for the run.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Crashed, Scheduled

Verdict = Literal["alive", "crashed", "reschedule"]

PENDING_LIMIT = timedelta(seconds=45)
"""How long a run may be Pending without a process; a start takes a second, ten on a busy machine."""


@dataclass(frozen=True, slots=True)
class Infrastructure:
    """Where a run's process is: machine, process id, and the process's start in clock ticks since boot."""

    host: str
    pid: int
    started: str

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}/{self.started}"

    @classmethod
    def parse(cls, text: str | None) -> Infrastructure | None:
        parts = (text or "").split("/")
        return cls(parts[0], int(parts[1]), parts[2]) if len(parts) == 3 and parts[1].isdigit() else None


def worker_label(pid: int | None) -> str:
    """The infrastructure id of a process of this machine."""
    return str(Infrastructure(socket.gethostname(), pid or 0, _started(pid or 0)))


def verdict(run: FlowRun, host: str, own: set[UUID], now: datetime) -> Verdict:
    """What is to be done about a run that Prefect takes for active, seen from one worker of machine `host` that runs `own`. Pure but for /proc."""
    if run.id in own or run.state is None:
        return "alive"
    infrastructure = Infrastructure.parse(run.infrastructure_pid)
    if infrastructure is None:
        overdue = run.state.type == StateType.PENDING and now - run.state.timestamp > PENDING_LIMIT
        return "reschedule" if overdue else "alive"
    if infrastructure.host != host or _started(infrastructure.pid) == infrastructure.started:
        return "alive"
    # A run that was retried is Pending again and still carries the id of the process of its first attempt.
    if run.state.type == StateType.PENDING:
        return "reschedule" if now - run.state.timestamp > PENDING_LIMIT else "alive"
    return "crashed"


async def crash_orphans(client: PrefectClient, work_pool: str, own: set[UUID]) -> int:
    """Set every run whose process is gone to Crashed, and fetch again what never got a process; how many there were."""
    active = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]))
    )
    pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[work_pool]))
    found = 0
    for run in await client.read_flow_runs(flow_run_filter=active, work_pool_filter=pool):
        match verdict(run, socket.gethostname(), own, datetime.now(UTC)):
            case "crashed":
                words = "The job's process ended without a word (killed, out of memory, or the machine lost power). Retry the run to go on."
                await client.set_flow_run_state(run.id, Crashed(message=words), force=True)
            case "reschedule":
                await client.set_flow_run_state(run.id, Scheduled(message="Its worker went away before it started; it is fetched again."), force=True)
            case "alive":
                continue
        found += 1
    return found


def _started(pid: int) -> str:
    """The start time of a process, empty where there is none (proc_pid_stat(5), field 22)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
