"""mkiso verify of a folder: a mounted disc, an unpacked ZIP file, a disc that other programs have made."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom import dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from mkiso.formats.disc_check import check_disc, verify_disc
from mkiso.formats.registry import FORMATS
from mkiso.formats.zip_encrypted import new_password
from mkiso.media.layout import LayoutOptions, lay_out
from mkiso.storage.files import sha256_of
from mkiso.study.gate import Part
from mkiso_service.cli.main import cli
from peers.corpus import THAI, make_study
from tests.media.discs import CREATED, instances, passed, settings

IMAGE = "DICOM/PT000001/ST000001/SE000001/IM000001"
ITEMS, TAGGED = struct.Struct("<HH2sHI"), struct.Struct("<HHI")
OPEN = ITEMS.pack(0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
EMPTY, CLOSED = TAGGED.pack(0xFFFE, 0xE000, 0), TAGGED.pack(0xFFFE, 0xE0DD, 0)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    paths = make_study(folder / "in", "ACC1", patient=THAI, kinds={"ct": 3, "sr": 1})
    part = Part.whole(passed(instances(paths)))
    layout = lay_out(part, LayoutOptions(settings(folder), CREATED, "zip"), folder / "d")
    FORMATS["zip"].write(layout, folder / "disc.zip")
    with zipfile.ZipFile(folder / "disc.zip") as archive:
        archive.extractall(folder / "disc")
    return folder / "disc"


@pytest.fixture
def disc(unpacked: Path, tmp_path: Path) -> Path:
    return shutil.copytree(unpacked, tmp_path / "disc")


def test_a_whole_folder_is_sound(disc: Path) -> None:
    report = verify_disc(disc)
    assert (report.instances, report.patients, report.files) == (4, 1, sum(file.is_file() for file in disc.rglob("*")))
    (disc / "System Volume Information").mkdir()
    (disc / "System Volume Information" / "IndexerVolumeGuid").write_text("Windows makes it")
    assert check_disc(disc).sound


def test_a_folder_that_shows_small_letters_is_sound(disc: Path) -> None:
    """As Linux shows a disc without Joliet."""
    for path in sorted(disc.rglob("*"), reverse=True):
        path.rename(path.with_name(path.name.lower()))
    assert check_disc(disc).sound


def test_each_fault_is_named(disc: Path) -> None:
    damaged = bytearray((disc / IMAGE).read_bytes())
    damaged[-1] ^= 1
    (disc / IMAGE).write_bytes(damaged)
    (disc / "DICOM/PT000001/ST000001/SE000001/IM000002").unlink()
    (disc / "NOTES.TXT").write_text("nobody put it there")
    (disc / "LINK").symlink_to("/etc/passwd")
    findings = check_disc(disc).findings
    assert f"{IMAGE} is not what it was: its SHA-256 differs from SHA256.TXT." in findings
    assert "DICOM/PT000001/ST000001/SE000001/IM000002 is missing." in findings
    assert "NOTES.TXT is not in SHA256.TXT." in findings
    assert "LINK is a link or something else that is no file." in findings


def listed(disc: Path) -> Path:
    """Write a new SHA256.TXT for what lies in the folder now: anybody who changes a disc can do that."""
    files = sorted(file for file in disc.rglob("*") if file.is_file() and file.name != "SHA256.TXT")
    lines = [f"{sha256_of(file)}  {file.relative_to(disc)}\n" for file in files]
    (disc / "SHA256.TXT").write_text("".join(lines))
    return disc


def test_names_that_some_systems_take_for_one_are_told(disc: Path) -> None:
    (disc / "Readme.txt").write_text("which of the two is shown?")
    found = check_disc(listed(disc)).findings
    assert found == ("Readme.txt and README.TXT are one name to some systems, which show one of them.",)


def test_of_two_trees_in_small_letters_and_in_capitals_none_is_passed_over(disc: Path) -> None:
    for path in sorted(listed(disc).rglob("*"), reverse=True):
        path.rename(path.with_name(path.name.lower()))
    (disc / IMAGE).parent.mkdir(parents=True)
    (disc / IMAGE).write_text("another patient's")
    [told, *_] = check_disc(disc).findings
    assert told.endswith("are one name to some systems, which show one of them.")


def test_a_file_that_is_listed_twice_is_told(disc: Path) -> None:
    lines = (listed(disc) / "SHA256.TXT").read_text()
    (disc / "SHA256.TXT").write_text(f"{'0' * 64}  {IMAGE}\n{lines}")
    assert check_disc(disc).findings == ("SHA256.TXT names a file twice.",)


def with_bytes(file: Path, before: bytes, content: bytes) -> None:
    """Put some bytes before others into a file."""
    whole = file.read_bytes()
    at = whole.index(before)
    file.write_bytes(whole[:at] + content + whole[at:])


@pytest.mark.parametrize(
    ("before", "content", "sound"),
    [
        (b"\x08\x00\x60\x00CS", ITEMS.pack(0x0008, 0x1140, b"SQ", 0, 8 * 1_000_000) + EMPTY * 1_000_000, True),
        (b"\x08\x00\x60\x00CS", OPEN + EMPTY * 1_000_000 + CLOSED, True),
        (b"\x08\x00\x60\x00CS", OPEN + EMPTY * 2_100_000 + CLOSED, False),
        (b"\x08\x00\x60\x00CS", ITEMS.pack(0x0009, 0x1001, b"UT", 0, 64 << 20) + bytes(64 << 20), False),
        (b"\x02\x00\x10\x00UI", ITEMS.pack(0x0002, 0x0009, b"OB", 0, 64 << 20) + bytes(64 << 20), False),
    ],
    ids=["items of a length", "items", "more items than any image has", "a long value", "a long meta information"],
)
def test_an_instance_that_is_a_bomb_takes_no_more_memory(
    disc: Path, before: bytes, content: bytes, *, sound: bool
) -> None:
    with_bytes(disc / IMAGE, before, content)
    listed(disc)
    tracemalloc.start()
    report = check_disc(disc)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.sound == sound and peak < 64 << 20
    assert sound or f"{IMAGE} is no DICOM file that can be read." in report.findings


def test_images_below_a_patient_without_an_id_are_nobodys(disc: Path) -> None:
    """Of two patients, perhaps: there is nothing to compare them with."""
    directory = (disc / "DICOMDIR").read_bytes()
    at = directory.index(b"\x10\x00\x20\x00LO") + 8
    length = directory[at - 2]
    (disc / "DICOMDIR").write_bytes(directory[:at] + b" " * length + directory[at + length :])
    assert check_disc(listed(disc)).findings == ("DICOMDIR has a patient without a Patient ID.",)


def test_no_name_of_a_disc_steers_the_terminal_that_shows_it(disc: Path) -> None:
    for name in (b"A\x1b]0;B\x07", b"C\nD is right", b"\xff"):
        (disc / os.fsdecode(name)).write_bytes(b"")
    with (disc / "SHA256.TXT").open("a") as file:
        file.write("0000  E\x1b[2J\n")
    told = str(check_disc(disc))
    for words in ("A ]0;B is not in SHA256.TXT.", "C D is right is not in", "E [2J is missing."):
        assert words in told
    assert all(line.isprintable() for line in told.split("\n"))


def test_folders_in_each_other_have_an_end(disc: Path) -> None:
    subprocess.run(["mkdir", "-p", "F/" * 1500], cwd=disc, check=True)  # Python itself goes no deeper than its stack
    try:
        assert check_disc(disc).findings == ("The folder's folders go deeper than any disc's.",)
    finally:
        subprocess.run(["rm", "-r", "F"], cwd=disc, check=True)


@pytest.mark.parametrize("name", ["DICOMDIR", "SHA256.TXT"])
def test_more_entries_than_any_disc_needs_are_not_read(disc: Path, name: str) -> None:
    entry = {"DICOMDIR": b"\xfe\xff\x00\xe0" + bytes(4), "SHA256.TXT": b"\n"}[name]
    with (disc / name).open("ab") as file:
        file.write(entry * 1_000_001)
    assert check_disc(disc).findings[-1] == "DICOMDIR or SHA256.TXT is larger than any disc needs."


@pytest.mark.parametrize("cut", [1, 10, 1000])
def test_without_checksums_an_instance_that_is_cut_short_is_named(disc: Path, cut: int) -> None:
    (disc / "SHA256.TXT").unlink()
    [lacking] = check_disc(disc).findings
    assert lacking.startswith("There is no SHA256.TXT")
    (disc / IMAGE).write_bytes((disc / IMAGE).read_bytes()[:-cut])
    assert any(words.startswith(f"{IMAGE} is damaged or cut short") for words in check_disc(disc).findings)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_an_instance_of_another_patient_is_named(disc: Path, syntax: UID) -> None:
    dataset = dcmread(disc / IMAGE)
    dataset.PatientID, dataset.file_meta.TransferSyntaxUID = "SOMEBODY ELSE", syntax
    dataset.save_as(disc / IMAGE)
    assert f"{IMAGE} is of another patient than DICOMDIR says." in check_disc(disc).findings
    (disc / "SHA256.TXT").unlink()
    assert not [words for words in check_disc(disc).findings if "damaged" in words]


def test_a_file_that_cant_be_read_is_named(disc: Path) -> None:
    (disc / IMAGE).chmod(0)
    for folder in (disc, *disc.parents):  # pytest's own folders are for their owner alone
        if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 0o005:
            folder.chmod(0o755)
    for file in disc.rglob("*"):
        if file != disc / IMAGE:
            file.chmod(0o755)
    pipe, told = os.pipe()
    if not (child := os.fork()):  # nobody else here becomes somebody else
        try:
            if os.geteuid() == 0:  # who reads everything
                os.seteuid(65_534)
            findings = check_disc(disc).findings
            os.write(told, json.dumps([finding for finding in findings if IMAGE in finding]).encode())
        finally:
            os._exit(0)
    os.close(told)
    with os.fdopen(pipe, "rb") as answer:
        assert json.loads(answer.read()) == [f"{IMAGE} can't be read: Permission denied."]
    os.waitpid(child, 0)


@pytest.mark.peer
def test_a_disc_that_dcmtk_has_made_is_diagnosed(tmp_path: Path) -> None:
    """All that is said of it is that nobody wrote down what its files were."""
    files = make_study(tmp_path / "in", "ACC1", kinds={"ct": 3})
    folder = tmp_path / "disc"
    folder.mkdir()
    for number, file in enumerate(files):
        shutil.copy(file, folder / f"IM{number}")
    names = [f"IM{number}" for number in range(len(files))]
    subprocess.run(["dcmmkdir", "+m", *names], cwd=folder, check=True, capture_output=True)
    report = check_disc(folder)
    assert report.instances == 3
    assert report.findings == ("There is no SHA256.TXT: whether the files are what they were can't be told.",)
    (folder / "IM1").unlink()
    assert "DICOMDIR names IM1, which is missing." in check_disc(folder).findings


def test_the_command_reads_the_password_from_a_file_and_never_from_its_line(unpacked: Path, tmp_path: Path) -> None:
    password = new_password()
    part = Part.whole(passed(instances(make_study(tmp_path / "in", "ACC1", kinds={"ct": 1}))))
    layout = lay_out(part, LayoutOptions(settings(tmp_path), CREATED, "zip-encrypted"), tmp_path / "d")
    FORMATS["zip-encrypted"].opened(password).write(layout, file := tmp_path / "disc.zip")
    run = CliRunner().invoke
    told = run(cli, ["verify", "--password-file", "-", str(file)], input=f"{password}\n", standalone_mode=False)
    assert (told.return_value, "1 instance," in told.output) == (0, True)
    wrong = run(cli, ["verify", "--password-file", "-", str(file)], input="12345\n", standalone_mode=False)
    assert (wrong.return_value, "isn't the password" in wrong.output) == (1, True)
    without = run(cli, ["verify", str(file)], standalone_mode=False)
    assert (without.return_value, "takes its password" in without.output) == (1, True)
    assert run(cli, ["verify", str(unpacked)], standalone_mode=False).return_value == 0
