"""Room on the disk: what must stay free, so that running work never meets a full one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mkiso.config.storage import Storage
from mkiso.errors import ConfigurationError, MkisoError, StorageFull
from mkiso.languages import SOURCE, language

GIB = 1 << 30
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""How the system says that there is none."""
UNUSABLE = (errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ESTALE, errno.EMFILE, errno.ENFILE)
"""How it says that a disk fails or went away, is mounted read-only by now, isn't ours, or that too much is open."""
_LONGEST_NAME = 255
"""Bytes of a file's name (limits.h: NAME_MAX)."""
_OF_KERNEL = ("/proc", "/sys")


def size_words(size: int) -> str:
    """A size in English."""
    return language(SOURCE).size(size)


def require_room(storage: Storage) -> None:
    """Refuse new work before a full disk breaks running work. Raises StorageFull below `storage.min_free_gib`."""
    places = [place for place in (storage.data_dir, storage.discs_dir) if place.exists()]
    free, least = min((shutil.disk_usage(place).free for place in places), default=0), storage.min_free_gib * GIB
    if free < least:
        raise StorageFull(
            f"Only {size_words(free)} are free on the disk of mkiso, and {size_words(int(least))} must be "
            f"(storage.min_free_gib: {storage.min_free_gib:g}): make room there, or ask again when older discs have "
            "gone."
        )


def unusable(words: str, error: OSError) -> MkisoError:
    """What to raise where a file of ours can't be made: a full disk passes, anything else is for the administrator."""
    if error.errno in NO_ROOM:
        return StorageFull(f"{words}: {error.strerror}. Make room there.")
    return ConfigurationError(f"{words}: {error.strerror}.")


def is_short_of(storage: Storage, size: int) -> bool:
    """Whether the data directory has no room for so many bytes beside what must stay free."""
    return shutil.disk_usage(storage.data_dir).free < storage.min_free_gib * GIB + size


def lacking_storage(storage: Storage) -> Iterator[str]:
    """What keeps mkiso from its own folders: no process of it can run then."""
    yield from makeable("storage.data_dir", storage.data_dir)
    if storage.shared_dir:
        yield from _shared(storage.shared_dir)


def _shared(folder: Path) -> Iterator[str]:
    """Nobody makes it: where the share isn't mounted, this machine would have order books of its own."""
    if is_away(folder):
        yield (
            f"storage.shared_dir {folder} isn't there, and mkiso doesn't make what several machines share: mount that "
            "storage, or make the folder on it"
        )
    else:
        yield from makeable("storage.shared_dir", folder)


def is_away(share: Path) -> bool:
    """Whether it isn't there now, or is a share whose server doesn't answer for it any more."""
    return not os.path.lexists(share)


def makeable(key: str, folder: Path) -> Iterator[str]:
    """Why a folder of ours can't be made or written, in words; `key` names it."""
    there = nearest(folder)
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in folder.parts):
        yield f"{key} {str(folder)[:60]}… can't be made: a name in it is too long"
    elif not there.is_dir():
        yield f"{key} {folder} can't be made: {there} is no folder"
    elif is_of_kernel(there):
        yield f"{key} {folder} can't hold data: {there} is the kernel's own. Name a folder on a disk"
    else:
        yield from unwritable(key, folder, there)


def unwritable(key: str, folder: Path, there: Path) -> Iterator[str]:
    """Why nothing can be written into a folder, in words; `there` is what there is of the way to it."""
    if os.access(there, os.W_OK | os.X_OK):
        return
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        yield (
            f"{key} {folder} can't be written: its file system is mounted read-only. Name another folder, or have it "
            "mounted for writing; as a service, restart it if the folder came after its start, else install it anew "
            "(`mkiso service install`)"
        )
    else:
        nor = "" if there == folder else f", nor can {there}"
        way = "give it to the user that mkiso runs as, and run this as that user"
        yield f"{key} {folder} can't be written by this user{nor}: {way}"


def is_of_kernel(folder: Path) -> bool:
    """Whether it is on a file system such as that of /proc, in which nobody's files can lie."""
    return any(folder.is_relative_to(place) for place in _OF_KERNEL) and not os.statvfs(folder).f_blocks


def nearest(folder: Path) -> Path:
    """The folder, or what there is of the way to it."""
    return next(place for place in (folder, *folder.parents) if os.path.lexists(place))
