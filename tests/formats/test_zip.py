"""ZIP files: bytes and size known beforehand, every wrong byte found, the same files in every program."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from pydicom.fileset import FileSet

from mkiso.errors import ProofFailed
from mkiso.formats import zip_file
from mkiso.formats.disc_check import check_disc, verify_disc
from mkiso.formats.proof import verify_image
from mkiso.formats.registry import FORMATS
from mkiso.media.layout import Layout, LayoutOptions, lay_out
from mkiso.study.gate import Part
from mkiso.study.models import DiscFile
from peers.corpus import EVERY_KIND, THAI, make_study
from peers.discs import flip
from tests.media.discs import CREATED, contents_of, instances, passed, settings

ZIP = FORMATS["zip"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Path]:
    folder = tmp_path_factory.mktemp("zip")
    viewer = folder / "viewer"
    (viewer / "Sprach dateien").mkdir(parents=True)
    for name in ("Betrachter für Bilder.exe", "empty.cfg", "Sprach dateien/ภาษาไทย.lng"):
        (viewer / name).write_text(name if "empty" not in name else "")
    paths = make_study(folder / "in", "ACC1", patient=THAI, kinds=EVERY_KIND)
    chosen = settings(folder, viewer={"directory": str(viewer)})
    part = Part.whole(passed(instances(paths)))
    layout = lay_out(part, LayoutOptions(chosen, CREATED, "zip"), folder / "disc")
    ZIP.write(layout, folder / "disc.zip")
    return layout, folder / "disc.zip"


@pytest.fixture
def copy(made: tuple[Layout, Path], tmp_path: Path) -> Path:
    return Path(shutil.copy(made[1], tmp_path / "copy.zip"))


def test_a_good_file_is_proved(made: tuple[Layout, Path]) -> None:
    layout, file = made
    proof = verify_image(file, layout.files, ZIP)
    assert proof.size == ZIP.size(layout) == file.stat().st_size
    assert proof.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    report = verify_disc(file)
    assert (report.volume_id, report.instances, report.patients) == ("ACC1", layout.instances, 1)
    assert file.stat().st_mode & 0o777 == 0o600
    assert "It meets no DICOM application profile" in layout.conformance and "annex L" in layout.conformance


def test_the_same_disc_gives_the_same_bytes(made: tuple[Layout, Path], tmp_path: Path) -> None:
    for file in made[0].files:
        assert file.source
        os.utime(file.source, (1, 1))
    ZIP.write(made[0], tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == made[1].read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"again.zip"}


@pytest.mark.parametrize("limit", [0, 100, 2_000, 100_000])
def test_zip64_is_counted_and_read(
    made: tuple[Layout, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    monkeypatch.setattr(zip_file, "_LIMIT", limit)
    ZIP.write(made[0], file := tmp_path / "wide.zip")
    assert file.stat().st_size == ZIP.size(made[0]) > made[1].stat().st_size
    assert verify_image(file, made[0].files, ZIP)
    if limit:  # with 0 even an empty file has a size of 64 bits, which other readers don't expect
        subprocess.run(["unzip", "-tqq", file], check=True)
        assert b"Everything is Ok" in subprocess.run(["7z", "t", file], check=True, capture_output=True).stdout


def test_more_entries_than_16_bits_count(
    tmp_path: Path, made: tuple[Layout, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 100)
    monkeypatch.setattr(zip_file, "_ENTRIES", 100)
    (tmp_path / "x").write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest()
    files = tuple(DiscFile(PurePosixPath(f"F{number}"), 1, digest, tmp_path / "x") for number in range(101))
    layout = replace(made[0], files=files)
    ZIP.write(layout, tmp_path / "many.zip")
    assert ZIP.size(layout) == (tmp_path / "many.zip").stat().st_size
    assert verify_image(tmp_path / "many.zip", files, ZIP).files == 101


def test_every_flipped_byte_is_found_but_for_what_no_file_depends_on(made: tuple[Layout, Path], copy: Path) -> None:
    """Not found: which system and version made an entry, its attributes there, and the version that reads it."""
    layout, _ = made
    whole = copy.read_bytes()
    with zipfile.ZipFile(copy) as archive:
        starts = [entry.header_offset for entry in archive.infolist()]
        directory = archive.start_dir
    contents = contents_of(ZIP, copy)
    spots = [position for start in starts[:2] for position in range(start, start + 40, 2)]
    spots += range(directory, directory + 200, 3)
    spots += range(len(whole) - 60, len(whole))
    spots += [extent.start + extent.size // 2 for extent in contents.files.values() if extent.size]
    missed = []
    for position in spots:
        flip(copy, position)
        try:
            verify_image(copy, layout.files, ZIP)
            missed.append(position)
        except ProofFailed:
            pass
        flip(copy, position)
    loose = {start + at for start in starts for at in (4, 5)}
    at = directory
    for _ in starts:
        loose |= {at + each for each in (4, 5, 6, 7, 36, 37, 38, 39, 40, 41)}
        name, extra, comment = struct.unpack_from("<3H", whole, at + 28)
        at += 46 + name + extra + comment
    comment_at = len(whole) - len(layout.volume_id)
    assert set(missed) <= loose | set(range(comment_at, len(whole)))
    assert copy.read_bytes() == whole


@pytest.mark.parametrize("path", ["DICOMDIR", "DICOM/PT000001/ST000001/SE000001/IM000001", "README.TXT"])
def test_a_file_that_changed_is_named_years_later(copy: Path, path: str) -> None:
    extent = contents_of(ZIP, copy).files[PurePosixPath(path)]
    flip(copy, extent.start + extent.size // 2)
    findings = check_disc(copy).findings
    assert f"{path} has another CRC-32 than the image says." in findings
    assert any(path in finding and "SHA256.TXT" in finding for finding in findings)


@pytest.mark.parametrize("cut", [1, 5, 22, 1000, 50_000])
def test_a_truncated_file_is_caught(made: tuple[Layout, Path], copy: Path, cut: int) -> None:
    os.truncate(copy, copy.stat().st_size - cut)
    with pytest.raises(ProofFailed, match="ZIP file"):
        verify_image(copy, made[0].files, ZIP)
    assert not check_disc(copy).sound


def test_a_file_that_goes_on_behind_its_end_is_caught(made: tuple[Layout, Path], copy: Path) -> None:
    with copy.open("ab") as file:
        file.write(b"more")
    with pytest.raises(ProofFailed, match="goes on behind its end"):
        verify_image(copy, made[0].files, ZIP)


def test_a_missing_and_an_unexpected_file_are_named(made: tuple[Layout, Path]) -> None:
    with pytest.raises(ProofFailed, match="nobody put there: DICOMDIR"):
        verify_image(made[1], made[0].files[1:], ZIP)
    with pytest.raises(ProofFailed, match=r"lacks 1 file: EXTRA"):
        verify_image(made[1], [*made[0].files, DiscFile(PurePosixPath("EXTRA"), 0, "")], ZIP)


def test_more_files_than_any_disc_needs_are_not_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso.formats.zip_reader._MAX_FILES", 10)
    assert check_disc(copy).findings == ("The ZIP file has more files than any disc needs.",)


def _archive(**entry: object) -> bytes:
    """A ZIP file of two entries, of which the second one is given attributes of zipfile's."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("A", b"first")
        info = zipfile.ZipInfo("B")
        for name, value in entry.items():
            setattr(info, name, value)
        archive.writestr(info, b"second" * 20)
    return target.getvalue()


def _named(*names: str) -> bytes:
    """A ZIP file of files and folders without content."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return target.getvalue()


def _edited(change: Callable[[bytearray], object]) -> bytes:
    content = bytearray(_archive())
    change(content)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04 and nothing", "no end"),
        (_archive(filename="../B"), "leads elsewhere"),
        (_archive(filename="/B"), "leads elsewhere"),
        (_archive(filename="A\\B"), "leads elsewhere"),
        (_archive(filename="C:B"), "leads elsewhere"),
        (_archive(filename="A\nB"), "leads elsewhere"),
        (_archive(filename="A/B"), "as a file and as a folder"),
        (_archive(filename="B/" * 16 + "B"), "too deep"),
        (_archive(filename="B/"), "directory with bytes"),
        (_archive(compress_type=zipfile.ZIP_DEFLATED), "compressed"),
        (_archive(external_attr=0o120777 << 16), "a link"),
        (_archive(external_attr=0o120777 << 16, create_system=0), "a link"),
        (_archive(external_attr=0o120777 << 16, create_system=5), "a link"),
        (_archive(external_attr=0o040755 << 16), "something else that is no file"),
        (_archive(external_attr=0x10, create_system=0), "something else that is no file"),
        (_archive(filename="a"), "a twice"),
        (_archive(filename="A."), "A. twice"),
        (_archive(filename="A /B"), "A twice"),
        (_named("A/", "A"), "A as a file and as a folder"),
        (_named("D/A", "d/B"), "d twice|D twice"),
        (_named("Bildü", "Bildu\N{COMBINING DIAERESIS}"), "twice"),
        (_archive(filename="B" * 256), "longer than any system's"),
        (_archive(extra=struct.pack("<HH3s", 0x7075, 3, b"\1\2\3")), "a second name"),
        (
            _archive(extra=struct.pack("<HHBHHI", 0x6C78, 9, 7, 3 << 8, 0, 0o120777 << 16)),
            "makes a link of a file .extra field 0x6C78",
        ),
        (_archive(extra=struct.pack("<HHI", 0x4453, 4, 0)), "mkiso doesn't know .extra field 0x4453"),
        (_archive(extra=struct.pack("<HH", 0x5455, 9)), "broken"),
        (_edited(lambda data: data.__setitem__(slice(0, 0), b"front")), "broken end"),
        (_edited(lambda data: data.__setitem__(slice(36, 36), b"x")), "broken end"),
        (_edited(lambda data: data.__setitem__(30, ord("Z"))), "header of A differ"),
        (_edited(lambda data: data.__setitem__(len(data) - 12, 1)), "another number|broken"),
        (_edited(lambda data: data.__setitem__(6, 1)), "header of A differ"),
    ],
)
def test_what_two_programs_could_read_differently_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (file := tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ProofFailed, match=said):
        contents_of(ZIP, file)
    assert not check_disc(file).sound


@pytest.mark.peer
def test_every_program_reads_the_same_files(made: tuple[Layout, Path], tmp_path: Path) -> None:
    layout, file = made
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.comment == layout.volume_id.encode()
    commands: dict[str, list[str | Path]] = {
        "unzip": ["unzip", "-q", file, "-d"],
        "7z": ["7z", "x", "-y", file],
        "bsdtar": ["bsdtar", "-xf", file, "-C"],
    }
    expected = {str(file.joliet_path or file.path): file.sha256 for file in layout.files}
    for name, command in commands.items():
        (folder := tmp_path / name).mkdir()
        into: list[str | Path] = [*command, f"-o{folder}"] if name == "7z" else [*command, folder]
        subprocess.run(into, check=True, capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
        found = {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file()
        }
        assert found == expected, name
        assert (
            "FAILED"
            not in subprocess.run(
                ["sha256sum", "-c", "SHA256.TXT"], cwd=folder, check=True, capture_output=True, text=True
            ).stdout
        )
        assert len(FileSet(folder / "DICOMDIR")) == layout.instances
        judged = subprocess.run(["dciodvfy", "DICOMDIR"], cwd=folder, capture_output=True, text=True, check=False)
        assert not [line for line in judged.stderr.splitlines() if line.startswith("Error")]
