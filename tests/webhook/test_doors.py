"""Who gets in and what gets out: keys, sessions, errors, request ids, logs, health, metrics, slow clients, the end of
the service.
"""

import json
import logging
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from mkiso.config.publishers import CStore
from mkiso.config.settings import Settings
from mkiso.study.question import Question
from mkiso_service.log_lines import JsonLines
from mkiso_service.prefect.orchestrator import Standing
from mkiso_service.webhook import health, middleware, server
from mkiso_service.webhook.access.onward import MAX_ADDRESS, folded, own_address, unfolded
from mkiso_service.webhook.counter import signing_in
from mkiso_service.webhook.discs import disc_bytes
from peers.patience import LONG, until
from peers.ports import free_port, is_open
from peers.small_disk import share
from tests.webhook.desk import KEY, Desk, Scripts, served, settings_in

GUARDED = [
    "/api/iso/download?accession_number=A",
    "/api/iso/download-multiple?accession_numbers=A,B",
    "/api/iso/print?accession_number=A",
    "/api/iso/jobs/x",
    "/api/iso/jobs/x/disc",
    "/api/iso",
    "/api/iso/",
    "/api/iso/nothing",
    "/api/studies?patient_id=A",
    "/api/studies",
    "/api/studies/",
    "/api%2Fstudies?patient_id=A",
    "/api%2Fiso/download?accession_number=A",
]
OPEN = ["/", "/api/health", "/api/openapi.json", "/metrics", "/page/counter.css"]


@pytest.fixture(scope="module")
def locked_desk() -> Desk:
    return Desk()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, locked_desk: Desk) -> Iterator[httpx.Client]:
    with served(settings_in(tmp_path_factory.mktemp("locked"), auth=True), locked_desk) as client:
        yield client


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("X-API-Key", "wrong")],
        [("X-API-Key", "")],
        [("X-API-Key", KEY), ("X-API-Key", KEY)],
        [("X-API-Key", KEY + " x")],
        [("Authorization", f"Bearer {KEY}")],
        [("X_API_Key", KEY)],
        [("Cookie", f"mkiso_session={KEY}")],
    ],
)
def test_no_key_no_answer(
    locked: httpx.Client, locked_desk: Desk, path: str, method: str, headers: list[tuple[str, str]]
) -> None:
    answer = locked.request(method, path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("X-API-Key")
    if method != "HEAD":
        assert answer.json()["code"] == "unauthorized"
    assert locked_desk.asked == []


@pytest.mark.parametrize(
    ("address", "leads"),
    [
        ("/api/iso/made?since=2026-01-01T00:00:00%2B01:00", True),
        ("/api/iso/download?accession_number=A%201&birth_date=1970-01-31", True),
        ("/api/../session", True),  # a browser makes /session of it, at this host
        ("/", False),
        ("", False),
        ("//evil.example", False),
        ("//evil.example/api/iso", False),
        ("\\\\evil.example", False),
        ("/\\evil.example", False),
        ("/api\\evil.example", False),
        ("/api/\\evil.example", False),
        ("%2f%2fevil.example", False),
        ("/%2fevil.example", False),
        ("/%5cevil.example", False),
        ("https://evil.example/api/", False),
        ("https:/api/", False),
        ("javascript:alert(1)//api/", False),
        (" //evil.example", False),
        ("\t/api/", False),
        ("/api/\r\nSet-Cookie: a=b", False),
        ("/api/\0", False),
        ("/api/ä", False),
        ("/api/a b", False),
        ("@evil.example/api/", False),
        (".evil.example/api/", False),
        ("/api/" + "x" * MAX_ADDRESS, False),
    ],
)
def test_a_sign_in_leads_back_to_an_address_of_our_own_alone(
    locked: httpx.Client, monkeypatch: pytest.MonkeyPatch, address: str, leads: bool
) -> None:
    monkeypatch.setattr(signing_in, "WRONG_KEY_SECONDS", 0.0)
    led = address if leads else "/"
    assert own_address(address) == unfolded(folded(address)) == led
    told = {"to": address}
    signed = locked.post("/session", params=told, data={"key": KEY})
    onward = (signed.status_code, signed.headers.get("location"), signed.headers.get("refresh"))
    assert onward == ((200, None, f"0; url={led}") if leads else (303, "/", None))  # a redirect to a disc shows no page
    assert ('<a href="/">Patient discs</a>' in signed.text) == leads  # where the disc that came leaves somebody
    session = {"Cookie": signed.headers["set-cookie"].partition(";")[0]}
    locked.cookies.clear()
    answer = locked.get("/", params=told, headers=session)
    assert (answer.status_code, answer.headers.get("location")) == ((303, led) if leads else (200, None))
    for page in (locked.get("/", params=told), locked.post("/session", params=told, data={"key": "wrong"})):
        assert (f'action="/session?{urlencode(told)}"' in page.text) == leads
        assert leads or "evil" not in page.text


@pytest.mark.parametrize("query", ["to=/api/a&to=/api/b", "to=%ff", "to", "&" * 100 + "to=/api/a", "to=%E0%80%AF"])
def test_an_address_that_cant_be_read_leads_nowhere(locked: httpx.Client, query: str) -> None:
    signed = locked.post(f"/session?{query}", data={"key": KEY})
    locked.cookies.clear()
    assert signed.headers["location"] == "/"


def test_a_link_without_a_session_says_where_the_sign_in_leads(locked: httpx.Client) -> None:
    shown = {"Accept": "text/html", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    page = locked.get("/api/iso/print?accession_number=A%201&publisher=x", headers=shown)
    assert page.status_code == 401
    assert 'href="/?to=%2Fapi%2Fiso%2Fprint%3Faccession_number%3DA%25201%26publisher%3Dx"' in page.text
    assert 'href="/"' in locked.get(f"/api/iso/made?{'x' * MAX_ADDRESS}", headers=shown).text


@pytest.mark.parametrize("path", [*GUARDED, "/api/iso/jobs", "/api/iso/made", "/api/keys", "/api/health", "/nowhere"])
def test_a_prompt_stands_on_a_line_of_its_own(locked: httpx.Client, path: str) -> None:
    for headers in ({}, {"X-API-Key": KEY, "Prefer": "respond-async"}):
        answer = locked.get(path, headers=headers)
        assert answer.headers["content-type"] == "application/json" and answer.content.endswith(b"}\n")


@pytest.mark.parametrize("path", OPEN)
def test_what_is_public(locked: httpx.Client, path: str) -> None:
    assert locked.get(path).status_code == 200


def test_the_right_key(locked: httpx.Client) -> None:
    assert locked.get("/api/iso/jobs/x", headers={"X-API-Key": KEY}).status_code == 404


def test_the_page_signs_in_for_itself(locked: httpx.Client) -> None:
    page = locked.get("/")
    assert 'name="key"' in page.text and KEY not in page.text
    assert locked.post("/session", data={"key": "wrong"}).status_code == 401
    assert locked.post("/session", data={"key": KEY}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 400
    assert (
        locked.post("/session", data={"key": KEY}, headers={"Origin": "https://elsewhere.example"}).status_code == 400
    )
    assert locked.post("/session", content=b"key=" + b"x" * 5000).status_code == 400
    signed = locked.post("/session", data={"key": KEY})
    assert (signed.status_code, signed.headers["location"]) == (303, "/")
    cookie = signed.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and KEY not in cookie
    locked.cookies.clear()
    session = {"Cookie": cookie.partition(";")[0]}
    assert 'id="numbers"' in locked.get("/", headers=session).text
    assert locked.get("/api/iso/jobs/x", headers=session).status_code == 404
    assert locked.get("/api/iso/jobs/x", headers={**session, "Sec-Fetch-Site": "cross-site"}).status_code == 401
    assert locked.get("/api/iso/jobs/x", headers={**session, "X-API-Key": "wrong"}).status_code == 401
    assert "max-age=0" in locked.post("/session/end", headers=session).headers["set-cookie"].lower()
    assert (
        "secure"
        in locked.post("/session", data={"key": KEY}, headers={"X-Forwarded-Proto": "https"})
        .headers["set-cookie"]
        .lower()
    )
    locked.cookies.clear()


def test_the_page_lets_nothing_else_in(client: httpx.Client) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert not re.search(r"https?://|<script(?! src=)|style=|\son\w+=", page.text)
    for address in re.findall(r'(?:src|href)="(/page/[^"]+)"', page.text):
        assert client.get(address).status_code == 200
    for path in ("/page/..%2fapp.py", "/page/%2e%2e/app.py", "/page/app.py", "/page/counter", "/page/"):
        assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "",
        "accession_number=",
        "accession_number=%20",
        "accession_number=*",
        "accession_number=A%5CB",
        "accession_number=%252A",
        "accession_number=A&accession_number=B",
        "accession_number=%0d%0aSet-Cookie:a",
        "accession_number=" + "1" * 17,
        "accession_number=%EF%BC%8A",
        "accession_number=A&part=0",
    ],
)
def test_a_bad_question_is_400_and_asks_nobody(client: httpx.Client, desk: Desk, query: str) -> None:
    answer = client.get(f"/api/iso/download?{query}")
    assert answer.status_code == 400
    assert {"error", "code", "request_id"} <= set(answer.json())
    assert desk.asked == []


def test_every_error_is_json(client: httpx.Client, desk: Desk) -> None:
    assert client.get("/api/iso/download?" + "a" * 40_000).status_code == 414
    nothing = client.get("/nothing")
    assert (nothing.status_code, nothing.json()["code"]) == (404, "not_found")
    wrong = client.post("/api/iso/download?accession_number=A")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in wrong.headers["allow"]
    for answer in (nothing, wrong):
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_an_unexpected_error_says_nothing_of_its_text(
    client: httpx.Client, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(job_id: str, question: Question) -> Standing:
        raise RuntimeError("CANARY^PATIENT")

    desk.script = broken
    with caplog.at_level(logging.DEBUG):
        answer = client.get("/api/iso/download?accession_number=A", headers={"X-Request-ID": "r-1"})
    assert (answer.status_code, answer.json()["code"], answer.json()["request_id"]) == (500, "internal_error", "r-1")
    assert answer.headers["x-request-id"] == "r-1"
    written = "\n".join(JsonLines().format(record) for record in caplog.records)
    assert "CANARY" not in written + answer.text and "RuntimeError" in written and "broken" in written


def test_the_log_has_one_honest_line_a_request(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mkiso.webhook"):
        client.get(
            "/api/iso/download?accession_number=A7&name=CANARY",
            headers={"X-API-Key": "CANARY", "X-Request-ID": 'x","level":"CANARY'},
        )
        client.get("/a%0a%7b%22level%22%3a1%7d")
        # a line is written after its answer's last byte
        until(lambda: sum(record.getMessage() == "request" for record in caplog.records) >= 2)
    lines = [JsonLines().format(record) for record in caplog.records if record.getMessage() == "request"]
    assert len(lines) == 2 and all(len(line.splitlines()) == 1 for line in lines)
    told = json.loads(lines[0])
    assert (told["path"], told["status"], told["bytes"], told["accession_numbers"]) == (
        "/api/iso/download",
        200,
        37773,
        ["A7"],
    )
    assert re.fullmatch("[0-9a-f]{32}", told["request_id"]) and told["job_id"]
    assert "CANARY" not in "".join(lines)


def test_what_is_no_http_is_told_so_in_json(client: httpx.Client) -> None:
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        head, _, body = _raw(client, garbage).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        told = json.loads(body if b"chunked" not in head else body.split(b"\r\n")[1])
        assert told["code"] == "invalid_http" and told["request_id"].encode() in head


@pytest.mark.parametrize("ending", ["%0A", "%0D", "%00", "%7F", "/", "//", "%20"])
@pytest.mark.parametrize("path", ["/metrics", "/api/health", "/api/iso/print", "/session", "/page/disc.svg"])
def test_an_address_is_that_address_alone(client: httpx.Client, desk: Desk, path: str, ending: str) -> None:
    """A proxy's rule for /metrics doesn't know /metrics%0A, and a router's pattern may."""
    answer = client.get(f"{path}{ending}", params={"accession_number": "A1"})
    assert (answer.status_code, answer.json()["code"], "location" in answer.headers) == (404, "not_found", False)
    assert not desk.asked


def test_header_injection(client: httpx.Client, desk: Desk) -> None:
    raw = _raw(client, b"GET /api/health HTTP/1.1\r\nHost: x\r\nX-Request-ID: a\rb\r\nConnection: close\r\n\r\n")
    assert raw.startswith((b"HTTP/1.1 400", b"HTTP/1.1 200")) and b"a\rb" not in raw
    two_lengths = (
        b"GET /api/health HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    answer = _raw(client, two_lengths + b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400") and b"mkiso_discs" not in answer


ROBOTS = [f"robot{number}" for number in range(12)]


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A server that takes connections and never answers; the time limits of those who ask are too long to matter."""
    monkeypatch.setattr("mkiso.publishers.dicom.ECHO_LIMIT_SECONDS", 10 * LONG)
    with socket.create_server(("127.0.0.1", 0)) as server_:
        yield server_


def all_silent(folder: Path, silent: socket.socket) -> Settings:
    """What mkiso depends on beyond itself, all of it `silent`, but for one robot that isn't there."""
    port, settings = silent.getsockname()[1], settings_in(folder)
    slow = {"connect_timeout_seconds": 10 * LONG, "response_timeout_seconds": 10 * LONG}
    robots = {name: CStore(port=port, **slow) for name in ROBOTS}
    return settings.model_copy(
        update={
            "pacs": settings.pacs.model_copy(update={"port": port, **slow}),
            "patient_api": settings.patient_api.model_copy(update={"base_url": f"http://127.0.0.1:{port}"}),
            "publishers": {"other": CStore(port=free_port()), **robots},
        }
    )


def test_health_asks_all_at_once_and_names_what_is_wrong(
    tmp_path: Path, silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "ANSWER_SECONDS", 10 * LONG)
    monkeypatch.setattr(health, "KEPT_SECONDS", dict.fromkeys((True, False), 10 * LONG))
    address = silent.getsockname()
    answers: list[httpx.Response] = []
    with served(all_silent(tmp_path, silent), Desk()) as client:
        asking = threading.Thread(target=lambda: answers.append(client.get("/api/health")))
        asking.start()
        until(lambda: _held_by(address[1]) == len(("pacs", "patient_api", *ROBOTS)))
        silent.close()  # which breaks them off
        asking.join()
        told = answers[0].json()
        assert (answers[0].status_code, told["status"]) == (200, "degraded")
        assert set(told["degraded"]) == {
            *("pacs", "receiver", "patient_api", "publisher:other"),
            *(f"publisher:{name}" for name in ROBOTS),
        }
        assert all(told["dependencies"][name]["ok"] for name in ("prefect", "worker", "disk", "processes"))
        with socket.create_server(address):  # who is asked again connects
            for _ in range(2 * len(ROBOTS)):
                assert client.get("/api/health").json() == told
            assert _held_by(address[1]) == 0


def test_health_waits_no_longer_than_its_answer_may_take(tmp_path: Path, silent: socket.socket) -> None:
    assert health.ANSWER_SECONDS < 2
    with served(all_silent(tmp_path, silent), Desk()) as client:
        told = client.get("/api/health").json()["dependencies"]
        assert all("no answer" in told[f"publisher:{name}"]["detail"] for name in ROBOTS)
        silent.close()


def _held_by(port: int, *, theirs: bool = False) -> int:
    """How many local connections are open at the end that has this port, or at the other one (/proc/net/tcp: state
    01).
    """
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(fields[2 if theirs else 1].endswith(f":{port:04X}") and fields[3] == "01" for fields in lines)


def test_health_tells_of_a_process_that_is_restarted(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    ended = [time.time()]
    states = {"worker": {"up": False, "pid": None, "ended": ended}, "receiver": {"up": True, "pid": 1, "ended": []}}
    (tmp_path / "processes.json").write_text(json.dumps(states))
    with served(settings, Desk()) as client:
        told = client.get("/api/health").json()
    assert told["dependencies"]["processes"] == {"ok": False, "detail": "Being restarted: worker."}


@pytest.mark.parametrize("ends", [2, 5])
def test_health_tells_of_a_process_that_ends_again_and_again(tmp_path: Path, ends: int) -> None:
    """It is up whenever somebody looks, and does nothing for anybody."""
    states = {"worker": {"up": True, "pid": os.getpid(), "restarts": ends, "ended": [time.time() - 100] * ends}}
    (tmp_path / "processes.json").write_text(json.dumps(states))
    with served(settings_in(tmp_path), Desk()) as client:
        told = client.get("/api/health").json()["dependencies"]["processes"]
    assert told["ok"] == (ends < 3)
    assert (f"worker {ends}" if told["ok"] else "The worker ended 5 times") in told["detail"]


def test_metrics(client: httpx.Client, desk: Desk) -> None:
    client.get("/api/iso/download?accession_number=A")
    client.get("/api/iso/jobs/x")
    text = client.get("/metrics").text
    for line in (
        'mkiso_http_requests_total{method="GET",route="/api/iso/jobs/{job_id}",status="404"}',
        "mkiso_discs 1.0",
        "mkiso_jobs_queued 0.0",
        'mkiso_jobs{code="",kind="download",status="done"} 1.0',
        "mkiso_storage_free_bytes ",
        "mkiso_orchestrator_up 1.0",
    ):
        assert line in text
    desk.down = True
    assert "mkiso_orchestrator_up 0.0" in client.get("/metrics").text


NASTY = {  # what a regular expression, http.cookies or a conversion may choke on; nginx lets 36 KB of it through
    "Prefer": ["a=", " ", '"'],
    "Cookie": ['mkiso_session="', "\\", '"'],
    "Range": ["bytes=", "0-1,", ""],
    "If-None-Match": ["", 'W/"a', ""],
    "If-Match": ["", '"', "x"],
    "Accept": ["", "text/html;q=", ""],
    "Origin": ["http://", "[", ""],
    "Referer": ["http://", "a:", "@"],
    "Sec-Purpose": ["", "prefetc", ""],
    "X-Forwarded-For": ["", "127.0.0.1,", ""],
    "X-Request-ID": ["", "a-", "!"],
}


@pytest.mark.parametrize("name", NASTY)
def test_no_header_keeps_another_client_waiting(client: httpx.Client, desk: Desk, name: str) -> None:
    begin, repeated, end = NASTY[name]
    value = begin + repeated * (34_000 // len(repeated)) + end
    page = client.get("/").headers  # another client, whose connection is there already
    paths = (GUARDED[0], "/", "/api/iso/jobs/x")
    asked = [threading.Thread(target=_ask, args=(client.base_url, path, {name: value})) for path in paths]
    began = time.process_time()  # of this process, in which the webhook runs: a busy machine changes nothing
    for each in asked:
        each.start()
    while any(each.is_alive() for each in asked):
        assert client.get("/page/disc.svg").status_code == 200
        assert time.process_time() - began < 20, f"{name} is read for too long"  # it took minutes
    assert page["content-type"].startswith("text/html")


def _ask(base_url: httpx.URL, path: str, headers: dict[str, str]) -> None:
    with httpx.Client(base_url=base_url, timeout=LONG, trust_env=False) as other:
        assert other.get(path, headers=headers).status_code < 500


@pytest.mark.parametrize("end", [b"", b"5;a=b\nc\r\nabcde\r\n"])
def test_a_form_that_breaks_off_is_no_error_of_ours(
    client: httpx.Client, desk: Desk, caplog: pytest.LogCaptureFixture, end: bytes
) -> None:
    """Anybody could fill the log with errors, and /metrics with answers of 500."""
    caplog.set_level("INFO")
    begun = b"POST /api/iso/print HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port)) as sender:
        sender.sendall(begun + end)
    told = until(lambda: [record for record in caplog.records if getattr(record, "path", "") == "/api/iso/print"])
    assert [record.status for record in told] == [499]
    assert not [record for record in caplog.records if record.levelname == "ERROR"] and not desk.asked


def test_200_slow_clients_keep_nobody_waiting(
    client: httpx.Client, desk: Desk, scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 1.5)
    monkeypatch.setattr(disc_bytes, "STALL_SECONDS", 10 * LONG)
    content = bytes(4_000_000)
    desk.script = lambda job_id, question: scripts.done(job_id, question, content=content)
    address = client.get("/api/iso/download?accession_number=A").headers["content-location"].encode()
    host = (client.base_url.host, client.base_url.port)
    readers = [socket.create_connection(host) for _ in range(100)]
    for reader in readers:  # they ask, and then read a byte at a time
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.sendall(b"GET " + address + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    senders = [socket.create_connection(host) for _ in range(100)]
    for sender in senders:  # they never end their header
        sender.sendall(b"GET / HTTP/1.1\r\nX-A: ")
    for _ in range(3):  # whoever waited for one of the others would wait for disc_bytes.STALL_SECONDS
        assert len(client.get(address.decode()).content) == len(content)
        for reader in readers:
            reader.recv(1)
    for sender in senders:
        sender.settimeout(LONG)
        assert sender.recv(1) == b""  # closed by the deadline
    for each in (*readers, *senders):
        each.close()


def test_no_machine_takes_the_connections_of_all(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for a proxy, which counts its own clients'; this machine is one."""
    monkeypatch.setattr(server, "MOST_OF_ONE", 20)
    host = (client.base_url.host, client.base_url.port)
    with ExitStack() as held:
        others = [held.enter_context(socket.create_connection(host, LONG, ("127.0.0.2", 0))) for _ in range(21)]
        told = b"".join(iter(lambda: others[-1].recv(65_536), b""))
        assert told.startswith(b"HTTP/1.1 503") and b'"too_many_connections"' in told
        ours = [held.enter_context(socket.create_connection(host, LONG)) for _ in range(25)]
        for each in (*others[:20], *ours):
            each.sendall(b"GET /page/disc.svg HTTP/1.1\r\nHost: x\r\n\r\n")
            assert each.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize("begin", [b"", b"x"])
def test_a_body_that_never_ends_keeps_no_connection(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.5)
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=LONG) as sender:
        sender.sendall(b"GET /page/disc.svg HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + begin)
        with suppress(ConnectionError):  # a byte now and then keeps it no longer
            while received := sender.recv(65_536):
                assert received
                sender.sendall(b"x")


def test_a_client_that_takes_nothing_keeps_no_connection(
    client: httpx.Client, desk: Desk, scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disc_bytes, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(server, "LINGER_SECONDS", 0.2)
    desk.script = lambda job_id, question: scripts.done(job_id, question, content=bytes(30_000_000))
    address = client.get("/api/iso/download?accession_number=A").headers["content-location"].encode()
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect((client.base_url.host, client.base_url.port))
        reader.sendall(b"GET " + address + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert _is_held(reader)
        until(lambda: not _is_held(reader))


def _is_held(reader: socket.socket) -> bool:
    """Whether the other side of a local connection is open still."""
    return bool(_held_by(reader.getsockname()[1], theirs=True))


def test_what_is_no_http_behind_a_request_breaks_its_answer_off(
    client: httpx.Client, desk: Desk, scripts: Scripts, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody could fill the log with errors."""
    desk.script = lambda job_id, question: scripts.done(job_id, question, content=bytes(60_000_000))
    address = client.get("/api/iso/download?accession_number=A").headers["content-location"].encode()
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=LONG) as sender:
        sender.sendall(b"GET " + address + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        received = len(sender.recv(65_536))
        sender.sendall(b"no chunk\r\n")
        with suppress(ConnectionError):
            while piece := sender.recv(1 << 20):
                received += len(piece)
    assert 0 < received < 60_000_000
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_client_that_stands_still_is_given_up(
    client: httpx.Client,
    desk: Desk,
    scripts: Scripts,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(disc_bytes, "STALL_SECONDS", 0.5)
    desk.script = lambda job_id, question: scripts.done(job_id, question, content=bytes(60_000_000))
    address = client.get("/api/iso/download?accession_number=A").headers["content-location"].encode()
    reader = socket.create_connection((client.base_url.host, client.base_url.port))
    reader.sendall(b"GET " + address + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    until(lambda: "could not be finished" in caplog.text)
    received = 0
    reader.settimeout(LONG)
    try:
        while piece := reader.recv(1 << 20):
            received += len(piece)
    except ConnectionResetError:
        pass
    assert 0 < received < 60_000_000
    reader.close()


def test_the_end_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WAITERS_SHARE", 0.01)
    settings = settings_in(tmp_path, shutdown_grace_seconds=LONG)
    scripts = Scripts(settings.storage)
    content = bytes(80_000_000)
    desk = Desk(
        lambda job_id, question: (
            scripts.done(job_id, question, content=content) if question.accession_numbers == ("A",) else "running"
        )
    )
    answers: dict[str, httpx.Response] = {}

    def waits(what: str) -> None:
        with httpx.Client(base_url=client.base_url, timeout=LONG, trust_env=False) as other:
            answers[what] = other.get(f"/api/iso/{what}?accession_number=B")

    with served(settings, desk) as client:
        waiting = [threading.Thread(target=waits, args=(what,)) for what in ("download", "print")]
        for each in waiting:
            each.start()
        with client.stream("GET", "/api/iso/download?accession_number=A") as answer:
            pieces = answer.iter_raw(1 << 20)
            received = len(next(pieces))
            until(lambda: desk.waiting == 2)
            client.stop.set()
            until(lambda: not is_open(settings.server.port))
            received += sum(map(len, pieces))
        assert received == len(content)
        for each in waiting:
            each.join(LONG)
    stopping = answers["download"]
    assert (stopping.status_code, stopping.json()["code"]) == (503, "service_stopping")
    assert stopping.headers["location"] == stopping.json()["job"] and "retry-after" in stopping.headers
    printing = answers["print"]  # it goes on, and who came back would have a second disc made
    assert (printing.status_code, printing.json()["code"]) == (504, "deadline_passed")
    assert printing.headers["location"] == printing.json()["job"] and "retry-after" not in printing.headers


def test_storage_that_hangs_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "STORAGE_SECONDS", 0.5)
    monkeypatch.setattr(middleware, "STORAGE_LOOK_SECONDS", 0)
    with share(tmp_path / "share") as storage:
        settings = settings_in(tmp_path / "share", shutdown_grace_seconds=1)
        with served(settings, Desk(Scripts(settings.storage).done)) as client:
            assert client.get("/api/iso/download?accession_number=A").status_code == 200
            storage.away()
            for path in ("/", "/api/iso/jobs", "/metrics", "/api/iso/download?accession_number=A"):
                told = client.get(path, headers={"Prefer": "respond-async"})
                assert (told.status_code, told.json()["code"]) == (503, "storage_unreadable")
                assert "no answer for 0.5 s" in told.json()["error"] and "retry-after" in told.headers
            page = client.get(
                "/", headers={"Accept": "text/html", "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}
            )
            assert page.status_code == 503 and page.headers["content-type"].startswith("text/html")
            assert client.get("/page/disc.svg").status_code == client.get("/api/health").status_code == 200
            storage.back()
            until(lambda: client.get("/api/iso/jobs").status_code == 200)


def test_storage_that_is_away_is_said_and_not_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that several machines have is unmounted while the webhook runs, also between a look at it and a
    question; a folder of it can't be read.
    """
    shared = tmp_path / "shared"
    shared.mkdir()
    settings = settings_in(tmp_path / "own", auth=True)
    settings = settings.model_copy(update={"storage": settings.storage.model_copy(update={"shared_dir": shared})})
    key = {"X-API-Key": KEY, "Prefer": "respond-async"}
    with served(settings, Desk()) as client:
        assert client.get("/api/iso/download?accession_number=A", headers=key).status_code == 202
        shared.rename(tmp_path / "away")
        client.get("/api/iso/download?accession_number=B", headers=key)
        assert not shared.exists()
        monkeypatch.setattr(middleware, "STORAGE_LOOK_SECONDS", 0)
        told = client.get("/api/iso/download?accession_number=A", headers=key)
        assert (told.status_code, told.json()["code"]) == (503, "storage_unreadable")
        assert "No such file or directory" in told.json()["error"]
        assert not shared.exists()
        (tmp_path / "away").rename(shared)
        assert client.get("/api/iso/download?accession_number=A", headers=key).status_code == 202
        shutil.rmtree(settings.storage.discs_dir)
        settings.storage.discs_dir.write_bytes(b"")
        told = client.get("/api/iso/jobs?search=A1", headers=key)
        assert (told.status_code, told.json()["code"]) == (503, "storage_unreadable")


def test_who_waits_for_storage_that_hangs_is_told_when_the_webhook_ends(tmp_path: Path) -> None:
    answers: list[httpx.Response] = []
    asked = "/api/iso/download?accession_number=A"
    with share(tmp_path / "share") as storage:
        settings = settings_in(tmp_path / "share", shutdown_grace_seconds=1)
        with served(settings, Desk(Scripts(settings.storage).done)) as client:
            assert client.get(asked).status_code == 200
            storage.away()  # a moment after the look at it
            asking = threading.Thread(target=lambda: answers.append(client.get(asked)))
            asking.start()
            time.sleep(0.2)
            client.stop.set()
            asking.join(LONG)
            storage.back()  # its threads end with it, or with the process
    [told] = answers
    assert (told.status_code, told.json()["code"]) == (503, "service_stopping")


def _raw(client: httpx.Client, request: bytes) -> bytes:
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=LONG) as connection_:
        connection_.sendall(request)
        received = b""
        while piece := connection_.recv(65536):
            received += piece
        return received
