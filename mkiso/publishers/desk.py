"""The desk where a job's order is given and followed: the order book on one side, a publisher on the other."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from mkiso.errors import PrintUncertain, ProofFailed, PublisherRefused, PublisherUnavailable
from mkiso.publishers.lock import turn
from mkiso.publishers.orderbook import MAY_BE_MADE, OPEN, Entry, OrderBook, State, decide, latest, made_before
from mkiso.publishers.protocol import Order, Publisher, Receipt, Watch

OTHER_IMAGES = "An earlier attempt of this print was given with other images: the study has changed since. "
THROW_AWAY = "Throw that disc away and run with confirm_reprint."


def give(
    publisher: Publisher, order: Order, orders_dir: Path, watch: Watch, *, confirm_reprint: bool = False
) -> Receipt:
    """Give the order unless it was given already, one job at a publisher after another; the receipt proves `queued` or
    more.

    Raises PublisherUnavailable (nothing was given), PublisherRefused, PrintUncertain (somebody has to look).
    """
    book = OrderBook.of(orders_dir, order.question)
    with turn(orders_dir / f"{publisher.name}.turn", publisher.name, watch):
        entries = book.entries()
        step = decide(entries, order.job_id, order.volume.number, confirm_reprint)
        entry = latest(entries, order.job_id, order.volume.number)
        if entry is not None and step != "give":
            found = _find_out(publisher, order, book, entry) if step == "find out" else entry
            if found.state != "not given":
                if found.contents != order.contents:
                    raise PrintUncertain(OTHER_IMAGES + THROW_AWAY)
                return replace(_receipt(publisher, found), given_before=step != "find out")
        receipt = _place(publisher, order, book, watch, confirm_reprint)
    before = made_before(entries, order.job_id)
    return replace(receipt, minutes_since_last=max(0.0, round((time.time() - before.time) / 60, 1)) if before else None)


def follow(publisher: Publisher, order: Order, orders_dir: Path, watch: Watch) -> Receipt:
    """Follow a given order to the end that the publisher can tell of; for a DICOM relay that is at once.

    Others have their turn while this one is waited for, so its outcome is written down in a turn of its own.
    """
    book = OrderBook.of(orders_dir, order.question)
    entry = _given(book, order)
    if entry.state == "done":
        return _receipt(publisher, entry)
    try:
        receipt = publisher.follow(replace(order, order_id=entry.order_id), _receipt(publisher, entry), watch)
    except (PublisherRefused, PrintUncertain) as error:
        with _turn_to_write(publisher, orders_dir, watch):
            book.settle(entry, _state_of(error), words=error.words)
        raise
    if receipt.proves == "done":
        with _turn_to_write(publisher, orders_dir, watch):
            book.settle(entry, "done", instances=receipt.instances, words=receipt.words)
    return receipt


def cancel(publisher: Publisher, order: Order, orders_dir: Path) -> bool | None:
    """Withdraw this job's order, or ask the publisher to drop it where it has a way; whether that was done, None where
    nothing is ordered.

    Called when the job's own process has ended.
    """
    book = OrderBook.of(orders_dir, order.question)
    entry = latest(book.entries(), order.job_id, order.volume.number)
    if entry is not None and entry.state in OPEN:
        with _turn_to_write(publisher, orders_dir, Watch()):
            entry = latest(book.entries(), order.job_id, order.volume.number)
            if entry is not None and entry.state in OPEN:
                given = publisher.was_given(replace(order, order_id=entry.order_id))
                if given is False:
                    book.settle(entry, "not given", words=f"It was withdrawn before {publisher.name} had it.")
                    return True
    if entry is None or entry.state not in ("given", *OPEN):
        return None
    return publisher.cancel(replace(order, order_id=entry.order_id))


def _turn_to_write(publisher: Publisher, orders_dir: Path, watch: Watch) -> AbstractContextManager[None]:
    """The publisher's turn, waited for whether or not the caller stops: an outcome that is known must be
    written down.
    """
    return turn(orders_dir / f"{publisher.name}.turn", publisher.name, Watch(progress=watch.progress))


def _place(publisher: Publisher, order: Order, book: OrderBook, watch: Watch, confirm_reprint: bool) -> Receipt:
    entry = book.open(order.job_id, order.volume.number, contents=order.contents, confirmed=confirm_reprint)
    begun = False

    def before_giving() -> None:
        nonlocal begun
        book.begin(entry)
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


def _find_out(publisher: Publisher, order: Order, book: OrderBook, entry: Entry) -> Entry:
    given = publisher.was_given(replace(order, order_id=entry.order_id))
    if given is None:
        words = entry.words or "An earlier attempt at this print broke off."
        book.settle(entry, "uncertain", words=words)
        raise PrintUncertain(words if MAY_BE_MADE in words else f"{words} {MAY_BE_MADE}")
    return book.settle(entry, "given" if given else "not given")


def _state_of(error: PublisherRefused | PublisherUnavailable | PrintUncertain | ProofFailed) -> State:
    """What is known after an error; a publisher that took a part of a disc may make it of that part."""
    if isinstance(error, PrintUncertain) or error.details.get("accepted"):
        return "uncertain"
    return "failed" if isinstance(error, PublisherRefused) else "not given"


def _given(book: OrderBook, order: Order) -> Entry:
    entry = latest(book.entries(), order.job_id, order.volume.number)
    if entry is None or entry.state not in ("given", "done"):
        raise PrintUncertain(f"The order book has no given order of this job. {MAY_BE_MADE}")
    return entry


def _receipt(publisher: Publisher, entry: Entry) -> Receipt:
    return Receipt(
        publisher.name, entry.order_id, "done" if entry.state == "done" else "queued", entry.instances, entry.words
    )
