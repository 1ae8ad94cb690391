"""archive.output "store": volumes kept in a folder, each there whole or not at all.

.mkiso-archive                 which archive's store it is (mkiso.archive.belonging)
A20260213_0001/A20260213_0001.iso
               A20260213_0001.json     its manifest
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

from pydantic import TypeAdapter
from sqlalchemy import Connection, insert, select, update

from mkiso.archive.belonging import ADOPT, Shelf, StoreMark, meet_store
from mkiso.archive.ledger import Ledger
from mkiso.archive.nights import Night
from mkiso.archive.tables import stores, volumes
from mkiso.archive.volumes import ArchiveVolume, image_name, in_portions, labels_in
from mkiso.config.archive import Archive
from mkiso.config.settings import Settings
from mkiso.errors import ArchiveUnusable, ProofFailed, StorageFull, why_refused
from mkiso.media.capacity import SECTOR_BYTES
from mkiso.media.filling import volume_sectors
from mkiso.storage.files import Unreadable, read_json, sha256_of, sync_folder, write_whole
from mkiso.storage.room import NO_ROOM, nearest, size_words

MARK = ".mkiso-archive"
MAKE_ROOM = "make room, or name another as archive.directory."


@dataclass(frozen=True, slots=True)
class Store:
    """A folder that belongs to the archive; `id` stands in it and in the ledger."""

    id: str
    directory: Path

    @classmethod
    def open(cls, ledger: Ledger, *, adopt: bool = False) -> Store:
        """The store at archive.directory, made where nothing is there and nothing should be. `adopt`: whatever it is,
        it belongs to the ledger.

        Raises ArchiveUnusable where it is another archive's, isn't mounted or can't be used.
        """
        directory = ledger.store_directory
        with _usable(directory):
            labels = labels_in(directory)
            with ledger.writing() as connection:
                for unfinished in directory.glob(f"{MARK}.*"):  # of a run that was killed; nobody else is here
                    unfinished.unlink()
                shelf = _shelf(connection, directory, labels)
                mark = _readable_mark(directory) if adopt else _read_mark(directory)
                if not adopt:
                    meet_store(mark, ledger.id, shelf)
                if mark is None or mark.archive != ledger.id:
                    mark = StoreMark(uuid4().hex, ledger.id)
                    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                    write_whole(directory / MARK, json.dumps(asdict(mark)), durable=True)
                _introduce(connection, mark.store, directory, shelf.labels & shelf.stored)
        return cls(mark.store, directory)

    @classmethod
    def visible(cls, ledger: Ledger) -> Store | None:
        """The store at archive.directory where it is there and this archive's; nothing is made."""
        try:
            mark = _readable_mark(ledger.store_directory)
        except OSError:
            return None
        return cls(mark.store, ledger.store_directory) if mark is not None and mark.archive == ledger.id else None

    def image(self, label: str) -> Path:
        """Where the image of a volume lies, or would."""
        return self.directory / label / image_name(label)

    def require(self) -> None:
        """Raise ArchiveUnusable where the store isn't there any more: what was mounted may be gone since the
        run began.
        """
        with _usable(self.directory):
            mark = _read_mark(self.directory)
        if mark is None or mark.store != self.id:
            raise ArchiveUnusable(
                "The archive's store isn't there any more. Is it mounted? The next run stores what waits."
            )


def require_store(settings: Settings) -> str:
    """What a run would find at archive.directory, in words; nothing is made or written down. Raises ArchiveUnusable as
    it would, StorageFull where a whole volume has no room; LedgerDamaged, LedgerUnavailable.
    """
    archive, directory = settings.archive, settings.archive.directory
    with Ledger.as_it_is(settings) as ledger, _usable(directory):
        shelf = Shelf(labels_in(directory), frozenset(), used=False)
        if ledger:
            with ledger.reading() as connection:
                shelf = _shelf(connection, directory, labels_in(directory))
        mark = _read_mark(directory)
        meet_store(mark, ledger.id if ledger else "", shelf)
        with TemporaryFile(dir=nearest(directory)) as file:
            is_linked = os.fstat(file.fileno()).st_dev == nearest(settings.storage.volumes_dir).stat().st_dev
        free, whole = shutil.disk_usage(nearest(directory)).free, _largest(archive)
    if free < whole and not is_linked:
        raise StorageFull(
            f"The archive's folder {directory} has {size_words(free)} free, and a volume takes up to "
            f"{size_words(whole)}: {MAKE_ROOM}"
        )
    what = "is this archive's store" if mark else "becomes the store with the next volume"
    return f"{directory} {what}; {size_words(free)} are free"


def _largest(archive: Archive) -> int:
    return volume_sectors(archive.medium, archive.volume_mib) * SECTOR_BYTES


def deliver_to_store(night: Night, volume: ArchiveVolume, manifest: str, store: Store) -> Path:
    """Store a mastered volume and say so in the ledger; a run that takes up where a kill came between the two does the
    same once more.
    """
    store.require()
    stored = put(store.directory, volume, manifest)
    store.require()  # what was mounted may have gone while it was written into the folder below
    night.advance(volume.label, "done", str(stored), store.id)
    shutil.rmtree(volume.folder, ignore_errors=True)
    return stored


def put(directory: Path, volume: ArchiveVolume, manifest: str) -> Path:
    """Put an image and its manifest into the store; both have reached the disk when the volume's folder appears under
    its label.

    The image is linked, or copied where the store is another file system, and what lies in the store is read once more
    against the ledger's SHA-256. Raises StorageFull, ArchiveUnusable where it can't be written, and ProofFailed where
    the copy, or what already stands under this label, is something else.
    """
    target = directory / volume.label
    with _usable(directory):
        for left in directory.glob(f".{volume.label}*"):
            shutil.rmtree(left, ignore_errors=True)
        if not target.exists():
            # A run that is thought dead may still be at the same volume.
            unfinished = directory / f".{volume.label}.{uuid4().hex[:8]}"
            try:
                _fill(unfinished, volume, manifest)
                _appear(unfinished, target)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
            sync_folder(directory)
        _prove(target, volume)
    return target


def _fill(folder: Path, volume: ArchiveVolume, manifest: str) -> None:
    folder.mkdir(mode=0o700)
    _link_or_copy(volume.image, folder / image_name(volume.label))
    write_whole(folder / f"{volume.label}.json", manifest, durable=True)
    _prove(folder, volume)


def _appear(unfinished: Path, target: Path) -> None:
    try:
        unfinished.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another run was quicker
            raise


def _prove(folder: Path, volume: ArchiveVolume) -> None:
    """Read the image from the disk and not from memory, as far as the kernel lets go of it."""
    image = folder / image_name(volume.label)
    try:
        with image.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        proved = sha256_of(image) == volume.sha256
    except FileNotFoundError:
        proved = False
    if not proved:
        raise ProofFailed(
            f"What lies in {folder} is not volume {volume.label}: look at it, move it away, and run the archive again."
        )


def _link_or_copy(image: Path, target: Path) -> None:
    try:
        target.hardlink_to(image)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copyfile(image, target)
    with target.open("rb") as file:
        os.fchmod(file.fileno(), 0o600)
        os.fsync(file.fileno())
    sync_folder(target.parent)


@contextmanager
def _usable(directory: Path) -> Iterator[None]:
    """What the file system says, in words that an operator reads: a full disk, an export that went stale, a folder
    that nobody may write.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageFull(f"The archive's folder {directory} is full: {MAKE_ROOM}") from None
        raise ArchiveUnusable(
            f"The archive's folder {directory} can't be used: {why_refused(error)}. Is it mounted, and may mkiso write "
            "there?"
        ) from None


def _read_mark(directory: Path) -> StoreMark | None:
    try:
        return read_json(directory / MARK, TypeAdapter(StoreMark))
    except FileNotFoundError:
        return None
    except Unreadable as error:
        state, remedy = (f"can't be read ({error})", "") if error.is_there else ("is damaged", f" {ADOPT}")
        words = f"{directory / MARK} {state}, so whose store this is can't be told.{remedy}"
        raise ArchiveUnusable(words) from None


def _readable_mark(directory: Path) -> StoreMark | None:
    """None also where it is damaged."""
    try:
        return _read_mark(directory)
    except ArchiveUnusable:
        return None


def _shelf(connection: Connection, directory: Path, labels: frozenset[str]) -> Shelf:
    under = volumes.c.location.startswith(f"{directory}{os.sep}", autoescape=True)
    stored = frozenset(connection.scalars(select(volumes.c.label).where(volumes.c.state == "done", under)))
    return Shelf(
        labels,
        stored,
        used=connection.execute(select(stores).where(stores.c.directory == str(directory))).first() is not None,
    )


def _introduce(connection: Connection, store: str, directory: Path, stored: Iterable[str]) -> None:
    """Write the store down, and that what lies in it lies in it: volumes were stored before stores had names."""
    here = (stores.c.id == store) & (stores.c.directory == str(directory))
    if connection.execute(select(stores).where(here)).first() is None:
        connection.execute(insert(stores).values(id=store, directory=str(directory), made=datetime.now(UTC)))
    for some in in_portions(stored):
        unnamed = volumes.c.label.in_(some) & volumes.c.store.is_(None)
        connection.execute(update(volumes).where(unnamed).values(store=store))
