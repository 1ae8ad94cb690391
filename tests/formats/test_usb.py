"""Images of USB sticks: FAT32 as other programs read it, of known size and bytes, and every wrong byte is found."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from mkiso.errors import ProofFailed, TooLargeForMedium
from mkiso.formats import usb
from mkiso.formats.disc_check import check_disc, verify_disc
from mkiso.formats.fat_reader import LONG, SHORT
from mkiso.formats.proof import verify_image
from mkiso.formats.registry import FORMATS
from mkiso.media.layout import Layout, LayoutOptions, lay_out
from mkiso.study.gate import Part
from mkiso.study.models import DiscFile
from peers.corpus import EVERY_KIND, THAI, make_study
from peers.discs import flip
from tests.media.discs import CREATED, contents_of, instances, passed, settings

USB = FORMATS["usb"]
PARTITION = 2048 * 512
TABLE = PARTITION + 32 * 512


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Path]:
    folder = tmp_path_factory.mktemp("usb")
    (folder / "viewer" / "Sprach dateien").mkdir(parents=True)
    for name in (
        "Betrachter für Bilder.exe",
        "empty.cfg",
        "Sprach dateien/ภาษาไทย.lng",
        "exactly13char",
        "one piece and then some more pieces.dll",
    ):
        (folder / "viewer" / name).write_text(name if "empty" not in name else "")
    paths = make_study(folder / "in", "ACC1", patient=THAI, kinds=EVERY_KIND)
    paths += make_study(folder / "in", "ACC2", patient=THAI, kinds={"ct": 40}, number=2)
    chosen = settings(folder, viewer={"directory": str(folder / "viewer")})
    layout = lay_out(Part.whole(passed(instances(paths))), LayoutOptions(chosen, CREATED, "usb"), folder / "disc")
    USB.write(layout, folder / "disc.img")
    return layout, folder / "disc.img"


@pytest.fixture
def copy(made: tuple[Layout, Path], tmp_path: Path) -> Path:
    return Path(shutil.copy(made[1], tmp_path / "copy.img"))


def test_a_good_image_is_proved(made: tuple[Layout, Path]) -> None:
    layout, file = made
    proof = verify_image(file, layout.files, USB)
    assert proof.size == USB.size(layout) == file.stat().st_size
    assert verify_disc(file).instances == layout.instances
    assert "STD-GEN-USB" in layout.conformance or "meets no DICOM" in layout.conformance


def test_the_same_disc_gives_the_same_bytes(made: tuple[Layout, Path], tmp_path: Path) -> None:
    USB.write(made[0], tmp_path / "again.img")
    assert (tmp_path / "again.img").read_bytes() == made[1].read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"again.img"}


@pytest.mark.parametrize("least", [100, 700, 3_000])
def test_the_size_is_known_and_the_clusters_fit(
    made: tuple[Layout, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, least: int
) -> None:
    """With fewer clusters needed for FAT32 the smallest files show every size of cluster, and an image without room."""
    monkeypatch.setattr(usb, "_LEAST_CLUSTERS", least)
    USB.write(made[0], file := tmp_path / "x.img")
    assert file.stat().st_size == USB.size(made[0]) < 5_000_000
    shutil.copyfile(file, tmp_path / "whole")
    with (tmp_path / "partition").open("wb") as partition:
        partition.write(file.read_bytes()[PARTITION:])
    judged = subprocess.run(["fsck.fat", "-n", tmp_path / "partition"], capture_output=True, text=True, check=False)
    assert "differ" not in judged.stdout and "Orphan" not in judged.stdout, judged.stdout


def test_a_folder_that_fat_cant_hold_is_refused(made: tuple[Layout, Path]) -> None:
    files = tuple(DiscFile(PurePosixPath(f"D/F{number}"), 0, "") for number in range(65_536))
    with pytest.raises(TooLargeForMedium, match="Ask for a ZIP file"):
        USB.size(replace(made[0], files=files))


def test_flipped_bytes_are_found(made: tuple[Layout, Path], copy: Path) -> None:
    """Everywhere but in what no file depends on: boot code, geometry, dates, serial numbers, the count of free
    clusters.
    """
    layout, _ = made
    contents = contents_of(USB, copy)
    content = bytearray(copy.read_bytes())
    chance = random.Random(4)
    spots = [450, 454, 458, 510, PARTITION + 11, PARTITION + 13, PARTITION + 14, PARTITION + 16, PARTITION + 32]
    spots += [PARTITION + 36, PARTITION + 44, PARTITION + 50, PARTITION + 71, PARTITION + 6 * 512 + 90]
    spots += [TABLE + chance.randrange(2, 480) * 4 for _ in range(40)]
    spots += [TABLE + 512 * 512 + chance.randrange(2, 60_000) * 4 for _ in range(40)]
    root = PARTITION + (32 + 2 * 512) * 512
    entries = [root + entry * 32 for entry in range(1, 6) if content[root + entry * 32]]
    spots += [entry + at for entry in entries for at in (0, 5, 11, 26, 28)]
    extents = sorted(extent for extent in contents.files.values() if extent.size)
    spots += [extent.start + extent.size // 2 for extent in extents[::12]]
    for position in spots:
        flip(copy, position)
        with pytest.raises(ProofFailed):
            verify_image(copy, layout.files, USB)
        flip(copy, position)
    assert verify_image(copy, layout.files, USB)


@pytest.mark.parametrize("cut", [1, 512, 10_000_000, 34_500_000, 35_138_000])
def test_a_truncated_image_is_caught(made: tuple[Layout, Path], copy: Path, cut: int) -> None:
    os.truncate(copy, copy.stat().st_size - cut)
    with pytest.raises(ProofFailed):
        verify_image(copy, made[0].files, USB)
    assert not check_disc(copy).sound


def test_a_stick_larger_than_its_image_is_read(made: tuple[Layout, Path], copy: Path) -> None:
    """As `dd` leaves it: what lies behind the partition is no part of it."""
    os.truncate(copy, copy.stat().st_size + 5_000_000)
    assert verify_disc(copy).instances == made[0].instances


def _bytes_at(position: int, content: bytes) -> Callable[[bytearray], None]:
    return lambda image: image.__setitem__(slice(position, position + len(content)), content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_bytes_at(466, b"\x0c"), "one partition"),
        (_bytes_at(PARTITION, b"\x00"), "copy differ"),
        (_bytes_at(16 * 2048, b"\0BEA01\1"), "before its partition"),
        (_bytes_at(1024 + 56, b"\x53\xef"), "before its partition"),
        (_bytes_at(PARTITION - 1, b"\1"), "before its partition"),
        (_bytes_at(454, struct.pack("<I", 2**31)), "before its partition"),
        (_bytes_at(PARTITION + 1024 + 56, b"\x53\xef"), "before its tables"),
        (_bytes_at(PARTITION + 1024, b"H+"), "before its tables"),
        (_bytes_at(TABLE - 1, b"\1"), "before its tables"),
        (_bytes_at(TABLE + 2 * 4, b"\x02\x00\x00\x00"), "differ|outside|lies? in pieces|itself"),
        (_bytes_at(TABLE + 60_000 * 4, b"\xff\xff\xff\x0f"), "differ"),
        (_bytes_at(TABLE + 512 * 512 + 60_000 * 4, b"\xff\xff\xff\x0f"), "differ"),
    ],
)
def test_what_two_drivers_could_read_differently_is_refused(
    copy: Path, change: Callable[[bytearray], None], said: str
) -> None:
    content = bytearray(copy.read_bytes())
    change(content)
    copy.write_bytes(content)
    with pytest.raises(ProofFailed, match=said):
        contents_of(USB, copy)


@pytest.mark.peer
def test_other_programs_read_the_same_files(made: tuple[Layout, Path], tmp_path: Path) -> None:
    layout, file = made
    expected = {str(file.joliet_path or file.path): file.sha256 for file in layout.files}
    (partition := tmp_path / "partition").write_bytes(file.read_bytes()[PARTITION:])
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "0"}
    checked = subprocess.run(["fsck.fat", "-n", "-v", partition], capture_output=True, text=True, check=True)
    assert f"{len(layout.files) + _folders(layout) + 1} files" in checked.stdout
    (mtools := tmp_path / "mtools").mkdir()
    subprocess.run(["mcopy", "-s", "-i", f"{file}@@1M", "::/*", mtools], check=True, env=environment)
    subprocess.run(["7z", "x", f"-o{tmp_path / '7z'}", file], check=True, capture_output=True)
    for folder in (mtools, tmp_path / "7z"):
        found = {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file()
        }
        assert found == expected, folder
        subprocess.run(["sha256sum", "--quiet", "-c", "SHA256.TXT"], cwd=folder, check=True)
    judged = subprocess.run(["dciodvfy", "DICOMDIR"], cwd=mtools, capture_output=True, text=True, check=False)
    assert not [line for line in judged.stderr.splitlines() if line.startswith("Error")]
    assert len(contents_of(USB, file).trees[SHORT]) == len(contents_of(USB, file).trees[LONG]) == len(layout.files)


@pytest.mark.peer
def test_a_loop_mount_shows_the_same(made: tuple[Layout, Path], tmp_path: Path) -> None:
    options = f"loop,ro,offset={PARTITION},utf8"
    done = subprocess.run(
        ["mount", "-t", "vfat", "-o", options, made[1], tmp_path], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no loop mount here: {done.stderr.strip()}")
    try:
        for file in made[0].files:
            content = (tmp_path / (file.joliet_path or file.path)).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file.sha256, file.path
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def _folders(layout: Layout) -> int:
    return len({parent for file in layout.files for parent in file.path.parents} - {PurePosixPath()})
