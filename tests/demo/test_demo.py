"""The demo PACS, patient API and publisher, asked by dcmtk's tools and plain HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from rich.console import Console

from mkiso.config.storage import Storage
from mkiso.demo.library import write_bundled_studies
from mkiso.demo.pacs import DemoPacs, matches
from mkiso.demo.patient_api import DemoPatientApi, patients_of
from mkiso.demo.phantoms import ACCESSION_NUMBER, write_phantoms
from mkiso.demo.publisher import DemoPublisher
from mkiso_service.cli import demo
from mkiso_service.cli.demo import DemoFailed, prepare
from mkiso_service.processes.supervisor import alone
from peers.corpus import EVERY_KIND, THAI, dataset_bytes, make_study
from peers.patience import LONG
from peers.storescp import Storescp
from peers.storescu import store


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_bundled_studies(tmp_path_factory.mktemp("library"))


def ask(program: str, pacs: DemoPacs, *options: str) -> subprocess.CompletedProcess[str]:
    command = [program, "-v", "-S", "-aec", pacs.ae_title, *options, pacs.host, str(pacs.port)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=LONG)


def find(pacs: DemoPacs, folder: Path, level: str, *keys: str) -> list[Dataset]:
    folder.mkdir()
    options = [part for key in (f"QueryRetrieveLevel={level}", *keys) for part in ("-k", key)]
    ask("findscu", pacs, "-X", "-od", str(folder), *options)
    return [dcmread(file, force=True) for file in sorted(folder.iterdir())]


def move(pacs: DemoPacs, destination: str, study: str) -> subprocess.CompletedProcess[str]:
    return ask(
        "movescu", pacs, "-aem", destination, "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"
    )


def by_uid(files: list[Path]) -> dict[str, bytes]:
    return {dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID: dataset_bytes(file) for file in files}


def test_every_bundled_study_has_an_accession_number_and_is_there_once(library: list[Path]) -> None:
    headers = [dcmread(file, stop_before_pixels=True) for file in library]
    assert len(headers) > 80
    assert len({header.SOPInstanceUID for header in headers}) == len(headers)
    assert all(header.AccessionNumber for header in headers)
    invented = {
        header.StudyInstanceUID: header.AccessionNumber
        for header in headers
        if header.AccessionNumber.startswith("DEMO")
    }
    assert len(set(invented.values())) == len(invented) > 5


def test_the_phantoms_are_one_study_of_nobody_and_the_same_each_time(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    first, second = (write_phantoms(folder) for folder in folders)
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    headers = [dcmread(file, stop_before_pixels=True) for file in first]
    assert {header.AccessionNumber for header in headers} == {ACCESSION_NUMBER}
    assert [header.Modality for header in headers].count("CT") == 60
    assert {header.Modality for header in headers} == {"CT", "MR", "DX", "US", "SR", "DOC", "ECG", "PR"}


@pytest.mark.peer
def test_it_finds_a_study_by_accession_number_and_counts_it(library: list[Path], tmp_path: Path) -> None:
    with DemoPacs(library) as pacs:
        [study] = find(
            pacs,
            tmp_path / "study",
            "STUDY",
            "AccessionNumber=134",
            "StudyInstanceUID",
            "PatientName",
            "NumberOfStudyRelatedInstances",
        )
        images = find(
            pacs,
            tmp_path / "image",
            "IMAGE",
            f"StudyInstanceUID={study.StudyInstanceUID}",
            "SOPInstanceUID",
            "SeriesInstanceUID",
        )
        assert find(pacs, tmp_path / "none", "STUDY", "AccessionNumber=999", "StudyInstanceUID") == []
        assert len(find(pacs, tmp_path / "shared", "STUDY", "AccessionNumber=2", "StudyInstanceUID")) == 4
    assert (study.PatientName, study.NumberOfStudyRelatedInstances, len(images)) == ("Doe^Peter", 4, 4)


@pytest.mark.peer
def test_it_moves_every_kind_as_it_lies_in_its_file(tmp_path: Path) -> None:
    files = make_study(tmp_path / "corpus", "A1", kinds=EVERY_KIND, patient=THAI)
    with Storescp(tmp_path / "scp") as scp, DemoPacs(files, {"RIMAGE": ("127.0.0.1", scp.port)}) as pacs:
        moved = move(pacs, "RIMAGE", dcmread(files[0]).StudyInstanceUID)
        assert moved.returncode == 0, moved.stderr
        assert by_uid(scp.files()) == by_uid(files)


@pytest.mark.peer
def test_a_console_sends_a_folder_and_says_what_was_taken(tmp_path: Path) -> None:
    files = make_study(tmp_path / "corpus", "A1", kinds=EVERY_KIND, patient=THAI)
    console = [sys.executable, "-m", "mkiso.demo.console", str(tmp_path / "corpus")]
    with Storescp(tmp_path / "scp") as scp:
        port = scp.port
        sent = subprocess.run([*console, f"BURN@127.0.0.1:{port}"], capture_output=True, text=True, timeout=LONG)
        assert (sent.returncode, sent.stdout) == (
            0,
            f"BURN@127.0.0.1:{port} took {len(files)} of {len(files)} files.\n",
        )
        assert by_uid(scp.files()) == by_uid(files)
    nobody = subprocess.run([*console, f"BURN@127.0.0.1:{port}"], capture_output=True, text=True, timeout=LONG)
    assert nobody.returncode == 1 and "didn't take the association" in nobody.stdout


@pytest.mark.peer
def test_it_sends_by_cget_to_who_asks(tmp_path: Path) -> None:
    files = make_study(tmp_path / "corpus", "A1", kinds={"ct": 3, "sr": 1})
    (got := tmp_path / "got").mkdir()
    key = f"StudyInstanceUID={dcmread(files[0]).StudyInstanceUID}"
    with DemoPacs(files) as pacs:
        moved = ask("getscu", pacs, "+B", "-od", str(got), "-k", "QueryRetrieveLevel=STUDY", "-k", key)
    assert moved.returncode == 0, moved.stderr
    assert by_uid(list(got.iterdir())) == by_uid(files)


@pytest.mark.peer
def test_it_refuses_a_destination_that_it_does_not_know(library: list[Path]) -> None:
    with DemoPacs(library) as pacs:
        assert "MoveDestinationUnknown" in move(pacs, "NOBODY", dcmread(library[0]).StudyInstanceUID).stderr


@pytest.mark.peer
def test_the_publisher_keeps_what_it_is_sent(tmp_path: Path) -> None:
    files = make_study(tmp_path / "corpus", "A1", kinds=EVERY_KIND)
    with DemoPublisher(tmp_path / "printed") as publisher:
        sent = store(publisher.port, files, called=publisher.ae_title)
    assert sent.returncode == 0, sent.stdout
    assert by_uid(list((tmp_path / "printed").iterdir())) == by_uid(files)


@pytest.mark.parametrize(
    ("keyword", "key", "value", "expected"),
    [
        ("AccessionNumber", "", "A1", True),
        ("AccessionNumber", None, "A1", True),
        ("AccessionNumber", "A?", "A1", True),
        ("AccessionNumber", "a1", "A1", False),
        ("PatientName", "Doe*", "Doe^Peter", True),
        ("PatientName", "[D]oe*", "Doe^Peter", False),
        ("StudyInstanceUID", "1.2.*", "1.2.3", False),
        ("StudyDate", "20240101-20240131", "20240115", True),
        ("StudyDate", "20240101-", "20231231", False),
        ("StudyDate", "-20240101", "", False),
    ],
)
def test_an_attribute_matches(keyword: str, key: str | None, value: str, expected: bool) -> None:
    assert matches(keyword, key, value) is expected


def get(url: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(url, timeout=LONG) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_patient_api_knows_the_patients_of_the_library(library: list[Path]) -> None:
    with DemoPatientApi(patients_of(library)) as api:
        assert get(f"{api.base_url}/patients/by-accession/134")[1]["name"] == "Doe^Peter"
        assert get(f"{api.base_url}/patients/by-accession/999")[0] == 404
        assert get(f"{api.base_url}/elsewhere")[0] == 404


def test_a_slow_start_is_waited_for_and_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = [0.0], StringIO()
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda _: clock.__setitem__(0, clock[0] + 10))
    monkeypatch.setattr(demo, "_lacking", lambda _: "worker" if clock[0] < 200 else "")
    monkeypatch.setattr(demo, "_process", lambda *_, **__: nullcontext(SimpleNamespace(poll=lambda: None)))
    with demo._service(Console(file=told, width=100), demo.Place(tmp_path, demo.DEFAULT_PORTS)):
        pass
    assert "after 70 s it still lacks: worker" in told.getvalue() and "up after 200.0 s" in told.getvalue()


def test_each_demo_begins_anew(tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "data" / "jobs").mkdir(parents=True)
    (tmp_path / "PHANTOM").mkdir()
    prepare(tmp_path)
    assert not (tmp_path / "data").exists() and (tmp_path / "PHANTOM").exists()


@pytest.mark.parametrize("name", ["config.yaml", "data"])
def test_a_folder_of_others_is_no_demos(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir() if name == "data" else (tmp_path / name).write_text("pacs:\n")
    with pytest.raises(DemoFailed, match="isn't of a demo"):
        prepare(tmp_path)
    assert (tmp_path / name).exists()


def test_a_folder_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "below", tmp_path / "file" / "far" / "below"):
        with pytest.raises(DemoFailed, match=r"can't be made: Not a directory\."):
            prepare(folder)


def test_a_demo_that_runs_keeps_what_it_has(tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "data").mkdir()
    with alone(Storage(data_dir=tmp_path / "data")), pytest.raises(DemoFailed, match="still runs"):
        prepare(tmp_path)
    assert (tmp_path / "data").exists()
