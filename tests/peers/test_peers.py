"""The peers themselves: each does what the tests of mkiso take for granted. No line of mkiso is run here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pydicom import dcmread

from peers.corpus import EVERY_KIND, EVERYBODY, THAI, Person, dataset_bytes, make_ct_series, make_study
from peers.dcmqrscp import Dcmqrscp
from peers.orthanc import Orthanc
from peers.patience import LONG
from peers.ports import free_port, is_open
from peers.storescp import Storescp
from peers.storescu import store

pytestmark = pytest.mark.peer


def move(port: int, called: str, destination: str, study: str) -> subprocess.CompletedProcess[str]:
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
    command = ["movescu", "-v", "-S", "-aec", called, "-aem", destination, *keys, "127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONG)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_study(tmp_path_factory.mktemp("corpus"), "A1001", kinds=EVERY_KIND, patient=THAI)


def by_uid(files: list[Path]) -> dict[str, bytes]:
    return {dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID: dataset_bytes(file) for file in files}


def test_orthanc_sends_every_kind_as_it_got_it(tmp_path: Path, corpus: list[Path]) -> None:
    with (
        Storescp(tmp_path / "scp") as scp,
        Orthanc(tmp_path / "pacs", destinations={"RIMAGE": ("127.0.0.1", scp.port)}) as pacs,
    ):
        pacs.store(corpus)
        assert {uid: dataset_bytes(content) for uid, content in pacs.files("A1001").items()} == by_uid(corpus)
        moved = move(pacs.port, "ORTHANC", "RIMAGE", dcmread(corpus[0]).StudyInstanceUID)
        assert moved.returncode == 0, moved.stdout + moved.stderr
        assert by_uid(scp.files()) == by_uid(corpus)


def test_orthanc_refuses_an_unknown_destination_until_it_knows_it(tmp_path: Path, corpus: list[Path]) -> None:
    with Storescp(tmp_path / "scp") as scp, Orthanc(tmp_path / "pacs") as pacs:
        pacs.store(corpus[:1])
        study = dcmread(corpus[0]).StudyInstanceUID
        move(pacs.port, "ORTHANC", "RIMAGE", study)
        assert not scp.files()
        pacs.know("RIMAGE", "127.0.0.1", scp.port)
        move(pacs.port, "ORTHANC", "RIMAGE", study)
        assert by_uid(scp.files()) == by_uid(corpus[:1])


def test_dcmqrscp_sends_every_kind_as_it_got_it(tmp_path: Path, corpus: list[Path]) -> None:
    with (
        Storescp(tmp_path / "scp") as scp,
        Dcmqrscp(tmp_path / "pacs", corpus, destinations={"RIMAGE": ("127.0.0.1", scp.port)}) as pacs,
    ):
        moved = move(pacs.port, "ABPACS", "RIMAGE", dcmread(corpus[0]).StudyInstanceUID)
        assert moved.returncode == 0, moved.stdout + moved.stderr
        assert by_uid(scp.files()) == by_uid(corpus)


def test_storescu_sends_each_file_in_its_own_syntax(tmp_path: Path, corpus: list[Path]) -> None:
    with Storescp(tmp_path / "scp") as scp:
        sent = store(scp.port, corpus, called="RIMAGE")
        assert sent.returncode == 0, sent.stdout + sent.stderr
        assert by_uid(scp.files()) == by_uid(corpus)


def test_a_peer_is_gone_after_its_test(tmp_path: Path) -> None:
    with Storescp(tmp_path / "scp") as scp:
        assert is_open(scp.port)
        scp.pause()
    assert not is_open(scp.port)


def test_every_file_of_a_big_series_is_an_instance_of_its_own(tmp_path: Path) -> None:
    files = make_ct_series(tmp_path, "B1", count=5, size=128)
    headers = [dcmread(file) for file in files]
    assert len({header.SOPInstanceUID for header in headers}) == 5
    assert [header.InstanceNumber for header in headers] == [1, 2, 3, 4, 5]
    assert all(header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID for header in headers)
    assert {len(header.PixelData) for header in headers} == {2 * 128 * 128}


@pytest.mark.parametrize("person", EVERYBODY, ids=lambda person: person.patient_id)
def test_every_name_survives_its_character_set(tmp_path: Path, person: Person) -> None:
    [file] = make_study(tmp_path, "N1", kinds={"sr": 1}, patient=person)
    assert str(dcmread(file).PatientName) == person.name


def test_the_same_arguments_give_the_same_files(tmp_path: Path) -> None:
    first, second = make_study(tmp_path / "1", "A1"), make_study(tmp_path / "2", "A1")
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_a_free_port_is_free() -> None:
    assert not is_open(free_port())
