"""C-GET: dcmqrscp and Orthanc send in the association that asks, and nothing connects to us."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dsutils import encode

from mkiso.config.settings import Settings
from mkiso.errors import PacsRefused, PacsSilent, StudyIncomplete
from mkiso.sources.cget import CGetRetrieval
from mkiso.sources.query import find_studies
from mkiso.sources.registry import source_of
from mkiso.sources.retrieve import retrieve
from mkiso.study.models import Arrival
from peers.corpus import EVERY_KIND, THAI, dataset_bytes, make_study
from peers.dcmqrscp import Dcmqrscp
from peers.orthanc import Orthanc
from peers.patience import LONG
from tests.sources.test_source import complete_studies

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    return [
        *make_study(folder / "1", "A1001", patient=THAI, kinds=EVERY_KIND),
        *make_study(folder / "2", "A1002", kinds={"ct": 40}),
    ]


@pytest.fixture(params=["dcmqrscp", "orthanc"])
def peer(request: pytest.FixtureRequest, tmp_path: Path, files: list[Path]) -> Iterator[Dcmqrscp | Orthanc]:
    if request.param == "dcmqrscp":
        with Dcmqrscp(tmp_path / "pacs", files, profiled=False) as dcmqrscp:
            yield dcmqrscp
    else:
        with Orthanc(tmp_path / "pacs", options={"DicomAlwaysAllowGet": True}) as orthanc:
            orthanc.store(files)
            yield orthanc


def by_get(tmp_path: Path, peer: Dcmqrscp | Orthanc) -> Settings:
    pacs = {"kind": "cget", "ae_title": peer.ae_title, "port": peer.port, "back_off_seconds": 0.1}
    storage = {"data_dir": str(tmp_path / "data"), "min_free_gib": 0}
    return Settings.model_validate({"pacs": pacs, "storage": storage})


def fetched(settings: Settings, accession_number: str, already: list[Arrival]) -> list[Arrival]:
    folder = settings.storage.data_dir / "jobs" / "job" / "instances"
    folder.mkdir(parents=True, exist_ok=True)
    arrivals: list[Arrival] = []
    (study,) = find_studies(source_of(settings), accession_number)
    retrieve(source_of(settings), settings.identity, study, folder, already, arrivals.append)
    return arrivals


@pytest.mark.parametrize(("accession_number", "study"), [("A1001", "1"), ("A1002", "2")])
def test_a_study_comes_by_get_byte_for_byte(
    tmp_path: Path, peer: Dcmqrscp | Orthanc, files: list[Path], accession_number: str, study: str
) -> None:
    if study == "1" and isinstance(peer, Dcmqrscp):
        pytest.skip("dcmqrscp sends a class in one transfer syntax")
    arrivals = fetched(by_get(tmp_path, peer), accession_number, [])
    held = {
        str(dcmread(file, stop_before_pixels=True).SOPInstanceUID): file for file in files if file.parent.name == study
    }
    assert sorted(arrival.sop_instance_uid for arrival in arrivals) == sorted(held)
    for arrival in arrivals:
        assert dataset_bytes(arrival.path) == dataset_bytes(held[arrival.sop_instance_uid])


def test_a_gap_comes_by_get_alone(tmp_path: Path, peer: Dcmqrscp | Orthanc) -> None:
    settings = by_get(tmp_path, peer)
    first = fetched(settings, "A1002", [])
    for arrival in first[37:]:
        arrival.path.unlink()
    second = fetched(settings, "A1002", first[:37])
    assert {arrival.sop_instance_uid for arrival in second} == {arrival.sop_instance_uid for arrival in first[37:]}


def test_what_is_damaged_is_told_and_makes_no_study(tmp_path: Path, files: list[Path]) -> None:
    """An instance whose data set isn't what the PACS's index says."""
    with Dcmqrscp(tmp_path / "pacs", files[-3:], profiled=False) as peer:
        settings = by_get(tmp_path, peer)
        (study,) = find_studies(source_of(settings), "A1002")
        damaged = dcmread(peer.storage / "000001")
        damaged.StudyInstanceUID = "1.2.3"
        damaged.save_as(peer.storage / "000001")
        folder = settings.storage.data_dir / "jobs" / "job" / "instances"
        folder.mkdir(parents=True)
        with pytest.raises(StudyIncomplete, match=r"1 of the 3 images.*no job expects it"):
            retrieve(source_of(settings), settings.identity, study, folder, [], lambda arrival: None)
    assert len(list(folder.iterdir())) == 2


def test_what_comes_by_get_passes_the_gate(tmp_path: Path) -> None:
    """A class that has more than one syntax, and more classes than one association has contexts for."""
    files = make_study(tmp_path / "files", "A1", kinds=EVERY_KIND)
    with Orthanc(tmp_path / "pacs", options={"DicomAlwaysAllowGet": True}) as peer:
        peer.store(files)
        studies = complete_studies(source_of(by_get(tmp_path, peer)), tmp_path)
        assert peer.log().count("Association Received") >= 4  # two to find, and one for each part of the contexts
    assert len(studies.instances) == len(files)


def test_what_the_pacs_doesnt_tell_the_class_of_comes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SOP Class UID is an optional key at IMAGE level (PS3.4 C.6.2.1.4)."""
    files = make_study(tmp_path / "files", "A1", kinds=EVERY_KIND)
    told_of = CGetRetrieval._sop_classes

    def told_but_of_ct(retrieval: CGetRetrieval) -> dict[str, str]:
        told = told_of(retrieval)
        assert CTImageStorage in told.values()
        return {uid: sop_class for uid, sop_class in told.items() if sop_class != CTImageStorage}

    monkeypatch.setattr(CGetRetrieval, "_sop_classes", told_but_of_ct)
    with Orthanc(tmp_path / "pacs", options={"DicomAlwaysAllowGet": True}) as peer:
        peer.store(files)
        studies = complete_studies(source_of(by_get(tmp_path, peer)), tmp_path)
    assert len(studies.instances) == len(files)


def test_the_check_says_whether_the_pacs_sends_by_get(tmp_path: Path, peer: Dcmqrscp | Orthanc) -> None:
    told = source_of(by_get(tmp_path, peer)).check(LONG, inside=True)
    assert "answers C-ECHO" in told and "C-GET" in told


def test_what_grows_after_it_was_listed_comes_too(tmp_path: Path) -> None:
    """Of more classes than one association has contexts for each instance is asked for by name: that all of these came
    proves nothing of the study."""
    files = make_study(tmp_path / "files", "A1", kinds=EVERY_KIND)
    with Orthanc(tmp_path / "pacs", options={"DicomAlwaysAllowGet": True}) as peer:
        peer.store(files[1:])
        settings = by_get(tmp_path, peer)
        (study,) = find_studies(source_of(settings), "A1")
        peer.store(files[:1])
        folder = settings.storage.data_dir / "jobs" / "job" / "instances"
        folder.mkdir(parents=True)
        retrieve(source_of(settings), settings.identity, study, folder, [], lambda arrival: None)
    assert len(list(folder.iterdir())) == len(files)


Sends = Callable[[evt.Event], Iterator[int | tuple[int, Dataset | None]]]


@contextmanager
def answering(listed: Sequence[Dataset], get: Sends, *, counts: bool = True) -> Iterator[dict[str, Any]]:
    """A PACS of pynetdicom that lists these and answers a C-GET as it is told; how it is configured."""

    def uncounted(event: evt.Event) -> None:
        command = event.message.command_set
        for keyword in [each.keyword for each in command if each.keyword.endswith("Suboperations") and not counts]:
            delattr(command, keyword)

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        unique = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
        for each in {each[unique[asked.QueryRetrieveLevel]].value: each for each in listed}.values():
            answer = Dataset()
            for element in asked:
                if element.keyword in each:
                    answer[element.tag] = each[element.tag]
            answer.QueryRetrieveLevel = asked.QueryRetrieveLevel
            yield 0xFF00, answer
        yield 0x0000, None

    ae = AE("SENDS")
    for sop_class in ("1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"):
        ae.add_supported_context(sop_class)
    ae.add_supported_context(listed[0].SOPClassUID, ExplicitVRLittleEndian, scu_role=False, scp_role=True)
    handlers: list[Any] = [(evt.EVT_C_FIND, find), (evt.EVT_C_GET, get), (evt.EVT_DIMSE_SENT, uncounted)]
    server: Any = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        pacs = {"kind": "cget", "ae_title": "SENDS", "port": server.socket.getsockname()[1], "back_off_seconds": 0.1}
        yield pacs
    finally:
        server.shutdown()


def found_and_fetched(tmp_path: Path, pacs: dict[str, Any], **receiver: float) -> None:
    storage = {"data_dir": str(tmp_path / "data")}
    settings = Settings.model_validate({"pacs": pacs, "storage": storage, "receiver": receiver})
    fetched(settings, "A1", [])


@pytest.mark.parametrize(("counts", "words"), [(True, "counts 3 to send"), (False, "1 image more")])
def test_what_the_pacs_sends_and_does_not_list_makes_no_disc(tmp_path: Path, counts: bool, words: str) -> None:
    """It came in the association in which we asked, so no stranger has sent it."""
    held = [dcmread(file) for file in make_study(tmp_path / "files", "A1", kinds={"ct": 3})]

    def all_of_it(event: evt.Event) -> Iterator[int | tuple[int, Dataset | None]]:
        yield len(held)
        for each in held:
            yield 0xFF00, each

    with answering(held[:-1], all_of_it, counts=counts) as pacs, pytest.raises(StudyIncomplete, match=words):
        found_and_fetched(tmp_path, pacs)


def _stored(association: Any, instance: Dataset) -> tuple[int, bytes]:
    """The context in which an instance is sent, and the command of a C-STORE."""
    sop_class = instance.SOPClassUID
    [number] = [each.context_id for each in association.accepted_contexts if each.abstract_syntax == sop_class]
    command = Dataset()
    command.AffectedSOPClassUID, command.AffectedSOPInstanceUID = sop_class, instance.SOPInstanceUID
    command.CommandField, command.MessageID, command.Priority, command.CommandDataSetType = 1, 1, 0, 0
    return number, encode(command, True, True) or b""


def _p_data(number: int, control: int, data: bytes) -> bytes:
    return struct.pack(">BxIIBB", 4, len(data) + 6, len(data) + 2, number, control) + data


@contextmanager
def over_in_time(over: threading.Event) -> Iterator[None]:
    """A peer that goes on until `over` is told so at the end, and after LONG in any case."""
    limit = threading.Timer(LONG, over.set)
    limit.start()
    try:
        yield
    finally:
        over.set()
        limit.cancel()


def test_an_image_that_trickles_in_ends(tmp_path: Path) -> None:
    held = [dcmread(file) for file in make_study(tmp_path / "files", "A1", kinds={"ct": 1})]
    over = threading.Event()

    def a_few_bytes_at_a_time(event: evt.Event) -> Iterator[int | tuple[int, Dataset | None]]:
        association: Any = event.assoc
        number, data = _stored(association, held[0])
        control = 3
        while not over.wait(0.05):
            association.dul.socket.send(_p_data(number, control, data))
            control, data = 0, b"x"
        yield 0

    with (
        answering(held, a_few_bytes_at_a_time) as pacs,
        over_in_time(over),
        pytest.raises(PacsSilent, match="less than"),
    ):
        found_and_fetched(tmp_path, {**pacs, "response_timeout_seconds": 1})


def test_an_image_that_never_ends_is_ended(tmp_path: Path) -> None:
    """It comes faster than it is read: there is always more of it to take."""
    held = [dcmread(file) for file in make_study(tmp_path / "files", "A1", kinds={"ct": 1})]
    over = threading.Event()

    def without_end(event: evt.Event) -> Iterator[int | tuple[int, Dataset | None]]:
        association: Any = event.assoc
        connection = association.dul.socket.socket
        number, data = _stored(association, held[0])
        more = _p_data(number, 0, bytes(16_000)) * 16
        with suppress(OSError):
            connection.sendall(_p_data(number, 3, data))
            while not over.is_set():
                connection.sendall(more)
        yield 0

    with (
        answering(held, without_end) as pacs,
        over_in_time(over),
        pytest.raises(PacsRefused, match="max_instance_gib"),
    ):
        found_and_fetched(tmp_path, pacs, max_instance_gib=0.05)
