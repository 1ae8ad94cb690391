"""What a run does first: with each volume that an earlier run left unfinished, so that there is either no volume or a whole one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from sqlalchemy import select

from mkiso.archive.ledger import Ledger
from mkiso.archive.lifecycle import Remedy, remedy
from mkiso.archive.nights import Night
from mkiso.archive.tables import volumes
from mkiso.archive.volumes import ArchiveVolume, forget
from mkiso.files import sha256_of


@dataclass(frozen=True, slots=True)
class LeftOver:
    """A volume that an earlier run left, and what the caller does with it; those to discard are gone already."""

    volume: ArchiveVolume
    remedy: Remedy


def reconcile(night: Night, ledger: Ledger) -> tuple[LeftOver, ...]:
    """Discard what is not whole, and say what is left to deliver, to ask for and to wait for, in the order of the labels."""
    left = []
    for volume in night.abandoned():
        match remedy(volume.state, _is_whole(volume)):
            case None:
                continue
            case Remedy.DISCARD:
                discard(night, volume)
            case other:
                left.append(LeftOver(volume, other))
    _remove_strangers(night, ledger)
    return tuple(left)


def discard(night: Night, volume: ArchiveVolume) -> None:
    """Take back a volume that nobody has: first its files, then its rows, so that a kill between the two leaves what the next run discards."""
    shutil.rmtree(volume.folder, ignore_errors=True)
    with night.writing() as connection:
        volume_id = connection.scalar(select(volumes.c.id).where(volumes.c.label == volume.label, volumes.c.state.in_(("planned", "mastered"))))
        if volume_id is not None:
            forget(connection, volume_id)


def _is_whole(volume: ArchiveVolume) -> bool:
    """Whether the image is what was written down when it was mastered; read only where the answer matters."""
    if volume.state != "mastered" or not volume.image.is_file():
        return False
    return volume.image.stat().st_size == volume.size and sha256_of(volume.image) == volume.sha256


def _remove_strangers(night: Night, ledger: Ledger) -> None:
    """Remove folders of volumes that are done or that the ledger doesn't know.

    Within the writer's lock no run can plan a volume; the folder of a planned one is made after its row.
    """
    with night.writing() as connection:
        kept = set(connection.scalars(select(volumes.c.label).where(volumes.c.place == ledger.place, volumes.c.state != "done")))
        for folder in ledger.storage.volumes_dir.iterdir():
            if folder.is_dir() and folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)
