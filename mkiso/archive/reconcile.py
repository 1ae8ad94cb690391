"""What a run does first: with each volume that an earlier run left unfinished, so that there is either no volume or a
whole one.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from sqlalchemy import exists, false, select

from mkiso.archive.evidence import seen
from mkiso.archive.ledger import Ledger
from mkiso.archive.lifecycle import Remedy, remedy
from mkiso.archive.nights import Night
from mkiso.archive.store import Store
from mkiso.archive.tables import instances, volumes
from mkiso.archive.volumes import ArchiveVolume, forget


@dataclass(frozen=True, slots=True)
class LeftOver:
    """A volume that an earlier run left, and what is done with it: by the caller (DELIVER, ASK, AWAIT), already
    (CLOSE, LOSE), by a person (LOOK).
    """

    volume: ArchiveVolume
    remedy: Remedy


def reconcile(night: Night, ledger: Ledger, store: Store | None = None) -> tuple[LeftOver, ...]:
    """Take back what is not whole, close what is proved to be stored, and say what is left, in the order of the labels.

    Raises ArchiveUnusable where the store isn't there any more, or a volume can't be read.
    """
    if store is not None:
        store.require()
    left = []
    for volume in night.abandoned():
        what = remedy(volume.state, seen(volume, ledger.place, store))
        match what:
            case None:
                continue
            case Remedy.DISCARD:
                discard(night, volume)
                continue
            case Remedy.CLOSE:
                assert store is not None
                night.take(volume.label)
                night.advance(volume.label, "done", str(store.image(volume.label).parent), store.id)
            case Remedy.LOSE:
                night.advance(volume.label, "gone")
        left.append(LeftOver(volume, what))
    _clear_away(night, ledger)
    return tuple(left)


def discard(night: Night, volume: ArchiveVolume) -> None:
    """Take back a volume of which nothing is written down: first its files, then its row, so that a kill between the
    two leaves what the next run discards.
    """
    shutil.rmtree(volume.folder, ignore_errors=True)
    if volume.folder.exists():  # its row says whose it is until it can be removed
        return
    with night.writing() as connection:
        volume_id = connection.scalar(
            select(volumes.c.id).where(volumes.c.label == volume.label, volumes.c.state == "planned")
        )
        if volume_id is not None:
            forget(connection, volume_id)


def _clear_away(night: Night, ledger: Ledger) -> None:
    """Remove the folders of volumes of this place that are done, or gone where all that lay on them is delivered on
    others.

    What the ledger doesn't know stays: an older copy of it knows less than there is. Within the writer's lock no run
    can plan a volume; the folder of a planned one is made after its row.
    """
    lying = [folder for folder in ledger.storage.volumes_dir.iterdir() if folder.is_dir()]
    if not lying:
        return
    waiting = exists().where(volumes.c.state.in_(("mastered", "ordering", "ordered")))
    with night.writing() as connection:
        owed = exists().where(instances.c.volume_id == volumes.c.id)
        replaced = false() if connection.scalar(select(waiting)) else (volumes.c.state == "gone") & ~owed
        here = select(volumes.c.label).where(volumes.c.place == ledger.place, (volumes.c.state == "done") | replaced)
        removable = set(connection.scalars(here))
        for folder in lying:
            if folder.name in removable:
                shutil.rmtree(folder, ignore_errors=True)
