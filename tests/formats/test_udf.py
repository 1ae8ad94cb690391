"""UDF beside ISO 9660 on Blu-ray images: read by other programs, of known size and bytes; every wrong byte is found."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import struct
import subprocess
from binascii import crc_hqx
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from mkiso.errors import ProofFailed
from mkiso.formats.disc_check import check_disc, verify_disc
from mkiso.formats.iso import master
from mkiso.formats.iso_reader import JOLIET, SECTOR_BYTES
from mkiso.formats.proof import verify_image
from mkiso.formats.protocol import Extent
from mkiso.formats.registry import ISO
from mkiso.formats.udf import add_udf
from mkiso.formats.udf_reader import UDF, read_udf
from mkiso.media.capacity import udf_head_sectors
from mkiso.media.layout import Layout, LayoutOptions, lay_out
from mkiso.study.gate import Part
from mkiso.study.models import DiscFile
from peers.corpus import EVERY_KIND, THAI, make_study
from peers.discs import flip
from tests.media.discs import CREATED, contents_of, instances, passed, settings

METADATA = 320  # sectors
FILE_SET, ROOT = METADATA, METADATA + 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Path]:
    folder = tmp_path_factory.mktemp("udf")
    (folder / "viewer" / "Sprach dateien").mkdir(parents=True)
    for name in ("Betrachter für Bilder.exe", "empty.cfg", "Sprach dateien/ภาษาไทย.lng"):
        (folder / "viewer" / name).write_text(name if "empty" not in name else "")
    paths = make_study(folder / "in", "ACC1", patient=THAI, kinds=EVERY_KIND)
    paths += make_study(folder / "in", "ACC2", patient=THAI, kinds={"ct": 70}, number=2)
    chosen = settings(folder, viewer={"directory": str(folder / "viewer")}, disc={"medium": "bd"})
    layout = lay_out(Part.whole(passed(instances(paths))), LayoutOptions(chosen, CREATED), folder / "disc")
    ISO.write(layout, folder / "disc.iso")
    return layout, folder / "disc.iso"


@pytest.fixture
def copy(made: tuple[Layout, Path], tmp_path: Path) -> Path:
    return Path(shutil.copy(made[1], tmp_path / "copy.iso"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[DiscFile], Path]:
    """Of few files, so that every byte of its structures can be tried."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "source").write_bytes(b"content" * 400)
    sha256 = hashlib.sha256(b"content" * 400).hexdigest()
    files = [DiscFile(PurePosixPath(path), 2800, sha256, folder / "source") for path in ("A.TXT", "D/B", "D/E/C")]
    master(files, "SMALL", folder / "x.iso", created=CREATED, udf=True)
    return files, folder / "x.iso"


def test_a_good_image_is_proved_and_sound(made: tuple[Layout, Path]) -> None:
    layout, file = made
    proof = verify_image(file, layout.files, ISO)
    assert proof.size == ISO.size(layout) == layout.size == file.stat().st_size
    assert verify_disc(file).instances == layout.instances
    trees = contents_of(ISO, file).trees
    assert trees[UDF] == trees[JOLIET] and len(trees[UDF]) == len(layout.files)


def test_the_same_disc_gives_the_same_bytes(made: tuple[Layout, Path], tmp_path: Path) -> None:
    ISO.write(made[0], tmp_path / "again.iso")
    assert (tmp_path / "again.iso").read_bytes() == made[1].read_bytes()


def test_everybody_may_do_everything_with_files_and_directories(small: tuple[list[DiscFile], Path]) -> None:
    """PS3.12 X.2.1.5: no access control by permissions, of others, group or owner (ECMA-167 4/14.9.5)."""
    image = small[1].read_bytes()
    blocks = [image[block * SECTOR_BYTES :][:48] for block in range(ROOT, ROOT + 40)]
    entries = [block for block in blocks if block[:2] == b"\x0a\x01" and block[27] in (4, 5)]
    assert len(entries) == 6  # three directories, three files
    for entry in entries:
        [permissions] = struct.unpack_from("<I", entry, 44)
        wanted = 0b10111 if entry[27] == 4 else 0b10110
        assert all(permissions >> whose & wanted == wanted for whose in (0, 5, 10))


def test_no_file_lies_on_the_image_twice(made: tuple[Layout, Path]) -> None:
    layout, file = made
    content = file.read_bytes()
    for each in layout.files:
        if each.size > SECTOR_BYTES and each.source:
            assert content.count(each.source.read_bytes()) == 1, each.path


def test_7zip_reads_the_udf_tree_byte_for_byte(made: tuple[Layout, Path], tmp_path: Path) -> None:
    version = re.search(r"7-Zip [^\d]*(?:\[\d+\] )?(\d+)", subprocess.check_output(["7z"], text=True))
    if not version or int(version[1]) < 22:
        pytest.skip("7-Zip before 22.01 doesn't know UDF's metadata partition")
    layout, file = made
    told = subprocess.run(["7z", "x", "-tudf", f"-o{tmp_path / 'x'}", file], capture_output=True, text=True, check=True)
    assert "Everything is Ok" in told.stdout and "WARNING" not in told.stdout and "Version = 2.60" in told.stdout
    found = {path.relative_to(tmp_path / "x") for path in (tmp_path / "x").rglob("*") if path.is_file()}
    assert found == {Path(each.joliet_path or each.path) for each in layout.files}
    for each in layout.files:
        content = (tmp_path / "x" / (each.joliet_path or each.path)).read_bytes()
        assert hashlib.sha256(content).hexdigest() == each.sha256


def test_libudfread_which_reads_blu_ray_finds_the_same_bytes(made: tuple[Layout, Path]) -> None:
    layout, file = made
    with Judge(file) as judge:
        assert judge.label == layout.volume_id
        assert judge.files("/") == {f"/{each.joliet_path or each.path}": each.sha256 for each in layout.files}


def test_udfinfo_says_what_the_volume_is(made: tuple[Layout, Path]) -> None:
    layout, file = made
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    told = subprocess.run(["udfinfo", file], capture_output=True, text=True, check=True, env={"PATH": path})
    said = dict(line.split("=", 1) for line in told.stdout.splitlines() if not line.startswith("start="))
    assert told.stderr == ""
    assert said["label"] == said["vid"] == said["fsid"] == layout.volume_id
    assert (said["udfwriterev"], said["integrity"], said["accesstype"]) == ("2.60", "closed", "readonly")
    folders = {folder for each in layout.files for folder in (each.joliet_path or each.path).parents}
    assert (said["numfiles"], said["numdirs"]) == (str(len(layout.files)), str(len(folders)))
    assert int(said["blocks"]) == layout.sectors


def test_linux_mounts_it(made: tuple[Layout, Path], tmp_path: Path) -> None:
    if "\tudf\n" not in Path("/proc/filesystems").read_text():
        pytest.skip("this machine's kernel has no UDF file system")
    mount = ["mount", "-t", "udf", "-o", "ro,loop", str(made[1]), str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount an image")
    try:
        for each in made[0].files:
            content = (tmp_path / (each.joliet_path or each.path)).read_bytes()
            assert hashlib.sha256(content).hexdigest() == each.sha256
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_every_flipped_byte_of_a_structure_is_found(small: tuple[list[DiscFile], Path], tmp_path: Path) -> None:
    files, image = small
    file = Path(shutil.copy(image, tmp_path / "flipped.iso"))
    last = file.stat().st_size // SECTOR_BYTES - 1
    spots = [sector * SECTOR_BYTES + at for sector in (19, 20, 21) for at in range(7)]
    spots += [sector * SECTOR_BYTES + at for sector in (*range(32, 38), *range(48, 54)) for at in range(512)]
    spots += [sector * SECTOR_BYTES + at for sector in (64, 256, last, FILE_SET) for at in range(512)]
    content = file.read_bytes()
    entries = 0
    for sector in (288, *range(ROOT, ROOT + 10), METADATA + 32):
        for start, end in _descriptors(content[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES]):
            spots += [sector * SECTOR_BYTES + at for at in range(start, end)]
            entries += 1
    assert entries == 2 + 3 + 3 + (3 + 5)  # the metadata file twice, directories, files, records
    missed = []
    for position in spots:
        flip(file, position)
        try:
            verify_image(file, files, ISO)
            missed.append(position)
        except ProofFailed:
            pass
        flip(file, position)
    assert not missed and verify_image(file, files, ISO)


def test_a_flipped_byte_is_said_by_the_check_of_a_disc(copy: Path) -> None:
    flip(copy, (ROOT + 1) * SECTOR_BYTES + 50)
    assert "damaged descriptor in its UDF tree" in str(check_disc(copy))


@pytest.mark.parametrize("cut", [SECTOR_BYTES, 40 * SECTOR_BYTES])
def test_a_truncated_image_is_found(made: tuple[Layout, Path], copy: Path, cut: int) -> None:
    os.truncate(copy, copy.stat().st_size - cut)
    with pytest.raises(ProofFailed):
        verify_image(copy, made[0].files, ISO)
    assert not check_disc(copy).sound


def _renamed(image: Forged) -> None:
    image.change(ROOT + 1, b"A.TXT", b"B.TXT", start=40)


def _swapped(image: Forged) -> None:
    """A file's entry says where another lies."""
    other = (ROOT + 7) * SECTOR_BYTES + 216
    image.write(ROOT + 6, 216, bytes(image.content[other : other + 16]))


def _moved(image: Forged) -> None:
    """The partition begins elsewhere, by both sequences."""
    for sector in (34, 50):
        image.write(sector, 188, struct.pack("<I", 2**31))


def _with_another_first_anchor(image: Forged) -> None:
    """Linux doesn't look at a tag's reserved byte: it would go by this anchor, and not by the two sound ones."""
    last = len(image.content) // SECTOR_BYTES - 1
    anchor = image.content[last * SECTOR_BYTES :][:512]
    begin = (last - 256) * SECTOR_BYTES
    image.content[begin : begin + 512] = anchor
    image.write(last - 256, 12, struct.pack("<I", last - 256))
    image.write(256, 5, b"\1")
    image.write(256, 20, struct.pack("<I", 100))


def _behind_a_boot_descriptor(image: Forged) -> None:
    """Announced as systems still find it, with its anchors where only some look."""
    last = len(image.content) // SECTOR_BYTES - 1
    structures = image.content[19 * SECTOR_BYTES : 22 * SECTOR_BYTES]
    image.content[19 * SECTOR_BYTES : 23 * SECTOR_BYTES] = b"\0BOOT2\1".ljust(SECTOR_BYTES, b"\0") + structures
    for sector in (256, last):
        image.content[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES] = bytes(SECTOR_BYTES)


def _written(sector: int, at: int, content: bytes, record: int = 0) -> Callable[[Forged], None]:
    return lambda image: image.write(sector, at, content, record)


@pytest.mark.parametrize(
    ("forge", "words"),
    [
        (_renamed, "lacks 1"),
        (_swapped, "not what was received"),
        (_written(ROOT, 220, struct.pack("<I", 2**31)), "outside its partition"),
        (_written(ROOT + 6, 216, struct.pack("<IIH", 2800, 2**31, 0)), "outside its partition"),
        (_written(ROOT + 6, 216, struct.pack("<IIH", 2800, 5, 7)), "outside its partition"),
        (_written(ROOT + 6, 56, struct.pack("<Q", 2801)), "another length"),
        (_written(ROOT + 6, 216, struct.pack("<I", 2800 | 1 << 30)), "isn't wholly recorded"),
        (_written(ROOT + 6, 212, struct.pack("<I", 2**31)), "kind that isn't known"),
        (_written(ROOT + 6, 34, b"\x02"), "kind that isn't known"),
        (_written(ROOT + 6, 27, b"\x04"), "kind that isn't known"),
        (_written(ROOT, 56, struct.pack("<Q", 2**60)), "another length"),
        (_written(ROOT + 1, 24, struct.pack("<I", 2), 40), "twice"),
        (_written(ROOT + 1, 24, struct.pack("<I", 4), 0), "parent is another"),
        (_written(ROOT + 1, 18, b"\x02", 0), "without its parent"),
        (_written(ROOT + 1, 41, b"/", 40), "leads elsewhere"),
        (_written(ROOT + 1, 38, b"\xff", 40), "leads elsewhere"),
        (_written(288, 56, struct.pack("<Q", 2**40)), "another length"),
        (_written(288, 216 + 4, struct.pack("<I", 64)), "mirror differ"),
        (_written(64, 28, struct.pack("<I", 0)), "never closed"),
        (_written(51, 212, struct.pack("<I", 512)), "sequences"),
        (_moved, "outside the image"),
        (_written(35, 268, struct.pack("<I", 9)), "sequences"),
        (_written(256, 20, struct.pack("<I", 48)), "two anchors"),
        (_with_another_first_anchor, "two anchors"),
        (_behind_a_boot_descriptor, "broken way"),
        (_written(ROOT + 1, 18, b"\x01", 40), "hides"),
    ],
)
def test_a_tree_that_isnt_ours_is_found_with_its_crc_right(
    small: tuple[list[DiscFile], Path], tmp_path: Path, forge: Callable[[Forged], None], words: str
) -> None:
    files, image = small
    forged = Forged(image.read_bytes())
    forge(forged)
    (tmp_path / "forged.iso").write_bytes(forged.content)
    with pytest.raises(ProofFailed, match=words):
        verify_image(tmp_path / "forged.iso", files, ISO)


def test_two_udf_directories_of_one_name_are_found(tmp_path: Path) -> None:
    """A system goes into one of them, and never finds what is in the other."""
    (tmp_path / "source").write_bytes(b"content")
    files = [DiscFile(PurePosixPath(path), 7, "", tmp_path / "source") for path in ("D/B", "F/C")]
    master(files, "TWO", tmp_path / "x.iso", created=CREATED, udf=True)
    forged = Forged((tmp_path / "x.iso").read_bytes())
    forged.write(ROOT + 1, 39, b"D", 80)
    (tmp_path / "x.iso").write_bytes(forged.content)
    with pytest.raises(ProofFailed, match="has D twice"):
        contents_of(ISO, tmp_path / "x.iso")


def test_names_that_differ_from_joliets_are_a_finding(small: tuple[list[DiscFile], Path], tmp_path: Path) -> None:
    forged = Forged(small[1].read_bytes())
    _renamed(forged)
    (tmp_path / "forged.iso").write_bytes(forged.content)
    contents = contents_of(ISO, tmp_path / "forged.iso")
    assert list(ISO.faults(contents)) == ["The UDF tree and the Joliet tree have different names for the same files."]


def test_files_of_many_gigabytes_lie_in_several_extents(tmp_path: Path) -> None:
    """A descriptor has 30 bits for a length. The file is a hole."""
    size = 3 * 2**30 + 5
    path = PurePosixPath("D/HUGE")
    begin = udf_head_sectors([DiscFile(path, size, "")])
    end = begin + size // SECTOR_BYTES + 1
    with (tmp_path / "x").open("w+b") as image:
        add_udf(image, {path: Extent(begin * SECTOR_BYTES, size)}, "HUGE", CREATED, end)
        image.flush()
        sectors = os.fstat(image.fileno()).st_size // SECTOR_BYTES
        for number in range(3):  # what ISO 9660 has before it
            os.pwrite(image.fileno(), b"\1CD001\1", (16 + number) * SECTOR_BYTES)
        assert read_udf(image.fileno(), sectors) == {path: Extent(begin * SECTOR_BYTES, size)}
    with Judge(tmp_path / "x") as judge:
        assert judge.size("/D/HUGE") == size


def test_what_genisoimage_makes_is_read_too(made: tuple[Layout, Path], tmp_path: Path) -> None:
    """UDF 1.02, without a metadata partition."""
    folder = tmp_path / "in"
    for each in made[0].files[:20]:
        (folder / each.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / each.path).write_bytes(each.source.read_bytes() if each.source else b"")
    subprocess.run(["genisoimage", "-quiet", "-udf", "-J", "-V", "OTHER", "-o", tmp_path / "x.iso", folder], check=True)
    contents = contents_of(ISO, tmp_path / "x.iso")
    assert len(contents.trees[UDF]) == 20 and not list(ISO.faults(contents))


class Forged:
    """An image in which a descriptor is changed and its tag made right again."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)

    def write(self, sector: int, at: int, content: bytes, record: int = 0) -> None:
        start = sector * SECTOR_BYTES + record
        self.content[start + at : start + at + len(content)] = content
        length = struct.unpack_from("<H", self.content, start + 10)[0]
        crc = crc_hqx(self.content[start + 16 : start + 16 + length], 0)
        self.content[start + 8 : start + 10] = struct.pack("<H", crc)
        tag = self.content[start : start + 16]
        self.content[start + 4] = (sum(tag) - tag[4]) % 256

    def change(self, sector: int, old: bytes, new: bytes, start: int) -> None:
        begin = sector * SECTOR_BYTES + start
        self.write(sector, self.content.index(old, begin) - begin, new, start)


class _Found(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_uint), ("name", ctypes.c_char_p))


class Judge:
    """libudfread, by which players read Blu-ray discs."""

    def __init__(self, image: Path) -> None:
        self._library = ctypes.CDLL("libudfread.so.0")
        for name in ("udfread_init", "udfread_opendir", "udfread_file_open", "udfread_readdir"):
            getattr(self._library, name).restype = ctypes.c_void_p
        self._library.udfread_get_volume_id.restype = ctypes.c_char_p
        self._library.udfread_file_size.restype = ctypes.c_int64
        self._library.udfread_file_read.restype = ctypes.c_ssize_t
        self._volume = ctypes.c_void_p(self._library.udfread_init())
        self._image = image

    def __enter__(self) -> Judge:
        assert self._library.udfread_open(self._volume, os.fsencode(self._image)) == 0
        return self

    def __exit__(self, *_: object) -> None:
        self._library.udfread_close(self._volume)

    @property
    def label(self) -> str:
        return str(self._library.udfread_get_volume_id(self._volume).decode())

    def size(self, path: str) -> int:
        file = ctypes.c_void_p(self._library.udfread_file_open(self._volume, path.encode()))
        size = int(self._library.udfread_file_size(file))
        self._library.udfread_file_close(file)
        return size

    def files(self, folder: str) -> dict[str, str]:
        """The SHA-256 of each file."""
        found: dict[str, str] = {}
        directory = ctypes.c_void_p(self._library.udfread_opendir(self._volume, folder.encode()))
        entry = _Found()
        while self._library.udfread_readdir(directory, ctypes.byref(entry)):
            name = entry.name.decode()
            if name in (".", ".."):
                continue
            if entry.kind == 1:
                found |= self.files(f"{folder}{name}/")
            else:
                found[f"{folder}{name}"] = self._sha256(f"{folder}{name}")
        self._library.udfread_closedir(directory)
        return found

    def _sha256(self, path: str) -> str:
        size = self.size(path)
        file = ctypes.c_void_p(self._library.udfread_file_open(self._volume, path.encode()))
        buffer = ctypes.create_string_buffer(size + 1)
        assert self._library.udfread_file_read(file, buffer, ctypes.c_size_t(size + 1)) == size
        self._library.udfread_file_close(file)
        return hashlib.sha256(buffer.raw[:size]).hexdigest()


def _descriptors(block: bytes) -> Iterator[tuple[int, int]]:
    """Where the descriptors of a block begin and end, by the lengths in their tags."""
    position = 0
    while position + 16 <= len(block) and struct.unpack_from("<H", block, position)[0] in (257, 266):
        end = position + 16 + struct.unpack_from("<H", block, position + 10)[0]
        yield position, end
        position = end
