import os
import random
import struct
import subprocess
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


def records_of(image: Path, name: bytes) -> list[int]:
    """Where the directory records of a name begin."""
    content, found, at = image.read_bytes(), [], 0
    while (at := content.find(name, at + 1)) >= 0:
        if content[at - 1] == len(name) and content[at - 7 : at - 1] == b"\0\0\1\0\0\1":
            found.append(at - 33)
    return found


@pytest.mark.parametrize(
    ("position", "content", "words"),
    [
        (1, b"\1", "different ways"),  # Linux then reads the file a block later
        (26, b"\1\1", "different ways"),
        (25, b"\1", "hidden"),
    ],
)
def test_a_record_that_systems_read_differently_is_refused(
    image: Path, position: int, content: bytes, words: str
) -> None:
    [record] = records_of(image, b"A.TXT;1")
    with pytest.raises(ProofFailed, match=words):
        read(patched(image, record + position, content))


def test_a_root_that_systems_read_differently_is_refused(image: Path) -> None:
    with pytest.raises(ProofFailed, match="different ways"):
        read(patched(image, 16 * SECTOR_BYTES + 156 + 1, b"\1"))


@pytest.mark.parametrize(("position", "number"), [(2, 19), (10, 68)], ids=["elsewhere", "cut short"])
def test_a_directory_whose_own_record_differs_is_refused(image: Path, position: int, number: int) -> None:
    """Linux lists a directory by its own record; of one that is cut short it shows no file."""
    content = image.read_bytes()
    folder = struct.unpack_from("<I", content, records_of(image, b"PT000001")[0] + 2)[0]
    with pytest.raises(ProofFailed, match="another's"):
        read(patched(image, folder * SECTOR_BYTES + position, both(number)))


@pytest.mark.parametrize(("bit", "words"), [(1, "hidden"), (4, "in pieces"), (0x80, "in pieces")])
def test_a_directory_that_some_systems_dont_show_is_refused(image: Path, bit: int, words: str) -> None:
    [record] = records_of(image, b"PT000001")
    with pytest.raises(ProofFailed, match=words):
        read(patched(image, record + 25, bytes([2 | bit])))


@pytest.mark.parametrize("other", ["IMAGES1", "images1"])
def test_two_directories_of_one_name_are_refused(tmp_path: Path, other: str) -> None:
    """A system goes into one of them, and never finds what is in the other."""
    (tmp_path / "source").write_bytes(b"content")
    files = [DiscFile(PurePosixPath(path), 7, "", tmp_path / "source") for path in ("IMAGES1/A", "IMAGES2/B")]
    master(files, "TWO", tmp_path / "x.iso")
    content = (tmp_path / "x.iso").read_bytes()
    for encoding in ("ascii", "utf-16-be"):
        content = content.replace("IMAGES2".encode(encoding), other.encode(encoding))
    (tmp_path / "x.iso").write_bytes(content)
    with pytest.raises(ProofFailed, match=r"(?i)IMAGES1 twice"):
        read(tmp_path / "x.iso")


@pytest.mark.parametrize("kind", [1, 2])
def test_a_second_descriptor_of_a_kind_is_refused(image: Path, kind: int) -> None:
    """Linux takes the last Joliet tree, others the first."""
    content = image.read_bytes()
    first, end = (content[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES] for sector in (15 + kind, 18))
    with pytest.raises(ProofFailed, match="several"):
        read(patched(image, 18 * SECTOR_BYTES, first + end))


def test_descriptors_that_dont_end_are_refused(image: Path) -> None:
    with pytest.raises(ProofFailed, match="don't end"):
        read(patched(image, 18 * SECTOR_BYTES, bytes(SECTOR_BYTES)))


def test_what_stands_before_the_descriptors_is_refused(image: Path) -> None:
    """HFS, by which a Mac would show other files."""
    with pytest.raises(ProofFailed, match="before its volume descriptors"):
        read(patched(image, 1024, b"H+"))


def test_names_of_rock_ridge_are_refused(tmp_path: Path) -> None:
    """Linux shows them instead of Joliet's, and they may be others."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "A.TXT").write_bytes(b"content")
    for option, words in (("-J", ""), ("-JR", "different ways")):
        subprocess.run(["genisoimage", "-quiet", option, "-o", tmp_path / "x.iso", tmp_path / "in"], check=True)
        if not words:
            assert len(read(tmp_path / "x.iso").files) == 1
            continue
        with pytest.raises(ProofFailed, match=words):
            read(tmp_path / "x.iso")


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
