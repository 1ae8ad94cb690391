"""No byte of an image leaves that isn't what was read back: whatever part is asked for, wherever it is damaged."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from mkiso.errors import JobNotFound, ProofFailed, StorageUnreadable
from mkiso.formats import image_hash
from mkiso.formats.iso_reader import SECTOR_BYTES
from mkiso.formats.protocol import Contents, Extent
from mkiso.storage import marks as marks_module
from mkiso.storage.marks import ProvedImage, ProvedSpan, marks_of
from peers.small_disk import no_descriptors

MARK_BYTES, CHAIN_BYTES, CHUNK_BYTES = 8 * SECTOR_BYTES, 64 * SECTOR_BYTES, 10 * SECTOR_BYTES
PIECE_BYTES = MARK_BYTES + SECTOR_BYTES
SECTORS = 500


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Everything far smaller than it is, so that every edge comes up often."""
    assert (marks_module.MARK_BYTES, marks_module.CHAIN_BYTES) == (32 * MARK_BYTES, 128 * CHAIN_BYTES)
    assert marks_module.PIECE_BYTES == 32 * PIECE_BYTES
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marks_module, "MARK_BYTES", MARK_BYTES)
        patch.setattr(marks_module, "PIECE_BYTES", PIECE_BYTES)
        patch.setattr(marks_module, "CHAIN_BYTES", CHAIN_BYTES)
        patch.setattr(image_hash, "CHAIN_BYTES", CHAIN_BYTES)
        patch.setattr(image_hash, "_CHUNK_BYTES", CHUNK_BYTES)
        yield


def sectors(size: int) -> int:
    return -(-size // SECTOR_BYTES)


@pytest.fixture(scope="module")
def content() -> bytes:
    return random.Random(7).randbytes(SECTORS * SECTOR_BYTES)


@pytest.fixture(scope="module")
def extents() -> list[Extent]:
    """Files of every length: none, one byte, around a mark, around a chain, with and without room between them."""
    made, at = [], 30
    for size in (
        1,
        5000,
        MARK_BYTES,
        MARK_BYTES + 1,
        70_000,
        CHAIN_BYTES,
        2 * CHAIN_BYTES + 3,
        2047,
        30_000,
        CHAIN_BYTES - 5000,
    ):
        made.append(Extent(at * SECTOR_BYTES, size))
        at += sectors(size) + (size % 3 == 0)
    assert at < SECTORS
    return [*made, Extent(0, 0), Extent(30 * SECTOR_BYTES, 0)]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, content: bytes, extents: list[Extent]) -> tuple[Path, Path]:
    """An image and its marks, as reading back makes them."""
    folder = tmp_path_factory.mktemp("image")
    image, marks = folder / "disc.iso", folder / "marks"
    image.write_bytes(content)
    tree = {PurePosixPath(str(number)): extent for number, extent in enumerate(extents)}
    described = Contents("V", SECTORS * SECTOR_BYTES, {"": tree})
    with image.open("rb") as file:
        hashes = image_hash.hash_extents(file.fileno(), described)
    assert hashes.sha256 == hashlib.sha256(content).hexdigest()
    for extent in extents:
        begin = extent.start
        assert hashes.files[extent] == hashlib.sha256(content[begin : begin + extent.size]).hexdigest(), extent
    marks.write_bytes(hashes.marks)
    return image, marks


def opened(stored: tuple[Path, Path]) -> ProvedImage:
    image, marks = stored
    return ProvedImage(image, marks, image.stat().st_size, hashlib.sha256(marks.read_bytes()).hexdigest())


def read(stored: tuple[Path, Path], start: int, stop: int) -> tuple[bytes, bool]:
    """What leaves of a range, and whether it was all of it."""
    left = b""
    with opened(stored) as image:
        span = ProvedSpan(image, start, stop)
        try:
            while piece := span.read():
                assert len(piece) <= PIECE_BYTES
                left += piece
        except ProofFailed:
            return left, False
    return left, True


def ranges(size: int, extents: list[Extent]) -> list[tuple[int, int]]:
    edges = {0, 1, MARK_BYTES, CHAIN_BYTES, size - 1, size}
    for extent in extents:
        edges |= {extent.start, extent.start + extent.size}
    near = sorted({edge + step for edge in edges for step in (-1, 0, 1) if 0 <= edge + step <= size})
    chosen = random.Random(3)
    pairs = (sorted(chosen.sample(near, 2)) for _ in range(150))
    return [(0, size), *((first, last) for first, last in pairs)]


def test_every_range_is_what_the_image_holds(stored: tuple[Path, Path], content: bytes, extents: list[Extent]) -> None:
    for start, stop in ranges(len(content), extents):
        assert read(stored, start, stop) == (content[start:stop], True), (start, stop)


def test_nothing_leaves_from_the_piece_that_is_damaged_on(
    tmp_path: Path, stored: tuple[Path, Path], content: bytes, extents: list[Extent]
) -> None:
    image, marks = tmp_path / "disc.iso", stored[1]
    image.write_bytes(content)
    chosen = random.Random(11)
    with image.open("r+b", buffering=0) as file:
        for position in (0, len(content) - 1, *(chosen.randrange(len(content)) for _ in range(40))):
            os.pwrite(file.fileno(), bytes([content[position] ^ 1 << chosen.randrange(8)]), position)
            for start, stop in (0, len(content)), (max(position - 10_000, 0), len(content)), (position, position + 1):
                left, whole = read((image, marks), start, stop)
                assert not whole and left == content[start : start + len(left)], (position, start)
                assert start + len(left) <= position < start + len(left) + PIECE_BYTES + SECTOR_BYTES
            os.pwrite(file.fileno(), content[position : position + 1], position)
    assert read((image, marks), 0, len(content)) == (content, True)


def test_a_cut_image_wrong_marks_and_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, marks = tmp_path / "disc.iso", tmp_path / "marks"
    image.write_bytes(b"x" * 3000)
    with pytest.raises(JobNotFound):
        ProvedImage(image, marks, 3000, "")
    marks.write_bytes(marks_of(b"x" * 3000))
    right = hashlib.sha256(marks.read_bytes()).hexdigest()
    for size, digest in ((2999, right), (3000, right[:-1] + "x"), (3000, "")):
        with pytest.raises(ProofFailed):
            ProvedImage(image, marks, size, digest)
    with ProvedImage(image, marks, 3000, right) as proved:
        image.open("r+b").truncate(2999)  # after it was opened
        with pytest.raises(ProofFailed):
            ProvedSpan(proved, 0, 3000).read()

        def broken(*_: object) -> bytes:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "pread", broken)
        with pytest.raises(ProofFailed):
            ProvedSpan(proved, 0, 10).read()


def test_a_disc_is_not_damaged_where_nothing_more_can_be_opened(stored: tuple[Path, Path]) -> None:
    """What is damaged leaves the shelf."""
    image, marks = stored
    told = image.stat().st_size, hashlib.sha256(marks.read_bytes()).hexdigest()
    with no_descriptors(), pytest.raises(StorageUnreadable):
        ProvedImage(image, marks, *told)
    ProvedImage(image, marks, *told).close()


def test_marks_that_end_before_the_image_prove_nothing_behind_them(tmp_path: Path) -> None:
    image, marks = tmp_path / "disc.iso", tmp_path / "marks"
    content = os.urandom(2 * MARK_BYTES)
    image.write_bytes(content)
    marks.write_bytes(marks_of(content[:MARK_BYTES]))
    assert read((image, marks), 0, len(content)) == (content[:MARK_BYTES], False)
    assert read((image, marks), MARK_BYTES, len(content)) == (b"", False)


def test_a_range_reads_no_more_than_a_chain_before_it(
    stored: tuple[Path, Path], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = 0
    reading = marks_module._read

    def counted(descriptor: int, length: int, position: int) -> bytes:
        nonlocal fetched
        fetched += length
        return reading(descriptor, length, position)

    monkeypatch.setattr(marks_module, "_read", counted)
    for start in range(0, len(content), 3000):
        fetched = 0
        assert read(stored, start, min(start + 10, len(content)))[1]
        assert fetched <= CHAIN_BYTES + MARK_BYTES + PIECE_BYTES
    fetched = 0
    read(stored, 0, len(content))
    assert fetched == len(content)
