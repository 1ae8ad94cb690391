"""Runs whose process is gone. Prefect leaves them Running for ever, so the workers look for them and set their state.

A worker checks its own machine's runs. Where a machine has stopped responding, the first of the others, by name, checks
its runs.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Literal
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun, State, StateType, Worker
from prefect.states import AwaitingRetry, Cancelled, Crashed, Scheduled

from mkiso.config.settings import Settings
from mkiso.errors import PrintUncertain
from mkiso.publishers.orderbook import OrderBook, orders_of
from mkiso.publishers.protocol import pages_of
from mkiso.study.selection import Selection, selection_of
from mkiso_service.prefect.workers import machine_of
from mkiso_service.worker.infrastructure import Infrastructure

Verdict = Literal["alive", "cancelled", "cancelled, ordered", "crashed", "ordered", "fetch again", "move"]

START_LOOKS = 3
"""So many looks in a row may find a run without a process; a start takes a second, ten on a busy machine."""
UNCHANGED_LOOKS = 5
"""A machine has stopped responding when so many looks, 15 seconds apart, found its last heartbeat unchanged. Looks are
counted, not seconds: clocks of machines differ, and after an outage of Prefect's API every heartbeat is old.
"""

WORDS: Mapping[Verdict, str] = {
    "cancelled": "Cancelled; the job's process was gone already.",
    "cancelled, ordered": "Cancelled; the job's process was gone already. Nobody has asked the publisher to drop the "
    "order. Look at the robot before you ask again.",
    "crashed": "The job's process ended before the job did: it was killed, ran out of memory, or the machine lost "
    "power. Retry the run to go on.",
    "ordered": "The machine of this print stopped responding after it began an order. Look at the robot. Retry "
    "continues where the order book says.",
    "fetch again": "Its worker ended before the job started: a worker fetches it again.",
    "move": "Its machine stopped responding; another one starts the job again.",
}


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A machine's last heartbeat, and how many looks in a row have found it unchanged."""

    time: datetime | None
    looks: int = 1

    @property
    def has_stopped(self) -> bool:
        return self.looks > UNCHANGED_LOOKS


@dataclass(frozen=True, slots=True)
class View:
    """What one worker knows: its machine, the runs whose processes are its own, each machine's heartbeat, and how many
    looks in a row have found each run in the state that it is in.
    """

    host: str
    own: Collection[UUID] = ()
    heartbeats: Mapping[str, Heartbeat] = field(default_factory=dict)
    looks: Mapping[UUID, int] = field(default_factory=dict)

    def is_lost(self, host: str) -> bool:
        """Whether a machine has stopped responding and this one checks its runs."""
        responding = [name for name, beat in self.heartbeats.items() if not beat.has_stopped]
        return (
            host in self.heartbeats and self.heartbeats[host].has_stopped and self.host == min(responding, default="")
        )


def look(before: Mapping[str, Heartbeat], workers: Iterable[Worker], hosts: Collection[str]) -> dict[str, Heartbeat]:
    """What is known of each machine after another look; `hosts` run something, whether or not a worker of them is on
    Prefect's list. Pure.
    """
    newest: dict[str, datetime | None] = dict.fromkeys(hosts)
    for worker in workers:
        host = machine_of(worker.name)
        known = newest.get(host)
        if worker.last_heartbeat_time and (known is None or worker.last_heartbeat_time > known):
            newest[host] = worker.last_heartbeat_time
    return {
        host: Heartbeat(time, before[host].looks + 1)
        if host in before and before[host].time == time
        else Heartbeat(time)
        for host, time in newest.items()
    }


def verdict(run: FlowRun, view: View, *, lives: bool, ordered: bool) -> Verdict:
    """What to do about a run that Prefect counts as active. Pure.

    `lives`: its process runs on this machine; `ordered`: the order book has an order of it.
    """
    if run.id in view.own or run.state is None:
        return "alive"
    infrastructure = Infrastructure.parse(run.infrastructure_pid)
    overdue = view.looks.get(run.id, 0) > START_LOOKS
    if infrastructure is None:
        if not overdue:
            return "alive"
        return "fetch again" if run.state.type == StateType.PENDING else "crashed"
    here = infrastructure.host == view.host
    if lives if here else not view.is_lost(infrastructure.host):
        return "alive"
    match run.state.type:
        case StateType.PENDING:  # a run that was retried still carries the id of the process of its first attempt
            return "fetch again" if overdue else "alive"
        case StateType.CANCELLING:
            return "cancelled, ordered" if ordered else "cancelled"
    if here or run.work_queue_name not in ("downloads", "prints"):
        return "crashed"
    return "ordered" if ordered else "move"


def state_of(verdict: Verdict, run: FlowRun) -> State:
    """The state that a verdict gives a run. One that is to begin anew is due since it was made, by the clock of
    Prefect's server: by ours it may be due in an hour.
    """
    match verdict:
        case "cancelled" | "cancelled, ordered":
            return Cancelled(message=WORDS[verdict])
        case "fetch again":
            return Scheduled(scheduled_time=run.created, message=WORDS[verdict])
        case "move":
            return AwaitingRetry(scheduled_time=run.created, message=WORDS[verdict])
    return Crashed(message=WORDS[verdict])


def has_ordered(run: FlowRun, settings: Settings) -> bool:
    """Whether an order of this run stands in the book; a book that can't be read may hold one."""
    if run.work_queue_name not in ("prints", "inboxes"):
        return False
    try:
        numbers = [number.strip() for number in run.parameters["accession_numbers"]]
        sent = run.parameters.get("study_instance_uid")
        pages = pages_of(numbers, Selection((sent,)) if sent else selection_of(run.parameters))
        book = OrderBook.of(settings.storage.orders_dir, pages)
    except (KeyError, TypeError, AttributeError, ValueError):  # no worker has taken such a run
        return False
    try:
        return bool(orders_of(book.pages(), str(run.id)))
    except PrintUncertain:
        return True


class Orphans:
    """The regular looks of one worker."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._heartbeats: dict[str, Heartbeat] = {}
        self._states: dict[UUID, tuple[UUID | None, int]] = {}

    async def look(self, client: PrefectClient, own: Mapping[UUID, str]) -> int:
        """Set the state of every run whose process is gone; how many there were. `own` are the processes of this
        worker's runs; any that Prefect doesn't know of yet is told to it.
        """
        pool = self._settings.prefect.work_pool
        runs = await active_runs(client, pool)
        processes = {run.id: Infrastructure.parse(run.infrastructure_pid) for run in runs}
        self._heartbeats = look(
            self._heartbeats,
            await client.read_workers_for_work_pool(pool),
            {each.host for each in processes.values() if each},
        )
        before = self._states
        self._states = {run.id: (run.state_id, _looks(run, before.get(run.id))) for run in runs}
        view = View(
            socket.gethostname(), own, self._heartbeats, {run_id: looks for run_id, (_, looks) in self._states.items()}
        )
        found = 0
        for run in runs:
            if run.id in own and run.infrastructure_pid is None:
                await client.update_flow_run(run.id, infrastructure_pid=own[run.id])
            process = processes[run.id]
            judged = partial(verdict, run, view, lives=process is not None and process.lives())
            if judged(ordered=False) != "alive":
                # In a thread: storage that hangs would hold up the whole worker, its heartbeat and its end.
                ordered = await asyncio.to_thread(has_ordered, run, self._settings)
                if (await client.read_flow_run(run.id)).state_id != run.state_id:
                    continue  # it went on meanwhile: the next look judges it
                await client.set_flow_run_state(run.id, state_of(judged(ordered=ordered), run), force=True)
                found += 1
        return found


def _looks(run: FlowRun, before: tuple[UUID | None, int] | None) -> int:
    return before[1] + 1 if before is not None and before[0] == run.state_id else 1


async def active_runs(client: PrefectClient, pool: str) -> list[FlowRun]:
    """The runs that Prefect counts as active."""
    active = {"state": {"type": {"any_": [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]}}}
    return await client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(active),
        work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [pool]}}),
    )
