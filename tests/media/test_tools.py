"""A disc judged by tools that know nothing of mkiso."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.fileset import FileSet

from mkiso.formats.disc_check import verify_disc
from mkiso.formats.proof import verify_image
from mkiso.formats.registry import ISO
from mkiso.media.dicomdir import dicomdir
from mkiso.media.file_set import arrange, leaves
from mkiso.media.layout import Layout
from mkiso.study.models import Instance
from peers.corpus import BUNDLED, EVERY_KIND, JAPANESE, THAI, make_study
from peers.patience import LONG
from tests.media.discs import disc, instance, instances

pytestmark = pytest.mark.peer


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """The output of a tool that must succeed."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, timeout=LONG, check=False)
    output = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {output[-2000:]}"
    return output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Path]:
    """A disc with every kind of object, several studies of a patient with a Thai name, and a viewer with long names."""
    folder = tmp_path_factory.mktemp("disc")
    viewer = folder / "viewer"
    (viewer / "Sprach dateien").mkdir(parents=True)
    for name in (
        "Betrachter für Bilder.exe",
        "empty.cfg",
        "Sprach dateien/ภาษาไทย.lng",
        "library_one.dll",
        "library_two.dll",
    ):
        (viewer / name).write_text(name if "empty" not in name else "")
    paths = make_study(folder / "in", "ACC1", patient=THAI, kinds=EVERY_KIND)
    paths += make_study(folder / "in", "ACC2", patient=THAI, kinds={"ct": 60}, number=2)
    return disc(paths, folder, viewer={"directory": str(viewer)})


@pytest.fixture(scope="module")
def extracted(made: tuple[Layout, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extracted")
    run("7z", "x", "-y", f"-o{folder}", made[1])
    return folder


def test_mkiso_itself_finds_it_sound(made: tuple[Layout, Path]) -> None:
    layout, iso = made
    assert verify_image(iso, layout.files, ISO).size == layout.size
    assert verify_disc(iso).instances == layout.instances


def test_isoinfo_reads_the_primary_tree(made: tuple[Layout, Path]) -> None:
    layout, iso = made
    about = run("isoinfo", "-d", "-i", iso)
    assert f"Volume id: {layout.volume_id}\n" in about
    assert f"Volume size is: {layout.sectors}\n" in about
    assert "Joliet with UCS level 3 found" in about and "NO Rock Ridge present" in about and "EXAMPLE HOSPITAL" in about
    found = {
        line.removeprefix("/").removesuffix(";1").removesuffix(".")
        for line in run("isoinfo", "-f", "-i", iso).splitlines()
    }
    assert {str(file.path) for file in layout.files} <= found


def test_isoinfo_reads_the_joliet_tree(made: tuple[Layout, Path]) -> None:
    layout, iso = made
    found = {line.removeprefix("/") for line in run("isoinfo", "-J", "-f", "-i", iso).splitlines()}
    paths = {str(file.joliet_path or file.path) for file in layout.files}
    assert {path for path in paths if path.isascii()} <= found  # isoinfo knows no UTF-8
    assert len(found) >= len(paths)


def test_iso_info_and_xorriso_read_it(made: tuple[Layout, Path]) -> None:
    layout, iso = made
    assert re.search(rf"Volume\s*: {layout.volume_id}", run("iso-info", "-i", iso))
    about = run("xorriso", "-indev", iso, "-toc")
    assert f"'{layout.volume_id}'" in about
    assert not re.search(r"(WARNING|SORRY|FAILURE|FATAL)", about)


def test_7z_finds_nothing_wrong(made: tuple[Layout, Path]) -> None:
    assert "Everything is Ok" in run("7z", "t", made[1])


def test_every_file_comes_out_byte_for_byte(made: tuple[Layout, Path], extracted: Path) -> None:
    layout, _ = made
    for file in layout.files:
        assert hashlib.sha256((extracted / (file.joliet_path or file.path)).read_bytes()).hexdigest() == file.sha256, (
            file.path
        )
        if file.sop_instance_uid:
            assert file.source
            assert (extracted / file.path).read_bytes() == file.source.read_bytes()
    found = {path for path in extracted.rglob("*") if path.is_file()}
    assert found == {extracted / (file.joliet_path or file.path) for file in layout.files}


def test_sha256sum_proves_it_without_us(extracted: Path) -> None:
    assert "FAILED" not in run("sha256sum", "-c", "SHA256.TXT", cwd=extracted)


def test_a_loop_mount_shows_the_same(made: tuple[Layout, Path], tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-o", "loop,ro,iocharset=utf8", made[1], tmp_path], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no loop mount here: {mounted.stderr.strip()}")
    try:
        for file in made[0].files:
            assert (
                hashlib.sha256((tmp_path / (file.joliet_path or file.path)).read_bytes()).hexdigest() == file.sha256
            ), file.path
    finally:
        run("umount", tmp_path)


def test_dicom3tools_accept_the_dicomdir(made: tuple[Layout, Path], extracted: Path) -> None:
    listed = run("dcdirdmp", "DICOMDIR", cwd=extracted)
    assert listed.count("-> DICOM\\PT") == made[0].instances
    judged = run("dciodvfy", "DICOMDIR", cwd=extracted)
    assert not [line for line in judged.splitlines() if line.startswith("Error")]


def test_dcmdump_and_pydicom_read_the_dicomdir(made: tuple[Layout, Path], extracted: Path) -> None:
    layout, _ = made
    assert "(0004,1220)" in run("dcmdump", "-q", "DICOMDIR", cwd=extracted)
    file_set = FileSet(extracted / "DICOMDIR")
    assert layout.volume_id == file_set.ID
    assert sorted(found.SOPInstanceUID for found in file_set) == sorted(
        file.sop_instance_uid for file in layout.files if file.sop_instance_uid
    )
    for found in file_set:
        assert found.load().SOPInstanceUID == found.SOPInstanceUID
    assert file_set.find_values("PatientName") == [THAI.name]


def records(content: Path) -> Iterator[tuple[str, str, Dataset]]:
    """Each record with its type and what it is of: a UID, or the patient's ID."""
    for record in dcmread(content).DirectoryRecordSequence:
        kind = record.DirectoryRecordType
        own = {"PATIENT": "PatientID", "STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID"}.get(
            kind, "ReferencedSOPInstanceUIDInFile"
        )
        yield kind, str(record[own].value), record


def compared(found: list[Instance], folder: Path) -> int:
    """Compare our DICOMDIR with dcmmkdir's for the same files; how many instances dcmmkdir took."""
    tree = arrange(found)
    content, _ = dicomdir(tree, "COMPARED")
    (folder / "ours").write_bytes(content)
    names = []
    for leaf in leaves(tree):
        (folder / leaf.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(leaf.arrival.path, folder / leaf.path)
        done = subprocess.run(["dcmmkdir", "-Nxc", str(leaf.path)], cwd=folder, capture_output=True, check=False)
        if done.returncode == 0:
            names.append(str(leaf.path))
        (folder / "DICOMDIR").unlink(missing_ok=True)
    run("dcmmkdir", "-Nxc", "+F", "COMPARED", *names, cwd=folder)
    ours = {(kind, of): record for kind, of, record in records(folder / "ours")}
    for kind, of, theirs in records(folder / "DICOMDIR"):
        assert (kind, of) in ours
        mine = ours[kind, of]
        for element in theirs:
            if element.keyword in (
                "OffsetOfTheNextDirectoryRecord",
                "OffsetOfReferencedLowerLevelDirectoryEntity",
                "SpecificCharacterSet",
            ):
                continue
            assert element.tag in mine, f"{kind} lacks {element.keyword}"
            assert mine[element.tag].value == element.value, f"{kind} {element.keyword}"
    return len(names)


@pytest.mark.parametrize("patient", [THAI, JAPANESE], ids=["thai", "japanese"])
def test_the_dicomdir_says_what_dcmmkdirs_says(tmp_path: Path, patient: object) -> None:
    kinds = dict.fromkeys(("ct", "mr", "sr", "ko", "pr", "rt_plan", "rt_dose", "rt_struct", "pdf", "ecg", "raw"), 1)
    kinds = {kind: count for kind, count in kinds.items() if kind in EVERY_KIND}
    paths = make_study(tmp_path / "in", "ACC1", patient=patient, kinds=kinds)  # type: ignore[arg-type]
    assert compared(instances(paths), tmp_path) >= 6


def test_real_studies_say_what_dcmmkdirs_dicomdir_says(tmp_path: Path) -> None:
    found = []
    for number, path in enumerate(sorted((BUNDLED / "dicomdirtests" / "77654033").rglob("*"))):
        if path.is_file():
            dcmread(path).save_as(
                tmp_path / str(number), enforce_file_format=True
            )  # as a PACS sends it: with a group length
            found.append(instance(tmp_path / str(number)))
    [patient, *_] = arrange(found)
    theirs = [leaf.instance for leaf in leaves([patient])]
    assert compared(theirs, tmp_path) == len(theirs)


def test_every_bundled_file_gets_a_record_that_readers_accept(tmp_path: Path) -> None:
    found = {}
    for path in [*BUNDLED.glob("*.dcm"), *BUNDLED.parent.glob("charset_files/*.dcm")]:
        try:
            one = instance(path)
        except Exception:  # not Part 10, or broken on purpose: the receiver refuses it
            continue
        found[one.arrival.sop_instance_uid] = one
    tree = arrange(list(found.values()))
    content, _ = dicomdir(tree, "BUNDLED")
    (tmp_path / "DICOMDIR").write_bytes(content)
    for leaf in leaves(tree):
        (tmp_path / leaf.path).parent.mkdir(parents=True, exist_ok=True)
        os.link(shutil.copy(leaf.arrival.path, tmp_path / "one"), tmp_path / leaf.path)
        (tmp_path / "one").unlink()
    assert len(found) >= 45
    assert len(FileSet(tmp_path / "DICOMDIR")) == len(found)
    judged = run("dciodvfy", "DICOMDIR", cwd=tmp_path)
    assert not [line for line in judged.splitlines() if line.startswith("Error")]
