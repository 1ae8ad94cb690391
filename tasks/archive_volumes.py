"""The steps from complete studies to volumes that are written down, stored or made by a publisher."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from datetime import UTC, datetime
from uuid import uuid4

from mkiso.archive.catalogue import failed_studies
from mkiso.archive.lifecycle import Remedy
from mkiso.archive.manifest import MANIFEST, manifest_of
from mkiso.archive.owed import look, owed
from mkiso.archive.reconcile import reconcile
from mkiso.archive.store import Store, deliver_to_store
from mkiso.archive.volumes import ArchiveVolume, MasteredVolume, StudyOnVolume
from mkiso.errors import (
    ArchiveUnusable,
    ConfigurationError,
    MkisoError,
    PrintUncertain,
    ProofFailed,
    PublisherRefused,
    PublisherUnavailable,
)
from mkiso.formats.proven_set import Proven, prove, write_set
from mkiso.formats.registry import ISO
from mkiso.media.capacity import SECTOR_BYTES
from mkiso.media.disc_set import divide, lay_out_volumes
from mkiso.media.filling import volume_sectors
from mkiso.media.layout import Layout
from mkiso.publishers import Order, OrderBook, Watch, follow, give, publisher_of
from mkiso.storage.files import sha256_of, write_whole
from mkiso.study.gate import Part
from mkiso.study.models import Patient, Volume
from tasks.archive_run import ArchiveRun
from tasks.step import step


@step("Finish what earlier runs left")
def finish_left_overs(run: ArchiveRun) -> None:
    """Volumes of a run that is gone: what isn't whole goes, what is whole is stored or ordered, what was ordered is
    asked for, and what can't be told is for a person.
    """
    for left in reconcile(run.night, run.ledger, run.store):
        run.log.info("%s was left by an earlier run: %s.", left.volume.label, left.remedy.value)
        match left.remedy:
            case Remedy.AWAIT:
                run.ordered.append(left.volume)
            case Remedy.DELIVER | Remedy.ASK:
                _deliver(run, left.volume)
            case Remedy.LOOK:
                run.owes(look(run.ledger, left.volume))


@step("Make volume", "Make volume of {studies} studies")
def make_volume(run: ArchiveRun, uids: tuple[str, ...], studies: int) -> None:
    """Lay out, master, read back, write down, deliver; a study that no volume holds becomes a set of them, written down
    in one step.
    """
    settings, archive = run.job.settings, run.job.settings.archive
    pooled = [run.pool[uid] for uid in uids]
    parts = divide([each.complete() for each in pooled], run.room, archive.medium)
    planned = run.night.plan(archive.medium, archive.output, run.today, total=len(parts))
    places = [(volume.label, volume.folder / "disc") for volume in planned]
    disc_set = lay_out_volumes(parts, places, settings, created=datetime.now(UTC), medium=archive.medium)
    for layout in disc_set.layouts:
        if layout.sectors > volume_sectors(layout.medium, archive.volume_mib):
            words = (
                f"{layout.volume_id} turned out larger than it was counted ({layout.size:,} bytes): it isn't "
                "used. Tell the administrator of mkiso."
            )
            raise ProofFailed(words)
    proven = prove(write_set(disc_set, ISO, [volume.image for volume in planned]))
    finished = [_finished(volume, disc, part) for volume, disc, part in zip(planned, proven.discs, parts, strict=True)]
    run.night.mastered(finished)
    run.outcome = replace(run.outcome, archived=run.outcome.archived + len(uids))
    run.night.release(uids)
    for each in pooled:
        each.job.discard()
        del run.pool[each.study.study_instance_uid]
    for made in finished:
        count, size = sum(len(study.files) for study in made.studies), made.volume.image.stat().st_size
        volume = replace(made.volume, state="mastered", sha256=made.sha256, size=size, instances=count)
        run.made(volume)
        _deliver(run, volume)


def _finished(volume: ArchiveVolume, disc: Proven, part: Part) -> MasteredVolume:
    """What the ledger is told of a volume; its manifest lies beside the image from now on."""
    layout = disc.layout
    write_whole(volume.folder / MANIFEST, _manifest(layout, disc.proof.sha256), durable=True)
    shutil.rmtree(volume.folder / "disc")
    study_of = {instance.arrival.sop_instance_uid: instance.arrival.study_instance_uid for instance in part.instances}
    on_volume = [
        StudyOnVolume(
            study.study_instance_uid,
            study.accession_number,
            study.study_date,
            [file for file in layout.files if study_of.get(file.sop_instance_uid) == study.study_instance_uid],
        )
        for each in part.studies
        for study in each.studies
    ]
    others = [file for file in layout.files if not file.sop_instance_uid]
    return MasteredVolume(volume, disc.proof.sha256, [study for study in on_volume if study.files], others)


def _manifest(layout: Layout, sha256: str) -> str:
    """What lies beside the image in the store, so that a volume explains itself without the ledger."""
    files = [
        {"path": str(file.path), "size": file.size, "sha256": file.sha256, "sop_instance_uid": file.sop_instance_uid}
        for file in layout.files
    ]
    facts = {
        "label": layout.volume_id,
        **asdict(layout.volume),
        "medium": layout.medium,
        "created": layout.created.isoformat(timespec="seconds"),
        "size": layout.sectors * SECTOR_BYTES,
        "sha256": sha256,
        "instances": layout.instances,
        "conformance": layout.conformance,
    }
    return json.dumps({**facts, "files": files}, indent=1)


def _deliver(run: ArchiveRun, volume: ArchiveVolume) -> None:
    """Store a whole volume, or order it; one that its publisher or the store doesn't take waits for the next night."""
    archive, publishers = run.job.settings.archive, run.job.settings.publishers
    if (
        volume.state == "mastered" and not volume.for_store and volume.output not in publishers
    ):  # certainly not made, and nobody left to make it
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
    except ConfigurationError as error:
        run.undelivered(volume, error)
    if run.is_short_of_room:
        _follow(run)


def _order(run: ArchiveRun, volume: ArchiveVolume) -> None:
    """Give the order once, under a name that the ledger has before the publisher; a later run asks for it by that name.

    A volume in state `mastered` certainly isn't made: it is a new order, whatever the order book is unsure of from
    before a person looked.
    """
    storage, publisher = run.job.settings.storage, publisher_of(volume.output, run.job.settings)
    if volume.state == "mastered":
        volume = replace(volume, location=f"{volume.label}-{uuid4().hex[:8]}")
        order = _order_of(run, volume)
        OrderBook.of(storage.orders_dir, order.accession_numbers).ask(order.job_id, confirmed=True)
        run.night.advance(volume.label, "ordering", volume.location)
    elif not volume.image.is_file() or sha256_of(volume.image) != volume.sha256:
        raise PrintUncertain(
            "Its image is lost, and the publisher may have the order: look at the robot, then run `mkiso archive "
            "settle`."
        )
    give(publisher, _order_of(run, volume), storage.orders_dir, Watch())
    run.night.advance(volume.label, "ordered")
    run.ordered.append(replace(volume, state="ordered"))


@step("Follow the publisher to the end")
def follow_orders(run: ArchiveRun) -> None:
    """Until the publisher has made the volumes, as far as it tells."""
    _follow(run)


def _follow(run: ArchiveRun) -> None:
    while run.ordered:
        volume = run.ordered.pop(0)
        try:
            publisher = publisher_of(volume.output, run.job.settings)
            receipt = follow(publisher, _order_of(run, volume), run.job.settings.storage.orders_dir, Watch())
        except ConfigurationError as error:
            run.undelivered(volume, error)
            continue
        except (PublisherRefused, PublisherUnavailable, PrintUncertain) as error:
            _not_made(run, volume, error)
            continue
        run.log.info("%s: %s", volume.label, receipt.words)
        run.night.advance(volume.label, "done", f"{receipt.publisher} {receipt.order_id}")
        shutil.rmtree(volume.folder, ignore_errors=True)


def _not_made(run: ArchiveRun, volume: ArchiveVolume, error: MkisoError) -> None:
    """Back to `mastered` where certainly no disc was made; else it stays as it is until the publisher or a person says.

    A publisher that can't be reached says nothing of an order that it may have from before.
    """
    said = PublisherRefused | PublisherUnavailable | ProofFailed if volume.state == "mastered" else PublisherRefused
    if (
        not volume.for_store
        and volume.state != "ordering"
        and isinstance(error, said)
        and not error.details.get("accepted")
    ):
        run.night.advance(volume.label, "mastered")
    run.undelivered(volume, error)


def _order_of(run: ArchiveRun, volume: ArchiveVolume) -> Order:
    """A volume's order is a job of its own, whichever run gives it; what a label shows is the volume's, not a
    patient's.
    """
    settings = run.job.settings
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


@step("Close the night")
def close_night(run: ArchiveRun) -> None:
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
    if not run.outcome.doubtful:
        run.night.finish(run.outcome.found)
