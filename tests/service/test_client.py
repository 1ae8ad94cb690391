"""The client of a running service, against an HTTP server that breaks off, changes its mind and goes away as told."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from mkiso.publishers.orderbook import MAY_BE_MADE
from mkiso_service.api import Disc
from mkiso_service.cli import burning
from mkiso_service.cli.client import Client, ServiceError
from mkiso_service.cli.main import run
from peers.certificates import https_server, write_certificates
from peers.patience import LONG, until
from peers.ports import free_port

ROOT = Path(__file__).parents[2]
IMAGE = os.urandom(300_000)
SHA256 = hashlib.sha256(IMAGE).hexdigest()
LETTER = b"%PDF-1.7"
SET = "3fa4c2d1-0000-4000-8000-000000000000"
DISC = Disc("/api/iso/jobs/J/disc?part=1", SET, "x.iso", len(IMAGE), SHA256, 3, 1, 1)


PREVIEW: dict[str, Any] = {
    "accession_numbers": ["A1"],
    "selection": {"studies": [], "series": []},
    "is_part": False,
    "patient": {
        "patient_id": "HN-1",
        "name": "Example, [b]Anna",
        "name_on_disc": "Example, A.",
        "birth_date": "19700102",
        "sex": "F",
    },
    "studies": [
        {
            "study_instance_uid": "1.2.3",
            "series": [],
            "more_series": False,
            "accession_number": "A1",
            "study_date": "20260312",
            "modalities": ["CT"],
            "study_description": "Thorax",
            "images": 1,
            "source": "",
        }
    ],
    "priors": [],
    "degraded": [],
    "shown": "5" * 32,
    "ordered": None,
    "unclear": None,
    "labels": {},
}


@dataclass
class Script:
    """What the server answers: the job's states in turn, the image, and after how many bytes each of the first answers
    breaks off.
    """

    states: list[dict[str, Any]] = field(default_factory=list)
    image: bytes = IMAGE
    etag: str = SHA256
    break_after: list[int] = field(default_factory=list)
    says_length: bool = True
    error: dict[str, Any] | None = None
    listing: dict[str, Any] = field(default_factory=dict)
    accepted: dict[str, Any] = field(default_factory=lambda: {"job_id": "J", "job": "/api/iso/jobs/J"})
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)


def job(state: str, stage: str, discs: int = 0, **values: object) -> dict[str, Any]:
    told = [{**asdict(DISC), "part": part, "total": discs, "medium": "cd"} for part in range(1, discs + 1)]
    counts = {"expected": 3, "received": 3, "written": 3, "degraded": [], "publisher": "", "proves": "", "error": None}
    asked = {"job_id": "J", "kind": "download", "accession_numbers": ["A1"]}
    return {**asked, "state": state, "stage": stage, "discs": told, **counts, **values}


@pytest.fixture
def script() -> Script:
    return Script([job("waiting", "waiting"), job("running", "retrieving"), job("done", "done", discs=1)])


@pytest.fixture
def url(script: Script) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script.asked.append((self.path, dict(self.headers)))
            script.methods.append(self.command)
            if "/preview" in self.path:
                self.tell(200, PREVIEW)
            elif script.error:
                self.tell(script.error["http_status"], script.error)
            elif "/disc" in self.path:
                self.send_image()
            elif self.path.partition("?")[0] == "/api/iso/jobs":
                self.tell(200, script.listing)
            elif self.path.endswith("/password"):
                self.tell(200, {"password": "00000-11111"})
            elif "/letter.pdf" in self.path:
                self.tell(200, LETTER, "application/pdf")
            elif "/jobs/" in self.path:
                self.tell(200, script.states.pop(0) if len(script.states) > 1 else script.states[0])
            else:
                self.tell(202, script.accepted)

        do_POST = do_GET

        def tell(self, status: int, body: dict[str, Any] | bytes, kind: str = "application/json") -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def send_image(self) -> None:
            start = 0
            if "Range" in self.headers and self.headers["If-Range"] == f'"{script.etag}"':
                start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            if script.says_length:
                self.send_header("Content-Length", str(len(script.image) - start))
            self.send_header("ETag", f'"{script.etag}"')
            self.end_headers()
            end = start + script.break_after.pop(0) if script.break_after else len(script.image)
            self.wfile.write(script.image[start:end])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso_service.cli.client.time.sleep", lambda _: None)
    for name in ("MKISO_CONFIG", "MKISO_URL", "MKISO__AUTH__API_KEY", "MKISO__AUTH__API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_burn_follows_the_job_and_brings_the_image(
    script: Script, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "x.iso"
    assert run(["burn", "A1", "-o", str(target), "--url", url]) == 0
    assert target.read_bytes() == IMAGE
    assert list(tmp_path.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o600
    first_path, first_headers = script.asked[0]
    assert (first_path, first_headers["Prefer"]) == ("/api/iso/download?accession_number=A1", "respond-async")
    assert "retrieving" in capsys.readouterr().out


def at_a_terminal(answer: str, *arguments: str) -> tuple[int, str]:
    """The exit code and the words of a command whose terminal says `answer` to its question."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-P", "-m", "mkiso_service", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        told = b""
        with suppress(OSError):  # EIO: the other side has ended
            while piece := os.read(ours, 4096):
                told += piece
                if answer and b"[y/N]" in told:
                    os.write(ours, f"{answer}\n".encode())
                    answer = ""
    os.close(ours)
    return process.returncode, told.decode()


def test_on_a_terminal_the_patient_is_shown_and_asked_for(script: Script, url: str, tmp_path: Path) -> None:
    target = str(tmp_path / "x.iso")
    code, told = at_a_terminal("n", "burn", "A1", "-o", target, "--url", url)
    assert code == 1
    for words in ("Example, [b]Anna", "born 1970-01-02, sex F, ID HN-1, on the disc: Example, A.", "Thorax  1 image"):
        assert words in told
    assert [path for path, _ in script.asked] == ["/api/iso/preview?accession_number=A1"]
    code, told = at_a_terminal("y", "print", "A1", "--birth-date", "1970-01-02", "--url", url)
    assert code == 0, told
    asked = [path for path, _ in script.asked][1:3]
    assert asked == [
        "/api/iso/preview?accession_number=A1&birth_date=1970-01-02",
        f"/api/iso/print?accession_number=A1&shown={'5' * 32}&birth_date=1970-01-02&orders_told=0",
    ]
    code, told = at_a_terminal("", "burn", "A1", "--yes", "-o", target, "--url", url)
    assert code == 0, told
    assert not [path for path, _ in script.asked[3:] if "preview" in path]


@pytest.mark.parametrize(("option", "query"), [("--priors", "true"), ("--no-priors", "false")])
def test_earlier_studies_are_shown_and_asked_for(
    script: Script, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, query: str
) -> None:
    [study] = PREVIEW["studies"]
    monkeypatch.setitem(PREVIEW, "priors", [{**study, "accession_number": "A0", "study_date": "20200101"}])
    code, told = at_a_terminal("y", "burn", "A1", option, "-o", str(tmp_path / "x.iso"), "--url", url)
    assert code == 0, told
    [earlier] = [line for line in told.splitlines() if "A0" in line]
    assert earlier.split()[-1] == "earlier"
    assert all(f"priors={query}" in path for path, _ in script.asked[:2])


def test_a_copy_is_looked_up_as_one(script: Script, url: str, tmp_path: Path) -> None:
    """At a site where earlier studies go beside all else, the question named them, and the copy has none."""
    code, told = at_a_terminal("y", "burn", "A1", "--deidentified", "-o", str(tmp_path / "x.iso"), "--url", url)
    assert code == 0, told
    assert ["deidentified=true" in path for path, _ in script.asked[:2]] == [True, True]


def test_a_folder_that_cannot_be_written_is_found_before_the_disc_is_made(
    script: Script, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["burn", "A1", "-o", str(tmp_path / "nowhere" / "x.iso"), "--url", url]) == 1
    assert "there is no such folder" in capsys.readouterr().err
    assert script.asked == []


COMMANDS = {"burn": ("burn", "A1"), "letter": ("letter", "J")}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_there_is_written_over_by_nobody_s_accident(
    script: Script, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (target := tmp_path / "x.iso").write_bytes(b"mine")
    asked = (*COMMANDS[command], "-o", str(target), "--url", url)
    assert run([*asked]) == 1
    assert "exists already. Name another file, or add --force" in capsys.readouterr().err
    assert at_a_terminal("n", *asked)[0] == 1
    assert target.read_bytes() == b"mine" and script.asked == []
    assert run([*asked, "--force"]) == 0
    assert target.read_bytes() != b"mine"


def test_who_names_no_job_is_told_where_jobs_are(
    script: Script, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.error = {"error": "There is no job abc.", "code": "job_not_found", "request_id": "R", "http_status": 404}
    for command in (["letter", "abc", "-o", str(tmp_path)], ["cancel", "abc"]):
        assert run([*command, "--url", url]) == 1
        assert "There is no job abc. `mkiso jobs` lists the jobs." in capsys.readouterr().err


def test_a_terminal_may_have_a_file_written_over(script: Script, url: str, tmp_path: Path) -> None:
    (target := tmp_path / "x.iso").write_bytes(b"mine")
    code, told = at_a_terminal("y", "burn", "A1", "--yes", "-o", str(target), "--url", url)
    assert code == 0 and "x.iso exists already. Write over it? [y/N]" in told
    assert target.read_bytes() == IMAGE


def test_the_letter_with_another_disc_s_password_is_not_lost(
    script: Script, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (letter := tmp_path / "a.pdf").write_bytes(b"a password that is nowhere else")
    asked = ["burn", "A1", "--format", "zip-encrypted", "--url", url, "--letter", str(letter), "-o"]
    assert run([*asked, str(tmp_path / "x.zip")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert run([*asked, str(letter), "--force"]) == 2
    assert "the letter would be lost" in capsys.readouterr().err
    assert letter.read_bytes() == b"a password that is nowhere else" and script.asked == []


def test_a_letter_with_a_password_is_its_owner_s_alone(script: Script, url: str, tmp_path: Path) -> None:
    (letter := tmp_path / "a.pdf").write_bytes(b"of before")
    letter.chmod(0o644)
    script.accepted["claim"] = "c"
    asked = ["burn", "A1", "--format", "zip-encrypted", "--url", url, "--letter", str(letter), "--force"]
    assert run([*asked, "-o", str(tmp_path / "x.zip")]) == 0
    assert (letter.read_bytes(), letter.stat().st_mode & 0o777) == (LETTER, 0o600)


def test_a_folder_gets_the_file_under_its_own_name(
    script: Script, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["burn", "A1", "-o", str(tmp_path), "--url", url]) == 0
    assert (tmp_path / "A1.iso").read_bytes() == IMAGE
    script.states = [job("done", "done", discs=1)]
    assert run(["burn", "A1", "B/2", "-o", str(tmp_path), "--url", url]) == 0  # no disc of one is called as one of both
    assert (tmp_path / "A1-B 2.iso").read_bytes() == IMAGE
    assert run(["burn", "A1", "-o", f"{tmp_path}/nowhere/", "--url", url]) == 1
    assert "there is no such folder" in capsys.readouterr().err


def test_a_file_is_no_folder_and_a_dash_no_file(
    script: Script, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("key").touch()
    for place in ("key/x.iso", "key/below/", f"{tmp_path}/key/x.iso"):
        assert run(["burn", "A1", "-o", place, "--url", url]) == 1
        assert "key is a file and no folder" in capsys.readouterr().err
    for command in (["burn", "A1", "--url", url, "-o"], ["letter", "J", "--url", url, "-o"], ["init", "-o"]):
        assert run([*command, "-"]) == 1
        assert "this isn't written to standard output" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["key"] and not script.asked


@pytest.mark.parametrize("option", ["--output", "--letter"])
def test_a_name_that_can_not_be_is_said(option: str, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["burn", "A1", "--format", "zip-encrypted", option, "x" * 300, "--url", url]
    assert run(asked) == 1
    assert "File name too long" in capsys.readouterr().err
    assert run(["letter", "J", "-o", "x" * 300, "--url", url]) == 1
    assert "File name too long" in capsys.readouterr().err


def test_a_letter_is_its_owner_s_alone(url: str, tmp_path: Path) -> None:
    (letter := tmp_path / "a.pdf").write_bytes(b"of before")
    letter.chmod(0o644)
    assert run(["letter", "J", "-o", str(letter), "--force", "--url", url]) == 0
    assert (letter.read_bytes(), letter.stat().st_mode & 0o777) == (LETTER, 0o600)


def test_a_device_is_no_file_to_write_over(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["burn", "A1", "-o", "/dev/null", "--force", "--url", url]) == 1
    assert "is no file that could be written over" in capsys.readouterr().err
    assert Path("/dev/null").is_char_device()


def test_room_is_looked_at_before_a_download(
    script: Script, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mkiso_service.cli.burning.disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 120_000))
    assert run(["burn", "A1", "-o", str(tmp_path / "x.iso"), "--url", url]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "has 120 kB free, and the disc is a file of 300 kB" in told and "-o" in told
    assert list(tmp_path.iterdir()) == []


def test_jobs_are_listed_and_cancelled(script: Script, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [{"time": "2026-03-12T09:00:00+00:00", "who": "10.0.0.7", "by": "page", "name": "", "you": False}]
    who = {"patient_id": "HN-1", "patient_name": "Example, Anna", "patient_birth_date": ""}
    entry = {"begun": asked[0]["time"], "asked": asked, "may_cancel": True, **who}
    script.listing = {"jobs": [{**entry, "job": job("running", "mastering", progress=0.82)}], "more": False}
    assert run(["jobs", "HN-1", "--url", url]) == 0
    told = capsys.readouterr().out
    for words in ("J  2026-03-12", "running 82%", "A1  Example, Anna  10.0.0.7"):
        assert words in told
    assert script.asked[0][0] == "/api/iso/jobs?search=HN-1"
    beyond = {**entry, "begun": "9999-12-31T23:59:59-05:00", "job": job("running", "mastering")}
    script.listing["jobs"].append(beyond)
    assert run(["jobs", "HN-1", "--url", url]) == 0
    assert "J  9999-12-31T23:59:59-05:00  running" in capsys.readouterr().out
    assert run(["jobs", "--json", "--url", url]) == 0
    assert json.loads(capsys.readouterr().out)["jobs"][0]["job"]["progress"] == 0.82
    script.states = [job("failed", "mastering", error={"error": "Cancelled.", "code": "job_cancelled"})]
    assert run(["cancel", "J", "--url", url]) == 0
    assert (script.methods[-1], script.asked[-1][0]) == ("POST", "/api/iso/jobs/J/cancel")
    assert "J  A1  cancelled" in capsys.readouterr().out


def test_burn_tells_of_each_study_once(
    script: Script, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = {
        "accession_number": "A1",
        "study_date": "20260312",
        "modalities": ["CT", "SR"],
        "study_description": "[b]Thorax",
        "expected": 3,
    }
    uncounted = {**study, "accession_number": "A2", "expected": None, "received": 0}
    script.states[1:] = [
        job(state, state, discs=state == "done", studies=[{**study, "received": 3}, uncounted])
        for state in ("running", "done")
    ]
    assert run(["burn", "A1", "A2", "-o", str(tmp_path / "x.iso"), "--url", url]) == 0
    told = capsys.readouterr().out
    assert told.count("A1  2026-03-12  CT, SR  [b]Thorax  3 images and reports") == 1
    assert told.count("A2  2026-03-12  CT, SR  [b]Thorax  not counted by the PACS") == 1


def test_several_accession_numbers_are_one_question(script: Script, url: str, tmp_path: Path) -> None:
    assert run(["burn", "A1", "A2", "-o", str(tmp_path / "x.iso"), "--url", url]) == 0
    assert script.asked[0][0] == "/api/iso/download-multiple?accession_numbers=A1%2CA2"


@pytest.mark.parametrize(
    ("options", "query"),
    [([], ""), (["--publisher", "robot", "--confirm-reprint"], "&publisher=robot&confirm_reprint=true")],
)
def test_a_print_is_confirmed_by_an_option(script: Script, url: str, options: list[str], query: str) -> None:
    assert run(["print", "A1", *options, "--url", url]) == 0
    assert script.asked[0][0] == f"/api/iso/print?accession_number=A1{query}"
    assert script.methods[0] == "POST"


def test_a_set_of_discs_becomes_numbered_files(script: Script, url: str, tmp_path: Path) -> None:
    script.states = [job("done", "done", discs=2)]
    assert run(["burn", "A1", "-o", str(tmp_path / "x.iso"), "--url", url]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x-1of2-3fa4c2d1.iso", "x-2of2-3fa4c2d1.iso"]


def test_discs_of_two_sets_never_lie_there_as_one(script: Script, url: str, tmp_path: Path) -> None:
    """The study grew, and the second command is cut off after the first disc: the old second disc is still there."""
    for name, told in ((SET, 2), ("b" + SET[1:], 1)):
        [done] = script.states = [job("done", "done", discs=2)]
        done["discs"] = [{**disc, "set": name} for disc in done["discs"]][:told]
        assert run(["burn", "A1", "-o", str(tmp_path / "x.iso"), "--url", url]) == 0
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["x-1of2-3fa4c2d1.iso", "x-1of2-bfa4c2d1.iso", "x-2of2-3fa4c2d1.iso"]


def test_a_broken_download_goes_on_where_it_ended(script: Script, url: str, tmp_path: Path) -> None:
    script.break_after = [100_000, 50_000]
    with Client(url) as client:
        client.download(DISC, tmp_path / "x.iso")
    ranges = [headers.get("Range") for path, headers in script.asked if "/disc" in path]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert (tmp_path / "x.iso").read_bytes() == IMAGE


def test_an_answer_without_a_length_that_ends_early_is_broken_off_too(
    script: Script, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that knows no length may cut it; who asks again at once, and for ever, is no help."""
    script.says_length, script.break_after = False, [100_000]
    with Client(url) as client:
        client.download(DISC, tmp_path / "x.iso")
        assert (tmp_path / "x.iso").read_bytes() == IMAGE
        script.break_after = [0] * 1000
        monkeypatch.setattr("mkiso_service.cli.client.OUTAGE_SECONDS", 0.1)
        with pytest.raises(ServiceError, match=r"broke off \(the answer ended"):
            client.download(DISC, tmp_path / "y.iso")


def test_more_than_the_disc_has_is_not_taken(script: Script, url: str, tmp_path: Path) -> None:
    script.image, script.says_length = IMAGE * 100, False
    seen: list[int] = []
    with Client(url) as client, pytest.raises(ServiceError, match="is not the disc that the service proved"):
        client.download(DISC, tmp_path / "x.iso", lambda done, total: seen.append(done))
    assert max(seen) < 3 * len(IMAGE) and list(tmp_path.iterdir()) == []


def test_what_an_earlier_command_left_is_continued(script: Script, url: str, tmp_path: Path) -> None:
    (tmp_path / f".x.iso.{SHA256[:16]}.part").write_bytes(IMAGE[:123])
    with Client(url) as client:
        client.download(DISC, tmp_path / "x.iso")
    assert script.asked[0][1]["Range"] == "bytes=123-"
    assert (tmp_path / "x.iso").read_bytes() == IMAGE


def test_a_part_that_is_wrong_is_thrown_away(url: str, tmp_path: Path) -> None:
    (tmp_path / f".x.iso.{SHA256[:16]}.part").write_bytes(b"?" * 123)
    with Client(url) as client:
        with pytest.raises(ServiceError) as raised:
            client.download(DISC, tmp_path / "x.iso")
        assert raised.value.code == "proof_failed"
        assert list(tmp_path.iterdir()) == []
        client.download(DISC, tmp_path / "x.iso")
    assert (tmp_path / "x.iso").read_bytes() == IMAGE


def test_another_disc_under_the_address_is_not_taken(script: Script, url: str, tmp_path: Path) -> None:
    script.etag = "0" * 64
    with Client(url) as client, pytest.raises(ServiceError, match="another disc"):
        client.download(DISC, tmp_path / "x.iso")
    assert not (tmp_path / "x.iso").exists()


def test_the_service_s_own_words_are_shown(script: Script, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    script.error = {
        "http_status": 404,
        "error": "The PACS has no such study.",
        "code": "study_not_found",
        "request_id": "r1",
    }
    assert run(["burn", "A1", "--url", url]) == 1
    told = capsys.readouterr()
    assert "The PACS has no such study." in told.err
    assert "study_not_found" in told.err
    assert "r1" in told.err
    assert told.out == ""


def test_a_failed_job_tells_why(script: Script, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.states = [
        job("failed", "retrieving", error={"error": "2 of 3 images are missing.", "code": "study_incomplete"})
    ]
    assert run(["burn", "A1", "-o", str(tmp_path / "x.iso"), "--url", url]) == 1
    assert "2 of 3 images are missing." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_a_disc_lacks_is_said(
    script: Script, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lacks = ["prior_left_out:incomplete", "prior_left_out:not_convertible", "source_down:old", "label_letters"]
    script.states = [job("done", "done", discs=1, degraded=lacks)]
    assert run(["burn", "A1", "-o", str(tmp_path / "x.iso"), "--url", url]) == 0
    told = capsys.readouterr().out
    assert "An earlier examination isn't on the disc: not all of its images could be had." in told
    assert "An earlier examination isn't on the disc: not all of its images can be stored uncompressed." in told
    assert "The PACS old couldn't be asked: it may have more images." in told
    assert "The disc's label shows something in other letters, since the robot doesn't have those." in told
    assert "Made without" not in told


def test_print_names_the_publisher(script: Script, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    script.states = [job("done", "sent", publisher="robot", proves="queued")]
    assert run(["print", "A1", "A2", "--publisher", "robot", "--url", url]) == 0
    assert script.asked[0][0] == "/api/iso/print?accession_number=A1%2CA2&publisher=robot"
    assert "robot has taken it" in capsys.readouterr().out


@pytest.mark.parametrize(("minutes", "when"), [(0, "less than a minute"), (1, "1 minute"), (12, "12 minutes")])
def test_print_says_that_the_disc_was_made_before(
    script: Script, url: str, minutes: int, when: str, capsys: pytest.CaptureFixture[str]
) -> None:
    script.accepted["made_before_minutes"] = minutes
    script.states = [job("done", "sent", publisher="robot", proves="queued")]
    assert run(["print", "A1", "--url", url]) == 0
    assert f"made {when} ago, too" in capsys.readouterr().out


def test_an_unclear_print_names_the_option_that_confirms(
    script: Script, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    script.error = {"error": MAY_BE_MADE, "code": "print_uncertain", "http_status": 409}
    assert run(["print", "A1", "--url", url]) == 1
    assert "run with --confirm-reprint." in capsys.readouterr().err


def test_a_script_is_told_the_job_and_nothing_else(
    script: Script, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["burn", "A1", "--json", "-o", str(tmp_path / "x.iso"), "--url", url]) == 0
    told = json.loads((streams := capsys.readouterr()).out)
    assert told["files"] == [str(tmp_path / "x.iso")]
    assert (told["job"]["state"], told["job"]["discs"][0]["sha256"]) == ("done", SHA256)
    assert "retrieving" in streams.err
    script.accepted["made_before_minutes"] = 12
    script.states = [job("done", "sent", publisher="robot", proves="queued")]
    assert run(["print", "A1", "--json", "--url", url]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["job"]["publisher"], told["made_before_minutes"]) == ("robot", 12)


@pytest.mark.parametrize("command", ["burn", "print"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([""], "The accession number is empty"),
        (["A*"], "a PACS takes * for a wildcard"),
        (["A1", "--birth-date", "31.01.1970"], "write it as 1970-01-31"),
    ],
)
def test_what_is_mistyped_is_said_before_anybody_is_asked(
    script: Script, url: str, capsys: pytest.CaptureFixture[str], command: str, arguments: list[str], words: str
) -> None:
    assert run([command, *arguments, "--url", url]) == 2
    assert words in capsys.readouterr().err and not script.asked


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_as_it_is_written(shell: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
    assert f"{shell}_source" in page
    if shell == "bash":  # click asks the shell for its version
        words = "mkiso pr"
        told = subprocess.run(
            [sys.executable, "-c", "from mkiso_service.__main__ import main; main()"],
            env={**os.environ, "_MKISO_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert {"plain,print", "plain,prefect"} <= set(told.stdout.split())


@pytest.mark.parametrize("way", ["option", "environment", "environment's file"])
def test_the_key_is_sent_and_never_shown(
    script: Script,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    way: str,
) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    options = ["--api-key-file", str(tmp_path / "key")] if way == "option" else []
    match way:
        case "environment":
            monkeypatch.setenv("MKISO__AUTH__API_KEY", "s3cret")
        case "environment's file":
            monkeypatch.setenv("MKISO__AUTH__API_KEY_FILE", str(tmp_path / "key"))
    assert run(["burn", "A1", "-o", str(tmp_path / "x.iso"), "--url", url, *options]) == 0
    assert all(headers["X-API-Key"] == "s3cret" for _, headers in script.asked)
    assert "s3cret" not in "".join(capsys.readouterr())


def test_an_empty_key_is_none(
    script: Script, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("\n")
    assert run(["burn", "A1", "--url", url, "--api-key-file", str(tmp_path / "key")]) == 2
    assert "of --api-key-file is empty" in capsys.readouterr().err
    monkeypatch.setenv("MKISO__AUTH__API_KEY", "")
    assert run(["burn", "A1", "--url", url]) == 2
    assert "MKISO__AUTH__API_KEY is set and empty" in capsys.readouterr().err
    assert script.asked == []


def test_nobody_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["burn", "A1", "--url", f"http://127.0.0.1:{free_port()}"]) == 1
    assert "There is no mkiso at" in capsys.readouterr().err


def test_an_answer_of_somebody_else_is_said(script: Script, url: str) -> None:
    with Client(url) as client:
        for foreign in (["no", "job"], {"state": "done"}, {**job("done", "done"), "state": "melted"}):
            script.states = [foreign]  # type: ignore[list-item]
            with pytest.raises(ServiceError) as raised:
                client.state("J")
            assert raised.value.code == ("no_mkiso" if isinstance(foreign, list) else "other_version")


def test_an_error_of_somebody_else_is_said(script: Script, url: str) -> None:
    for foreign in ({"HttpError": "Not Found", "HttpStatus": 404}, {"error": "not_found"}, {"code": 5}):
        script.error = {**foreign, "http_status": 404}
        with Client(url) as client, pytest.raises(ServiceError, match="Is this the right address") as raised:
            client.jobs()
        assert raised.value.code == "no_mkiso"


def test_output_that_is_full_is_no_fault_of_the_disc_s_file(script: Script, url: str, tmp_path: Path) -> None:
    burn = [sys.executable, "-P", "-m", "mkiso_service", "burn", "A1", "-o", str(tmp_path / "x.iso"), "--url", url]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(burn, stdout=full, stderr=subprocess.PIPE, text=True, timeout=LONG)
    assert (done.returncode, done.stderr) == (1, "Standard output can't be written: No space left on device.\n")


def test_a_document_is_utf_8_whatever_the_terminal_is(script: Script, url: str) -> None:
    who = {"patient_id": "HN-1", "patient_name": "ดิสก์", "patient_birth_date": ""}
    entry = {"begun": "2026-03-12T09:00:00+00:00", "asked": [], "may_cancel": True, "job": job("running", "mastering")}
    script.listing = {"jobs": [{**entry, **who}], "more": False}
    command = [sys.executable, "-P", "-m", "mkiso_service", "jobs", "--url", url]
    of_a_language = {**os.environ, "PYTHONIOENCODING": "iso-8859-1"}
    told, shown = (
        subprocess.run([*command, *more], stdout=subprocess.PIPE, env=of_a_language, timeout=LONG, check=True).stdout
        for more in (["--json"], [])
    )
    assert "ดิสก์" in told.decode() and b"?????" in shown


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_a_stranger_s_certificate_is_refused_however_the_address_is_written(tmp_path: Path, scheme: str) -> None:
    with (
        https_server(write_certificates(tmp_path), "peer") as port,
        Client(f"{scheme}://127.0.0.1:{port}", "secret") as client,
        pytest.raises(ServiceError, match="certificate"),
    ):
        client.jobs("")


def test_an_older_service_that_doesnt_know_the_address_is_said(script: Script, url: str) -> None:
    script.error = {"error": "There is nothing at this address.", "code": "not_found", "http_status": 404}
    with Client(url) as client, pytest.raises(ServiceError, match="another version") as raised:
        client.jobs()
    assert raised.value.code == "other_version"


def two_files(script: Script) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("DICOMDIR", b"directory")
        archive.writestr("DICOM/PT000001/IM000001", b"image" * 1000)
    script.image, script.etag = content.getvalue(), hashlib.sha256(content.getvalue()).hexdigest()
    for disc in script.states[-1]["discs"]:
        disc |= {"size": len(script.image), "sha256": script.etag}


def test_burn_writes_encrypted_files_into_a_folder_and_tells_the_password(
    script: Script, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_files(script)
    script.accepted["claim"] = "a claim"
    (folder := tmp_path / "stick").mkdir()
    assert run(["burn", "A1", "--to", str(folder), "--format", "usb-cms", "--url", url]) == 0
    assert "format=usb-cms" in script.asked[0][0]
    assert "Password: 00000-11111" in capsys.readouterr().err
    assert (folder / "DICOM/PT000001/IM000001").read_bytes() == b"image" * 1000


@pytest.mark.parametrize(
    ("options", "is_stopped"),
    [(["-o", "[/x].iso"], False), (["--to", "[/x]"], False), (["--to", "[/x]"], True)],
)
def test_a_path_with_brackets_is_said_as_it_is(
    script: Script,
    url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    is_stopped: bool,
) -> None:
    def stop(_: Path, folder: Path, __: object) -> None:
        (folder / "DICOM").touch()
        raise KeyboardInterrupt

    two_files(script)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[/x]").mkdir(parents=True)
    if is_stopped:
        monkeypatch.setattr(burning, "unpack", stop)
    assert run(["burn", "A1", *options, "--url", url]) == is_stopped
    assert options[1] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("at", "options", "left", "says"),
    [
        ("show_job", ["-o", "x.iso"], "", "Stopped. The job continues. Run the same command to resume."),
        ("download", ["-o", "x.iso"], ".x.iso.1234.part", "continues, and the downloaded part is kept. Run the same"),
        ("download", ["--to", "."], "", "Stopped. The job continues. Run the same command to resume."),
        ("unpack", ["--to", "."], "DICOM", "isn't whole: remove it. Then run the same command again."),
    ],
)
def test_ctrl_c_says_what_is_left(
    script: Script,
    url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    options: list[str],
    left: str,
    says: str,
) -> None:
    def stop(*_: object, **__: object) -> None:
        if left:
            Path(left).touch()
        raise KeyboardInterrupt

    two_files(script)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Client if at == "download" else burning, at, stop)
    assert run(["burn", "A1", *options, "--url", url]) == 1
    assert says in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1:8080", "discs.example.org", "ftp://discs.example.org", "http://", "http://["),
        *("http://discs:808O", "http://discs..org", "http://\udc80", "http://discs.org\n"),
        *("http:///discs", "http://:8080", "http://discs:0", "http://discs:73616", "http://a disc"),
    ],
)
def test_an_address_that_is_not_whole_is_said_to_be_wrong(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["burn", "A1", "--url", address]) == 2
    assert "is no whole address: write it as http://127.0.0.1:8080." in capsys.readouterr().err


@pytest.mark.parametrize("form", ["iso", "zip", "zip-encrypted", "iso-cms", "zip-cms"])
def test_what_stays_one_file_is_not_written_as_many(
    script: Script, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    assert run(["burn", "A1", "--to", str(tmp_path), "--format", form, "--url", url]) == 2
    assert f"A file of the format {form} stays one file: write it there with -o" in capsys.readouterr().err
    assert not script.asked and not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_terminal_that_is_closed_leaves_no_disc_in_a_temporary_folder(
    script: Script, url: str, tmp_path: Path, number: signal.Signals
) -> None:
    """While the disc is written to a stick, which takes minutes."""
    two_files(script)
    (stick := tmp_path / "stick").mkdir()
    (temporary := tmp_path / "temporary").mkdir()
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # what starts the tests may ignore it
        "from mkiso_service.cli import burning\n"
        "burning.unpack = lambda *_: time.sleep(600)\n"
        "from mkiso_service.__main__ import main\n"
        "main()\n"
    )
    command = [sys.executable, "-P", "-c", code, "burn", "A1", "--to", str(stick), "--url", url]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as burning:
        until(lambda: len(list(temporary.glob("mkiso-*/disc"))) == 1)
        burning.send_signal(number)
        told, _ = burning.communicate(timeout=LONG)
    assert "Stopped." in told
    assert list(temporary.iterdir()) == []


def test_burn_writes_the_files_into_a_folder(
    script: Script, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_files(script)
    (folder := tmp_path / "stick").mkdir()
    assert run(["burn", "A1", "--to", str(folder), "--url", url]) == 0
    assert "format=" in script.asked[0][0]
    told = " ".join(capsys.readouterr().out.split())
    assert "3 instances in 2 files, 5.0 kB, proved" in told
    assert "mkiso-" not in told  # nothing of the folder that has gone since
    assert (folder / "DICOM/PT000001/IM000001").read_bytes() == b"image" * 1000
    asked = len(script.asked)
    assert run(["burn", "A1", "--to", str(folder), "--url", url]) == 1
    refused = " ".join(capsys.readouterr().err.split())
    assert "holds a disc already" in refused and "code folder_taken" in refused
    assert len(script.asked) == asked
    assert run(["burn", "A1", "--to", str(folder), "-o", "x", "--url", url]) == 2
