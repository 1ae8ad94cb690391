"""The desk where a job's order is given and followed: the order book on one side, a publisher on the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path

from mkiso.errors import PrintUncertain, ProofFailed, PublisherRefused, PublisherUnavailable
from mkiso.publishers.lock import lock_name, lock_name_of_patient, publisher_lock
from mkiso.publishers.orderbook import (
    MAY_BE_MADE,
    NOTHING_MADE,
    OPEN,
    Entry,
    OrderBook,
    State,
    asked_by,
    decide,
    latest,
    made_before,
    orders_of,
)
from mkiso.publishers.protocol import Order, Publisher, Receipt, Watch

OTHER_IMAGES = "An earlier attempt of this print was given with other images: the study has changed since. "
THROW_AWAY = "Throw that disc away and run with confirm_reprint."
BROKE_OFF = "An earlier attempt at this print broke off."
SETTLE_POLL_SECONDS = 1.0


def give(publisher: Publisher, order: Order, orders_dir: Path, watch: Watch) -> Receipt:
    """Give the order unless it was given already, one job at a publisher after another; the receipt proves `queued` or
    more.

    The lock is free while the publisher settles for this order's patient, and for other patients' orders once it has
    everything and only its answer is waited for. Raises PublisherUnavailable (nothing was given), PublisherRefused,
    PrintUncertain (somebody has to look).
    """
    book = OrderBook.of(orders_dir, order.questions)
    of_patient = orders_dir / lock_name_of_patient(publisher.where, order.patient.patient_id)
    while True:
        with publisher_lock(of_patient, publisher.name, watch), _locked(publisher, orders_dir, watch) as free:
            _tell_of_broken_off(publisher, order, book)
            if receipt := _taken(publisher, order, book):
                return receipt
            if (left := publisher.settles_in_seconds(order)) <= 0:
                pages = book.pages()
                before = made_before(pages, asked_by(pages, order.job_id))
                receipt = _place(publisher, order, book, replace(watch, sent=free))
                minutes = max(0.0, round((time.time() - before[-1].time) / 60, 1)) if before else None
                return replace(receipt, minutes_since_last=minutes)
        watch.progress(f"waiting for an earlier study ({publisher.name} may still be gathering it; {left:.0f} s)", 0, 0)
        if watch.stop.wait(min(left, SETTLE_POLL_SECONDS)):
            raise PublisherUnavailable(f"The print was stopped while {publisher.name} settled; nothing was sent.")


def require_same_discs(orders: Sequence[Order], orders_dir: Path) -> None:
    """What an earlier attempt of this job has given is of the same discs, or discs of two sets would lie at the
    publisher as one. `orders` are all of the job. Raises PrintUncertain.
    """
    contents = {order.volume.number: order.contents for order in orders}
    book = OrderBook.of(orders_dir, orders[0].questions)
    for entry in orders_of(book.pages(), orders[0].job_id):
        if entry.state not in NOTHING_MADE and entry.contents != contents.get(entry.volume):
            raise PrintUncertain(OTHER_IMAGES + THROW_AWAY)


def may_be_given(order: Order, orders_dir: Path) -> bool:
    """Whether the publisher may have it, by what this job could write down."""
    entry = latest(OrderBook.of(orders_dir, order.questions).pages(), order.job_id, order.volume.number)
    return entry is not None and entry.state not in NOTHING_MADE


def follow(publisher: Publisher, order: Order, orders_dir: Path, watch: Watch) -> Receipt:
    """Follow a given order to the end that the publisher can tell of; for a DICOM relay that is at once.

    The lock is free while this order is waited for.
    """
    book = OrderBook.of(orders_dir, order.questions)
    entry = _given(book, order)
    if entry.state == "done":
        return _receipt(publisher, entry)
    try:
        receipt = publisher.follow(replace(order, order_id=entry.order_id), _receipt(publisher, entry), watch)
    except (PublisherRefused, PrintUncertain) as error:
        book.settle(entry, _state_of(error), words=error.words)
        raise
    if receipt.proves == "done":
        book.settle(entry, "done", instances=receipt.instances, words=receipt.words)
    return receipt


def cancel(publisher: Publisher, order: Order, orders_dir: Path) -> bool | None:
    """Withdraw this job's order, or ask the publisher to drop it where it has a way; whether that was done, None where
    nothing is ordered.

    Called when the job's own process has ended.
    """
    book = OrderBook.of(orders_dir, order.questions)
    entry = latest(book.pages(), order.job_id, order.volume.number)
    if entry is not None and entry.state in OPEN:
        with _locked(publisher, orders_dir, Watch()):
            entry = latest(book.pages(), order.job_id, order.volume.number)
            if entry is not None and entry.state in OPEN:
                given = publisher.was_given(replace(order, order_id=entry.order_id))
                if given is False:
                    book.settle(entry, "not given", words=f"It was withdrawn before {publisher.name} had it.")
                    return True
                # Its process has ended. Who asks for the same disc is told so before anything is retrieved for it.
                words = entry.words or ("" if given else BROKE_OFF)
                entry = book.settle(entry, "given" if given else "uncertain", words=words)
    if entry is None or entry.state not in ("given", *OPEN):
        return None
    return publisher.cancel(replace(order, order_id=entry.order_id))


def _locked(publisher: Publisher, orders_dir: Path, watch: Watch) -> AbstractContextManager[Callable[[], None]]:
    return publisher_lock(orders_dir / lock_name(publisher.where), publisher.name, watch)


def _taken(publisher: Publisher, order: Order, book: OrderBook) -> Receipt | None:
    """The receipt of what an earlier attempt of this job has given; None where the order is to be given."""
    number = order.volume.number
    step = decide(book.pages(), order.job_id, number, publisher.name)
    if step == "find out":
        _find_out(publisher, order, book)
        step = decide(book.pages(), order.job_id, number, publisher.name)
    if step == "give":
        return None
    entry = _given(book, order)
    if entry.contents != order.contents:
        raise PrintUncertain(OTHER_IMAGES + THROW_AWAY)
    return _receipt(publisher, entry)


def _tell_of_broken_off(publisher: Publisher, order: Order, book: OrderBook) -> None:
    """Write down as unclear what other jobs were giving this publisher for the same patient. They have died: a job that
    gives holds the lock of its patient, and this one has it. Who asks next is told to look at the robot first.
    """
    orders = {entry.key: entry for page in book.pages() for entry in page}.values()
    for entry in orders:
        if (entry.state, entry.publisher) == ("giving", publisher.name) and entry.job_id != order.job_id:
            book.settle(entry, "uncertain", words=BROKE_OFF)


def _place(publisher: Publisher, order: Order, book: OrderBook, watch: Watch) -> Receipt:
    entry = book.open(order.job_id, order.volume.number, publisher.name, contents=order.contents)
    begun = False

    def before_giving() -> None:
        nonlocal begun
        try:
            book.begin(entry)
        except OSError:  # some of its pages may have it, and nothing is given
            with suppress(OSError):
                book.settle(entry, "not given", words="It couldn't be written down.")
            raise
        begun = True

    try:
        receipt = publisher.place(replace(order, order_id=entry.order_id), before_giving, watch)
    except (PublisherRefused, PublisherUnavailable, PrintUncertain, ProofFailed) as error:
        if begun:
            book.settle(entry, _state_of(error), words=error.words)
        raise
    book.settle(
        entry, receipt.proves if receipt.proves == "done" else "given", instances=receipt.instances, words=receipt.words
    )
    return receipt


def _find_out(publisher: Publisher, order: Order, book: OrderBook) -> None:
    """Ask the publisher what became of an order of which only the beginning is on record, and write it down. Raises
    PrintUncertain.
    """
    entry = latest(book.pages(), order.job_id, order.volume.number)
    assert entry is not None  # there is something to find out
    given = publisher.was_given(replace(order, order_id=entry.order_id))
    if given is None:
        words = entry.words or BROKE_OFF
        book.settle(entry, "uncertain", words=words)
        raise PrintUncertain(words if MAY_BE_MADE in words else f"{words} {MAY_BE_MADE}")
    book.settle(entry, "given" if given else "not given")


def _state_of(error: PublisherRefused | PublisherUnavailable | PrintUncertain | ProofFailed) -> State:
    """What is known after an error; a publisher that took a part of a disc may make it of that part."""
    if isinstance(error, PrintUncertain) or error.details.get("accepted"):
        return "uncertain"
    return "failed" if isinstance(error, PublisherRefused) else "not given"


def _given(book: OrderBook, order: Order) -> Entry:
    entry = latest(book.pages(), order.job_id, order.volume.number)
    if entry is None or entry.state not in ("given", "done"):
        raise PrintUncertain(f"The order book has no given order of this job. {MAY_BE_MADE}")
    return entry


def _receipt(publisher: Publisher, entry: Entry) -> Receipt:
    return Receipt(
        publisher.name, entry.order_id, "done" if entry.state == "done" else "queued", entry.instances, entry.words
    )
