"""Finished discs: an image and its manifest in a folder of their own, there whole or not at all; and how long they stay.

    discs/<disc id>/disc.iso
                    manifest.json       what the disc is
                    contents.json       each file on it: path, size, SHA-256, SOP Instance UID
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from mkiso.config import Storage
from mkiso.errors import JobNotFound, ProofFailed
from mkiso.files import seconds_old, sha256_of, sync_folder, write_whole

log = logging.getLogger("mkiso.store")

UNFINISHED = ".unfinished-"
UNFINISHED_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one disc is. `sha256` and `size` are of the image; `files` are kept in contents.json and not read back with the rest.

    `fingerprint` is of the question's answer by the PACS when the disc was made (mkiso.identity.fingerprint); `filename` is what a browser saves
    it as and may hold the patient's name. `studies` maps each Study Instance UID to its accession number.
    """

    disc_id: str
    job_id: str
    created: str
    volume_id: str
    filename: str
    accession_numbers: tuple[str, ...]
    fingerprint: str
    size: int
    sha256: str
    instances: int
    medium: str
    number: int = 1
    total: int = 1
    degraded: tuple[str, ...] = ()
    files: tuple[dict[str, Any], ...] = ()
    patient_id: str = ""
    patient_name: str = ""
    studies: Mapping[str, str] = field(default_factory=dict)


def new_disc_id() -> str:
    return str(uuid4())


def shelve(storage: Storage, image: Path, manifest: Manifest) -> None:
    """Move an image and its manifest into the store; both have reached the disk when the disc appears under its id, and not before.

    `image` is gone from its place afterwards. Where the store is another file system the image is copied, and the copy is proved too.
    Raises ProofFailed.
    """
    storage.discs_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = storage.discs_dir / f"{UNFINISHED}{manifest.disc_id}"
    unfinished.mkdir(mode=0o700)
    moved = image.stat().st_dev == unfinished.stat().st_dev
    shutil.move(image, unfinished / "disc.iso")
    with (unfinished / "disc.iso").open("rb") as file:
        os.fchmod(file.fileno(), 0o600)
        os.fsync(file.fileno())
    if not moved and sha256_of(unfinished / "disc.iso") != manifest.sha256:
        shutil.rmtree(unfinished)
        raise ProofFailed("The copy of the image in the disc store is not what was proved; it was thrown away. Retry the run, and check that disk.")
    # Apart, since a list of 20,000 files has megabytes, and every question reads every manifest.
    described = asdict(manifest)
    write_whole(unfinished / "contents.json", json.dumps(described.pop("files"), ensure_ascii=False), durable=True)
    write_whole(unfinished / "manifest.json", json.dumps(described, ensure_ascii=False), durable=True)
    unfinished.rename(storage.discs_dir / manifest.disc_id)
    sync_folder(storage.discs_dir)


def image_of(storage: Storage, disc_id: str) -> Path:
    """The image of a shelved disc."""
    return _folder(storage, disc_id) / "disc.iso"


def manifest_of(storage: Storage, disc_id: str) -> Manifest:
    """The manifest of a shelved disc. Raises JobNotFound where the disc is gone."""
    try:
        values = json.loads((_folder(storage, disc_id) / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise JobNotFound("This disc isn't kept any more: ask for it anew.") from None
    lists = {name: tuple(values[name]) for name in ("accession_numbers", "degraded")}
    return Manifest(**{**values, **lists})


def reusable(storage: Storage, fingerprint: str, reuse_minutes: float) -> list[Manifest]:
    """The youngest whole set of discs made from the same answer of the PACS within `reuse_minutes`, in order; empty where there is none."""
    young = [disc for disc in manifests(storage) if disc.fingerprint == fingerprint and is_young(storage, disc, reuse_minutes)]
    for job_id in dict.fromkeys(manifest.job_id for manifest in sorted(young, key=lambda manifest: manifest.created, reverse=True)):
        volumes = sorted((manifest for manifest in young if manifest.job_id == job_id), key=lambda manifest: manifest.number)
        if [manifest.number for manifest in volumes] == list(range(1, volumes[0].total + 1)):
            return volumes
    return []


def manifests(storage: Storage) -> list[Manifest]:
    """The manifests of every shelved disc."""
    found = []
    for file in storage.discs_dir.glob("*/manifest.json"):
        if not file.parent.name.startswith("."):
            try:
                found.append(manifest_of(storage, file.parent.name))
            except JobNotFound:  # removed meanwhile
                continue
            except (ValueError, TypeError, KeyError, OSError) as error:  # one damaged disc must not stop the others
                log.error("The manifest of disc %s can't be read (%s): the disc is left out.", file.parent.name, type(error).__name__)
    return found


def is_young(storage: Storage, manifest: Manifest, minutes: float) -> bool:
    """Whether a disc is proved to have been made within so many minutes, by what it says and by its file. A time to come proves nothing.

    The file's date tells of a disc that a clock which was ahead has dated into what is now the present: `seconds_old` has dated it to its discovery.
    """
    try:
        ages = (_seconds_since(manifest.created), seconds_old(_folder(storage, manifest.disc_id) / "manifest.json"))
    except (ValueError, OSError):
        return False
    return min(ages) >= 0 and max(ages) <= minutes * 60


def remove_old(storage: Storage, keep_hours: float) -> int:
    """Remove discs older than `keep_hours` and whatever a crash left unfinished for an hour; how many discs went.

    A disc whose manifest can't be read, or that says that it is of a time to come, is as old as its file.
    """
    went = 0
    for folder in [path for path in storage.discs_dir.glob("*") if _is_disc(path)]:
        try:
            if _disc_seconds_old(folder) > keep_hours * 3600:
                folder.rename(storage.discs_dir / f"{UNFINISHED}{folder.name}")
                shutil.rmtree(storage.discs_dir / f"{UNFINISHED}{folder.name}", ignore_errors=True)
                went += 1
        except FileNotFoundError:  # gone meanwhile
            continue
        except OSError as error:
            log.error("Disc %s can't be removed: %s", folder.name, error.strerror)
    for folder in storage.discs_dir.glob(f"{UNFINISHED}*"):
        with suppress(FileNotFoundError):
            if seconds_old(folder) > UNFINISHED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
    return went


def _is_disc(path: Path) -> bool:
    with suppress(ValueError):
        return str(UUID(path.name)) == path.name and path.is_dir()
    return False


def _disc_seconds_old(folder: Path) -> float:
    manifest = folder / "manifest.json"
    by_date = seconds_old(manifest if manifest.exists() else folder)
    try:
        return max(by_date, _seconds_since(json.loads(manifest.read_text(encoding="utf-8"))["created"]))
    except (ValueError, TypeError, KeyError, OSError):
        return by_date


def _seconds_since(moment: str) -> float:
    """Negative for a time to come. Raises ValueError."""
    then = datetime.fromisoformat(moment)
    if then.tzinfo is None:
        raise ValueError("a time of no zone")
    return (datetime.now(UTC) - then).total_seconds()


def _folder(storage: Storage, disc_id: str) -> Path:
    try:
        return storage.discs_dir / str(UUID(disc_id))
    except ValueError:
        raise JobNotFound("A disc's id looks like 123e4567-e89b-12d3-a456-426614174000.") from None
