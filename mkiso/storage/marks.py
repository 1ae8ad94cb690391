"""An image's marks: what reading back has hashed on its way, so that any part of it can be proved before it leaves.

A mark is the SHA-256 of the bytes from where its chain begins up to an offset of the image. Marks stand at most
512 KiB apart. A chain begins with each file, whose hash the proof needs anyway, and in long files again every 16 MiB:
so marks cost no hashing of their own but in long files, an image that is sent from its beginning is hashed once, and a
range costs at most the 16 MiB before it.
"""

from __future__ import annotations

import hashlib
import os
import struct
from bisect import bisect_right
from pathlib import Path
from types import TracebackType
from typing import Self

from mkiso.errors import JobNotFound, ProofFailed
from mkiso.storage.files import Unreadable, read_whole

MARK_BYTES = 1 << 19  # what is sent in one piece: 200 clients that read slowly hold 330 MiB (1 MiB: 610)
CHAIN_BYTES = 1 << 24
NOT_PROVED = (
    "The stored image isn't what was read back when it was made: it was thrown away. "
    "Ask for the disc again, and tell the administrator."
)
_MARK = struct.Struct("<QQ32s")  # where the chain begins, where the mark stands, the SHA-256 of what lies between


class Marker:
    """Makes the marks while an image passes by from its beginning to its end."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._chain = self._last = self._at = 0
        self._marks = bytearray()

    def update(self, part: memoryview | bytes) -> None:
        """The next bytes of the image."""
        part = memoryview(part)
        while part:
            taken = part[: MARK_BYTES - (self._at - self._last)]
            self._hash.update(taken)
            self._at += len(taken)
            part = part[len(taken) :]
            if self._at - self._last == MARK_BYTES:
                self._mark()
            if self._at - self._chain == CHAIN_BYTES:
                self.begin_chain()

    def begin_chain(self) -> None:
        """Begin a chain with the next byte."""
        self._mark()
        self._chain = self._at
        self._hash = hashlib.sha256()

    def hexdigest(self) -> str:
        """The SHA-256 of what has passed since the chain began."""
        return self._hash.hexdigest()

    def marks(self) -> bytes:
        """All marks, where the image has passed whole."""
        self._mark()
        return bytes(self._marks)

    def _mark(self) -> None:
        if self._at > self._last:
            self._marks += _MARK.pack(self._chain, self._at, self._hash.digest())
            self._last = self._at


def marks_of(content: bytes) -> bytes:
    """The marks of an image that lies in memory."""
    marker = Marker()
    marker.update(content)
    return marker.marks()


class ProvedImage:
    """A stored image, open, with its marks; it stays readable when its name is removed. A context manager."""

    def __init__(self, image: Path, marks: Path, size: int, marks_sha256: str) -> None:
        """Raises JobNotFound where the image is gone, ProofFailed where its size or marks aren't what was proved."""
        self.descriptor = -1
        try:
            self._marks = read_whole(marks)
            self.descriptor = os.open(image, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise JobNotFound("This disc isn't kept any more: ask for it again.") from None
        except (OSError, Unreadable):
            raise ProofFailed(NOT_PROVED) from None
        if os.fstat(self.descriptor).st_size != size or hashlib.sha256(self._marks).hexdigest() != marks_sha256:
            self.close()
            raise ProofFailed(NOT_PROVED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __len__(self) -> int:
        return len(self._marks) // _MARK.size

    def mark(self, index: int) -> tuple[int, int, bytes]:
        """Where the n-th mark's chain begins, where it stands, and its SHA-256."""
        chain, offset, sha256 = _MARK.unpack_from(self._marks, index * _MARK.size)
        return chain, offset, sha256


class ProvedSpan:
    """The bytes of an image from `start` up to, not including, `stop`, in order, each of them proved."""

    def __init__(self, image: ProvedImage, start: int, stop: int) -> None:
        self.image = image
        self._start, self._stop = start, stop
        at = bisect_right(range(len(image)), start, key=lambda index: image.mark(index)[1])
        chain = image.mark(at)[0] if at < len(image) else start
        self._next = bisect_right(range(len(image)), chain, key=lambda index: image.mark(index)[1])
        self._at = chain
        self._hash = hashlib.sha256()
        self._begun = b""

    def begin(self) -> None:
        """Read and prove the first piece, which `read` then gives. Raises ProofFailed."""
        self._begun = self.read()

    def read(self) -> bytes:
        """The next piece, at most 512 KiB; empty at the end. Raises ProofFailed before any wrong byte."""
        piece, self._begun = self._begun, b""
        while not piece and self._at < self._stop:
            begin = self._at
            read = self._proved_piece()
            piece = read[max(self._start - begin, 0) : max(self._stop - begin, 0)]
        return piece

    def _proved_piece(self) -> bytes:
        """As many marks as stand within one piece, at least one."""
        image, first, begin = self.image, self._next, self._at
        while self._next < len(image) and image.mark(self._next)[1] - begin <= MARK_BYTES:
            self._next += 1
        if self._next == first:
            raise ProofFailed(NOT_PROVED)
        read = _read(image.descriptor, image.mark(self._next - 1)[1] - begin, begin)
        view = memoryview(read)
        for index in range(first, self._next):
            chain, offset, sha256 = image.mark(index)
            if chain == self._at:
                self._hash = hashlib.sha256()
            self._hash.update(view[self._at - begin : offset - begin])
            self._at = offset
            if self._hash.digest() != sha256:
                raise ProofFailed(NOT_PROVED)
        return read


def _read(descriptor: int, length: int, position: int) -> bytes:
    """So many bytes. Raises ProofFailed where the file, or the disk, doesn't have them."""
    try:
        read = os.pread(descriptor, length, position)
        while len(read) < length and (more := os.pread(descriptor, length - len(read), position + len(read))):
            read += more
    except OSError:
        read = b""
    if len(read) < length:
        raise ProofFailed(NOT_PROVED)
    return read
