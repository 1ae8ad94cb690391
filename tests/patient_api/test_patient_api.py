"""The patient API's client against a real server on loopback that misbehaves on order."""

from __future__ import annotations

import gzip
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mkiso import patient_api
from mkiso.config.settings import PatientApi
from mkiso.errors import PatientApiUnavailable
from mkiso.patient_api import birth_date_of, look_up
from mkiso.study.models import Patient
from peers.certificates import showing, write_certificates
from peers.dripping import DRIPS, dripping
from peers.patience import LONG

PERSON = {"hn": "HN-1", "name": "Canary^Name", "birth_date": "1970-01-02", "sex": "f"}
KNOWN = Patient("HN-1", "Canary^Name", "19700102", "F")

Answer = Callable[[BaseHTTPRequestHandler], None]


def says(body: Any, status: int = 200, **headers: str) -> Answer:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(encoded)))
        request.end_headers()
        request.wfile.write(encoded)

    return answer


def hangs(request: BaseHTTPRequestHandler) -> None:
    request.rfile.read(1)  # until the client has had enough


def trickles(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(b" ")
        request.wfile.flush()
        time.sleep(0.05)


def closes(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True


@dataclass
class Api:
    """The server: gives `answers` in turn, the last one for ever, and remembers what it was asked."""

    answers: list[Answer] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    port: int = 0
    scheme: str = "http"

    def settings(self, **changes: Any) -> PatientApi:
        return PatientApi.model_validate(
            {"base_url": f"{self.scheme}://127.0.0.1:{self.port}", "timeout_seconds": LONG, "retries": 2, **changes}
        )


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    with serving(monkeypatch) as served:
        yield served


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext | None = None) -> Iterator[Api]:
    monkeypatch.setattr(patient_api, "FIRST_PAUSE_SECONDS", 0.01)
    served = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.paths.append(self.path)
            served.headers.append(dict(self.headers))
            try:
                (served.answers.pop(0) if len(served.answers) > 1 else served.answers[0])(self)
            except OSError:  # the client has had enough
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.port = server.server_port
        if tls:
            server.socket, served.scheme = tls.wrap_socket(server.socket, server_side=True), "https"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        server.shutdown()
        thread.join()


def test_a_patient_is_read_by_the_configured_names(api: Api) -> None:
    api.answers = [says({"id": 12345, "full": "N", "born": "02.01.1970", "gender": "MALE", "more": [1]})]
    fields = {"patient_id": "id", "name": "full", "birth_date": "born", "sex": "gender"}
    assert look_up(api.settings(fields=fields), "A1") == Patient("12345", "N", "19700102", "M")


def test_an_api_is_trusted_by_the_machines_authorities_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its certificate names no Authority Key Identifier, as a hospital's own authority makes them."""
    folder = write_certificates(tmp_path)
    with serving(monkeypatch, showing(folder, "peer")) as api:
        api.answers = [says(PERSON)]
        with pytest.raises(PatientApiUnavailable):
            look_up(api.settings(timeout_seconds=30), "A1")
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        assert look_up(api.settings(timeout_seconds=30), "A1") == KNOWN


def test_no_base_url_means_no_api() -> None:
    assert look_up(PatientApi(), "A1") is None


def test_the_accession_number_is_one_path_segment(api: Api) -> None:
    api.answers = [says(PERSON)]
    assert look_up(api.settings(path="/p/{accession_number}/x"), "A/1 #?%+") == KNOWN
    assert api.paths == ["/p/A%2F1%20%23%3F%25%2B/x"]


def test_unknown_is_none_and_asked_once(api: Api) -> None:
    api.answers = [says({"error": "no"}, 404)]
    assert look_up(api.settings(), "A1") is None
    assert len(api.paths) == 1


@pytest.mark.parametrize(
    "trouble", [says({}, 500), says({}, 503), says({}, 429), says({}, 429, Retry_After="0"), closes, hangs, trickles]
)
def test_trouble_that_passes_is_tried_again(api: Api, trouble: Answer) -> None:
    api.answers = [trouble, trouble, says(PERSON)]
    seconds = 1 if trouble in (hangs, trickles) else LONG
    assert look_up(api.settings(timeout_seconds=seconds), "A1") == KNOWN
    assert len(api.paths) == 3


@pytest.mark.parametrize(
    ("trouble", "said"),
    [(says({}, 500), "answers 500"), (closes, "can't be reached"), (hangs, "within 0.5 s"), (trickles, "within 0.5 s")],
)
def test_trouble_that_stays_is_an_outage(api: Api, trouble: Answer, said: str) -> None:
    api.answers = [trouble]
    with pytest.raises(PatientApiUnavailable, match=said):
        look_up(api.settings(retries=1, timeout_seconds=0.5 if trouble in (hangs, trickles) else LONG), "A1")
    assert len(api.paths) == 2


def test_nobody_listening_is_an_outage(api: Api) -> None:
    with pytest.raises(PatientApiUnavailable, match="can't be reached"):
        look_up(api.settings(base_url="http://127.0.0.1:1", retries=0), "A1")


def test_retry_after_is_waited_for_within_reason(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_api, "MAX_PAUSE_SECONDS", 0.2)
    api.answers = [says({}, 503, Retry_After="3600"), says(PERSON)]
    begun = time.monotonic()
    assert look_up(api.settings(), "A1") == KNOWN
    assert 0.2 <= time.monotonic() - begun < LONG


@pytest.mark.parametrize("status", [400, 401, 403, 410, 204])
def test_a_refusal_is_asked_once(api: Api, status: int) -> None:
    api.answers = [says(b"", status)]
    with pytest.raises(PatientApiUnavailable, match=str(status)):
        look_up(api.settings(), "A1")
    assert len(api.paths) == 1


@pytest.mark.parametrize(
    "target",
    [
        "http://localhost:{port}/elsewhere",
        "http://127.0.0.1:1/elsewhere",
        "//evil.example/x",
        "https://evil.example/x",
        "file:///etc/passwd",
    ],
)
def test_a_redirect_to_another_address_isnt_followed(api: Api, target: str) -> None:
    api.answers = [says(b"", 302, Location=target.format(port=api.port)), says(PERSON)]
    with pytest.raises(PatientApiUnavailable, match="redirects to another address"):
        look_up(api.settings(headers={"X-Api-Key": "s3cret"}), "A1")
    assert len(api.paths) == 1


def test_a_redirect_on_the_same_host_is_followed(api: Api) -> None:
    api.answers = [says(b"", 301, Location="/v2/p/A1"), says(PERSON)]
    assert look_up(api.settings(), "A1") == KNOWN
    assert api.paths[1] == "/v2/p/A1"


def test_redirects_in_a_circle_end(api: Api) -> None:
    api.answers = [says(b"", 302, Location="/again")]
    with pytest.raises(PatientApiUnavailable, match="circle"):
        look_up(api.settings(), "A1")
    assert len(api.paths) == 4


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>Canary^Name</html>", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'"' + b"x" * 300_000 + b'"', "262 kB"),
        ([PERSON], "no JSON object"),
        ("Canary^Name", "no JSON object"),
        ({}, "hn"),
        ({**PERSON, "hn": ""}, "hn"),
        ({**PERSON, "hn": None}, "hn"),
        ({**PERSON, "hn": ["HN-1"]}, "hn"),
        ({**PERSON, "hn": True}, "hn"),
        ({**PERSON, "hn": "9" * 65}, "hn"),
        ({**PERSON, "name": {"Canary": "Name"}}, "name"),
        ({**PERSON, "birth_date": [1970]}, "birth_date"),
    ],
)
def test_an_answer_without_sense_is_an_outage_in_words_without_patient_data(api: Api, body: Any, said: str) -> None:
    api.answers = [says(body)]
    with pytest.raises(PatientApiUnavailable) as refused:
        look_up(api.settings(timeout_seconds=30, headers={"Authorization": "Bearer s3cret"}), "A1")
    assert said in refused.value.words
    assert not any(
        secret in refused.value.words + str(refused.value.details) for secret in ("Canary", "HN-1", "s3cret", "1970")
    )
    assert len(api.paths) == 1


def test_a_compressed_answer_isnt_read(api: Api) -> None:
    """Twice compressed, a few bytes become gigabytes."""
    api.answers = [says(gzip.compress(gzip.compress(bytes(50_000_000))), Content_Encoding="gzip, gzip")]
    with pytest.raises(PatientApiUnavailable, match="compressed"):
        look_up(api.settings(timeout_seconds=5), "A1")
    assert api.headers[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("answer", [hangs, says({}, 503, Retry_After="4")])
def test_it_ends_when_nobody_waits_any_more(api: Api, answer: Answer) -> None:
    api.answers = [answer]
    began = time.monotonic()
    with pytest.raises(PatientApiUnavailable):
        look_up(api.settings(timeout_seconds=LONG, retries=5), "A1", until=began + 1)
    assert time.monotonic() - began < LONG and len(api.paths) == 1
    with pytest.raises(PatientApiUnavailable):
        look_up(api.settings(), "A1", until=began)
    assert len(api.paths) == 1


@pytest.mark.parametrize("what", DRIPS)
def test_an_answer_that_never_begins_or_goes_on_is_no_longer_waited_for(what: str) -> None:
    with dripping(what) as port, pytest.raises(PatientApiUnavailable, match="within 0"):
        address = f"http://127.0.0.1:{port}"
        look_up(PatientApi.model_validate({"base_url": address, "timeout_seconds": 0.3, "retries": 1}), "A1")


def test_secrets_are_sent_and_told_to_nobody(api: Api) -> None:
    api.answers = [says({}, 500)]
    with pytest.raises(PatientApiUnavailable) as refused:
        look_up(api.settings(headers={"X-Api-Key": "s3cret"}, retries=0), "A1")
    assert api.headers[0]["X-Api-Key"] == "s3cret"
    assert "s3cret" not in refused.value.words


def test_missing_members_and_null_are_empty(api: Api) -> None:
    api.answers = [says({"hn": " HN-1 ", "name": None})]
    assert look_up(api.settings(), "A1") == Patient("HN-1")


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("19700102", "19700102"),
        ("1970-01-02", "19700102"),
        ("1970-01-02T00:00:00Z", "19700102"),
        ("1970-01-02 00:00:00", "19700102"),
        ("1970/01/02", "19700102"),
        ("02.01.1970", "19700102"),
        ("03/04/2000", ""),
        ("2513-01-02", ""),  # a year of the Buddhist era
        ("1970-02-30", ""),
        ("", ""),
        ("unknown", ""),
    ],
)
def test_birth_dates(text: str, date: str) -> None:
    assert birth_date_of(text) == date
