"""Which volumes can be mastered while studies still come: none before enough are there to choose from, then those that
are full. Pure.
"""

from __future__ import annotations

from collections.abc import Collection

from mkiso.config.section import Carrier, Medium
from mkiso.media.capacity import MEDIUM_SECTORS
from mkiso.media.volumes import Parcel, pack, room_sectors
from mkiso.study.models import DiscFile

_SECTORS_A_MIB = 512
FULL = 0.98
"""Of a volume's room, by the upper bounds of study_sectors; what is mastered of it is a little smaller."""
ENOUGH = 2.0
"""Volumes' worth of studies to choose from before the first volume is closed."""
TOO_MANY = 3.0
"""Volumes' worth that are kept at most: by then the fullest volume is closed even if it isn't full."""


def volume_sectors(medium: Carrier, limit_mib: int) -> int:
    """How large a volume may become: as the medium holds, or less where a limit is set (0: none)."""
    return min(MEDIUM_SECTORS[medium], limit_mib * _SECTORS_A_MIB) if limit_mib else MEDIUM_SECTORS[medium]


def volume_room(medium: Medium, limit_mib: int, fixed: Collection[DiscFile]) -> int:
    """What studies may take of it beside the files that every disc has, in sectors."""
    return room_sectors(medium, fixed) - MEDIUM_SECTORS[medium] + volume_sectors(medium, limit_mib)


def full_volumes(
    parcels: Collection[Parcel], room: int, medium: Medium, *, pressed: bool = False
) -> tuple[tuple[Parcel, ...], ...]:
    """The volumes of at most `room` sectors to master now; the other parcels wait for studies that fill their volumes
    better.

    `pressed`: the disk has little room left, so one volume's worth is enough to choose from.
    """
    waiting = sum(parcel.sectors for parcel in parcels)
    if waiting < room * (1.0 if pressed else ENOUGH):
        return ()
    volumes = sorted(pack(parcels, room, medium), key=_sectors, reverse=True)
    full = tuple(volume for volume in volumes if _sectors(volume) >= room * FULL)
    return full or (tuple(volumes[:1]) if pressed or waiting >= room * TOO_MANY else ())


def _sectors(volume: Collection[Parcel]) -> int:
    return sum(parcel.sectors for parcel in volume)
