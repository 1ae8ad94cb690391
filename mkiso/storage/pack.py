"""Many small files in one. On ext4 a new file costs more than its bytes, the more so after others were deleted:
docs/decisions/spare-files.md.
"""

from __future__ import annotations

import os
import threading
from io import FileIO, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING

from mkiso.storage.files import write_at
from mkiso.study.models import DiscFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Pack:
    """A file, mode 0600, to which any thread may add; what was in it stays."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, also where somebody has put a link in its place."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self.path = path
        self._descriptor = os.open(path, flags, 0o600)
        self._end = os.fstat(self._descriptor).st_size
        self._lock = threading.Lock()

    def add(self, content: bytes) -> int:
        """Where it begins now. Raises OSError; what was written of it then is written over by the next."""
        with self._lock:
            begin = self._end
            write_at(self._descriptor, content, begin)
            self._end += len(content)
        return begin

    def close(self) -> None:
        os.close(self._descriptor)


class Part(RawIOBase):
    """`size` bytes of a file from `offset` on, to be read as if they were all of it; open only while it is read."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self._path, self._begin, self._size, self._at = path, offset, size, 0

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        wanted = memoryview(buffer)[: max(0, self._size - self._at)]
        if not wanted:
            return 0
        with FileIO(self._path) as file:
            file.seek(self._begin + self._at)
            count = file.readinto(wanted)
        self._at += count
        return count


def opened(file: DiscFile) -> RawIOBase:
    """A disc's file where it lies, in a file of its own or in one of many. Raises OSError."""
    assert file.source
    return FileIO(file.source) if file.offset is None else Part(file.source, file.offset, file.size)
