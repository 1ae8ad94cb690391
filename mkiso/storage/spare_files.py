"""Files that are used again instead of being deleted: what a job clears away, the receiver fills anew.

ext4 gives no inode away again that was freed within the last minutes, and passes over each of them for every new file:
after a job of 2,000 images was deleted, each image of the next took the kernel up to 1 ms more
(docs/decisions/spare-files.md). A spare has one byte, the first of every Part 10 file's preamble, and is named by its
inode: nothing of the job that it was of is left in it.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections import deque
from contextlib import suppress
from pathlib import Path
from time import monotonic

MAX_SPARES = 20_000
# and not none: ext4 writes a file that was cut to nothing and filled anew to the disk when it is closed (auto_da_alloc)
SPARE_BYTES = 1
LOOK_SECONDS = 1.0  # how long the receiver goes without once it has found none


def clear_away(folder: Path, spares_dir: Path) -> None:
    """Remove a folder of files and leave them to `spares_dir`, cut; deleted are those beyond MAX_SPARES, and names of
    files that have another.

    A file that has two names is another job's too. What can't be removed stays, without a word.
    """
    with suppress(OSError):
        spares_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        room = MAX_SPARES - sum(1 for _ in spares_dir.iterdir())
        for file in folder.iterdir():
            status = file.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and room > 0:
                os.truncate(file, SPARE_BYTES)
                file.rename(spares_dir / str(status.st_ino))
                room -= 1
    shutil.rmtree(folder, ignore_errors=True)


class SpareFiles:
    """The spares of a folder, taken by any thread of any process, each once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: deque[str] = deque()
        self._next_look = 0.0

    def take(self, into: Path) -> tuple[int, Path] | None:
        """Move a spare into a folder: its descriptor, open for reading and writing, and its path there. None where
        there is none.

        Whoever fills it begins at its beginning and writes more than SPARE_BYTES.
        """
        while (name := self._next_name()) is not None:
            path = into / name
            try:
                (self._folder / name).rename(path)  # whoever moves it has it
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            status = os.fstat(descriptor)
            if status.st_size <= SPARE_BYTES and status.st_nlink == 1:
                return descriptor, path
            os.close(descriptor)
            path.unlink()
        return None

    def _next_name(self) -> str | None:
        try:
            return self._names.popleft()
        except IndexError:
            if monotonic() < self._next_look:
                return None
        self._next_look = monotonic() + LOOK_SECONDS
        with suppress(FileNotFoundError):
            self._names.extend(file.name for file in self._folder.iterdir())
        with suppress(IndexError):
            return self._names.popleft()
        return None
