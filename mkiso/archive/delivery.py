"""From volumes that are written down to volumes that are stored, or made by a publisher, or owed to a person."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import replace
from uuid import uuid4

from mkiso.archive.catalogue import failed_studies
from mkiso.archive.job import ArchiveJob
from mkiso.archive.lifecycle import Remedy
from mkiso.archive.manifest import manifest_of, whose
from mkiso.archive.owed import look, owed
from mkiso.archive.reconcile import reconcile
from mkiso.archive.store import Store, deliver_to_store
from mkiso.archive.volumes import ArchiveVolume
from mkiso.config.settings import Settings
from mkiso.errors import (
    ArchiveUnusable,
    ConfigurationError,
    MkisoError,
    PrintUncertain,
    ProofFailed,
    PublisherRefused,
    PublisherUnavailable,
    StorageUnreadable,
)
from mkiso.publishers import Order, OrderBook, Watch, follow, give, publisher_of
from mkiso.publishers.export import audited
from mkiso.storage.files import sha256_of
from mkiso.study.models import Patient, Volume


def finish_left_overs(run: ArchiveJob) -> None:
    """Volumes of a run that is gone: what isn't whole goes, what is whole is stored or ordered, what was ordered is
    asked for, and what can't be told is for a person.
    """
    for left in reconcile(run.night, run.ledger, run.store):
        run.log.info("%s was left by an earlier run: %s.", left.volume.label, left.remedy.value)
        match left.remedy:
            case Remedy.AWAIT:
                run.ordered.append(left.volume)
            case Remedy.DELIVER | Remedy.ASK:
                deliver(run, left.volume)
            case Remedy.LOOK:
                run.owes(look(run.ledger, left.volume))


def deliver(run: ArchiveJob, volume: ArchiveVolume) -> None:
    """Store a whole volume, or order it; one that its publisher or the store doesn't take waits for the next night."""
    archive = run.job.settings.archive
    if is_nobodys(volume, run.job.settings.publishers):
        volume = run.night.redirect(volume.label, archive.output)
    try:
        if volume.for_store:
            deliver_to_store(run.night, volume, manifest_of(run.ledger, volume), run.store or Store.open(run.ledger))
        else:
            _order(run, volume)
    except ArchiveUnusable as error:
        if archive.output == "store":  # nothing else could be stored either
            raise
        run.undelivered(volume, error)
    except (PublisherRefused, PublisherUnavailable, PrintUncertain, ProofFailed) as error:
        _not_made(run, volume, error)
    except (ConfigurationError, StorageUnreadable) as error:
        run.undelivered(volume, error)
    if run.is_short_of_room:
        follow_orders(run)


def _order(run: ArchiveJob, volume: ArchiveVolume) -> None:
    """Give the order once, under a name that the ledger has before the publisher; a later run asks for it by that name.

    A volume in state `mastered` certainly isn't made: it is a new order, whatever the order book is unsure of from
    before a person looked.
    """
    settings, left = run.job.settings, whose(volume)
    orders_dir, publisher = settings.storage.orders_dir, publisher_of(volume.output, settings)
    if volume.state == "mastered":
        volume = replace(volume, location=f"{volume.label}-{uuid4().hex[:8]}")
        order = order_of(volume, settings)
        OrderBook.of(orders_dir, order.questions).ask(order.job_id, confirmed=True)
        run.night.advance(volume.label, "ordering", volume.location)
    elif not volume.image.is_file() or sha256_of(volume.image) != volume.sha256:
        raise PrintUncertain(
            "Its image is lost, and the publisher may have the order: look at the robot, then run `mkiso archive "
            "settle`."
        )
    order = order_of(volume, settings)
    with audited(settings, publisher, order, left, run.job.id) as leaves:
        give(publisher, order, orders_dir, Watch(leaves=leaves))
    run.night.advance(volume.label, "ordered")
    run.ordered.append(replace(volume, state="ordered"))


def follow_orders(run: ArchiveJob) -> None:
    """Until the publisher has made the volumes, as far as it tells."""
    settings = run.job.settings
    while run.ordered:
        volume = run.ordered.pop(0)
        try:
            publisher = publisher_of(volume.output, settings)
            receipt = follow(publisher, order_of(volume, settings), settings.storage.orders_dir, Watch())
        except ConfigurationError as error:
            run.undelivered(volume, error)
            continue
        except (PublisherRefused, PublisherUnavailable, PrintUncertain) as error:
            _not_made(run, volume, error)
            continue
        run.log.info("%s: %s", volume.label, receipt.words)
        run.night.advance(volume.label, "done", f"{receipt.publisher} {receipt.order_id}")
        shutil.rmtree(volume.folder, ignore_errors=True)


def _not_made(run: ArchiveJob, volume: ArchiveVolume, error: MkisoError) -> None:
    if is_certainly_not_made(volume, error):
        run.night.advance(volume.label, "mastered")
    run.undelivered(volume, error)


def is_nobodys(volume: ArchiveVolume, publishers: Collection[str]) -> bool:
    """Whether a volume certainly isn't made, and the publisher that was to make it is configured no more. Pure."""
    return volume.state == "mastered" and not volume.for_store and volume.output not in publishers


def is_certainly_not_made(volume: ArchiveVolume, error: MkisoError) -> bool:
    """Whether no disc was made of a volume whose delivery ended in this error, so that it is `mastered` again; else it
    stays as it is until the publisher or a person says. Pure.

    A publisher that can't be reached says nothing of an order that it may have from before.
    """
    said = PublisherRefused | PublisherUnavailable | ProofFailed if volume.state == "mastered" else PublisherRefused
    is_open = volume.for_store or volume.state == "ordering"
    return not is_open and isinstance(error, said) and not error.details.get("accepted")


def order_of(volume: ArchiveVolume, settings: Settings) -> Order:
    """A volume's order is a job of its own, whichever run gives it; what a label shows is the volume's, not a
    patient's. Pure.
    """
    return Order(
        volume.location,
        Patient(""),
        (volume.label,),
        image=volume.image,
        image_sha256=volume.sha256,
        volume_id=volume.label,
        volume=Volume(volume.number, volume.total),
        institution=settings.disc.institution,
        copies=settings.publishers[volume.output].copies,
        medium=volume.medium,
    )


def close_night(run: ArchiveJob) -> None:
    """Each day is done that was searched wholly: what isn't archived of it is written down as failed. What no run can
    mend is said.
    """
    for each in owed(run.ledger, run.store):
        run.owes(each)
    if run.scheduled:
        max_attempts = run.job.settings.archive.max_attempts
        given_up = [study for study in failed_studies(run.ledger) if study.attempts >= max_attempts]
        named = [study.name for study in given_up if not study.forgotten]
        run.outcome = replace(run.outcome, given_up=named, days_left=run.dates.left)
    if run.outcome.stopped:
        return
    if run.scheduled:
        run.night.searched(run.dates.compared - run.not_done, run.began_on)
    if not run.outcome.doubtful and not run.outcome.not_asked:
        run.night.finish(run.outcome.found)
