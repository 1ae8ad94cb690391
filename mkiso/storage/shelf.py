"""Finished discs: an image and its manifest in a folder of their own, there whole or not at all; and how long they
stay.

discs/<disc id>/disc.<format>       disc.iso
                manifest.json       what the disc is
                contents.json       each file on it: path, size, SHA-256, SOP Instance UID
                marks               by which each byte is proved when it leaves (mkiso.storage.marks)
                seen.json           when the image was last read whole, and what its file looked like then
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from pydantic import AwareDatetime, TypeAdapter

from mkiso.config.section import TransferSyntax
from mkiso.config.storage import Storage
from mkiso.errors import JobNotFound, ProofFailed
from mkiso.storage.files import (
    Unreadable,
    find_json,
    is_uuid,
    read_json,
    seconds_old,
    sha256_of,
    sync_folder,
    write_whole,
)
from mkiso.storage.marks import NOT_KEPT, ProvedImage
from mkiso.study.selection import EVERYTHING, Selection

log = logging.getLogger("mkiso.storage.shelf")

UNFINISHED = ".unfinished-"
UNFINISHED_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one disc is. `sha256` and `size` are of the image; `files` are kept in contents.json and not read back with
    the rest.

    `fingerprint` is of the question's answer by the PACS when the disc was made (mkiso.study.identity.fingerprint);
    `filename` is what a browser saves it as and may hold the patient's name. `studies` maps each Study Instance UID to
    its accession number, `sop_classes` to how many instances of each SOP Class lie on the disc, `sources` to its source
    where there are several. `first_disc` is the id of its set's first
    disc; `marks_sha256` is of the image's marks. `selection` and `is_part`: mkiso.storage.report.JobFacts. Of a
    `deidentified` one patient and studies are pseudonyms; only the question, which is on no disc, is as it was asked.
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
    sources: Mapping[str, str] = field(default_factory=dict)
    first_disc: str = ""
    marks_sha256: str = ""
    format: str = "iso"
    transfer_syntax: TransferSyntax = "as-archived"
    selection: Selection = EVERYTHING
    is_part: bool = False
    deidentified: bool = False
    sop_classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def image_name(self) -> str:
        """Of the image's file in the disc's folder."""
        return f"disc.{self.format}"

    @property
    def set_id(self) -> str:
        """What it shares with the other discs of its set, and with no other disc: the id of the first of them."""
        return self.first_disc or self.disc_id


_MANIFEST = TypeAdapter(Manifest)


def new_disc_id() -> str:
    return str(uuid4())


def shelve(storage: Storage, image: Path, manifest: Manifest, marks: bytes) -> Manifest:
    """Move an image into the store with its marks and its manifest, which is returned as it was stored.

    All have reached the disk when the disc appears under its id, and not before. `image` is gone from its place
    afterwards. Where the store is another file system the image is copied, and the copy is proved too. Raises
    ProofFailed, OSError; then nothing of it lies in the store, whose disk may be full of it.
    """
    storage.discs_dir.mkdir(mode=0o700, exist_ok=True)  # in what is there: mkiso.storage.files.make_beside_discs
    unfinished = storage.discs_dir / f"{UNFINISHED}{manifest.disc_id}"
    try:
        unfinished.mkdir(mode=0o700)
        stored = _filled(unfinished, image, manifest, marks)
        unfinished.rename(storage.discs_dir / manifest.disc_id)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    try:
        sync_folder(storage.discs_dir)
    except BaseException:
        _remove(storage, [manifest.disc_id])
        raise
    return stored


def shelve_set(storage: Storage, discs: Iterable[tuple[Path, Manifest, bytes]]) -> tuple[Manifest, ...]:
    """Move the images of a set into the store, each with its manifest and marks: all of them, or none stays there.
    Raises ProofFailed, OSError.
    """
    shelved: list[Manifest] = []
    try:
        for image, manifest, marks in discs:
            shelved.append(shelve(storage, image, manifest, marks))
    except BaseException:
        _remove(storage, [disc.disc_id for disc in shelved])
        raise
    return tuple(shelved)


def _filled(unfinished: Path, image: Path, manifest: Manifest, marks: bytes) -> Manifest:
    """All of a disc into its folder, on the disk when this returns. Raises ProofFailed, OSError."""
    moved = image.stat().st_dev == unfinished.stat().st_dev
    stored_image = unfinished / manifest.image_name
    shutil.move(image, stored_image)
    with stored_image.open("rb") as file:
        os.fchmod(file.fileno(), 0o600)
        os.fsync(file.fileno())
        appearance = Appearance.of(file.fileno())
    if not moved and sha256_of(stored_image) != manifest.sha256:
        raise ProofFailed(
            "The copy of the image in the disc store is not what was proved; it was thrown away. Retry the run, and "
            "check that disk."
        )
    stored = replace(manifest, marks_sha256=hashlib.sha256(marks).hexdigest())
    write_whole(unfinished / "marks", marks, durable=True)
    # Apart, since a list of 20,000 files has megabytes, and every question reads every manifest.
    described = asdict(stored)
    write_whole(unfinished / "contents.json", json.dumps(described.pop("files"), ensure_ascii=False), durable=True)
    _note_seen(unfinished, appearance)
    write_whole(unfinished / "manifest.json", json.dumps(described, ensure_ascii=False), durable=True)
    return stored


def image_of(storage: Storage, disc: Manifest) -> Path:
    """The image of a shelved disc. Whoever reads it has to prove what was read: see open_image."""
    return _folder(storage, disc.disc_id) / disc.image_name


def open_image(storage: Storage, disc: Manifest) -> ProvedImage:
    """The image of a shelved disc, of which nothing is read but what was proved. Raises JobNotFound, ProofFailed,
    StorageUnreadable.
    """
    folder = _folder(storage, disc.disc_id)
    return ProvedImage(folder / disc.image_name, folder / "marks", disc.size, disc.marks_sha256)


def manifest_of(storage: Storage, disc_id: str) -> Manifest:
    """The manifest of a shelved disc. Raises JobNotFound where the disc is gone or nobody can say what it is;
    StorageUnreadable.
    """
    try:
        return _read_manifest(_folder(storage, disc_id))
    except FileNotFoundError:
        raise JobNotFound(NOT_KEPT) from None
    except Unreadable as error:
        error.refuse_if_there("The disc's manifest")
        raise JobNotFound(NOT_KEPT) from None


def _read_manifest(folder: Path) -> Manifest:
    manifest = read_json(folder / "manifest.json", _MANIFEST)
    if manifest.disc_id != folder.name:
        raise Unreadable("it is another disc's")
    return manifest


def reusable(storage: Storage, fingerprint: str, reuse_minutes: float) -> list[Manifest]:
    """The youngest whole set of discs made from the same answer of the PACS within `reuse_minutes`, in order; empty
    where there is none.
    """
    for discs in whole_sets(manifests(storage)):
        if all(disc.fingerprint == fingerprint and is_young(storage, disc, reuse_minutes) for disc in discs):
            return list(discs)
    return []


def whole_sets(discs: Iterable[Manifest]) -> list[tuple[Manifest, ...]]:
    """The sets of which every disc is there, each in order, a single disc being a set of one; the youngest first."""
    sets: dict[str, list[Manifest]] = defaultdict(list)
    for disc in discs:
        sets[disc.set_id].append(disc)
    ordered = [tuple(sorted(each, key=lambda disc: disc.number)) for each in sets.values()]
    return sorted(filter(_is_whole, ordered), key=lambda each: each[0].created, reverse=True)


def _is_whole(discs: tuple[Manifest, ...]) -> bool:
    first = discs[0]
    numbered = all(disc.number == number for number, disc in enumerate(discs, start=1))
    return first.disc_id == first.set_id and len(discs) == first.total and numbered


def manifests(storage: Storage) -> list[Manifest]:
    """The manifests of every shelved disc."""
    found = []
    for file in storage.discs_dir.glob("*/manifest.json"):
        if not file.parent.name.startswith("."):
            try:
                found.append(_read_manifest(file.parent))
            except FileNotFoundError:  # removed meanwhile
                continue
            except Unreadable as error:  # one damaged disc must not stop the others
                log.error("The manifest of disc %s can't be read (%s): the disc is left out.", file.parent.name, error)
    return found


def is_young(storage: Storage, manifest: Manifest, minutes: float) -> bool:
    """Whether a disc is proved to have been made within so many minutes, by what it says and by its file. A time to
    come proves nothing.

    The file's date tells of a disc that a clock which was ahead has dated into what is now the present: `seconds_old`
    has dated it to its discovery.
    """
    try:
        ages = (_seconds_since(manifest.created), seconds_old(_folder(storage, manifest.disc_id) / "manifest.json"))
    except (ValueError, OSError):
        return False
    return min(ages) >= 0 and max(ages) <= minutes * 60


def remove_old(storage: Storage, keep_hours: float) -> int:
    """Remove discs older than `keep_hours` and whatever a crash left unfinished for an hour; how many discs went.

    A set goes whole. A disc whose manifest can't be read, or that says that it is of a time to come, is as old as its
    file.
    """
    old = {
        folder.name
        for folder in storage.discs_dir.glob("*")
        if is_uuid(folder.name) and folder.is_dir() and _is_older(folder, keep_hours)
    }
    discs = manifests(storage)
    old_sets = {disc.set_id for disc in discs if disc.disc_id in old}
    removed = _remove(storage, old | {disc.disc_id for disc in discs if disc.set_id in old_sets})
    for folder in storage.discs_dir.glob(f"{UNFINISHED}*"):
        try:
            if seconds_old(folder) > UNFINISHED_SECONDS:
                shutil.rmtree(folder)
        except FileNotFoundError:  # gone meanwhile
            pass
        except OSError as error:  # whose user isn't ours, such as of a mkiso that root started
            log.error("%s isn't to be kept and can't be removed: %s", folder, error.strerror)
    return removed


def _is_older(folder: Path, hours: float) -> bool:
    try:
        return _disc_seconds_old(folder) > hours * 3600
    except OSError:  # gone meanwhile, or it can't be looked at
        return False


def _disc_seconds_old(folder: Path) -> float:
    try:
        by_date = seconds_old(folder / "manifest.json")
    except (FileNotFoundError, PermissionError):  # there is none, or it is another user's
        by_date = seconds_old(folder)
    try:
        return max(by_date, _seconds_since(_read_manifest(folder).created))
    except (ValueError, OSError, Unreadable):
        return by_date


def _seconds_since(moment: str) -> float:
    """Negative for a time to come. Raises ValueError."""
    then = datetime.fromisoformat(moment)
    if then.tzinfo is None:
        raise ValueError("a time of no zone")
    return (datetime.now(UTC) - then).total_seconds()


def take_off(storage: Storage, disc: Manifest) -> None:
    """Take a disc that isn't what was proved off the shelf, and the rest of its set: nobody shall begin half a set."""
    if _remove(storage, {disc.disc_id, *(each.disc_id for each in manifests(storage) if each.set_id == disc.set_id)}):
        words = "Disc %s of job %s is not what was proved when it was made: its set was taken off the shelf. %s"
        log.error(words, disc.disc_id, disc.job_id, f"Check the memory and the disk under {storage.discs_dir}.")


@dataclass(frozen=True, slots=True)
class Appearance:
    """What a file looks like without being read: whoever changes it, or puts another in its place, changes this."""

    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, descriptor: int) -> Appearance:
        status = os.fstat(descriptor)
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class _Seen(Appearance):
    when: AwareDatetime


_SEEN = TypeAdapter(_Seen)


def last_seen(storage: Storage, disc: Manifest) -> tuple[Appearance | None, datetime]:
    """What a disc's image looked like when it was last read whole and right, and when; None and long ago if unknown."""
    if seen := find_json(_folder(storage, disc.disc_id) / "seen.json", _SEEN):
        return Appearance(seen.size, seen.mtime_ns, seen.ctime_ns), seen.when
    return None, datetime.fromtimestamp(0, UTC)


def note_seen(storage: Storage, disc: Manifest, appearance: Appearance) -> None:
    """Write down that a disc's image was read whole just now, was right, and looked like this before and after."""
    with suppress(OSError):  # removed meanwhile, a full disk: it is only remembered
        _note_seen(_folder(storage, disc.disc_id), appearance)


def _note_seen(folder: Path, appearance: Appearance) -> None:
    told = {**asdict(appearance), "when": datetime.now(UTC).isoformat(timespec="seconds")}
    write_whole(folder / "seen.json", json.dumps(told))


def _remove(storage: Storage, disc_ids: Collection[str]) -> int:
    """Remove discs, all out of sight before any is gone; how many were there."""
    removed = 0
    for disc_id in disc_ids:
        try:
            _folder(storage, disc_id).rename(storage.discs_dir / f"{UNFINISHED}{disc_id}")
            removed += 1
        except FileNotFoundError:  # gone meanwhile
            continue
        except OSError as error:
            log.error("Disc %s can't be removed: %s", disc_id, error.strerror)
    for disc_id in disc_ids:
        shutil.rmtree(storage.discs_dir / f"{UNFINISHED}{disc_id}", ignore_errors=True)
    return removed


def _folder(storage: Storage, disc_id: str) -> Path:
    try:
        return storage.discs_dir / str(UUID(disc_id))
    except ValueError:
        raise JobNotFound("A disc's id looks like 123e4567-e89b-12d3-a456-426614174000.") from None
