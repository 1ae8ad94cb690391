"""Encrypted ZIP files: opened by other programs with the password alone, every wrong byte found, nothing said aloud."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePosixPath

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given
from hypothesis import strategies as st

from mkiso.errors import ProofFailed
from mkiso.formats import zip_encrypted
from mkiso.formats.ae2 import Keys, KeyStream
from mkiso.formats.disc_check import check_disc, verify_disc
from mkiso.formats.proof import verify_image
from mkiso.formats.protocol import PasswordNeeded
from mkiso.formats.registry import FORMATS
from mkiso.formats.zip_encrypted import new_password
from mkiso.languages import languages
from mkiso.media.layout import Layout, LayoutOptions, lay_out
from mkiso.media.names import HOWTO
from mkiso.media.shown import Showing
from mkiso.study.gate import Part
from mkiso.study.models import DiscFile
from peers.corpus import EVERY_KIND, THAI, make_study
from peers.discs import flip
from tests.media.discs import CREATED, contents_of, instances, passed, settings

PASSWORD = new_password()
LOCKED = FORMATS["zip-encrypted"]
OPENED = LOCKED.opened(PASSWORD)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Path]:
    folder = tmp_path_factory.mktemp("zip")
    viewer = folder / "viewer"
    viewer.mkdir()
    for name in ("Betrachter für Bilder.exe", "empty.cfg", "ภาษาไทย.lng"):
        (viewer / name).write_text(name if "empty" not in name else "")
    paths = make_study(folder / "in", "ACC1", patient=THAI, kinds=EVERY_KIND)
    chosen = settings(folder, viewer={"directory": str(viewer)})
    part = Part.whole(passed(instances(paths)))
    layout = lay_out(
        part, LayoutOptions(chosen, CREATED, "zip-encrypted", showing=Showing(language="th")), folder / "disc"
    )
    OPENED.write(layout, folder / "disc.zip")
    return layout, folder / "disc.zip"


@pytest.fixture
def copy(made: tuple[Layout, Path], tmp_path: Path) -> Path:
    return Path(shutil.copy(made[1], tmp_path / "copy.zip"))


def test_a_good_file_is_proved(made: tuple[Layout, Path]) -> None:
    layout, file = made
    proof = verify_image(file, layout.files, LOCKED.opened(PASSWORD))
    assert proof.size == LOCKED.size(layout) == file.stat().st_size
    assert proof.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    report = verify_disc(file, password=PASSWORD)
    assert (report.instances, report.patients) == (layout.instances, 1)
    assert file.stat().st_mode & 0o777 == 0o600
    assert "It meets no DICOM application profile" in layout.conformance


def test_a_second_making_has_other_bytes_and_the_same_size(made: tuple[Layout, Path], tmp_path: Path) -> None:
    OPENED.write(made[0], tmp_path / "again.zip")
    again, first = (tmp_path / "again.zip").read_bytes(), made[1].read_bytes()
    assert len(again) == len(first)
    assert again != first


def test_no_two_files_have_one_key_stream(made: tuple[Layout, Path]) -> None:
    locks = contents_of(OPENED, made[1]).locks.values()
    assert len({lock.keys.encryption for lock in locks}) == len(locks) == len(made[0].files) - len(HOWTO)


def test_only_what_says_how_to_open_it_is_readable_and_names_nobody(made: tuple[Layout, Path]) -> None:
    content = made[1].read_bytes()
    for name in ("ACC1", "สมชาย", "ตัวอย่าง", "HN-0003"):
        assert name.encode() not in content
        assert name.encode("iso8859-11") not in content
    assert b"1.2.826" not in content
    assert all(not entry.comment for entry in zipfile.ZipFile(made[1]).infolist())
    with zipfile.ZipFile(made[1]) as archive:
        bare = [entry.filename for entry in archive.infolist() if not entry.flag_bits & 1]
        assert bare == list(map(str, HOWTO)) == [entry.filename for entry in archive.infolist()[: len(HOWTO)]]
        text = archive.read(bare[0]).decode("utf-8-sig")
    assert "7-Zip" in text
    assert "How to open this file" in text
    assert "วิธี" in text


@pytest.mark.parametrize("code", languages())
def test_how_to_open_it_is_said_in_each_language(tmp_path: Path, code: str) -> None:
    part = Part.whole(passed(instances(make_study(tmp_path / "in", "ACC1", patient=THAI, kinds={"ct": 1}))))
    layout = lay_out(
        part,
        LayoutOptions(settings(tmp_path), CREATED, "zip-encrypted", showing=Showing(language=code)),
        tmp_path / "d",
    )
    sources = {file.path: file.source for file in layout.files}
    for path in HOWTO:
        source = sources[path]
        assert source
        content = source.read_text("utf-8-sig")
        assert "7-Zip" in content and "Keka" in content and "Example Hospital" in content
        assert "สมชาย" not in content and "ACC1" not in content
    assert f'lang="{code}"' in content


def test_without_the_password_nothing_is_said_but_that(made: tuple[Layout, Path]) -> None:
    with pytest.raises(PasswordNeeded, match="it takes its password"):
        verify_disc(made[1])
    with pytest.raises(PasswordNeeded, match="isn't the password"):
        verify_disc(made[1], password=PASSWORD.replace("-", ""))


def test_a_password_has_25_random_digits() -> None:
    some = {new_password() for _ in range(50)}
    assert len(some) == 50
    assert all(re.fullmatch(r"\d{5}(-\d{5}){4}", password) for password in some)


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=4), begin=st.integers(0, 2**40))
def test_the_key_stream_is_the_same_in_whatever_pieces(data: bytes, cuts: list[int], begin: int) -> None:
    keys = Keys(bytes(range(32)), b"", b"")
    stream = KeyStream(keys)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [stream.applied(data[start:end], begin + start) for start, end in pairwise(edges)]
    assert b"".join(bytes(piece) for each in pieces for piece in each) == bytes(
        byte ^ _key_byte(keys.encryption, begin + at) for at, byte in enumerate(data)
    )


def _key_byte(key: bytes, at: int) -> int:
    """As the specification has it: AES of a counter that is little-endian and begins at 1."""
    block = Cipher(AES(key), ECB()).encryptor().update((at // 16 + 1).to_bytes(16, "little"))
    return block[at % 16]


@pytest.mark.parametrize(("limit", "entries"), [(100, 10), (2_000, 2**16), (100_000, 2**16), (2**32 - 1, 10)])
def test_zip64_is_counted_and_read(
    made: tuple[Layout, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, entries: int
) -> None:
    monkeypatch.setattr(zip_encrypted, "_LIMIT", limit)
    monkeypatch.setattr(zip_encrypted, "_ENTRIES", entries)
    OPENED.write(made[0], file := tmp_path / "wide.zip")
    assert file.stat().st_size == LOCKED.size(made[0]) > made[1].stat().st_size
    assert verify_image(file, made[0].files, OPENED)
    tested = subprocess.run(["7z", "t", f"-p{PASSWORD}", file], check=True, capture_output=True).stdout
    assert b"Everything is Ok" in tested


def _spots(file: Path) -> Iterator[int]:
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        starts = [entry.header_offset for entry in archive.infolist()]
        directory = archive.start_dir
    for start in (starts[0], starts[len(HOWTO)]):
        yield from range(start, start + 50)
    yield from range(directory, directory + 300, 3)
    yield from range(len(whole) - 22, len(whole))
    files = contents_of(OPENED, file).files
    for path, extent in [*files.items()][:12]:
        if path not in HOWTO:
            yield from (extent.start - 18, extent.start - 2)  # salt, check
            yield from (extent.start + extent.size + at for at in (0, 9))  # authentication code
        if extent.size:
            yield from (extent.start, extent.start + extent.size // 2, extent.start + extent.size - 1)


def test_every_flipped_byte_is_found_but_for_what_no_file_depends_on(made: tuple[Layout, Path], copy: Path) -> None:
    """Not found: which system and version made an entry, its attributes there, and the version that reads it."""
    layout, _ = made
    whole = copy.read_bytes()
    missed = []
    for position in _spots(copy):
        flip(copy, position)
        try:
            verify_image(copy, layout.files, OPENED)
            missed.append(position)
        except ProofFailed:
            pass
        flip(copy, position)
    with zipfile.ZipFile(copy) as archive:
        starts, at = [entry.header_offset for entry in archive.infolist()], archive.start_dir
    loose = {start + each for start in starts for each in (4, 5)}
    for _ in starts:
        loose |= {at + each for each in (4, 5, 6, 7, 36, 37, 38, 39, 40, 41)}
        name, extra, comment = struct.unpack_from("<3H", whole, at + 28)
        at += 46 + name + extra + comment
    assert set(missed) <= loose
    assert copy.read_bytes() == whole


def test_a_file_that_changed_is_named_years_later(copy: Path) -> None:
    path = PurePosixPath("DICOM/PT000001/ST000001/SE000001/IM000001")
    extent = contents_of(OPENED, copy).files[path]
    flip(copy, extent.start + extent.size // 2)
    findings = check_disc(copy, password=PASSWORD).findings
    assert f"{path} has another authentication code than the image says." in findings
    assert any(str(path) in finding and "SHA256.TXT" in finding for finding in findings)


@pytest.mark.parametrize("cut", [1, 5, 22, 1000, 50_000])
def test_a_truncated_file_is_caught(made: tuple[Layout, Path], copy: Path, cut: int) -> None:
    os.truncate(copy, copy.stat().st_size - cut)
    with pytest.raises(ProofFailed, match="ZIP file"):
        verify_image(copy, made[0].files, OPENED)


def test_a_file_that_isnt_encrypted_among_the_others_is_refused(copy: Path) -> None:
    with zipfile.ZipFile(copy, "a") as archive:
        archive.writestr("NOTES.TXT", "whose images these are")
    with pytest.raises(ProofFailed, match=r"NOTES\.TXT, which isn't encrypted"):
        contents_of(OPENED, copy)


def test_a_file_that_is_laid_out_as_another_size_is_not_written(made: tuple[Layout, Path], tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"longer than said")
    layout = replace(made[0], files=(DiscFile(PurePosixPath("X"), 4, "", tmp_path / "x"),))
    with pytest.raises(ProofFailed, match="another size"):
        OPENED.write(layout, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


@pytest.mark.peer
@pytest.mark.parametrize("program", ["7z", "bsdtar"])
def test_other_programs_open_it_with_the_password_alone(
    made: tuple[Layout, Path], tmp_path: Path, program: str
) -> None:
    layout, file = made

    def extracted(password: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
        folder.mkdir()
        command: list[str | Path] = ["7z", "x", "-y", f"-p{password}", f"-o{folder}", file]
        if program == "bsdtar":
            command = ["bsdtar", "-xf", file, "--passphrase", password, "-C", folder]
        return subprocess.run(command, capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"}, check=False)

    folder = tmp_path / "right"
    assert extracted(PASSWORD, folder).returncode == 0
    found = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert found == {str(file.joliet_path or file.path): file.sha256 for file in layout.files}
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256.TXT"], cwd=folder, check=True)
    assert extracted(PASSWORD[:-1] + "x", tmp_path / "wrong").returncode != 0


@pytest.mark.peer
def test_7z_says_that_each_file_is_aes_256_and_genuine(made: tuple[Layout, Path]) -> None:
    tested = subprocess.run(["7z", "t", f"-p{PASSWORD}", made[1]], check=True, capture_output=True, text=True).stdout
    assert "Everything is Ok" in tested
    listed = subprocess.run(["7z", "l", "-slt", f"-p{PASSWORD}", made[1]], check=True, capture_output=True, text=True)
    methods = re.findall(r"^Method = (.*)$", listed.stdout, re.MULTILINE)
    assert sorted(set(methods)) == ["AES-256 Store", "Store"]
    assert methods.count("Store") == len(HOWTO)


@pytest.mark.peer
def test_what_7z_has_encrypted_is_read(tmp_path: Path) -> None:
    content = os.urandom(5_000_000)
    (tmp_path / "X").write_bytes(content)
    subprocess.run(
        ["7z", "a", "-tzip", "-mx0", "-mem=AES256", f"-p{PASSWORD}", "theirs.zip", "X"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    contents = contents_of(OPENED, tmp_path / "theirs.zip")
    with (tmp_path / "theirs.zip").open("rb") as file:
        assert contents.read(file.fileno(), contents.files[PurePosixPath("X")]) == content
