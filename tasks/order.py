"""The steps from complete studies to a disc in a publisher's tray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mkiso.audit import messages as audit
from mkiso.config.publishers import DicomPublisher
from mkiso.formats.proven_set import ProvenSet
from mkiso.publishers import (
    Order,
    OrderBook,
    Publisher,
    Receipt,
    Watch,
    cancel,
    follow,
    give,
    publisher_of,
    require_same_discs,
)
from mkiso.publishers.orderbook import orders_of, take_over
from mkiso.storage.job import Job
from mkiso.study.gate import CompleteStudies
from mkiso.study.models import Patient, Volume
from tasks.job_run import JobRun
from tasks.step import step


@step("Write down what is asked")
def write_down(run: JobRun, accession_numbers: tuple[str, ...], confirm_reprint: bool) -> None:
    """Note in the order book that this job asks; a retry keeps the place of its first attempt, so that it makes no disc
    where a newer one did.
    """
    orders_dir = run.settings.storage.orders_dir
    take_over(orders_dir, accession_numbers, run.settings.publishers)
    OrderBook.of(orders_dir, accession_numbers).ask(run.job.id, confirmed=confirm_reprint, again=run.is_retry())


@step("Prepare orders")
def orders_of_images(run: JobRun, publisher: Publisher, proven: ProvenSet) -> tuple[Order, ...]:
    """One order a disc of the set, with what was proved of its image."""
    [studies] = proven.studies
    whole = _order_of_studies(run, publisher, studies)
    arrivals = {instance.arrival.sop_instance_uid: instance.arrival for instance in studies.instances}
    return tuple(
        replace(
            whole,
            instances=tuple(arrivals[file.sop_instance_uid] for file in disc.layout.files if file.sop_instance_uid),
            image=disc.image,
            image_sha256=disc.proof.sha256,
            volume_id=disc.layout.volume_id,
            volume=disc.layout.volume,
            of_set=whole.instances if len(proven.discs) > 1 else (),
        )
        for disc in proven.discs
    )


@step("Prepare order")
def orders_of_studies(run: JobRun, publisher: Publisher, studies: CompleteStudies) -> tuple[Order, ...]:
    """One order for the whole, of which the publisher makes the disc itself."""
    return (_order_of_studies(run, publisher, studies),)


@step("Order discs from the publisher")
def give_orders(run: JobRun, publisher: Publisher, studies: CompleteStudies, orders: Sequence[Order]) -> None:
    """Give each order once: what an earlier attempt of this job has given is not given again."""
    run.tell(f"ordering from {publisher.name}")
    require_same_discs(orders, run.settings.storage.orders_dir)
    for order in orders:
        receipt = give(publisher, order, run.settings.storage.orders_dir, _watch(run))
        _note(run, receipt)
        if not receipt.given_before:
            _audit(run, publisher, studies, len(order.instances))
    run.tell("ordered", proves="queued", written=_images(orders))


@step("Follow the publisher to the end")
def follow_orders(run: JobRun, publisher: Publisher, orders: Sequence[Order]) -> None:
    """Until the publisher has made the discs, as far as it tells."""
    receipts = [follow(publisher, order, run.settings.storage.orders_dir, _watch(run)) for order in orders]
    for warning in (warning for receipt in receipts for warning in receipt.warnings):
        run.log.warning("%s: %s", publisher.name, warning)
    proves = "done" if all(receipt.proves == "done" for receipt in receipts) else "queued"
    made = "reports the disc as made" if proves == "done" else "has everything; it doesn't tell when a disc is made"
    run.words = f"{_images(orders)} images sent: {publisher.name} {made}."
    run.tell("done", proves=proves)


def _images(orders: Sequence[Order]) -> int:
    return sum(len(order.instances) for order in orders)


def _order_of_studies(run: JobRun, publisher: Publisher, studies: CompleteStudies) -> Order:
    return replace(
        _order_of(run.job, studies.accession_numbers, publisher.name),
        patient=studies.patient,
        instances=tuple(instance.arrival for instance in studies.instances),
        study_date=studies.studies[0].study_date,
    )


def cancel_orders(job: Job, accession_numbers: tuple[str, ...]) -> list[str]:
    """Ask the publishers to drop what this job has ordered, where they have a way; what came of each order in words.

    Raises PublisherUnavailable, PrintUncertain, ConfigurationError.
    """
    orders_dir, words = job.settings.storage.orders_dir, []
    for entry in orders_of(OrderBook.of(orders_dir, accession_numbers).pages(), job.id):
        publisher = publisher_of(entry.publisher, job.settings)
        order = replace(_order_of(job, accession_numbers, publisher.name), volume=Volume(entry.volume, entry.volume))
        asked = cancel(publisher, order, orders_dir)
        if asked is not None:
            dropped = f"the order at {publisher.name} was withdrawn, or asked to be dropped."
            words.append(dropped if asked else f"{publisher.name} can't be asked to drop its order.")
    return words


def _order_of(job: Job, accession_numbers: tuple[str, ...], publisher_name: str) -> Order:
    configured = job.settings.publishers[publisher_name]
    return Order(
        job.id,
        Patient(""),
        accession_numbers,
        institution=job.settings.disc.institution,
        copies=configured.copies,
        medium=configured.medium,
    )


def _watch(run: JobRun) -> Watch:
    def progress(words: str, done: int, total: int) -> None:
        run.tell_seldom(f"{words} ({done} of {total})" if total else words)

    return Watch(progress=progress)


def _audit(run: JobRun, publisher: Publisher, studies: CompleteStudies, images: int) -> None:
    """Write the export down. The order is given: whatever goes wrong here, the job goes on to follow it."""
    configured = run.settings.publishers[publisher.name]
    accession_numbers = {study.study_instance_uid: study.accession_number for study in studies.studies}
    left = audit.Left(studies.studies[0].patient_id, studies.patient_name, accession_numbers, images)
    address = configured.host if isinstance(configured, DicomPublisher) else ""
    try:
        audit.exported(run.settings, left, audit.Party(publisher.name, audit.DESTINATION, address), run.job.id)
    except Exception as fault:
        run.log.error("The audit message of this order couldn't be made: %s", type(fault).__name__)


def _note(run: JobRun, receipt: Receipt) -> None:
    run.log.info("%s: %s", receipt.publisher, receipt.words)
    for warning in receipt.warnings:
        run.log.warning("%s: %s", receipt.publisher, warning)
    if receipt.minutes_since_last is not None:
        run.log.warning("The same was printed %s minutes ago.", round(receipt.minutes_since_last))
