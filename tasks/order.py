"""The steps from complete studies to a disc in a publisher's tray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mkiso.audit.messages import Left
from mkiso.errors import MkisoError, PrintUncertain
from mkiso.formats.proven_set import ProvenSet
from mkiso.publishers import (
    Order,
    OrderBook,
    Publisher,
    Receipt,
    Watch,
    follow,
    give,
    may_be_given,
    require_same_discs,
)
from mkiso.publishers.export import audited
from mkiso.publishers.orderbook import take_over
from mkiso.publishers.orders import image_orders, images_of, proved_by, require_told, study_order, words_of
from mkiso.publishers.protocol import pages_of
from mkiso.study.gate import CompleteStudies
from mkiso.study.models import sop_classes_of
from mkiso.study.values import Found
from mkiso.study.writing import LABEL_LETTERS
from tasks.job_run import JobRun
from tasks.step import step


@step("Write down what is asked")
def write_down(run: JobRun, accession_numbers: tuple[str, ...], confirm_reprint: bool, told: int) -> None:
    """Note in the order book that this job asks; a retry keeps the place of its first attempt, so that it makes no disc
    where a newer one did. Who was told of fewer orders of the same than there are gets no further disc: the page on
    which they said yes was old.
    """
    orders_dir = run.settings.storage.orders_dir
    if accession_numbers:
        take_over(orders_dir, accession_numbers, run.settings.publishers)
    book = OrderBook.of(orders_dir, pages_of(accession_numbers, run.selection))
    book.ask(run.job.id, confirmed=confirm_reprint, again=run.is_retry(), selection=run.selection, told=told)


@step("Write down what was found")
def write_down_found(run: JobRun, found: Found, confirm_reprint: bool, told: int) -> None:
    """As write_down, for the studies that the PACS has named: an order by accession number counts for whoever asks by
    UID, and the other way round.
    """
    pages = pages_of(found.accession_numbers, found.selection, found.asked)
    OrderBook.of(run.settings.storage.orders_dir, pages).ask_also(
        run.job.id, confirmed=confirm_reprint, retried=run.is_retry(), selection=run.selection, told=told
    )


@step("Check that the label can say what is on the disc")
def check_label(run: JobRun, publisher: Publisher, found: Found) -> None:
    """A disc of chosen series is never taken for the whole study: it says so, or isn't made."""
    require_told(publisher, found)


@step("Prepare orders")
def orders_of_images(run: JobRun, publisher: Publisher, proven: ProvenSet) -> tuple[Order, ...]:
    """One order a disc of the set, with what was proved of its image."""
    return image_orders(run.job, publisher.name, proven)


@step("Prepare order")
def orders_of_studies(run: JobRun, publisher: Publisher, studies: CompleteStudies) -> tuple[Order, ...]:
    """One order for the whole, of which the publisher makes the disc itself."""
    return (study_order(run.job, publisher.name, studies),)


@step("Order discs from the publisher")
def give_orders(run: JobRun, publisher: Publisher, studies: CompleteStudies, orders: Sequence[Order]) -> None:
    """Give each order once: what an earlier attempt of this job has given is not given again. Raises PrintUncertain
    where the publisher has some of the discs of a set and doesn't get the next one.
    """
    lacks = (LABEL_LETTERS,) if any(publisher.rewrites(order) for order in orders) else ()
    run.tell(f"ordering from {publisher.name}", degraded=(*run.report.degraded, *lacks))
    require_same_discs(orders, run.settings.storage.orders_dir)
    for number, order in enumerate(orders):
        try:
            with audited(run.settings, publisher, order, _left(studies, order), run.job.id) as leaves:
                watch = replace(_watch(run), leaves=leaves)
                receipt = give(publisher, order, run.settings.storage.orders_dir, watch)
        except MkisoError as error:
            if not number or isinstance(error, PrintUncertain):
                raise
            raise PrintUncertain(
                f"{publisher.name} has {number} of the {len(orders)} discs of this set, and not the next one: "
                f"{error.words} Retry of this run gives it the rest. Else throw away what it has made of the set."
            ) from None
        except OSError:  # mkiso's own disk is full: what is told of the end says to look at the publisher first
            if number or may_be_given(order, run.settings.storage.orders_dir):
                run.report = replace(run.report, proves="queued")
            raise
        _note(run, receipt)
    run.tell("ordered", proves="queued", written=images_of(orders))


@step("Follow the publisher to the end")
def follow_orders(run: JobRun, publisher: Publisher, orders: Sequence[Order]) -> None:
    """Until the publisher has made the discs, as far as it tells."""
    receipts = [follow(publisher, order, run.settings.storage.orders_dir, _watch(run)) for order in orders]
    for warning in (warning for receipt in receipts for warning in receipt.warnings):
        run.log.warning("%s: %s", publisher.name, warning)
    proves = proved_by(receipts)
    run.words = words_of(publisher.name, orders, proves)
    run.tell("done", proves=proves)


def _watch(run: JobRun) -> Watch:
    def progress(words: str, done: int, total: int) -> None:
        run.tell_seldom(f"{words} ({done} of {total})" if total else words)

    return Watch(progress=progress)


def _left(studies: CompleteStudies, order: Order) -> Left:
    patients = {studies.studies[0].patient_id: studies.patient_name}
    accession_numbers = {study.study_instance_uid: study.accession_number for study in studies.studies}
    return Left(patients, accession_numbers, len(order.instances), sop_classes_of(order.instances))


def _note(run: JobRun, receipt: Receipt) -> None:
    run.log.info("%s: %s", receipt.publisher, receipt.words)
    for warning in receipt.warnings:
        run.log.warning("%s: %s", receipt.publisher, warning)
    if receipt.minutes_since_last is not None:
        run.log.warning("The same was printed %s minutes ago.", round(receipt.minutes_since_last))
