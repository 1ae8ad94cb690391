"""dcmqrscp and Orthanc as PACS: query, C-MOVE to the real receiver, and every instance compared with the PACS's own
copy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from mkiso.config.settings import Settings
from mkiso.errors import JobStopped, MkisoError, PacsBusy, PacsRefused, StudyIncomplete, StudyNotFound
from mkiso.sources.pacs import echo
from mkiso.sources.query import find_studies, find_studies_by_date
from mkiso.sources.registry import source_of
from mkiso.sources.retrieve import retrieve
from mkiso.study.models import Arrival
from peers.corpus import EVERY_KIND, THAI, make_study
from peers.dcmqrscp import Dcmqrscp
from peers.orthanc import Orthanc
from peers.patience import LONG
from peers.ports import free_port
from peers.scripted_pacs import sections

pytestmark = pytest.mark.peer
MakeSettings = Callable[..., Settings]
Peer = Dcmqrscp | Orthanc


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    return [
        *make_study(folder / "1", "A1001", patient=THAI, kinds=EVERY_KIND),
        *make_study(folder / "2", "A1002", kinds={"ct": 40}),
    ]


@pytest.fixture(params=["dcmqrscp", "orthanc", "orthanc asynchronous"])
def peer(request: pytest.FixtureRequest, tmp_path: Path, files: list[Path], receiver_port: int) -> Iterator[Peer]:
    destinations = {"CDRECORD": ("127.0.0.1", receiver_port)}
    if request.param == "dcmqrscp":
        with Dcmqrscp(tmp_path / "pacs", files, destinations=destinations) as dcmqrscp:
            yield dcmqrscp
    else:
        with Orthanc(
            tmp_path / "pacs", destinations=destinations, synchronous="asynchronous" not in request.param
        ) as orthanc:
            orthanc.store(files)
            yield orthanc


def data_set(file: Path) -> bytes:
    """A Part 10 file's bytes after its File Meta Information."""
    content = file.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def test_a_whole_study_arrives_byte_for_byte(
    settings_for: MakeSettings, folder: Path, peer: Peer, files: list[Path]
) -> None:
    settings = settings_for(peer)
    (study,) = find_studies(source_of(settings), "A1001")
    arrivals: list[Arrival] = []
    assert retrieve(source_of(settings), settings.identity, study, folder, [], arrivals.append) == study
    held = {
        str(dcmread(file, stop_before_pixels=True).SOPInstanceUID): file for file in files if file.parent.name == "1"
    }
    assert set(study.expected.instances or ()) == set(held) == {arrival.sop_instance_uid for arrival in arrivals}
    assert len(arrivals) == len(held)
    for arrival in arrivals:
        assert data_set(arrival.path) == data_set(held[arrival.sop_instance_uid]), arrival


def test_what_is_not_there(settings_for: MakeSettings, peer: Peer) -> None:
    settings = settings_for(peer)
    assert 0 < echo(*sections(settings), LONG) < LONG
    for accession_number in ("NOPE", "a1001", "A100"):
        with pytest.raises(StudyNotFound):
            find_studies(source_of(settings), accession_number)
    found = find_studies_by_date(source_of(settings), "20240229", "00-235959.999999")
    assert {study.accession_number for study in found.studies} == {"A1001", "A1002"} and not found.cut
    assert find_studies_by_date(source_of(settings), "20240229", "11-235959.999999").studies == ()
    assert find_studies_by_date(source_of(settings), "20240228").studies == ()


def test_two_at_once_dont_cross(settings_for: MakeSettings, folder: Path, peer: Peer) -> None:
    settings = settings_for(peer)
    arrived: dict[str, list[Arrival]] = {"A1001": [], "A1002": []}

    def job(accession_number: str) -> None:
        own = folder / accession_number
        own.mkdir()
        (study,) = find_studies(source_of(settings), accession_number)
        retrieve(source_of(settings), settings.identity, study, own, [], arrived[accession_number].append)

    threads = [threading.Thread(target=job, args=(accession_number,)) for accession_number in arrived]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {dcmread(arrival.path, stop_before_pixels=True).AccessionNumber for arrival in arrived["A1001"]} == {"A1001"}
    assert {dcmread(arrival.path, stop_before_pixels=True).AccessionNumber for arrival in arrived["A1002"]} == {"A1002"}
    assert len(arrived["A1002"]) == 40


def test_a_gap_is_moved_by_its_instances(settings_for: MakeSettings, folder: Path, peer: Peer) -> None:
    settings = settings_for(peer)
    (study,) = find_studies(source_of(settings), "A1002")
    first: list[Arrival] = []
    retrieve(source_of(settings), settings.identity, study, folder, [], first.append)
    again = folder / "again"
    again.mkdir()
    second: list[Arrival] = []
    retrieve(source_of(settings), settings.identity, study, again, first[:37], second.append)
    assert {arrival.sop_instance_uid for arrival in second} == {arrival.sop_instance_uid for arrival in first[37:]}
    assert len(list(again.iterdir())) == 3


def test_stop_ends_a_retrieval(settings_for: MakeSettings, folder: Path, peer: Peer) -> None:
    settings = settings_for(peer)
    (study,) = find_studies(source_of(settings), "A1002")
    stop = threading.Event()
    arrivals: list[Arrival] = []

    def stop_after_the_third(arrival: Arrival) -> None:
        arrivals.append(arrival)
        if len(arrivals) == 3:
            stop.set()

    begun = time.monotonic()
    with pytest.raises(JobStopped):
        retrieve(source_of(settings), settings.identity, study, folder, [], stop_after_the_third, stop)
    assert time.monotonic() - begun < LONG


def test_a_destination_that_the_pacs_doesnt_know(settings_for: MakeSettings, folder: Path, peer: Peer) -> None:
    known = settings_for(peer)
    settings = known.model_copy(update={"receiver": known.receiver.model_copy(update={"ae_title": "NOBODY"})})
    (study,) = find_studies(source_of(settings), "A1002")
    with pytest.raises(MkisoError) as failed:
        retrieve(source_of(settings), settings.identity, study, folder, [], lambda arrival: None)
    assert isinstance(failed.value, PacsRefused | StudyIncomplete)
    assert "NOBODY" in failed.value.words or "log" in failed.value.words


@pytest.mark.parametrize("kind", ["dcmqrscp", "orthanc", "orthanc asynchronous"])
def test_a_port_that_the_pacs_cant_reach(
    settings_for: MakeSettings, folder: Path, files: list[Path], tmp_path: Path, kind: str
) -> None:
    destinations = {"CDRECORD": ("127.0.0.1", free_port())}
    peer: Peer
    if kind == "dcmqrscp":
        peer = Dcmqrscp(tmp_path / "pacs", files, destinations=destinations)
    else:
        peer = Orthanc(tmp_path / "pacs", destinations=destinations, synchronous=kind == "orthanc")
    with peer:
        if isinstance(peer, Orthanc):
            peer.store(files)
        settings = settings_for(peer, quiet_timeout_seconds=0.5)
        (study,) = find_studies(source_of(settings), "A1002")
        begun = time.monotonic()
        with pytest.raises((PacsBusy, StudyIncomplete), match="reach this machine"):
            retrieve(source_of(settings), settings.identity, study, folder, [], lambda arrival: None)
    assert time.monotonic() - begun < LONG
