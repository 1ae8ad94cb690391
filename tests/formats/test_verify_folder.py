"""mkiso verify of a folder: a mounted disc, an unpacked ZIP file, a disc that other programs have made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom import dcmread

from mkiso.formats.disc_check import check_disc, verify_disc
from mkiso.formats.registry import FORMATS
from mkiso.formats.zip_encrypted import new_password
from mkiso.media.layout import LayoutOptions, lay_out
from mkiso.study.gate import Part
from mkiso_service.cli.main import cli
from peers.corpus import THAI, make_study
from tests.media.discs import CREATED, instances, passed, settings

IMAGE = "DICOM/PT000001/ST000001/SE000001/IM000001"


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


def test_an_instance_of_another_patient_is_named(disc: Path) -> None:
    dataset = dcmread(disc / IMAGE)
    dataset.PatientID = "SOMEBODY ELSE"
    dataset.save_as(disc / IMAGE)
    assert f"{IMAGE} is of another patient than DICOMDIR says." in check_disc(disc).findings


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
