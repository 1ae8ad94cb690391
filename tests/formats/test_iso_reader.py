import os
import random
import struct
from pathlib import Path, PurePosixPath

import pytest

from mkiso.errors import ProofFailed
from mkiso.formats.iso import master
from mkiso.formats.iso_reader import JOLIET, SECTOR_BYTES, read_image
from mkiso.formats.protocol import Contents, Extent, read_extent
from mkiso.study.models import DiscFile


@pytest.fixture
def image(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    paths = ["A.TXT", "DICOM/PT000001/IM000001", "DICOM/PT000001/IM000002"]
    files = [DiscFile(PurePosixPath(path), 7, "", source) for path in paths]
    files.append(DiscFile(PurePosixPath("LONG_N_1.DLL"), 7, "", source, joliet_path=PurePosixPath("Long näme.dll")))
    master(files, "READ_ME", tmp_path / "x.iso")
    return tmp_path / "x.iso"


def read(path: Path) -> Contents:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_image(descriptor)
    finally:
        os.close(descriptor)


def patched(path: Path, position: int, content: bytes) -> Path:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(content)
    return path


def both(number: int) -> bytes:
    return struct.pack("<I", number) + struct.pack(">I", number)


def test_both_trees_are_read(image: Path) -> None:
    found = read(image)
    assert found.label == "READ_ME"
    assert sorted(map(str, found.files)) == [
        "A.TXT",
        "DICOM/PT000001/IM000001",
        "DICOM/PT000001/IM000002",
        "LONG_N_1.DLL",
    ]
    assert found.trees[JOLIET][PurePosixPath("Long näme.dll")] == found.files[PurePosixPath("LONG_N_1.DLL")]
    descriptor = os.open(image, os.O_RDONLY)
    assert read_extent(descriptor, found.files[PurePosixPath("A.TXT")]) == b"content"
    with pytest.raises(ProofFailed, match="cut short"):
        read_extent(descriptor, Extent(found.size, 1))
    os.close(descriptor)


def test_what_is_no_image(tmp_path: Path) -> None:
    for content in (b"", bytes(100_000), b"%PDF" * 20_000):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ProofFailed):
            read(tmp_path / "x")


def test_an_image_without_joliet(image: Path) -> None:
    with pytest.raises(ProofFailed, match="no Joliet"):
        read(patched(image, 17 * SECTOR_BYTES + 88, b"   "))


@pytest.mark.parametrize(
    ("position", "content", "words"),
    [
        (16 * SECTOR_BYTES + 80, struct.pack("<I", 1), "byte orders differ"),
        (16 * SECTOR_BYTES + 80, both(10_000), "different sizes"),
        (16 * SECTOR_BYTES + 128, b"\x00\x02", "2,048"),
        (16 * SECTOR_BYTES + 156 + 2, both(2**31), "outside itself"),
        (16 * SECTOR_BYTES + 156 + 10, both(2**32 - 1), "outside itself"),
        (16 * SECTOR_BYTES + 140, struct.pack("<I", 2**31), "outside itself"),
        (16 * SECTOR_BYTES + 140, struct.pack("<I", 16), "path table"),
    ],
)
def test_broken_descriptors(image: Path, position: int, content: bytes, words: str) -> None:
    with pytest.raises(ProofFailed, match=words):
        read(patched(image, position, content))


def test_a_directory_that_contains_itself(image: Path) -> None:
    content = image.read_bytes()
    root = struct.unpack_from("<I", content, 16 * SECTOR_BYTES + 158)[0]
    record = content.index(b"DICOM", root * SECTOR_BYTES) - 33
    with pytest.raises(ProofFailed, match="back to themselves"):
        read(patched(image, record + 2, both(root)))


@pytest.mark.parametrize(
    ("name", "words"), [(b"A/TXT;1", "leads elsewhere"), (b"..;1;1;", "leads elsewhere"), (b"\xff.TXT;1", "no text")]
)
def test_names_that_lead_elsewhere(image: Path, name: bytes, words: str) -> None:
    content = image.read_bytes()
    at = content.index(b"A.TXT;1")
    with pytest.raises(ProofFailed, match=words):
        read(patched(image, at, name))


def test_noise_raises_nothing_but_proof_failed(image: Path) -> None:
    """Ten thousand damaged bytes in the descriptors and directories: a refusal or a sound reading, never another error
    and never a hang.
    """
    original = image.read_bytes()
    end = min(extent.start for extent in read(image).files.values())
    chance = random.Random(1)
    refused = 0
    for _ in range(300):
        damaged = bytearray(original)
        for _ in range(30):
            damaged[chance.randrange(16 * SECTOR_BYTES, end)] = chance.randrange(256)
        image.write_bytes(damaged)
        try:
            read(image)
        except ProofFailed:
            refused += 1
    assert refused > 0
