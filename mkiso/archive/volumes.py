"""What the ledger is told of a volume, and what it tells: plain values, and the rows they become."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Row, Select, delete, insert, select, update

from mkiso.archive.lifecycle import State
from mkiso.archive.tables import instances, other_files, studies, volumes
from mkiso.config.section import Medium
from mkiso.formats.registry import ISO
from mkiso.study.models import DiscFile

UIDS_A_STATEMENT = 500
"""Bound values of one statement: SQLite takes 32,766, PostgreSQL 65,535, and neither plans a longer list any faster."""

Key = TypeVar("Key", str, int)
VOLUMES = ISO
"""The format of every volume."""
LABEL = re.compile(r"A\d{8}_\d{4,6}")


def image_name(stem: str) -> str:
    """What the file of a volume's image is called."""
    return f"{stem}{VOLUMES.suffix}"


@dataclass(frozen=True, slots=True)
class ArchiveVolume:
    """A volume as the ledger has it. `label` is its ISO 9660 volume identifier; `folder` is where it is made, on the
    machine of its `place`.

    `location` is where the image lies, in `store` (empty elsewhere), or how the publisher calls the order; `sha256` and
    `size` (bytes) are of the image, empty and 0 until it is mastered. Number `number` of `total` of a set.
    """

    label: str
    state: State
    medium: Medium
    output: str
    number: int
    total: int
    instances: int
    size: int
    sha256: str
    location: str
    folder: Path
    place: str
    store: str

    @property
    def for_store(self) -> bool:
        """Whether it is kept in the store; else its publisher makes a disc of it."""
        return self.output == "store"

    @property
    def image(self) -> Path:
        return self.folder / image_name("disc")


@dataclass(frozen=True, slots=True)
class StudyOnVolume:
    """The part of a study that lies on one volume: a file for each instance."""

    study_instance_uid: str
    accession_number: str
    study_date: str
    files: Sequence[DiscFile]


@dataclass(frozen=True, slots=True)
class MasteredVolume:
    """A finished, proved image (`volume.image`): its SHA-256, the studies on it, and every other file (DICOMDIR,
    README.TXT, viewer …).
    """

    volume: ArchiveVolume
    sha256: str
    studies: Sequence[StudyOnVolume]
    other_files: Sequence[DiscFile] = ()


def volume_of(row: Row[Any], volumes_dir: Path) -> ArchiveVolume:
    return ArchiveVolume(
        label=row.label,
        state=cast(State, row.state),
        medium=cast(Medium, row.medium),
        output=row.output,
        number=row.number,
        total=row.total,
        instances=row.instances,
        size=row.size,
        sha256=row.sha256,
        location=row.location,
        folder=volumes_dir / row.label,
        place=row.place,
        store=row.store or "",
    )


def planned_row(
    label: str, night_id: int, place: str, medium: str, output: str, number: int, total: int
) -> dict[str, Any]:
    """The row of a volume of which nothing is known but its plan."""
    plan = {"label": label, "night_id": night_id, "place": place, "medium": medium, "output": output}
    unknown = {"instances": 0, "size": 0, "sha256": "", "location": ""}
    return {**plan, "number": number, "total": total, "state": "planned", "changed": datetime.now(UTC), **unknown}


def labels_in(folder: Path) -> frozenset[str]:
    """The labels of volumes that lie in a folder; none where it isn't there."""
    try:
        return frozenset(entry.name for entry in folder.iterdir() if LABEL.fullmatch(entry.name))
    except FileNotFoundError:
        return frozenset()


def next_labels(taken: Iterable[str], day: date, count: int) -> list[str]:
    """Labels that sort as the volumes were made, such as A20260213_0001, after all that are `taken`: at most 16
    characters (PS3.10 8.1).
    """
    prefix = f"A{day:%Y%m%d}_"
    first = max((int(label.removeprefix(prefix)) for label in taken if label.startswith(prefix)), default=0) + 1
    return [f"{prefix}{number:04d}" for number in range(first, first + count)]


def write_contents(connection: Connection, volume_id: int, mastered: MasteredVolume) -> int:
    """Write down what lies on a volume, a million rows as well as ten; how many instances. What was owed of a volume
    that is gone is so no more.
    """
    ids = _study_ids(connection, mastered.studies)
    _no_longer_owed(
        connection,
        {ids[study.study_instance_uid]: [file.sop_instance_uid for file in study.files] for study in mastered.studies},
    )
    rows = [
        {
            "study_id": ids[study.study_instance_uid],
            "sop_instance_uid": file.sop_instance_uid,
            "volume_id": volume_id,
            "path": str(file.path),
            "size": file.size,
            "sha256": file.sha256,
        }
        for study in mastered.studies
        for file in study.files
    ]
    if rows:
        connection.execute(insert(instances), rows)
    others = [
        {"volume_id": volume_id, "path": str(file.path), "size": file.size, "sha256": file.sha256}
        for file in mastered.other_files
    ]
    if others:
        connection.execute(insert(other_files), others)
    return len(rows)


def _no_longer_owed(connection: Connection, contents: Mapping[int, Sequence[str]]) -> None:
    gone = instances.c.volume_id.in_(select(volumes.c.id).where(volumes.c.state == "gone"))
    owing = {
        study_id
        for some in in_portions(contents)
        for study_id in connection.scalars(_studies_of(some).where(gone).distinct())
    }
    for study_id in owing:
        for some in in_portions(contents[study_id]):
            here = (instances.c.study_id == study_id) & instances.c.sop_instance_uid.in_(some)
            connection.execute(delete(instances).where(here, gone))


def _studies_of(study_ids: Sequence[int]) -> Select[tuple[int]]:
    return select(instances.c.study_id).where(instances.c.study_id.in_(study_ids))


def _study_ids(connection: Connection, parts: Sequence[StudyOnVolume]) -> dict[str, int]:
    """The ids of studies; one that is new is added, of one that is known the accession number and date become
    today's.
    """
    known = {
        row.study_instance_uid: row.id
        for some in in_portions(part.study_instance_uid for part in parts)
        for row in connection.execute(
            select(studies.c.id, studies.c.study_instance_uid).where(studies.c.study_instance_uid.in_(some))
        )
    }
    for part in parts:
        values = {"accession_number": part.accession_number, "study_date": part.study_date}
        if part.study_instance_uid in known:
            connection.execute(update(studies).where(studies.c.id == known[part.study_instance_uid]).values(values))
        else:
            new = insert(studies).values(study_instance_uid=part.study_instance_uid, **values)
            known[part.study_instance_uid] = cast(int, connection.scalar(new.returning(studies.c.id)))
    return known


def forget(connection: Connection, volume_id: int) -> None:
    """Take a volume and all that was written of it out of the ledger."""
    for table in (instances, other_files):
        connection.execute(delete(table).where(table.c.volume_id == volume_id))
    connection.execute(delete(volumes).where(volumes.c.id == volume_id))


def in_portions(keys: Iterable[Key]) -> list[list[Key]]:
    """Distinct UIDs or ids in order, as many at a time as one statement takes."""
    distinct = sorted(set(keys))
    return [distinct[start : start + UIDS_A_STATEMENT] for start in range(0, len(distinct), UIDS_A_STATEMENT)]
