"""The SHA-256 of an image and of every file in it, and the image's marks, in one pass."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from isal.isal_zlib import crc32

from mkiso.errors import ProofFailed
from mkiso.formats.protocol import Contents, Extent
from mkiso.storage.marks import CHAIN_BYTES, Marker

_CHUNK_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ImageHashes:
    """The SHA-256 of the image and of each of its files, and the image's marks (mkiso.storage.marks). `wrong` are the
    files whose CRC-32, authentication code or digest isn't what the image says. Files of an encrypted ZIP file are
    hashed as they were before; of encrypted DICOM files `files` has the envelopes, and `inside` what is in them.
    """

    sha256: str
    files: dict[Extent, str]
    marks: bytes
    wrong: frozenset[Extent]
    inside: dict[Extent, str] = field(default_factory=dict)


def hash_extents(
    descriptor: int, contents: Contents, progress: Callable[[int, int], None] | None = None
) -> ImageHashes:
    """Hash an image and its files, read once from beginning to end; two cores work, since hashlib lets go of the GIL.

    Raises ProofFailed where the image is cut short or files overlap.
    """
    whole = hashlib.sha256()
    end = contents.size
    files = _ExtentHashes(contents.files.values(), end, counts=bool(contents.crc32))
    unlocking, opening = Unlocking(contents.locks), Unlocking(contents.envelopes)
    tasks = [whole.update, files.update, *(each.update for each in (unlocking, opening) if each.has_any)]
    buffers = [memoryview(bytearray(_CHUNK_BYTES)) for _ in range(2)]
    with ThreadPoolExecutor(2, thread_name_prefix="proof") as hashing:
        running: list[Future[None]] = []
        for number, start in enumerate(range(0, end, _CHUNK_BYTES)):
            chunk = buffers[number % 2][: min(_CHUNK_BYTES, end - start)]
            if _read(descriptor, chunk, start) != len(chunk):
                raise ProofFailed(f"The image is cut short: it ends before its {end} bytes.")
            for task in running:
                task.result()
            if progress:
                progress(start, end)
            running = [hashing.submit(each, chunk) for each in tasks]
        for task in running:
            task.result()
    wrong = frozenset(extent for extent, said in contents.crc32.items() if files.crc32.get(extent, 0) != said)
    hashes = files.hexdigests() | unlocking.done
    wrong |= unlocking.forged | opening.forged
    return ImageHashes(whole.hexdigest(), hashes, files.marks(), wrong, opening.done)


class _ExtentHashes:
    """The hashes of extents, and the marks, while the image passes by from its beginning.

    With each file a chain of marks begins, so that its hash at the file's end is the file's; a file within which
    another chain begins is hashed on its own as well.
    """

    def __init__(self, extents: Collection[Extent], end: int, *, counts: bool) -> None:
        self._ahead = sorted({extent for extent in extents if extent.size}, reverse=True)
        self._done = dict.fromkeys((extent for extent in extents if not extent.size), hashlib.sha256().hexdigest())
        self._marker = Marker()
        self._passing: Extent | None = None
        self._own: Marker | hashlib._Hash = self._marker
        self._at, self._end = 0, end
        self._counts = counts
        self.crc32: dict[Extent, int] = {}
        position = 0
        for extent in reversed(self._ahead):
            if extent.start < position:
                raise ProofFailed("The image has files that overlap.")
            position = extent.start + extent.size

    def update(self, chunk: memoryview) -> None:
        while chunk:
            if self._ahead and self._ahead[-1].start == self._at:
                self._passing = self._ahead.pop()
                self._marker.begin_chain()
                self._own = hashlib.sha256() if self._passing.size >= CHAIN_BYTES else self._marker
            part = chunk[: self._cut() - self._at]
            self._marker.update(part)
            if self._passing and self._counts:
                self.crc32[self._passing] = crc32(part, self.crc32.get(self._passing, 0))
            if self._passing and self._own is not self._marker:
                self._own.update(part)
            self._at += len(part)
            chunk = chunk[len(part) :]
            if self._passing and self._at == self._cut():
                self._done[self._passing] = self._own.hexdigest()
                self._passing = None

    def _cut(self) -> int:
        """Where the file that passes ends, else where the next begins, else the end."""
        if self._passing:
            return self._passing.start + self._passing.size
        return self._ahead[-1].start if self._ahead else self._end

    def hexdigests(self) -> dict[Extent, str]:
        """Of every extent; one without bytes may lie anywhere."""
        return self._done

    def marks(self) -> bytes:
        return self._marker.marks()


class _Opened(Protocol):
    def decrypted(self, data: memoryview) -> Iterator[memoryview]: ...
    def is_genuine(self, sha256: bytes) -> bool: ...


class _Lock(Protocol):
    def opened(self) -> _Opened: ...


class Unlocking:
    """The hashes of what is encrypted as it was before, while the image passes by; which of it isn't genuine."""

    def __init__(self, locks: Mapping[Extent, _Lock]) -> None:
        self._locks = locks
        self._ahead = sorted(locks, reverse=True)
        self._at = 0
        self._passing: tuple[Extent, _Opened, hashlib._Hash] | None = None
        self.done: dict[Extent, str] = {}
        self.forged: set[Extent] = set()

    @property
    def has_any(self) -> bool:
        return bool(self._locks)

    def begin_at(self, position: int) -> None:
        self._at = position

    def update(self, chunk: memoryview) -> None:
        end = self._at + len(chunk)
        while self._passing or (self._ahead and self._ahead[-1].start < end):
            if self._passing is None:
                extent = self._ahead.pop()
                self._passing = (extent, self._locks[extent].opened(), hashlib.sha256())
            extent, opened, sha256 = self._passing
            stop = extent.start + extent.size
            begin = max(extent.start, self._at)
            for piece in opened.decrypted(chunk[begin - self._at : min(stop, end) - self._at]):
                sha256.update(piece)
            if stop > end:
                break
            self.done[extent] = sha256.hexdigest()
            if not opened.is_genuine(sha256.digest()):
                self.forged.add(extent)
            self._passing = None
        self._at = end


def _read(descriptor: int, into: memoryview, position: int) -> int:
    done = 0
    while done < len(into):
        count = os.preadv(descriptor, [into[done:]], position + done)
        if not count:
            break
        done += count
    return done
