"""A proved file of any format unpacked into a folder, such as a mounted USB stick, and read back through its device."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mkiso.errors import FolderTaken, ProofFailed, StorageFull
from mkiso.formats.envelope_reader import DICOMDIR
from mkiso.formats.image_hash import hash_extents
from mkiso.formats.protocol import Extent
from mkiso.formats.registry import format_of
from mkiso.storage.files import descriptor_of, sync_folder
from mkiso.storage.room import size_words
from mkiso.study.models import count_words

_CHUNK_BYTES = 4 * 1024 * 1024
_NAMED = 5
_SYSTEMS_OWN = frozenset(
    (
        "system volume information",
        "$recycle.bin",
        "lost+found",
        ".trashes",
        ".fseventsd",
        ".spotlight-v100",
        ".ds_store",
    )
)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def require_place(folder: Path, *, beside: bool = False) -> None:
    """Raise FolderTaken where a file-set can't go into a folder: it has one, or without `beside` it isn't empty."""
    held = sorted(entry.name for entry in folder.iterdir() if entry.name.lower() not in _SYSTEMS_OWN)
    if str(DICOMDIR) in map(str.upper, held):
        raise FolderTaken(
            f"{folder} holds a disc already (there is a DICOMDIR), and a folder holds one alone. Empty it, or take "
            "another folder or stick. Nothing was made."
        )
    if held and not beside:
        named = ", ".join(held[:_NAMED]) + (" …" if len(held) > _NAMED else "")
        raise FolderTaken(
            f"{folder} isn't empty: it has {named}. Empty it, or take another folder or stick; or add --beside-others, "
            "and the disc lies beside that. Nothing was made."
        )


class Unpacked(NamedTuple):
    """How many files were written, and how many bytes they have."""

    files: int
    size: int


def unpack(image: Path, folder: Path, progress: Callable[[int, int], None] | None = None) -> Unpacked:
    """Write the files of an image into a folder, none over another; they have reached the device, and each was read
    from there and is byte for byte what the image holds.

    `progress` hears of bytes written and read back, of all. Raises ProofFailed, which names what is wrong, FolderTaken,
    StorageFull, and OSError where the folder can't be used.
    """
    try:
        with descriptor_of(image) as descriptor:
            contents = format_of(descriptor).read(descriptor)
            hashes = hash_extents(descriptor, contents)
            files = contents.shown
            if hashes.wrong:
                raise ProofFailed("The file that was downloaded isn't whole: download it again.")
            _require_own_folders(folder, files)
            size = sum(extent.size for extent in files.values())
            _require_room(folder, files)
            total, done = 2 * size, 0
            for path, extent in files.items():
                _write(descriptor, extent, folder / path)
                done += extent.size
                if progress:
                    progress(done, total)
            _sync_folders(folder, files)
            differing = []
            for path, extent in files.items():
                if _sha256_from_device(folder / path) != hashes.files[extent]:
                    differing.append(path)
                done += extent.size
                if progress:
                    progress(done, total)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StorageFull(f"{folder} has no room for the disc: what lies there isn't whole. Remove it.") from None
        raise
    if differing:
        named = ", ".join(map(str, differing[:_NAMED])) + (" …" if len(differing) > _NAMED else "")
        raise ProofFailed(
            f"{count_words(len(differing), f'file in {folder} is', f'files in {folder} are')} not what was written: "
            f"{named}. Don't hand it out: the stick may be broken, or not as large as it says."
        )
    return Unpacked(len(files), size)


def _require_room(folder: Path, files: Mapping[PurePosixPath, Extent]) -> None:
    """Raise StorageFull where the files can't all be written, before any is: each takes whole blocks of the device, and
    each of the disc's folders one or more.
    """
    told = os.statvfs(folder)
    block = told.f_frsize or 1
    folders = {parent for path in files for parent in path.parents if parent.parts}
    blocks = sum(-(-extent.size // block) for extent in files.values()) + len(folders)
    if blocks > told.f_bavail:
        raise StorageFull(
            f"{folder} has {size_words(told.f_bavail * block)} free, and the disc needs {size_words(blocks * block)}. "
            "Make room, or take a larger stick. Nothing was written there."
        )


def _require_own_folders(folder: Path, files: Iterable[PurePosixPath]) -> None:
    """Raise FolderTaken where a folder of the disc is there already: what lies in it, perhaps another patient's images,
    would be taken for the disc's; and a link would lead elsewhere.
    """
    own = {path.parts[0].casefold() for path in files if len(path.parts) > 1}
    held = sorted(entry.name for entry in folder.iterdir() if entry.name.casefold() in own)
    if held:
        raise FolderTaken(
            f"{folder} has {', '.join(held)} already, as the disc has: remove it, or choose another folder. Nothing "
            "was written."
        )


def _write(descriptor: int, extent: Extent, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, 0o644), "wb") as file:
        for start in range(0, extent.size, _CHUNK_BYTES):
            file.write(os.pread(descriptor, min(_CHUNK_BYTES, extent.size - start), extent.start + start))
        file.flush()
        os.fsync(file.fileno())


def _sync_folders(folder: Path, files: Iterable[PurePosixPath]) -> None:
    for each in {folder / parent for path in files for parent in path.parents}:
        sync_folder(each)


def _sha256_from_device(file: Path) -> str:
    """Of a file as far as possible from its device and not from memory: what was synced is let go of first."""
    try:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
    except OSError as error:
        if error.errno == errno.EIO:  # the device can't give it back
            return ""
        raise
