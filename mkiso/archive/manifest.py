"""What lies beside a volume's image: in the store what is on it, so that it explains itself without the ledger, and
until it is delivered whose it is, for the audit.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import literal, select, union_all

from mkiso.archive.ledger import Ledger
from mkiso.archive.tables import instances, other_files, volumes
from mkiso.archive.volumes import ArchiveVolume
from mkiso.audit.messages import Left
from mkiso.media.capacity import SECTOR_BYTES
from mkiso.media.layout import Layout
from mkiso.storage.files import Unreadable, find_json, read_json, write_whole
from mkiso.study.gate import Part
from mkiso.study.models import sop_classes_of

MANIFEST = "manifest.json"
"""Its name while the volume waits in the data directory."""
_WHOSE = "whose.json"
_LEFT = TypeAdapter(Left)
_MANIFEST = TypeAdapter(dict[str, Any])


def new_manifest(layout: Layout, sha256: str) -> str:
    """The manifest of a volume that has just been proved; `sha256` is its image's."""
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


def write_down_whose(volume: ArchiveVolume, part: Part) -> None:
    """Keep whose studies lie on a volume."""
    there = {instance.arrival.study_instance_uid for instance in part.instances}
    patients, numbers = {}, {}
    for each in part.studies:
        for study in each.studies:
            if study.study_instance_uid in there:
                patients[study.patient_id] = each.patient_name
                numbers[study.study_instance_uid] = study.accession_number
    classes = sop_classes_of(instance.on_disc for instance in part.instances)
    told = _LEFT.dump_json(Left(patients, numbers, len(part.instances), classes)).decode()
    write_whole(volume.folder / _WHOSE, told, durable=True)


def whose(volume: ArchiveVolume) -> Left:
    """What leaves where a volume does; of one that was imported, or made before this was kept, only how much. Raises
    StorageUnreadable.
    """
    with suppress(FileNotFoundError):
        try:
            return read_json(volume.folder / _WHOSE, _LEFT)
        except Unreadable as error:
            error.refuse_if_there(f"Whose images {volume.label} has")
    return Left({}, {}, volume.instances)


def manifest_of(ledger: Ledger, volume: ArchiveVolume) -> str:
    """The manifest that was written when the volume was made; where it is lost, what the ledger has of it."""
    written = find_json(volume.folder / MANIFEST, _MANIFEST)
    return _from_the_ledger(ledger, volume) if written is None else json.dumps(written, indent=1)


def _from_the_ledger(ledger: Ledger, volume: ArchiveVolume) -> str:
    of_volume = select(volumes.c.id).where(volumes.c.label == volume.label).scalar_subquery()
    images = select(instances.c.path, instances.c.size, instances.c.sha256, instances.c.sop_instance_uid).where(
        instances.c.volume_id == of_volume
    )
    others = select(other_files.c.path, other_files.c.size, other_files.c.sha256, literal("").label("sop_instance_uid"))
    with ledger.reading() as connection:
        files = (
            connection.execute(union_all(images, others.where(other_files.c.volume_id == of_volume)).order_by("path"))
            .mappings()
            .all()
        )
    facts = {
        name: getattr(volume, name) for name in ("label", "number", "total", "medium", "size", "sha256", "instances")
    }
    return json.dumps({**facts, "files": [dict(file) for file in files]}, indent=1)
