"""Reading an image back: every file's SHA-256 against what was received or made, both ways, in both trees, before a byte of it leaves."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mkiso.errors import ProofFailed
from mkiso.media.iso_reader import SECTOR_BYTES, Extent, Image, read_image
from mkiso.models import DiscFile

_CHUNK_BYTES = 4 * 1024 * 1024
_NAMED = 5  # how many differing files the words of an error name


@dataclass(frozen=True, slots=True)
class ImageProof:
    """What was proved: the image's SHA-256 and size in bytes, and how many files were compared."""

    sha256: str
    size: int
    files: int


def verify_image(iso: Path, files: Collection[DiscFile]) -> ImageProof:
    """Prove that an image holds exactly these files, byte for byte, in the ISO 9660 and in the Joliet tree.

    One pass over the image. Raises ProofFailed, which names what is missing, unexpected or different.
    """
    descriptor = os.open(iso, os.O_RDONLY | os.O_CLOEXEC)
    try:
        image = read_image(descriptor)
        size = os.fstat(descriptor).st_size
        if size != image.sectors * SECTOR_BYTES:
            raise ProofFailed(f"The image has {size} bytes and says that it has {image.sectors * SECTOR_BYTES}.")
        _same_names({file.path for file in files}, image.primary, "ISO 9660")
        _same_names({file.joliet_path or file.path for file in files}, image.joliet, "Joliet")
        differing = [file.path for file in files if image.primary[file.path] != image.joliet[file.joliet_path or file.path]]
        differing += [file.path for file in files if image.primary[file.path].size != file.size]
        if not differing:
            sha256, hashes = hash_extents(descriptor, image)
            differing = [file.path for file in files if hashes[image.primary[file.path]] != file.sha256]
    finally:
        os.close(descriptor)
    if differing:
        raise ProofFailed(f"{len(differing)} file(s) of the image are not what was received or made: {_listed(differing)}. The image is not used.")
    return ImageProof(sha256, size, len(files))


def hash_extents(descriptor: int, image: Image) -> tuple[str, dict[Extent, str]]:
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


def _same_names(expected: set[PurePosixPath], found: Mapping[PurePosixPath, Extent], tree: str) -> None:
    missing, unexpected = expected - found.keys(), found.keys() - expected
    if missing or unexpected:
        raise ProofFailed(
            f"The image's {tree} tree "
            + " and ".join(
                [f"lacks {len(missing)} file(s): {_listed(missing)}"] * bool(missing)
                + [f"has {len(unexpected)} that nobody put there: {_listed(unexpected)}"] * bool(unexpected)
            )
            + ". The image is not used."
        )


def _listed(paths: Collection[PurePosixPath]) -> str:
    named = ", ".join(str(path) for path in sorted(set(paths))[:_NAMED])
    return f"{named} …" if len(paths) > _NAMED else named
