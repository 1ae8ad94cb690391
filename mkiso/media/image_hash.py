"""The SHA-256 of an image and of every file in it, in one pass."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor

from mkiso.errors import ProofFailed
from mkiso.media.iso_reader import SECTOR_BYTES, Extent, Image

_CHUNK_BYTES = 4 * 1024 * 1024


def hash_extents(descriptor: int, image: Image, progress: Callable[[int, int], None] | None = None) -> tuple[str, dict[Extent, str]]:
    """The SHA-256 of the image and of each of its files, read once from beginning to end; two cores work, since hashlib lets go of the GIL.

    Raises ProofFailed where the image is cut short or files overlap.
    """
    whole = hashlib.sha256()
    files = _ExtentHashes(image.primary.values())
    end = image.sectors * SECTOR_BYTES
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
            running = [hashing.submit(whole.update, chunk), hashing.submit(files.update, chunk, start)]
        for task in running:
            task.result()
    return whole.hexdigest(), files.hexdigests()


class _ExtentHashes:
    """The hashes of extents while the image passes by in order."""

    def __init__(self, extents: Collection[Extent]) -> None:
        self._ahead = sorted(set(extents), reverse=True)
        self._hash = hashlib.sha256()
        self._done: dict[Extent, str] = {}
        position = 0
        for extent in reversed(self._ahead):
            if extent.size and extent.sector * SECTOR_BYTES < position:
                raise ProofFailed("The image has files that overlap.")
            position = max(position, extent.sector * SECTOR_BYTES + extent.size)

    def update(self, chunk: memoryview, start: int) -> None:
        end = start + len(chunk)
        while self._ahead:
            extent = self._ahead[-1]
            first, last = extent.sector * SECTOR_BYTES, extent.sector * SECTOR_BYTES + extent.size
            if first >= end:
                return
            self._hash.update(chunk[max(first - start, 0) : max(last - start, 0)])
            if last > end:
                return
            self._done[self._ahead.pop()] = self._hash.hexdigest()
            self._hash = hashlib.sha256()

    def hexdigests(self) -> dict[Extent, str]:
        """Of every extent; one that begins where the image ends is empty."""
        return self._done | dict.fromkeys(self._ahead, hashlib.sha256().hexdigest())


def _read(descriptor: int, into: memoryview, position: int) -> int:
    done = 0
    while done < len(into):
        count = os.preadv(descriptor, [into[done:]], position + done)
        if not count:
            break
        done += count
    return done
