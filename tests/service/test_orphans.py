"""What becomes of runs whose process, or whose machine, is gone."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType

from mkiso.config.settings import Settings
from mkiso.config.storage import Storage
from mkiso.publishers.orderbook import OrderBook
from mkiso_service.prefect.workers import machine_of, worker_name
from mkiso_service.worker.infrastructure import Infrastructure, worker_label
from mkiso_service.worker.orphans import (
    START_LOOKS,
    UNCHANGED_LOOKS,
    Heartbeat,
    Orphans,
    Verdict,
    View,
    has_ordered,
    look,
    state_of,
    verdict,
)
from peers.small_disk import share

NOW = datetime(2030, 1, 1, tzinfo=UTC)
STOPPED = Heartbeat(NOW, UNCHANGED_LOOKS + 1)
RESPONDING = Heartbeat(NOW, 1)


def run(kind: StateType, *, host: str | None = "here", queue: str = "downloads", **more: Any) -> FlowRun:
    return FlowRun.model_construct(
        id=uuid4(),
        state=State(type=kind, timestamp=NOW - timedelta(hours=1)),  # another machine's clock, which tells nothing
        infrastructure_pid=host and f"{host}/17/4711",
        work_queue_name=queue,
        **more,
    )


def view(looked_at: FlowRun | None = None, looks: int = 1, **heartbeats: Heartbeat) -> View:
    return View("here", heartbeats={"here": RESPONDING, **heartbeats}, looks={looked_at.id: looks} if looked_at else {})


@pytest.mark.parametrize(
    ("kind", "looks", "lives", "expected"),
    [
        (StateType.RUNNING, 1, True, "alive"),
        (StateType.RUNNING, 1, False, "crashed"),
        (StateType.CANCELLING, 1, True, "alive"),
        (StateType.CANCELLING, 1, False, "cancelled"),
        (StateType.PENDING, START_LOOKS, False, "alive"),
        (StateType.PENDING, START_LOOKS + 1, False, "fetch again"),
        (StateType.PENDING, START_LOOKS + 1, True, "alive"),
    ],
)
def test_a_run_of_this_machine_is_judged_by_its_process(
    kind: StateType, looks: int, lives: bool, expected: str
) -> None:
    judged = run(kind)
    assert verdict(judged, view(judged, looks), lives=lives, ordered=False) == expected


def test_a_run_that_this_worker_executes_is_alive_whatever_else_is_said() -> None:
    mine = run(StateType.RUNNING)
    assert verdict(mine, View("here", {mine.id}), lives=False, ordered=False) == "alive"


@pytest.mark.parametrize(("kind", "expected"), [(StateType.PENDING, "fetch again"), (StateType.RUNNING, "crashed")])
def test_a_run_that_never_got_a_process_is_fetched_again_or_crashed(kind: StateType, expected: str) -> None:
    """By looks: a machine whose clock is a minute ahead would take a run that starts for one that never will."""
    judged = run(kind, host=None)
    assert verdict(judged, view(judged, START_LOOKS), lives=False, ordered=False) == "alive"
    assert verdict(judged, view(judged, START_LOOKS + 1), lives=False, ordered=False) == expected


@pytest.mark.parametrize(
    ("queue", "ordered", "expected"),
    [
        ("downloads", False, "move"),
        ("prints", False, "move"),
        ("prints", True, "ordered"),
        ("archives", False, "crashed"),
        ("housekeeping", False, "crashed"),
    ],
)
def test_what_becomes_of_a_run_of_a_silent_machine(queue: str, ordered: bool, expected: str) -> None:
    assert (
        verdict(run(StateType.RUNNING, host="there", queue=queue), view(there=STOPPED), lives=False, ordered=ordered)
        == expected
    )


def test_a_cancelled_run_of_a_silent_machine_is_cancelled() -> None:
    assert (
        verdict(run(StateType.CANCELLING, host="there"), view(there=STOPPED), lives=False, ordered=False) == "cancelled"
    )


@pytest.mark.parametrize("host", ["here", "there"])
def test_a_cancelled_print_whose_order_nobody_took_back_says_so(host: str) -> None:
    cancelled = run(StateType.CANCELLING, host=host, queue="prints")
    judged = verdict(cancelled, view(there=STOPPED), lives=False, ordered=True)
    assert state_of(judged, cancelled).name == "Cancelled"
    assert "Look at the robot" in str(state_of(judged, cancelled).message)


def test_a_machine_that_speaks_looks_after_its_own_runs() -> None:
    assert verdict(run(StateType.RUNNING, host="there"), view(there=RESPONDING), lives=False, ordered=False) == "alive"
    assert verdict(run(StateType.RUNNING, host="there"), view(), lives=False, ordered=False) == "alive"


def test_one_machine_alone_looks_after_a_silent_one() -> None:
    everybody = {"a": STOPPED, "b": RESPONDING, "c": RESPONDING}
    assert [View(host, heartbeats=everybody).is_lost("a") for host in "abc"] == [False, True, False]


def test_a_machine_counts_as_silent_by_looks_without_news_and_not_by_its_clock() -> None:
    def worker(name: str, minutes: float) -> SimpleNamespace:
        return SimpleNamespace(name=name, last_heartbeat_time=NOW + timedelta(minutes=minutes))

    seen: dict[str, Heartbeat] = {}
    for looked in range(UNCHANGED_LOOKS + 1):
        assert not any(beat.has_stopped for beat in seen.values())
        seen = look(seen, [worker("A on one", looked), worker("B on two", -60), worker("C on two", -90)], ["three"])  # type: ignore[list-item]
    assert {host: beat.has_stopped for host, beat in seen.items()} == {"one": False, "two": True, "three": True}
    seen = look(seen, [worker("B on two", 99)], [])  # type: ignore[list-item]
    assert not seen["two"].has_stopped


def test_verdicts_become_states_that_say_what_to_do() -> None:
    lost = run(StateType.RUNNING)
    assert [state_of(each, lost).name for each in ("cancelled", "crashed", "ordered", "fetch again", "move")] == [
        "Cancelled",
        "Crashed",
        "Crashed",
        "Scheduled",
        "AwaitingRetry",
    ]
    assert "robot" in str(state_of("ordered", lost).message)
    assert "Retry" in str(state_of("crashed", lost).message)


@pytest.mark.parametrize("judged", ["fetch again", "move"])
def test_what_begins_anew_is_due_by_the_clock_of_prefects_server(judged: Verdict) -> None:
    """By that of this machine, which may be ahead, it would wait until that time has come there."""
    lost = run(StateType.RUNNING).model_copy(update={"created": NOW})
    assert state_of(judged, lost).state_details.scheduled_time == NOW


def test_the_order_book_tells_whether_a_print_was_ordered(tmp_path: Path) -> None:
    settings = Settings(storage=Storage(data_dir=tmp_path / "own", shared_dir=tmp_path / "shared"))
    (tmp_path / "shared").mkdir()
    printed = run(StateType.RUNNING, queue="prints", parameters={"accession_numbers": [" A1"], "publisher": ""})
    assert not has_ordered(printed, settings)
    book = OrderBook.of(settings.storage.orders_dir, ["A1"])
    book.ask("another job")
    book.settle(book.open("another job", 1, "rimage"), "done")
    book.ask(str(printed.id))
    assert not has_ordered(printed, settings)  # it has only asked
    book.begin(book.open(str(printed.id), 1, "rimage"))
    assert has_ordered(printed, settings)
    assert book.paths[0].is_relative_to(tmp_path / "shared")
    book.paths[0].write_text("{")
    assert has_ordered(printed, settings)


def test_storage_that_hangs_holds_up_no_worker(tmp_path: Path) -> None:
    """Its order book is asked of a print whose process is gone, and of no other, beside all else that a worker does;
    a run that goes on meanwhile is left as it is.
    """
    words: dict[str, Any] = {"state_id": None, "parameters": {"accession_numbers": ["A1"], "publisher": ""}}
    gone = run(StateType.RUNNING, host=worker_label(0).partition("/")[0], queue="prints", **words)
    lives = run(StateType.RUNNING, queue="prints", **words)
    lives.infrastructure_pid = worker_label(os.getpid())
    went_on = run(StateType.RUNNING, host=worker_label(0).partition("/")[0], queue="prints", **words)
    retried = went_on.model_copy(update={"state_id": uuid4()})
    told: list[Any] = []

    class Prefect:
        async def read_flow_runs(self, **_: object) -> list[FlowRun]:
            return [lives, gone, went_on]

        async def read_workers_for_work_pool(self, _: str) -> list[object]:
            return []

        async def read_flow_run(self, run_id: UUID) -> FlowRun:
            return {lives.id: lives, gone.id: gone, went_on.id: retried}[run_id]

        async def set_flow_run_state(self, run_id: object, state: State, **_: object) -> None:
            told.append(run_id)

    async def looks() -> float:
        settings = Settings(storage=Storage(data_dir=tmp_path / "share"))
        settings.storage.orders_dir.mkdir(parents=True)
        storage.away()
        begun = time.monotonic()
        back = threading.Timer(3, storage.back)
        back.start()
        looking = asyncio.create_task(Orphans(settings).look(cast(Any, Prefect()), {}))
        await asyncio.sleep(0.2)
        held_up = time.monotonic() - begun
        assert await looking == 1
        back.join()
        return held_up

    with share(tmp_path / "share") as storage:
        assert asyncio.run(looks()) < 2
    assert told == [gone.id]


def test_an_order_of_what_was_sent_is_known_whatever_number_the_images_have(tmp_path: Path) -> None:
    settings = Settings(storage=Storage(data_dir=tmp_path))
    parameters = {"accession_numbers": ["A1"], "study_instance_uid": "1.2.3", "inbox": "BURN"}
    sent = run(StateType.RUNNING, queue="inboxes", parameters=parameters)
    book = OrderBook.of(settings.storage.orders_dir, ["1.2.3"])
    book.ask(str(sent.id))
    assert not has_ordered(sent, settings)
    book.begin(book.open(str(sent.id), 1, "rimage"))
    assert has_ordered(sent, settings)


@pytest.mark.parametrize(
    "parameters",
    [
        {"accession_numbers": [], "study_uids": [1]},
        {"accession_numbers": ["\ud800"]},
        {"accession_numbers": [], "study_instance_uid": 1},
        {"accession_numbers": {}, "study_uids": [{}]},
    ],
)
def test_a_run_that_no_worker_takes_keeps_nobody_from_looking_for_others(
    tmp_path: Path, parameters: dict[str, object]
) -> None:
    settings = Settings(storage=Storage(data_dir=tmp_path))
    assert not has_ordered(run(StateType.PENDING, queue="prints", parameters=parameters), settings)


@pytest.mark.parametrize("text", ["h/²/1", f"h/{'9' * 5000}/1", "h/-1/1", "h/1", "h/1/2/3", ""])
def test_what_somebody_else_has_written_is_no_process(text: str) -> None:
    assert Infrastructure.parse(text) is None


def test_a_process_is_known_by_its_start_and_a_worker_by_its_machine() -> None:
    mine = Infrastructure.parse(worker_label(os.getpid()))
    assert mine is not None and mine.lives()
    assert not Infrastructure(mine.host, mine.pid, "1").lives()
    gone = Infrastructure.parse(worker_label(2**22 - 1))  # it had ended before its start could be read
    assert gone is not None and not gone.lives()
    assert machine_of(worker_name(Settings())) == mine.host
