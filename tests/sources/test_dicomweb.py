"""DICOMweb: Orthanc's plugin, and a server that does everything wrong that one can."""

from __future__ import annotations

import json
import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydicom import dcmread

from mkiso.config.settings import Receiver, Settings
from mkiso.config.sources import DicomWeb
from mkiso.errors import (
    AnswerCut,
    InstanceConflict,
    JobStopped,
    PacsRefused,
    PacsSilent,
    PacsUnreachable,
    StudyIncomplete,
    StudyNotFound,
)
from mkiso.sources import qido
from mkiso.sources.multipart import Broken, Malformed, Multipart
from mkiso.sources.qido import objects_of
from mkiso.sources.query import find_studies
from mkiso.sources.registry import source_of
from mkiso.sources.retrieve import retrieve
from mkiso.sources.search import Criteria, search
from mkiso.study.models import Arrival
from peers.certificates import https_server, write_certificates
from peers.corpus import EVERY_KIND, JAPANESE, PLAIN, THAI, dataset_bytes, make_study
from peers.dicomweb_server import DicomWebServer
from peers.dripping import DRIPS, dripping
from peers.link import Link
from peers.orthanc import Orthanc
from peers.patience import LONG
from tests.sources.test_source import complete_studies

PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_study(tmp_path_factory.mktemp("files"), "A1", patient=JAPANESE, kinds={"ct": 12, "mr": 5, "sr": 1})


@pytest.fixture
def server(files: list[Path]) -> Iterator[DicomWebServer]:
    with DicomWebServer(files) as server:
        yield server


def by_web(tmp_path: Path, base_url: str, **pacs: Any) -> Settings:
    source = {"kind": "dicomweb", "base_url": base_url, "back_off_seconds": 0.05, "response_timeout_seconds": 10}
    storage = {"data_dir": str(tmp_path / "data"), "min_free_gib": 0}
    return Settings.model_validate({"pacs": {**source, **pacs}, "storage": storage})


def fetched(
    settings: Settings, stop: threading.Event | None = None, on_found: Callable[[], None] = lambda: None
) -> list[Arrival]:
    folder = settings.storage.data_dir / "jobs" / "job" / "instances"
    folder.mkdir(parents=True, exist_ok=True)
    arrivals: list[Arrival] = []
    (study,) = find_studies(source_of(settings), "A1")
    on_found()
    retrieve(source_of(settings), settings.identity, study, folder, [], arrivals.append, stop)
    return arrivals


def are_whole(arrivals: list[Arrival], files: list[Path]) -> bool:
    held = {str(dcmread(file, stop_before_pixels=True).SOPInstanceUID): dataset_bytes(file) for file in files}
    return {arrival.sop_instance_uid: dataset_bytes(arrival.path) for arrival in arrivals} == held


@pytest.mark.peer
def test_orthanc_s_studies_come_byte_for_byte(tmp_path: Path) -> None:
    files = make_study(tmp_path / "files", "A1", patient=THAI, kinds=EVERY_KIND)
    options = {"Plugins": [PLUGIN], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
    with Orthanc(tmp_path / "pacs", options=options) as peer:
        peer.store(files)
        settings = by_web(tmp_path, f"http://127.0.0.1:{peer.http_port}/dicom-web/")
        source = source_of(settings)
        told = source.check(5, inside=True)
        (study,) = search(source, Criteria(patient_id=THAI.patient_id)).studies
        name = "^" if peer.is_old else THAI.name  # its plugin loses what isn't ASCII
        assert (study.patient_name, study.patient_birth_date) == (name, THAI.birth_date)
        assert search(source, Criteria(accession_number="A2")).studies == ()
        peer.store(make_study(tmp_path / "plain", "A3", patient=PLAIN, kinds={"ct": 1}))
        for name in (PLAIN.name[:4], PLAIN.name.replace("^", " ")):
            assert [each.accession_number for each in search(source, Criteria(patient_name=name)).studies] == ["A3"]
        studies = complete_studies(source, tmp_path)
        with pytest.raises(StudyNotFound):
            find_studies(source, "A2")
    assert f"at 127.0.0.1:{peer.http_port} answers QIDO-RS" in told
    assert are_whole([each.arrival for each in studies.instances], files)
    assert len({each.arrival.transfer_syntax_uid for each in studies.instances}) > 3


def test_a_study_comes_whole(tmp_path: Path, server: DicomWebServer, files: list[Path]) -> None:
    assert are_whole(fetched(by_web(tmp_path, server.base_url)), files)
    assert set(server.sent.values()) == {1}


@pytest.mark.parametrize("seed", range(50))
def test_a_stream_that_is_cut_anywhere_goes_on_at_the_instance(
    tmp_path: Path, server: DicomWebServer, files: list[Path], seed: int
) -> None:
    """No byte comes twice but those of the instance that was cut."""
    size = sum(file.stat().st_size for file in files)
    server.cuts = [random.Random(seed).randrange(size)]
    server.with_length = seed % 2 == 0
    assert are_whole(fetched(by_web(tmp_path, server.base_url)), files)
    assert set(server.sent.values()) == {1}


def test_what_never_comes_whole_is_named(tmp_path: Path, server: DicomWebServer) -> None:
    server.cuts = [0] * 1000
    with pytest.raises(StudyIncomplete, match="18 of the 18"):
        fetched(by_web(tmp_path, server.base_url))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("boundary", "another boundary"),
        ("endless", "without end"),
        ("redirect", "leads to another place"),
        ("large", "larger than receiver.max_instance_gib"),
    ],
)
def test_a_hostile_server_is_refused_in_words(tmp_path: Path, server: DicomWebServer, wrong: str, words: str) -> None:
    settings = by_web(tmp_path, server.base_url)
    settings = settings.model_copy(update={"receiver": Receiver(max_instance_gib=0.01)})
    with pytest.raises(PacsRefused, match=words):
        retrieved_wrongly(settings, server, wrong)


def test_headers_without_end_are_no_answer(tmp_path: Path, server: DicomWebServer) -> None:
    with pytest.raises(StudyIncomplete, match="18 of the 18"):
        retrieved_wrongly(by_web(tmp_path, server.base_url), server, "headers")


def retrieved_wrongly(settings: Settings, server: DicomWebServer, wrong: str) -> None:
    """The server does wrong from the moment at which the study is found."""
    source = source_of(settings)
    (study,) = find_studies(source, "A1")
    server.wrong = wrong
    folder = settings.storage.data_dir / "jobs" / "job" / "instances"
    folder.mkdir(parents=True)
    retrieve(source, settings.identity, study, folder, [], lambda arrival: None)


def test_an_instance_that_nobody_asked_for_isnt_kept(tmp_path: Path, server: DicomWebServer, files: list[Path]) -> None:
    """The server sends, in the place of one instance, one of another study and patient under its own UID."""
    (other,) = make_study(tmp_path / "other", "B1", patient=PLAIN, kinds={"ct": 1})
    server.held[3] = (other.read_bytes(), server.held[3][1])
    settings = by_web(tmp_path, server.base_url)
    with pytest.raises(StudyIncomplete, match="1 of the 18"):
        fetched(settings)
    assert len(list((settings.storage.data_dir / "jobs" / "job" / "instances").iterdir())) == 17


def test_other_bytes_under_a_uid_are_a_conflict(tmp_path: Path, server: DicomWebServer) -> None:
    content, head = server.held[3]
    server.held.append((content[:-2] + b"\x7f\x7f", head))
    with pytest.raises(InstanceConflict):
        fetched(by_web(tmp_path, server.base_url))


@pytest.mark.parametrize("page", [1, 4, 5])
def test_answers_come_page_by_page_however_short_they_are(
    tmp_path: Path, server: DicomWebServer, files: list[Path], page: int
) -> None:
    server.page = page
    (study,) = find_studies(source_of(by_web(tmp_path, server.base_url)), "A1")
    assert study.expected.source == "image" and study.expected.count == len(files)


def test_a_server_that_gives_one_page_alone_isnt_believed(tmp_path: Path, server: DicomWebServer) -> None:
    server.page, server.same_page = 1, True
    with pytest.raises(AnswerCut):
        find_studies(source_of(by_web(tmp_path, server.base_url)), "A1")


@pytest.mark.parametrize("shares", [[0], [0.5], [1, 0], [1, 0.5], [1, 1, 0], [1, 1, 1, 0, 1], [1, 1, 1, 1, 1, 0]])
def test_an_answer_that_a_relay_cuts_and_ends_in_order_is_none(
    tmp_path: Path, server: DicomWebServer, shares: list[float]
) -> None:
    """Else one of two patients of an accession number would be all that there is."""
    (other,) = make_study(tmp_path / "other", "A1", patient=PLAIN, kinds={"ct": 1})
    server.held.append((other.read_bytes(), dcmread(other, stop_before_pixels=True)))
    server.page, server.shares = 1, shares
    with pytest.raises(PacsUnreachable, match="has no end"):
        find_studies(source_of(by_web(tmp_path, server.base_url)), "A1")


def test_an_answer_that_ends_within_a_letter_has_no_end(tmp_path: Path) -> None:
    source = by_web(tmp_path, "http://127.0.0.1:9").pacs
    assert isinstance(source, DicomWeb)
    with pytest.raises(PacsUnreachable, match="has no end"):
        list(qido._read(iter(['[{"00100010": {"vr": "PN", "Value": [{"Alphabetic": "ก'.encode()[:-1]]), source))


@pytest.mark.parametrize("status", [502, 504])
def test_a_server_that_is_away_behind_its_proxy_isnt_reached(
    tmp_path: Path, server: DicomWebServer, files: list[Path], status: int
) -> None:
    """Nothing in the settings is wrong, and another source may have the study."""
    source = source_of(by_web(tmp_path, server.base_url))
    for ask in (lambda: find_studies(source, "A1"), lambda: source.check(5)):
        server.statuses = [status]
        with pytest.raises(PacsUnreachable, match=f"the proxy before it .HTTP {status}"):
            ask()
    settings = by_web(tmp_path, server.base_url)
    assert are_whole(fetched(settings, on_found=lambda: server.statuses.append(status)), files)
    granting = {"token_url": f"http://127.0.0.1:{server.port}/token", "user": "mkiso", "secret": "x"}
    server.statuses = [status]
    with pytest.raises(PacsUnreachable, match=f"The token server .* answers with HTTP {status}"):
        find_studies(source_of(by_web(tmp_path, server.base_url, **granting)), "A1")


def test_the_token_is_read_anew_from_its_file(tmp_path: Path, server: DicomWebServer) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    server.token = "first"
    source = source_of(by_web(tmp_path, server.base_url, secret_file=str(file)))
    assert find_studies(source, "A1")
    server.token = "second"
    with pytest.raises(PacsRefused, match="refuses us"):
        find_studies(source, "A1")
    file.write_text("second\n")
    assert find_studies(source, "A1")


def test_a_token_is_had_by_client_credentials_and_kept(tmp_path: Path, server: DicomWebServer) -> None:
    server.token = "granted"
    url = f"http://127.0.0.1:{server.port}/token"
    settings = by_web(tmp_path, server.base_url, token_url=url, user="mkiso", secret="x", scope="read")
    assert find_studies(source_of(settings), "A1")
    assert server.told == ["Basic bWtpc286eA== grant_type=client_credentials&scope=read"]


@pytest.mark.parametrize("body", [b"[" * 60_000, b'{"access_token": "x", "expires_in": 1%s}' % (b"0" * 400), b"[]"])
def test_what_is_no_token_is_refused(tmp_path: Path, server: DicomWebServer, body: bytes) -> None:
    server.body = body
    url = f"http://127.0.0.1:{server.port}/token"
    settings = by_web(tmp_path, server.base_url, token_url=url, user="mkiso", secret="x")
    with pytest.raises(PacsRefused, match="gives no token"):
        find_studies(source_of(settings), "A1")


@pytest.mark.parametrize("parameter", ["until", "token_url"])
def test_an_answer_byte_by_byte_ends_in_time(tmp_path: Path, server: DicomWebServer, parameter: str) -> None:
    """It would take an hour; none of its reads takes long."""
    server.wrong, server.body = "slow", b"[%s]" % (b" " * 72_000)
    url = f"http://127.0.0.1:{server.port}/token"
    named = {"token_url": url, "user": "mkiso", "secret": "x"} if parameter == "token_url" else {}
    settings = by_web(tmp_path, server.base_url, response_timeout_seconds=5, **named)
    begun = time.monotonic()
    with pytest.raises(PacsSilent, match="takes too long"):
        search(source_of(settings, until=begun + 5), Criteria(accession_number="A1"))
    assert time.monotonic() - begun < LONG


@pytest.mark.parametrize("what", DRIPS)
def test_an_answer_that_never_begins_or_goes_on_is_no_longer_waited_for(tmp_path: Path, what: str) -> None:
    with dripping(what) as port, pytest.raises((PacsSilent, PacsUnreachable)):
        settings = by_web(tmp_path, f"http://127.0.0.1:{port}", response_timeout_seconds=0.5, connect_timeout_seconds=1)
        search(source_of(settings), Criteria(accession_number="A1"))
    with dripping(what) as port, pytest.raises((PacsSilent, PacsUnreachable)):
        granting = {"token_url": f"http://127.0.0.1:{port}/token", "user": "mkiso", "secret": "x"}
        settings = by_web(tmp_path, "http://127.0.0.1:1", response_timeout_seconds=0.5, **granting)
        search(source_of(settings), Criteria(accession_number="A1"))


def test_half_a_surrogate_pair_is_no_text(tmp_path: Path, server: DicomWebServer) -> None:
    for _, head in server.held:
        head.StudyDescription = "CT \ud800"
    (study,) = find_studies(source_of(by_web(tmp_path, server.base_url)), "A1")
    assert study.study_description == "CT ?"


def test_basic_names_user_and_password(tmp_path: Path, server: DicomWebServer) -> None:
    server.token = "something else"
    with pytest.raises(PacsRefused, match="refuses us"):
        find_studies(source_of(by_web(tmp_path, server.base_url, user="mkiso", secret="x")), "A1")
    assert server.told == ["Basic bWtpc286eA=="]


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_a_stranger_s_certificate_is_refused_however_the_address_is_written(tmp_path: Path, scheme: str) -> None:
    with (
        https_server(write_certificates(tmp_path), "peer") as port,
        pytest.raises(PacsRefused, match="certificate"),
    ):
        fetched(by_web(tmp_path, f"{scheme}://127.0.0.1:{port}/dicom-web"))


def test_a_stop_ends_it_at_once(tmp_path: Path, server: DicomWebServer) -> None:
    stop = threading.Event()
    server.wrong = "slow"
    timer = threading.Timer(0.5, stop.set)
    timer.start()
    begun = time.monotonic()
    with pytest.raises(JobStopped):
        fetched(by_web(tmp_path, server.base_url, response_timeout_seconds=3600), stop)
    assert time.monotonic() - begun < LONG


@pytest.mark.parametrize("silent", ["server", "token server"])
def test_a_stop_ends_the_wait_for_an_answer_that_hasn_t_begun(
    tmp_path: Path, server: DicomWebServer, silent: str
) -> None:
    stop = threading.Event()
    server.token = "granted"
    with Link(server.port) as link:

        def begin() -> None:
            link.hush()
            threading.Timer(0.5, stop.set).start()

        ports = {"server": server.port, "token server": server.port, silent: link.port}
        base_url = server.base_url.replace(str(server.port), str(ports["server"]))
        token = {"token_url": f"http://127.0.0.1:{ports['token server']}/token", "user": "mkiso", "secret": "x"}
        begun = time.monotonic()
        with pytest.raises(JobStopped):
            fetched(by_web(tmp_path, base_url, response_timeout_seconds=10 * LONG, **token), stop, begin)
        assert time.monotonic() - begun < LONG


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "pacs.example.org"},
        {"base_url": "https://user:x@pacs.example.org/"},
        {"base_url": "http://pacs.example.org/", "secret": "x"},
        {"base_url": "https://pacs.example.org/", "user": "x"},
        {"base_url": "https://pacs.example.org/", "token_url": "https://pacs.example.org/", "secret": "x"},
        {"base_url": "https://pacs.example.org/", "token_url": "http://idp.example.org/", "user": "x", "secret": "x"},
        {"base_url": "https://pacs.example.org/", "key": "key.pem"},
    ],
)
def test_what_cant_be_asked_isnt_configured(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        by_web(tmp_path, **wrong)


def parts_of(stream: bytes, size: int) -> list[bytes]:
    chunks = (stream[start : start + size] for start in range(0, len(stream), size))
    parts = Multipart(chunks, b"x")
    found = []
    while parts.next_part() is not None:
        found.append(b"".join(parts.pieces()))
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_parts_are_found_however_the_stream_is_cut_up(size: int) -> None:
    contents = [b"one", b"\r\n--", b"\r\n-\r\n--\r\r\n", b"two\r\n"]
    stream = b"preamble" + b"".join(b"\r\n--x\r\nA: b\r\n\r\n" + content for content in contents) + b"\r\n--x--"
    assert parts_of(stream, size) == contents
    assert parts_of(stream.removeprefix(b"preamble\r\n"), size) == contents
    for end in range(len(stream) - 2):
        with pytest.raises(Broken):
            parts_of(stream[:end], size)


@pytest.mark.parametrize("after", [b"y\r\n", b"--"])
@pytest.mark.parametrize("length", [b"", b"Content-Length: 4", b"Content-Length: 2"])
def test_a_part_is_whole_only_where_its_delimiter_and_its_length_say_so(after: bytes, length: bytes) -> None:
    """What is stored when its pieces have ended can't be taken back."""
    parts = Multipart(iter([b"--x\r\n" + length + b"\r\n" * bool(length) + b"\r\none\r\n--x" + after]), b"x")
    parts.next_part()
    if after == b"--" and not length:
        assert list(parts.pieces()) == [b"one"]
        return
    with pytest.raises((Malformed, Broken)):
        list(parts.pieces())


@pytest.mark.parametrize(
    "stream", [b"--x\r\nno field\r\n\r\n", b"--xy\r\n\r\n", b"--x\r\n" + b"A: b\r\n" * 10_000, b"." * 100_000]
)
def test_what_is_no_multipart_stream_is_refused(stream: bytes) -> None:
    with pytest.raises((Malformed, Broken)):
        parts_of(stream + b"." * 200_000, 1000)


def test_a_large_part_takes_no_memory() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"--x\r\n\r\n"
        for _ in range(10_000):
            yield bytes(65_536)
        yield b"\r\n--x--"

    parts = Multipart(chunks(), b"x")
    tracemalloc.start()
    parts.next_part()
    assert sum(map(len, parts.pieces())) == 10_000 * 65_536
    assert parts.next_part() is None
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@given(
    found=st.lists(
        st.dictionaries(st.text(max_size=9), st.recursive(st.text() | st.integers(), st.lists, max_leaves=9))
    ),
    indent=st.sampled_from([None, 0, 3]),
    size=st.sampled_from([1, 2, 7, 100_000]),
)
def test_objects_of_an_array_are_those_that_json_has(
    found: list[dict[str, Any]], indent: int | None, size: int
) -> None:
    """However it is cut into pieces."""
    text = f" {json.dumps(found, indent=indent)}\n"
    assert list(objects_of(text[at : at + size] for at in range(0, len(text), size))) == found


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[",
        "[{}",
        "[{},",
        "[{},]",
        "[{}}",
        "[{}] x",
        "[1]",
        "[{}, 1]",
        "[[]]",
        "null",
        '[{"a": 1} {}]',
        "[{},,{}]",
        "",
        '[{"a": 1}, {"b": [1]',
    ],
)
def test_what_is_no_array_of_objects_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        list(objects_of(text))


def test_many_small_objects_take_no_memory_together() -> None:
    text = f"[{'{},' * 50_000}{{}}]"
    tracemalloc.start()
    assert sum(1 for _ in objects_of([text])) == 50_001
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_one_large_object_is_refused_before_it_takes_memory() -> None:
    text = f'[{{"00100010": [{"{}," * 20_000_000}{{}}]}}]'
    tracemalloc.start()
    with pytest.raises(ValueError):
        list(objects_of([text]))
    assert tracemalloc.get_traced_memory()[1] < 100_000_000
    tracemalloc.stop()
