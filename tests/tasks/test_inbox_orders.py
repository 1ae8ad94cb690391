"""What of an inbox's job stands in the order book."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from mkiso.config.storage import Storage
from mkiso.errors import PrintUncertain
from mkiso.publishers.orderbook import Entry, OrderBook, State, decide
from mkiso.publishers.protocol import pages_of
from mkiso.receiver.pushed import Ask, PushedStudy
from mkiso.study.selection import Selection
from tasks.inbox import InboxRun, write_down_sent

STUDY = "1.2.3"


def run_of(folder: Path, job_id: str = "sent", *, is_retry: bool = False) -> InboxRun:
    storage = Storage(data_dir=folder)
    return cast(
        InboxRun,
        SimpleNamespace(
            job=SimpleNamespace(id=job_id),
            settings=SimpleNamespace(storage=storage),
            place=PushedStudy(storage, "BURN", STUDY),
            study_instance_uid=STUDY,
            is_retry=lambda: is_retry,
        ),
    )


def book_of(folder: Path, *numbers: str) -> OrderBook:
    """As the job's order has it of a study that has these numbers in the PACS."""
    return OrderBook.of(Storage(data_dir=folder).orders_dir, pages_of(numbers, Selection((STUDY,))))


def ordered(book: OrderBook, job_id: str, state: State) -> Entry:
    order = book.open(job_id, 1, "robot")
    book.begin(order)
    return book.settle(order, state)


def test_what_is_printed_at_the_counter_meanwhile_is_not_printed_by_a_retry(tmp_path: Path) -> None:
    write_down_sent.fn(run_of(tmp_path), ("A1",))  # and then the PACS doesn't have it yet
    book = OrderBook.of(Storage(data_dir=tmp_path).orders_dir, ("A1",))
    book.ask("clerk")
    ordered(book, "clerk", "done")
    write_down_sent.fn(run_of(tmp_path, is_retry=True), ("A1",))  # the retry, once the PACS has it
    with pytest.raises(PrintUncertain, match="since this one was asked for"):
        decide(book_of(tmp_path, "A1").pages(), "sent", 1, "robot")


@pytest.mark.parametrize(("first", "then"), [((), ("A1",)), (("A1",), ()), (("A1",), ("A2",))])
@pytest.mark.parametrize(("state", "step"), [("uncertain", "find out"), ("given", "follow"), ("done", "rest")])
def test_a_retry_knows_its_order_whatever_number_the_pacs_has_given_the_study(
    tmp_path: Path, first: tuple[str, ...], then: tuple[str, ...], state: State, step: str
) -> None:
    run = run_of(tmp_path)
    for numbers in (("A1",), first):
        write_down_sent.fn(run, numbers)
    order = ordered(book_of(tmp_path, *first), "sent", state)
    for numbers in (("A1",), then):
        write_down_sent.fn(run_of(tmp_path, is_retry=True), numbers)
    book = book_of(tmp_path, *then)
    assert decide(book.pages(), "sent", 1, "robot") == step
    assert book.settle(order, "failed").state == "failed"
    assert decide(book.pages(), "sent", 1, "robot") == "give"


@pytest.mark.parametrize("state", ["uncertain", "given", "done"])
def test_what_is_sent_again_is_not_ordered_again_under_another_number(tmp_path: Path, state: State) -> None:
    run = run_of(tmp_path)
    for numbers in (("A1",), ()):
        write_down_sent.fn(run, numbers)
    ordered(book_of(tmp_path), "sent", state)
    run.place.folder.mkdir(parents=True)
    run.place.note_asked([Ask("sent", "f", 1, time.time(), "failed"), Ask("again", "f", 1, time.time())])
    with pytest.raises(PrintUncertain, match="no second one is ordered"):
        write_down_sent.fn(run_of(tmp_path, "again"), ("A1",))
