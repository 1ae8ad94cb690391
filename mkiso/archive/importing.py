"""A volume that the ledger doesn't know, or holds for lost, is written down again from what lies on it: after the
ledger was lost, or an older copy of it restored, or when a lost disc turns up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from pydantic import TypeAdapter
from sqlalchemy import Connection, delete, insert, select, update

from mkiso.archive.catalogue import ARCHIVED
from mkiso.archive.ledger import Ledger
from mkiso.archive.nights import is_alive
from mkiso.archive.store import Store
from mkiso.archive.tables import claims, instances, nights, other_files, studies, volumes
from mkiso.archive.volumes import (
    LABEL,
    MasteredVolume,
    StudyOnVolume,
    image_name,
    in_portions,
    planned_row,
    volume_of,
    write_contents,
)
from mkiso.config.section import Medium
from mkiso.errors import ClaimLost, InvalidRequest
from mkiso.storage.files import find_json
from mkiso.study.models import DiscFile, Volume, instances_words

DISC = "disc"
"""What stands for `output` of a volume that was imported from a disc."""


@dataclass(frozen=True, slots=True)
class FoundVolume:
    """A sound volume: where it was read, its label, the SHA-256 and the size (bytes) of its image, and what lies on
    it. A `device` is a disc.
    """

    where: Path
    device: bool
    label: str
    sha256: str
    size: int
    studies: Sequence[StudyOnVolume]
    other_files: Sequence[DiscFile]


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of it: the volume's state, how many of its instances the ledger has on it from now on, how many it
    had on others already.
    """

    state: str
    instances: int
    elsewhere: int


def import_volume(ledger: Ledger, found: FoundVolume, store: Store | None, medium: Medium, output: str) -> Imported:
    """Write a volume down: as done where it lies in the store or on a disc, as mastered where it lies in the data
    directory to be delivered to `output`. What lies on other volumes too is read back as any other file of it.

    Raises InvalidRequest where it lies elsewhere, isn't named as a volume of an archive, the ledger knows it, or has
    another one under its label; ClaimLost where a run works on a study of it.
    """
    if not LABEL.fullmatch(found.label):
        raise InvalidRequest(f"{found.label or 'A disc without a label'} is no volume of an archive.")
    facts = _place_of(ledger, found, store, output)
    with ledger.writing() as connection:
        row = connection.execute(select(volumes).where(volumes.c.label == found.label)).one_or_none()
        if row is not None and row.state != "gone":
            raise InvalidRequest(
                f"The ledger knows volume {found.label}: it is {row.state}; `mkiso archive settle` changes that."
            )
        _require_free(connection, found)
        if row is not None:
            _require_same(connection, row.id, found)
        volume_id = row.id if row is not None else _new(connection, ledger, found, medium)
        for table in (instances, other_files):
            connection.execute(delete(table).where(table.c.volume_id == volume_id))
        added, known = _by_other_volumes(connection, found.studies)
        connection.execute(update(volumes).where(volumes.c.id == volume_id).values(**facts, **_image(found)))
        volume = volume_of(
            connection.execute(select(volumes).where(volumes.c.id == volume_id)).one(), ledger.storage.volumes_dir
        )
        lying = MasteredVolume(volume, found.sha256, added, [*found.other_files, *known])
        count = write_contents(connection, volume_id, lying)
        connection.execute(update(volumes).where(volumes.c.id == volume_id).values(instances=count))
    return Imported(facts["state"], count, len(known))


def _require_free(connection: Connection, found: FoundVolume) -> None:
    """A run that retrieves what lies on it would archive it a second time."""
    for some in in_portions(study.study_instance_uid for study in found.studies):
        claimed = select(claims.c.night_id).where(claims.c.study_instance_uid.in_(some))
        holders = connection.execute(select(nights).where(nights.c.id.in_(claimed)))
        if any(is_alive(connection, night) for night in holders):
            raise ClaimLost(f"An archive run works on studies of {found.label} at this moment: wait for its end.")


def _require_same(connection: Connection, volume_id: int, found: FoundVolume) -> None:
    """Another archive's disc may have the same label: what is owed of the one that the ledger knows stays owed."""
    owed = select(instances.c.path, instances.c.sha256).where(instances.c.volume_id == volume_id)
    lacking = set(connection.execute(owed).tuples()) - {
        (str(file.path), file.sha256) for study in found.studies for file in study.files
    }
    if lacking:
        raise InvalidRequest(
            f"This isn't the volume that the ledger has as {found.label}: what is owed of that one doesn't all lie on "
            f"it ({instances_words(len(lacking))} missing). Nothing was changed."
        )


def _place_of(ledger: Ledger, found: FoundVolume, store: Store | None, output: str) -> dict[str, Any]:
    if found.device:
        return {"state": "done", "output": DISC, "location": "a disc that was imported", "store": None}
    if store is not None and found.where == store.image(found.label):
        return {"state": "done", "output": "store", "location": str(found.where.parent), "store": store.id}
    if found.where == ledger.storage.volumes_dir / found.label / image_name("disc"):
        return {"state": "mastered", "output": output, "location": "", "store": None, "place": ledger.place}
    where = f" or {store.image(found.label)}" if store is not None else ""
    raise InvalidRequest(
        f"{found.label} lies in a file where nobody looks for it: burn it, or move it to "
        f"{ledger.storage.volumes_dir / found.label / image_name('disc')}{where}, and take it up there."
    )


def _image(found: FoundVolume) -> dict[str, Any]:
    read_back = {"read_back": datetime.now(UTC), "read_back_good": True}
    return {"sha256": found.sha256, "size": found.size, "holder_id": None, "changed": datetime.now(UTC), **read_back}


def _new(connection: Connection, ledger: Ledger, found: FoundVolume, medium: Medium) -> int:
    now = datetime.now(UTC)
    run = {
        "run_id": f"import {found.label} {uuid4().hex[:8]}",
        "scheduled": False,
        "date_from": now.date(),
        "date_to": now.date(),
    }
    held = {"started": now, "finished": now, "found": 0, "token": "", "process": "", "lease_until": 0.0}
    night_id = cast(int, connection.scalar(insert(nights).values(**run, **held).returning(nights.c.id)))
    number, total = _set_of(found)
    values = planned_row(found.label, night_id, ledger.place, medium, DISC, number, total)
    return cast(int, connection.scalar(insert(volumes).values(**values).returning(volumes.c.id)))


def _set_of(found: FoundVolume) -> tuple[int, int]:
    """Which volume of its set it is, as the manifest beside it says; 1 of 1 where there is none."""
    for manifest in (found.where.with_suffix(".json"), found.where.parent / "manifest.json"):
        if volume := find_json(manifest, TypeAdapter(Volume)):
            return volume.number, volume.total
    return 1, 1


def _by_other_volumes(
    connection: Connection, found: Sequence[StudyOnVolume]
) -> tuple[list[StudyOnVolume], list[DiscFile]]:
    """What lies on no other volume that is there, and the files of what does: an instance stands in the ledger once."""
    elsewhere: set[tuple[str, str]] = set()
    for some in in_portions(study.study_instance_uid for study in found):
        elsewhere.update(connection.execute(ARCHIVED.where(studies.c.study_instance_uid.in_(some))).tuples())

    def is_elsewhere(study: StudyOnVolume, file: DiscFile) -> bool:
        return (study.study_instance_uid, file.sop_instance_uid) in elsewhere

    known = [file for study in found for file in study.files if is_elsewhere(study, file)]
    left = [replace(study, files=[file for file in study.files if not is_elsewhere(study, file)]) for study in found]
    return [study for study in left if study.files], known
