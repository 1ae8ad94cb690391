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
from typing import Self

from mkiso.errors import JobNotFound, ProofFailed, StorageUnreadable
from mkiso.storage.files import USED_UP, Unreadable, read_whole

MARK_BYTES = 1 << 19
PIECE_BYTES = MARK_BYTES + MARK_BYTES // 8
"""The most that is sent in one piece, so that an image of 512² is one. Each client that stops reading holds one."""
CHAIN_BYTES = 1 << 24
NOT_PROVED = (
    "The stored image isn't what was read back when it was made: it was thrown away. "
    "Ask for the disc again, and tell the administrator."
)
NOT_KEPT = "This disc isn't kept any more: ask for it again."
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
        """Raises JobNotFound where the image is gone, ProofFailed where its size or marks aren't what was proved, and
        StorageUnreadable.
        """
        self.descriptor = -1
        try:
            self._marks = read_whole(marks)
            self.descriptor = os.open(image, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise JobNotFound(NOT_KEPT) from None
        except (OSError, Unreadable) as error:
            if error.errno in USED_UP:
                raise StorageUnreadable("The disc can't be read just now: too much is open. Ask again.") from None
            raise ProofFailed(NOT_PROVED) from None
        if os.fstat(self.descriptor).st_size != size or hashlib.sha256(self._marks).hexdigest() != marks_sha256:
            self.close()
            raise ProofFailed(NOT_PROVED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        """An answer that was prepared and never begun holds no descriptor."""
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

    def end(self, index: int) -> int:
        """Where the n-th mark stands; before the first one the image begins."""
        return self.mark(index)[1] if index >= 0 else 0


class ProvedPiece:
    """At most PIECE_BYTES of a span. One that `begins_chain` may be proved beside the one before it, another after."""

    def __init__(self, image: ProvedImage, first: int, wanted: range, before: ProvedPiece | None) -> None:
        """`first` is its first mark; of its bytes those are `wanted` whose places are in the range. Raises ProofFailed
        where no mark follows.
        """
        self._image, self._first, self._wanted, self._before = image, first, wanted, before
        self._begin = image.end(first - 1)
        self.begins_chain = first < len(image) and image.mark(first)[0] == self._begin
        self._hash = hashlib.sha256()
        self.next = first
        """The next one's first mark."""
        while self.next < len(image) and image.mark(self.next)[1] - self._begin <= PIECE_BYTES:
            self.next += 1
        if self.next == first:
            raise ProofFailed(NOT_PROVED)

    def read(self) -> bytes:
        """What is wanted of it, which may be nothing. Raises ProofFailed before any wrong byte."""
        image, begin = self._image, self._begin
        read = _read(image.descriptor, image.end(self.next - 1) - begin, begin)
        view, at = memoryview(read), begin
        if self._before:
            self._hash, self._before = self._before._hash, None
        for index in range(self._first, self.next):
            chain, offset, sha256 = image.mark(index)
            if chain == at:
                self._hash = hashlib.sha256()
            self._hash.update(view[at - begin : offset - begin])
            at = offset
            if self._hash.digest() != sha256:
                raise ProofFailed(NOT_PROVED)
        return read[max(self._wanted.start - begin, 0) : max(self._wanted.stop - begin, 0)]


class ProvedSpan:
    """The bytes of an image from `start` up to, not including, `stop`, in order, each of them proved."""

    def __init__(self, image: ProvedImage, start: int, stop: int) -> None:
        self.image = image
        self._wanted = range(start, stop)
        at = self._mark_behind(start)
        self._next = self._mark_behind(image.mark(at)[0] if at < len(image) else start)
        self._before: ProvedPiece | None = None
        self._begun = b""

    def begin(self) -> None:
        """Read and prove the first piece, which `read` then gives. Raises ProofFailed."""
        self._begun = self.read()

    @property
    def goes_on(self) -> bool:
        """Whether there is a next piece."""
        return self.image.end(self._next - 1) < self._wanted.stop

    def next_piece(self) -> ProvedPiece | None:
        """The next one, to be read once the one before it is, or at any time where it begins a chain; None behind the
        last. Raises ProofFailed.
        """
        if not self.goes_on:
            return None
        piece = self._before = ProvedPiece(self.image, self._next, self._wanted, self._before)
        self._next = piece.next
        return piece

    def read(self) -> bytes:
        """The next piece, at most PIECE_BYTES; empty at the end. Raises ProofFailed before any wrong byte."""
        piece, self._begun = self._begun, b""
        while not piece and (following := self.next_piece()):
            piece = following.read()
        return piece

    def _mark_behind(self, position: int) -> int:
        return bisect_right(range(len(self.image)), position, key=lambda index: self.image.mark(index)[1])


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
