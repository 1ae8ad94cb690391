"""Dividing what doesn't fit: one patient's study over several volumes, and many studies onto as few as they need. Pure.

Sizes are upper bounds in sectors that hold for any union (each part is counted with directories, DICOMDIR and pages of
its own, and a union shares them), so no volume turns out too large when it is laid out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from mkiso.config.disc import Disc
from mkiso.config.section import Carrier
from mkiso.errors import TooLargeForMedium
from mkiso.media.capacity import (
    MEDIUM_NAMES,
    MEDIUM_SECTORS,
    SECTOR_BYTES,
    UDF_MEDIA,
    UDF_UNIT_SECTORS,
    image_sectors,
    sectors_of,
    udf_entry_sectors,
)
from mkiso.media.dicomdir import dicomdir
from mkiso.media.file_set import arrange, leaves
from mkiso.media.pages import Facts, pages
from mkiso.media.shown import NOTHING_SHOWN, Showing, shown_reports, shown_series
from mkiso.study.models import DiscFile, Instance, Volume

_SHARED_SECTORS = 28  # of every image whatever is on it: descriptors and the smallest path tables
_PATH_TABLE_BYTES = 2 * (16 + 24)  # of a directory, in the two tables of both trees
_CHECKSUM_BYTES = 112  # a line of SHA256.TXT for a File ID of five components
_FACTS_BYTES = 2048  # of what a page says beside its tree: institution, contact, the patient API's name
_SLACK_SECTORS = 64  # what README.TXT says of other volumes, and path tables that come in pairs of sectors
_CANDIDATES = 400  # how many of the largest parcels are weighed against each other for one volume
_STEPS = 8192  # into how many steps a volume is divided while parcels are chosen


@dataclass(frozen=True, slots=True)
class Parcel:
    """One study on its way to a volume; `sectors` is what study_sectors says of its instances, or less than the room of
    a volume.
    """

    study_instance_uid: str
    patient_id: str
    sectors: int


def room_sectors(medium: Carrier, fixed: Collection[DiscFile]) -> int:
    """What studies may take of a medium beside the files that every disc has, such as the viewer's."""
    rounded = 2 * UDF_UNIT_SECTORS if medium in UDF_MEDIA else 0  # up to whole units, of metadata and of all
    return MEDIUM_SECTORS[medium] - image_sectors(fixed, medium) - _SLACK_SECTORS - rounded


def study_sectors(instances: Collection[Instance], showing: Showing = NOTHING_SHOWN, *, medium: Carrier = "cd") -> int:
    """At most how many sectors these instances add to a disc: themselves, their directories, records, pages, pictures
    and checksums.
    """
    tree = arrange(instances)
    shown = shown_series(tree, showing)
    directory, _ = dicomdir(tree, "A" * 16)
    made = [(PurePosixPath("DICOMDIR"), len(directory))]
    made += [
        (path, len(content) + _FACTS_BYTES)
        for path, content in pages(tree, _ANY_FACTS, showing, shown)
        if path.name != "README.TXT"
    ]
    files = [DiscFile(path, size, "") for path, size in made]
    files += [DiscFile(leaf.path, leaf.instance.on_disc.size, "") for leaf in leaves(tree)]
    files += [file for series in shown.values() for file in series.files]
    files += [file for those in shown_reports(tree, showing).values() for report in those for file in report.files]
    files.append(DiscFile(PurePosixPath("SHA256.TXT"), _CHECKSUM_BYTES * len(files), ""))
    directories = {folder for file in files for folder in file.path.parents}
    beside = udf_entry_sectors(files) if medium in UDF_MEDIA else 0
    return image_sectors(files) - _SHARED_SECTORS + sectors_of(_PATH_TABLE_BYTES * len(directories)) + beside


def span(
    instances: Collection[Instance], room: int, medium: Carrier, showing: Showing = NOTHING_SHOWN
) -> tuple[tuple[Instance, ...], ...]:
    """Divide instances into volumes of at most `room` sectors, in their order, each series whole where a volume can
    hold it.

    Where packing series out of their order saves a volume, it is done. Raises TooLargeForMedium for an instance that no
    volume holds.
    """
    series = [
        tuple(leaf.instance for leaf in entry.leaves)
        for patient in arrange(instances)
        for study in patient.studies
        for entry in study.series
    ]
    if any(study_sectors(entry, showing, medium=medium) > room for entry in series):
        return _in_order(series, room, medium, showing)
    in_order = _in_order(series, room, medium, showing)
    weighed = [
        Parcel(str(number), str(number), study_sectors(entry, showing, medium=medium))
        for number, entry in enumerate(series)
    ]
    packed = [sorted(int(parcel.study_instance_uid) for parcel in volume) for volume in pack(weighed, room, medium)]
    if len(packed) >= len(in_order):
        return in_order
    return tuple(tuple(instance for number in volume for instance in series[number]) for volume in sorted(packed))


def pack(parcels: Collection[Parcel], room: int, medium: Carrier) -> tuple[tuple[Parcel, ...], ...]:
    """Divide studies among volumes of at most `room` sectors: a patient's together where they fit, volumes as full as
    can be.

    Volume by volume the largest that is left is joined by those that fill the rest best (minimum bin slack). The same
    parcels in any order give the same volumes. Raises TooLargeForMedium for a study that must be spanned first.
    """
    for parcel in parcels:
        if parcel.sectors > room:
            raise _too_large(parcel.sectors, room, medium, "A study", study_instance_uid=parcel.study_instance_uid)
    waiting = sorted(_together(parcels, room), key=lambda group: (-_sectors(group), group[0].study_instance_uid))
    volumes = []
    while waiting:
        chosen = _fullest(waiting, room)
        volumes.append(tuple(parcel for number in chosen for parcel in waiting[number]))
        gone = set(chosen)
        waiting = [group for number, group in enumerate(waiting) if number not in gone]
    return tuple(volumes)


def _in_order(
    series: Sequence[tuple[Instance, ...]], room: int, medium: Carrier, showing: Showing
) -> tuple[tuple[Instance, ...], ...]:
    volumes: list[list[Instance]] = [[]]
    left = room
    for entry in series:
        needed = study_sectors(entry, showing, medium=medium)
        if needed > left and needed <= room:
            volumes.append([])
            left = room
        while entry:
            piece = _beginning(entry, left, needed, showing, medium)
            if not piece and left == room:
                raise _too_large(
                    study_sectors(entry[:1], showing, medium=medium),
                    room,
                    medium,
                    "One instance",
                    sop_instance_uid=entry[0].arrival.sop_instance_uid,
                )
            volumes[-1].extend(piece)
            left -= study_sectors(piece, showing, medium=medium) if piece else 0
            entry = entry[len(piece) :]
            if entry:
                volumes.append([])
                left, needed = room, study_sectors(entry, showing, medium=medium)
    return tuple(tuple(volume) for volume in volumes if volume)


def _beginning(
    series: tuple[Instance, ...], left: int, needed: int, showing: Showing, medium: Carrier
) -> tuple[Instance, ...]:
    """The longest beginning of a series that fits, to within a hundredth."""
    if needed <= left:
        return series
    overhead = (needed - sum(sectors_of(instance.on_disc.size) for instance in series)) / len(series)
    used, count = 0.0, 0
    while count < len(series) and used <= left:
        used += sectors_of(series[count].on_disc.size) + overhead
        count += 1
    while count and study_sectors(series[:count], showing, medium=medium) > left:
        count -= max(1, count // 100)
    return series[:count]


def _together(parcels: Collection[Parcel], room: int) -> list[tuple[Parcel, ...]]:
    """A patient's studies as one group, or one by one where a volume can't hold them all."""
    patients: dict[str, list[Parcel]] = {}
    for parcel in sorted(parcels, key=lambda parcel: parcel.study_instance_uid):
        patients.setdefault(parcel.patient_id, []).append(parcel)
    groups: list[tuple[Parcel, ...]] = []
    for studies in patients.values():
        groups += [tuple(studies)] if _sectors(studies) <= room else [(study,) for study in studies]
    return groups


def _sectors(group: Collection[Parcel]) -> int:
    return sum(parcel.sectors for parcel in group)


def _fullest(waiting: Sequence[tuple[Parcel, ...]], room: int) -> list[int]:
    """The places of the largest group and of those that fill its volume best: subset sums as the bits of integers,
    sizes rounded up to steps.
    """
    step = max(1, room // _STEPS)
    rest = (room - _sectors(waiting[0])) // step
    candidates = [(number, -(-_sectors(waiting[number]) // step)) for number in _spread(len(waiting))]
    candidates = [(number, size) for number, size in candidates if size <= rest]
    mask = (1 << (rest + 1)) - 1
    reachable = [1]
    for _, size in candidates:
        reachable.append(reachable[-1] | reachable[-1] << size & mask)
    filled = reachable[-1].bit_length() - 1
    chosen = [0]
    for (number, size), without in zip(reversed(candidates), reversed(reachable[:-1]), strict=True):
        if not without >> filled & 1:
            chosen.append(number)
            filled -= size
    return chosen


def _spread(count: int) -> list[int]:
    """The places that are weighed: the largest, and as many of the smallest, which close the last gaps."""
    others = range(1, count)
    return list(others) if count <= 2 * _CANDIDATES else [*others[:_CANDIDATES], *others[-_CANDIDATES:]]


def _too_large(needed: int, room: int, medium: Carrier, what: str, **details: str) -> TooLargeForMedium:
    return TooLargeForMedium(
        f"{what} needs {needed * SECTOR_BYTES / 1e6:.1f} MB and a {MEDIUM_NAMES[medium]} has "
        f"{room * SECTOR_BYTES / 1e6:.1f} MB for it.",
        needed_bytes=needed * SECTOR_BYTES,
        medium_bytes=room * SECTOR_BYTES,
        **details,
    )


_ANY_FACTS = Facts(
    disc=Disc(),
    created=datetime(2000, 1, 1, tzinfo=UTC),
    version="",
    volume_id="A" * 16,
    volume=Volume(999, 999),
    conformance="",
)
