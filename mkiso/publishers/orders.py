"""What a job orders, what it takes back, and what came of it in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from mkiso.errors import MkisoError, SelectionNotTold
from mkiso.formats.proven_set import ProvenSet
from mkiso.languages import language
from mkiso.publishers import publisher_of
from mkiso.publishers.desk import cancel
from mkiso.publishers.orderbook import OrderBook, orders_of
from mkiso.publishers.protocol import PART_WORDS, UNPROVEN_WORDS, Order, Proves, Publisher, Receipt, pages_of
from mkiso.storage.job import Job
from mkiso.study.gate import CompleteStudies, is_unproven
from mkiso.study.models import Patient, Volume, images_words
from mkiso.study.selection import Selection, numbers_of
from mkiso.study.values import Found


def study_order(job: Job, publisher_name: str, studies: CompleteStudies) -> Order:
    """One order for the whole, of which the publisher makes the disc itself."""
    spoken, found = language(job.settings.disc.language), studies.retrieved.found
    return replace(
        _order_of(job, studies.accession_numbers, studies.selection, publisher_name),
        accession_numbers=studies.accession_numbers or numbers_of(studies.asked),
        is_part=studies.is_part,
        part_words=spoken.gettext(PART_WORDS),
        is_unproven=is_unproven(studies.degraded),
        unproven_words=spoken.gettext(UNPROVEN_WORDS),
        patient=studies.patient,
        instances=tuple(instance.arrival for instance in studies.instances),
        study_date=studies.studies[0].study_date,
        question=pages_of(found.accession_numbers, found.selection, found.asked),
    )


def image_orders(job: Job, publisher_name: str, proven: ProvenSet) -> tuple[Order, ...]:
    """One order a disc of the set, with what was proved of its image."""
    [studies] = proven.studies
    whole = study_order(job, publisher_name, studies)
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


def images_of(orders: Sequence[Order]) -> int:
    """How many images are ordered in all."""
    return sum(len(order.instances) for order in orders)


def proved_by(receipts: Sequence[Receipt]) -> Proves:
    """What the publisher's receipts prove together: done where each says so."""
    return "done" if all(receipt.proves == "done" for receipt in receipts) else "queued"


def words_of(publisher_name: str, orders: Sequence[Order], proves: Proves) -> str:
    """What came of a print."""
    made = "reports the disc as made" if proves == "done" else "has everything; it doesn't tell when a disc is made"
    return f"{images_words(images_of(orders))} sent: {publisher_name} {made}."


def require_told(publisher: Publisher, found: Found) -> None:
    """Raise SelectionNotTold where the disc would be taken for one of whole studies, or for a patient's."""
    if found.deidentified:
        raise SelectionNotTold("De-identified copies aren't printed, since a label wouldn't say what they are.")
    if found.is_part and not publisher.tells_part():
        raise SelectionNotTold(
            f"A disc of {publisher.name} couldn't say that it doesn't hold the whole examination, so none is made. "
            "Have the disc file made, or print the whole examination."
        )


class TakenBack(NamedTuple):
    """What came of an order of a cancelled job. `is_left`: the publisher has it still, or may have it."""

    words: str
    is_left: bool


def cancel_orders(job: Job, accession_numbers: tuple[str, ...], selection: Selection) -> list[TakenBack]:
    """Ask the publishers to drop what this job has ordered, where they have a way; one order that can't be taken back
    keeps none of the others. Raises PrintUncertain where the order book can't be read.
    """
    orders_dir, told = job.settings.storage.orders_dir, []
    for entry in orders_of(OrderBook.of(orders_dir, pages_of(accession_numbers, selection)).pages(), job.id):
        what = f"the order of disc {entry.volume} at {entry.publisher}"
        try:
            publisher = publisher_of(entry.publisher, job.settings)
            order = _order_of(job, accession_numbers, selection, publisher.name)
            asked = cancel(publisher, replace(order, volume=Volume(entry.volume, entry.volume)), orders_dir)
        except (MkisoError, OSError) as error:
            why = error.words if isinstance(error, MkisoError) else error.strerror
            told.append(TakenBack(f"{what} is left, since it couldn't be taken back: {why}", is_left=True))
            continue
        if asked:
            told.append(TakenBack(f"{what} was withdrawn, or asked to be dropped.", is_left=False))
        elif asked is not None:
            told.append(TakenBack(f"{what} is left: {entry.publisher} can't be asked to drop one.", is_left=True))
    return told


def _order_of(job: Job, accession_numbers: tuple[str, ...], selection: Selection, publisher_name: str) -> Order:
    configured = job.settings.publishers[publisher_name]
    return Order(
        job.id,
        Patient(""),
        accession_numbers,
        institution=job.settings.disc.institution,
        copies=configured.copies,
        medium=configured.medium,
        question=pages_of(accession_numbers, selection),
    )
