"""A folder as the contents of a disc: one that is mounted, or what was unpacked of a file that mkiso doesn't read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mkiso.errors import ProofFailed
from mkiso.formats.image_hash import ImageHashes, Unlocking
from mkiso.formats.protocol import Contents, Extent
from mkiso.media.names import path_told_by

CHECKS = ("every file of the folder", "that nothing in it is a link")
_MAX_FILES = 1_000_000
_MAX_DEPTH = 16
_CHUNK_BYTES = 1024 * 1024
_SYSTEMS_OWN = frozenset(("System Volume Information", "$RECYCLE.BIN", "lost+found", ".Trashes", ".fseventsd"))


@dataclass(frozen=True, slots=True)
class FolderContents(Contents):
    """The files of a folder. A place is a file's number in it. `faults` are what can't be read, and what is no file."""

    places: Mapping[Extent, Path] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    def stored(self, descriptor: int, extent: Extent, at: int = 0, size: int | None = None) -> bytes:
        """As of an image; OSError where a file can't be read."""
        left = max(extent.size - at, 0)
        wanted = left if size is None else min(size, left)
        with self.places[extent].open("rb") as file:
            file.seek(at)
            data = file.read(wanted)
        if len(data) != wanted:
            raise ProofFailed(f"{self.places[extent].name} became shorter while it was read.")
        return data


def read_folder(folder: Path) -> FolderContents:
    """What lies in a folder. A system may show File IDs in small letters, as Linux does of a disc without Joliet: they
    are what they are in capitals. Raises ProofFailed, OSError where the folder can't be read.
    """
    places: dict[Extent, Path] = {}
    shown: dict[PurePosixPath, Extent] = {}
    faults: list[str] = []
    for number, path in enumerate(_below(folder)):
        if number >= _MAX_FILES:
            raise ProofFailed("The folder has more files than any disc needs.")
        status, name = path.lstat(), PurePosixPath(path.relative_to(folder))
        if not stat.S_ISREG(status.st_mode):
            faults.append(f"{name} is a link or something else that is no file.")
            continue
        extent = Extent(number, status.st_size)
        places[extent], shown[name] = path, extent
    told: dict[tuple[str, ...], PurePosixPath] = {}
    for name in shown:
        other = told.setdefault(path_told_by(name), name)
        if other != name:
            faults.append(f"{name} and {other} are one name to some systems, which show one of them.")
    if PurePosixPath("DICOMDIR") not in shown:
        shown = {PurePosixPath(str(name).upper()): extent for name, extent in shown.items()}
    size = sum(extent.size for extent in places)
    return FolderContents("", size, {"folder": shown}, places=places, faults=tuple(faults))


def hash_folder(
    contents: FolderContents, progress: Callable[[int, int], None] | None
) -> tuple[ImageHashes, tuple[str, ...]]:
    """The SHA-256 of each file, and in its envelope; and what can't be read, in sentences."""
    hashes: dict[Extent, str] = {}
    inside: dict[Extent, str] = {}
    forged: set[Extent] = set()
    unreadable = []
    done = 0
    names = {extent: name for name, extent in contents.shown.items()}
    for extent, path in contents.places.items():
        sha256 = hashlib.sha256()
        unlocking = Unlocking({each: contents.envelopes[each] for each in (extent,) if each in contents.envelopes})
        unlocking.begin_at(extent.start)
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    sha256.update(chunk)
                    unlocking.update(memoryview(chunk))
                    done += len(chunk)
                    if progress:
                        progress(min(done, contents.size), contents.size)
            hashes[extent] = sha256.hexdigest()
            inside |= unlocking.done
            forged |= unlocking.forged
        except OSError as error:
            unreadable.append(f"{names[extent]} can't be read: {error.strerror}.")
    return ImageHashes("", hashes, b"", frozenset(forged), inside), tuple(unreadable)


def _below(folder: Path, depth: int = 0) -> Iterator[Path]:
    if depth > _MAX_DEPTH:
        raise ProofFailed("The folder's folders go deeper than any disc's.")
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name in _SYSTEMS_OWN:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path), depth + 1)
        else:
            yield Path(entry.path)
