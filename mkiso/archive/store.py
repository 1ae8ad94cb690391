"""archive.output "store": volumes kept in a folder, each there whole or not at all.

A20260213_0001/A20260213_0001.iso
               A20260213_0001.json     its manifest
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from mkiso.archive.nights import Night
from mkiso.archive.volumes import ArchiveVolume
from mkiso.errors import ProofFailed, StorageFull
from mkiso.files import sha256_of, sync_folder, write_whole


def deliver_to_store(night: Night, volume: ArchiveVolume, manifest: str, directory: Path) -> Path:
    """Store a mastered volume and say so in the ledger; a run that takes up where a kill came between the two does the same once more."""
    stored = put(directory, volume, manifest)
    night.advance(volume.label, "done", str(stored))
    shutil.rmtree(volume.folder, ignore_errors=True)
    return stored


def put(directory: Path, volume: ArchiveVolume, manifest: str) -> Path:
    """Put an image and its manifest into the store; both have reached the disk when the volume's folder appears under its label.

    The image is linked, or copied where the store is another file system, and what lies in the store is read once more against the ledger's
    SHA-256. Raises StorageFull, and ProofFailed where the copy, or what already stands under this label, is something else.
    """
    target = directory / volume.label
    if target.exists():
        _prove(target, volume)
    else:
        unfinished = directory / f".{volume.label}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700, parents=True)
        image = unfinished / f"{volume.label}.iso"
        try:
            _link_or_copy(volume.image, image)
            write_whole(unfinished / f"{volume.label}.json", manifest, durable=True)
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StorageFull(f"The archive's folder {directory} is full: make room, or name another as archive.directory.") from None
        _prove(unfinished, volume)
        unfinished.rename(target)
        sync_folder(directory)
    return target


def _prove(folder: Path, volume: ArchiveVolume) -> None:
    if sha256_of(folder / f"{volume.label}.iso") != volume.sha256:
        raise ProofFailed(f"What lies in {folder} is not volume {volume.label}: look at it, move it away, and run the archive again.")


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
