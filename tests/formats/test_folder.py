"""A disc's files in a folder, such as a USB stick: never over others, each read back, and what is wrong in words."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mkiso.errors import FolderTaken, ProofFailed, StorageFull
from mkiso.formats.folder import require_place, unpack
from mkiso.formats.registry import FORMATS
from mkiso.media.layout import Layout, LayoutOptions, lay_out
from mkiso.study.gate import Part
from peers.corpus import THAI, make_study
from peers.small_disk import mounted
from tests.media.discs import CREATED, instances, passed, settings


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    folder = tmp_path_factory.mktemp("disc")
    (folder / "viewer").mkdir()
    (folder / "viewer" / "Betrachter für Bilder.exe").write_bytes(b"x" * 5000)
    (folder / "viewer" / "empty.cfg").write_bytes(b"")
    chosen = settings(folder, viewer={"directory": str(folder / "viewer")})
    paths = make_study(folder / "in", "ACC1", patient=THAI, kinds={"ct": 5, "sr": 1})
    return lay_out(Part.whole(passed(instances(paths))), LayoutOptions(chosen, CREATED, "zip"), folder / "disc")


@pytest.fixture(params=[name for name, form in FORMATS.items() if not form.is_encrypted])
def image(laid_out: Layout, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    file = tmp_path / f"disc{FORMATS[request.param].suffix}"
    FORMATS[request.param].write(laid_out, file)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (place := tmp_path / "stick").mkdir()
    return place


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Path]:
    """A FAT32 file system of 40 MB, mounted."""
    (file := tmp_path / "stick.img").touch()
    os.truncate(file, 40_000_000)
    subprocess.run(["mkfs.fat", "-F", "32", file], check=True, capture_output=True)
    with mounted(file, tmp_path / "mounted") as place:
        yield place


def _holds(folder: Path, disc: Layout) -> bool:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    } == {str(file.joliet_path or file.path): file.sha256 for file in disc.files}


def test_each_format_unpacks_to_the_same_files(image: Path, folder: Path, laid_out: Layout) -> None:
    told: list[tuple[int, int]] = []
    written = unpack(image, folder, lambda *seen: told.append(seen))
    assert written == (len(laid_out.files), sum(file.size for file in laid_out.files))
    assert _holds(folder, laid_out)
    assert told[-1][0] == told[-1][1] == 2 * sum(file.size for file in laid_out.files)
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256.TXT"], cwd=folder, check=True)


@pytest.mark.peer
def test_a_stick_of_fat32_holds_it(image: Path, stick: Path, laid_out: Layout) -> None:
    (stick / "System Volume Information").mkdir()
    require_place(stick)
    unpack(image, stick)
    (stick / "System Volume Information").rmdir()
    assert _holds(stick, laid_out)


@pytest.mark.peer
def test_a_stick_that_is_too_small_is_said_so(image: Path, stick: Path) -> None:
    left = os.statvfs(stick)
    with (stick / "full").open("wb") as file:
        file.write(bytes((left.f_bavail - 3) * left.f_frsize))
    with pytest.raises(StorageFull, match=r"has \d.* free, and the disc needs \d.*Nothing was written there"):
        unpack(image, stick)
    assert [entry.name for entry in stick.iterdir()] == ["full"]


def test_a_device_that_has_less_room_than_it_says_is_said_so(
    image: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = os.fsync

    def full(descriptor: int) -> None:
        written(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull, match="no room for the disc: what lies there isn't whole"):
        unpack(image, folder)


def test_a_folder_without_room_gets_nothing_of_the_disc(
    image: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 99, 9, 9, 0, 0, 0, 0, 255)))
    with pytest.raises(StorageFull, match=r"stick has 37 kB free, and the disc needs \d+ (kB|MB)\."):
        unpack(image, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("held", "beside", "said"),
    [
        (["photo.jpg"], False, "isn't empty: it has photo.jpg.*add --beside-others"),
        ([str(number) for number in range(9)], False, "0, 1, 2, 3, 4 …"),
        (["DICOMDIR"], True, "holds a disc already"),
        (["dicomdir"], False, "holds a disc already"),
    ],
)
def test_nothing_is_written_beside_what_nobody_knows(folder: Path, held: list[str], beside: bool, said: str) -> None:
    for name in held:
        (folder / name).write_bytes(b"")
    with pytest.raises(FolderTaken, match=said):
        require_place(folder, beside=beside)


def test_a_folder_may_be_chosen_that_has_other_files(image: Path, folder: Path) -> None:
    (folder / "photo.jpg").write_bytes(b"mine")
    require_place(folder, beside=True)
    unpack(image, folder)
    assert (folder / "photo.jpg").read_bytes() == b"mine"


def test_no_file_is_written_over_or_through_a_link(image: Path, folder: Path, tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").write_bytes(b"mine")
    (folder / "README.TXT").symlink_to(elsewhere)
    with pytest.raises(FileExistsError):
        unpack(image, folder)
    assert elsewhere.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["DICOM", "dicom", "IHE_PDI"])
@pytest.mark.parametrize("is_link", [False, True])
def test_no_disc_is_mixed_with_what_lies_in_its_folders(
    image: Path, folder: Path, tmp_path: Path, name: str, is_link: bool
) -> None:
    """A stick that an earlier disc was half written to, with its images and without its DICOMDIR; or a link."""
    (elsewhere := tmp_path / "elsewhere").mkdir()
    if is_link:
        (folder / name).symlink_to(elsewhere)
    else:
        (folder / name / "ANOTHER").mkdir(parents=True)
    require_place(folder, beside=True)
    with pytest.raises(FolderTaken, match=f"has {name} already, as the disc has.*Nothing was written"):
        unpack(image, folder)
    assert [each.name for each in folder.iterdir()] == [name] and not list(elsewhere.iterdir())


@pytest.mark.parametrize("lost", [False, True])
def test_what_comes_back_differently_from_the_device_is_named(image: Path, folder: Path, lost: bool) -> None:
    def spoil(done: int, total: int) -> None:
        readme = folder / "README.TXT"
        if 2 * done == total:
            if lost:
                readme.unlink()
            else:
                readme.write_bytes(readme.read_bytes()[:-1] + b"?")

    with pytest.raises(ProofFailed, match=r"1 file in .* is not what was written: README.TXT. Don't hand it out"):
        unpack(image, folder, spoil)


def test_a_device_that_cant_be_read_is_no_proof(image: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(hashlib, "file_digest", broken)
    with pytest.raises(ProofFailed, match="are not what was written"):
        unpack(image, folder)


def test_a_damaged_download_is_not_written(laid_out: Layout, folder: Path, tmp_path: Path) -> None:
    FORMATS["zip"].write(laid_out, file := tmp_path / "disc.zip")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ProofFailed, match="isn't whole"):
        unpack(file, folder)
    assert not list(folder.iterdir())
