"""Discs over HTTP: whole, in parts, again, several, degraded; and every way not to get one."""

import hashlib
import json
import re
import socket
import subprocess
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest

from mkiso.config.settings import Settings
from mkiso.errors import (
    MkisoError,
    NoDicomData,
    PacsSilent,
    PacsUnreachable,
    PatientMismatch,
    PublisherRefused,
    StorageFull,
    StudyNotFound,
)
from mkiso.publishers.orderbook import OrderBook
from mkiso.storage.report import JobReport, read_report, stopped, write_report
from mkiso.storage.shelf import manifests
from mkiso.study.question import Question
from mkiso_service.prefect.orchestrator import Standing
from peers.patience import LONG, until
from tests.webhook.desk import Desk, Scripts, served, settings_in

ONE = "/api/iso/download?accession_number=A1"


def test_a_disc(client: httpx.Client, desk: Desk) -> None:
    answer = client.get(ONE)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/vnd.efi.iso"
    assert int(answer.headers["content-length"]) == len(answer.content) == 37773
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-disposition"] == "attachment; filename=\"A1.iso\"; filename*=UTF-8''A1.iso"
    assert answer.headers["cache-control"] == "private, no-store"
    assert "x-mkiso-degraded" not in answer.headers and "server" not in answer.headers
    assert client.get(answer.headers["content-location"]).content == answer.content
    assert [question.accession_numbers for question in desk.asked] == [("A1",)]


def test_several_studies_are_named_for_the_patient(client: httpx.Client) -> None:
    answer = client.get("/api/iso/download-multiple?accession_numbers=A,B")
    assert unquote(re.findall(r"filename\*=UTF-8''(\S+)", answer.headers["content-disposition"])[0]) == "สมชาย ใจดี.iso"
    assert 'filename="disc.iso"' in answer.headers["content-disposition"]


def test_degraded_is_said(client: httpx.Client, desk: Desk, scripts: Scripts) -> None:
    desk.script = lambda job_id, question: scripts.done(job_id, question, degraded=("patient_api",))
    assert client.get(ONE).headers["x-mkiso-degraded"] == "patient_api"


@pytest.mark.parametrize("path", [ONE, "/api/iso/jobs/{job_id}/disc"])
def test_a_broken_download_goes_on(client: httpx.Client, desk: Desk, scripts: Scripts, path: str) -> None:
    whole = client.get(ONE)
    desk.script = scripts.reused
    path = path.format(job_id=next(iter(desk.standings)))
    etag = whole.headers["etag"]
    rest = client.get(path, headers={"Range": "bytes=100-", "If-Range": etag})
    assert (rest.status_code, rest.content) == (206, whole.content[100:])
    assert rest.headers["content-range"] == f"bytes 100-37772/{len(whole.content)}"
    assert client.get(path, headers={"Range": "bytes=100-", "If-Range": '"old"'}).content == whole.content
    assert client.get(path, headers={"Range": "bytes=0-0,5-6"}).status_code == 200
    beyond = client.get(path, headers={"Range": "bytes=99999-", "If-Range": etag})
    assert (beyond.status_code, beyond.headers["content-range"], beyond.json()["code"]) == (
        416,
        "bytes */37773",
        "range_not_satisfiable",
    )
    same = client.get(path, headers={"If-None-Match": etag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert client.get(path, headers={"If-Match": '"old"'}).status_code == 412


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=-5", "bytes=37773-", "bytes=99999-"])
def test_the_rest_of_another_disc_is_never_given(
    client: httpx.Client, desk: Desk, scripts: Scripts, asked: str
) -> None:
    whole = client.get(ONE)
    desk.script = scripts.reused
    answer = client.get(ONE, headers={"Range": asked})
    assert (answer.status_code, answer.json()["code"]) == (409, "other_set")
    [told] = answer.json()["sets"]
    own = client.get(told["parts"][0]["href"], headers={"Range": "bytes=100-"})
    assert (own.status_code, own.content) == (206, whole.content[100:])


@pytest.mark.parametrize("command", [["wget", "-q", "-c", "-O"], ["curl", "-sS", "--fail", "-C", "-", "-o"]])
@pytest.mark.parametrize("size", [37773, 200, 100])
def test_no_program_glues_the_beginning_of_a_disc_to_the_end_of_another(
    client: httpx.Client, desk: Desk, scripts: Scripts, tmp_path: Path, command: list[str], size: int
) -> None:
    desk.script = lambda job_id, question: scripts.done(job_id, question, content=b"n" * size)
    saved = tmp_path / "A1.iso"
    saved.write_bytes(b"o" * 200)  # of the disc before
    ended = subprocess.run([*command, saved, str(client.base_url.join(ONE))], check=False, stderr=subprocess.DEVNULL)
    assert (ended.returncode != 0, saved.read_bytes()) == (True, b"o" * 200)
    address = client.get(ONE).headers["content-location"]
    if size > 200:  # at the disc's own address each goes on
        saved.write_bytes(b"n" * 200)
        subprocess.run([*command, saved, str(client.base_url.join(address))], check=True)
        assert saved.read_bytes() == b"n" * size


def test_head_starts_no_job_and_tells_of_a_young_disc(client: httpx.Client, desk: Desk) -> None:
    bare = client.head(ONE)
    assert (bare.status_code, desk.asked) == (200, [])
    assert "content-length" not in bare.headers
    assert "etag" not in bare.headers
    got = client.get(ONE)
    told = client.head(ONE)
    for name in ("content-length", "etag", "content-type", "content-disposition", "accept-ranges", "content-location"):
        assert told.headers[name] == got.headers[name], name
    assert client.head(got.headers["content-location"]).headers["content-length"] == "37773"
    assert len(desk.asked) == 1
    assert client.head("/api/iso/download?accession_number=*").status_code == 400


def test_head_tells_nothing_of_a_disc_of_what_was_sent_to_an_inbox(client: httpx.Client, scripts: Scripts) -> None:
    told = client.get(ONE).headers["content-location"]
    report = read_report(scripts.storage, told.split("/")[4])
    write_report(scripts.storage, replace(report, inbox="BURN"))
    assert "etag" not in client.head(ONE).headers


def test_head_of_a_disc_that_is_too_old_for_reuse(client: httpx.Client, desk: Desk, scripts: Scripts) -> None:
    desk.script = lambda job_id, question: scripts.done(job_id, question, minutes=61)
    client.get(ONE)
    assert "etag" not in client.head(ONE).headers


def test_a_disc_that_is_removed_while_it_is_sent_arrives_whole(
    client: httpx.Client, desk: Desk, scripts: Scripts, settings: Settings
) -> None:
    content = bytes(range(256)) * 4096 * 40
    desk.script = lambda job_id, question: scripts.done(job_id, question, content=content)
    received = bytearray()
    with client.stream("GET", ONE) as answer:
        for piece in answer.iter_raw(65536):
            if not received:
                for file in settings.storage.discs_dir.glob("*/disc.iso"):
                    file.unlink()
            received += piece
    assert received == content


def test_a_truncated_image_is_never_sent(client: httpx.Client, desk: Desk, settings: Settings) -> None:
    address = client.get(ONE).headers["content-location"]
    next(settings.storage.discs_dir.glob("*/disc.iso")).write_bytes(b"short")
    answer = client.get(address)
    assert (answer.status_code, answer.json()["code"]) == (500, "proof_failed")


def test_a_disc_that_is_gone(client: httpx.Client, settings: Settings) -> None:
    address = client.get(ONE).headers["content-location"]
    folder = next(settings.storage.discs_dir.glob("*/disc.iso"))
    folder.unlink()
    assert client.get(address).status_code == 404


def test_a_set_is_never_answered_with_its_first_disc(client: httpx.Client, desk: Desk, scripts: Scripts) -> None:
    desk.script = scripts.set_of(3)
    answer = client.get(ONE)
    assert (answer.status_code, answer.json()["code"], answer.json()["total"]) == (409, "several_discs", 3)
    job = client.get(f"/api/iso/jobs/{answer.json()['job_id']}").json()
    assert [disc["href"] for disc in job["discs"]] == [
        f"/api/iso/jobs/{job['job_id']}/disc?part={number}" for number in (1, 2, 3)
    ]
    assert [part["href"] for part in answer.json()["parts"]] == [disc["href"] for disc in job["discs"]]
    assert client.get(job["discs"][1]["href"]).content == b"a2" * 50
    desk.script = scripts.again
    third = client.get(f"{ONE}&part=3", follow_redirects=True)
    assert third.content == b"a3" * 50
    assert "A1-3of3" in third.headers["content-disposition"]
    assert client.get(f"{ONE}&part=4").status_code == 404
    page = client.get(f"{ONE}&x=%22%3E%3Cscript%3E", headers={"Accept": "text/html,*/*"})
    assert page.status_code == 409 and page.headers["content-type"].startswith("text/html")
    assert page.text.count('<a href="?accession_number=A1&amp;x=') == 3 and "<script" not in page.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StudyNotFound("The PACS has no study A1.", accession_number="A1"), 404),
        (NoDicomData("no DICOM data"), 404),
        (PatientMismatch("Two patients."), 409),
        (PacsUnreachable("The PACS is down."), 502),
        (PacsSilent("The PACS is silent."), 504),
        (PublisherRefused("It refused.", status=0xA900, headers="x"), 502),
    ],
)
def test_why_there_is_no_disc(
    client: httpx.Client, desk: Desk, scripts: Scripts, error: MkisoError, status: int
) -> None:
    desk.script = scripts.failed(error)
    answer = client.get(ONE, headers={"X-Request-ID": "ward-7"})
    body = answer.json()
    assert (answer.status_code, body["error"], body["code"]) == (status, error.words, error.code)
    assert body["request_id"] == answer.headers["x-request-id"] == "ward-7"
    assert body["job_id"] in desk.standings
    assert client.get(f"/api/iso/jobs/{body['job_id']}").json()["error"]["code"] == error.code
    assert client.get(f"/api/iso/jobs/{body['job_id']}/disc").status_code == status


@pytest.mark.parametrize(
    ("standing", "status", "code", "words"),
    [
        ("crashed", 502, "job_crashed", "its process or machine went down"),
        ("cancelled", 409, "job_cancelled", "was cancelled"),
        ("failed", 502, "job_crashed", "its run in Prefect says it"),
    ],
)
def test_a_run_that_ends_without_a_word(
    client: httpx.Client, desk: Desk, standing: Standing, status: int, code: str, words: str
) -> None:
    desk.script = lambda job_id, question: standing
    answer = client.get(ONE)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert words in answer.json()["error"]
    job = client.get(f"/api/iso/jobs/{answer.json()['job_id']}").json()
    assert (job["state"], job["error"]["code"]) == ("failed", code)


def test_a_job_that_takes_too_long_goes_on(client: httpx.Client, desk: Desk, scripts: Scripts) -> None:
    desk.script = lambda job_id, question: "running"
    answer = client.get(ONE)
    job_id = answer.json()["job_id"]
    assert (answer.status_code, answer.json()["code"], answer.json()["job"]) == (
        504,
        "deadline_passed",
        f"/api/iso/jobs/{job_id}",
    )
    assert answer.headers["location"] == f"/api/iso/jobs/{job_id}"
    assert client.get(answer.headers["location"]).json()["state"] == "running"
    early = client.get(f"{answer.headers['location']}/disc")
    assert (early.status_code, early.json()["code"]) == (409, "job_running")
    desk.standings[job_id] = scripts.done(job_id, desk.asked[0])
    assert client.get(f"{answer.headers['location']}/disc").status_code == 200


def test_respond_async(client: httpx.Client, desk: Desk, scripts: Scripts) -> None:
    desk.script = lambda job_id, question: "running"
    answer = client.get(ONE, headers={"Prefer": "respond-async"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
    assert answer.headers["location"] == f"/api/iso/jobs/{answer.json()['job_id']}" == answer.json()["job"]
    again = client.get("/api/iso/download?accession_number=A1", headers={"Prefer": "respond-async, wait=0"})
    assert again.json() == {**answer.json(), "joined": True}
    assert len(desk.asked) == 1
    for path in ("/api/iso/print?accession_number=A", "/api/iso/download-multiple?accession_numbers=A,B"):
        assert client.get(path, headers={"Prefer": "respond-async"}).status_code == 202
    desk.script = scripts.done
    assert (
        client.get("/api/iso/download?accession_number=B9", headers={"Prefer": "respond-async, wait=5"}).status_code
        == 200
    )


def test_a_job_in_flight(client: httpx.Client, desk: Desk, scripts: Scripts) -> None:
    desk.script = lambda job_id, question: scripts.report(
        job_id, question, stage="receiving images", expected=9, received=4
    )
    answer = client.get(ONE, headers={"Prefer": "respond-async"})
    job = client.get(answer.headers["location"]).json()
    assert (job["state"], job["stage"], job["expected"], job["received"], job["error"], job["discs"]) == (
        "running",
        "receiving images",
        9,
        4,
        None,
        [],
    )


def test_a_client_that_goes_away_ends_its_waiting_and_not_the_job(tmp_path: Path) -> None:
    desk = Desk(lambda job_id, question: "running")
    with served(settings_in(tmp_path, request_timeout_seconds=10 * LONG), desk) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port)) as leaving:
            leaving.sendall(f"GET {ONE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            until(lambda: desk.waiting)
        until(lambda: not desk.waiting)
    assert list(desk.standings.values()) == ["running"]


def test_identical_questions_are_one_job(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    scripts, begun = Scripts(settings.storage), threading.Event()

    def slow(job_id: str, question: Question) -> Standing:
        begun.set()
        until(lambda: desk.waiting == 4)
        return scripts.done(job_id, question)

    answers: list[httpx.Response] = []
    with served(settings, desk := Desk(slow)) as client:
        threads = [threading.Thread(target=lambda: answers.append(client.get(ONE))) for _ in range(5)]
        threads[0].start()
        begun.wait(LONG)
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            thread.join()
    assert [answer.status_code for answer in answers] == [200] * 5
    assert len(desk.asked) == 1 and len({answer.headers["etag"] for answer in answers}) == 1


def test_print(client: httpx.Client, desk: Desk, scripts: Scripts) -> None:
    answer = client.get("/api/iso/print?accession_number=A,B")
    body = answer.json()
    assert (answer.status_code, body["status"], body["publisher"], body["instances"], body["proves"]) == (
        200,
        "sent",
        "rimage",
        3,
        "queued",
    )
    assert "made_before_minutes" not in body and desk.asked[0].accession_numbers == ("A", "B")
    assert client.get(f"/api/iso/jobs/{body['job_id']}/disc").status_code == 404
    desk.ended_before = datetime.now(UTC) - timedelta(minutes=7)
    assert client.get("/api/iso/print?accession_number=A,B").json()["made_before_minutes"] == 7
    desk.ended_before = None
    book = OrderBook.of(scripts.storage.orders_dir, ["B"])
    book.ask("before")
    book.begin(order := book.open("before", 0, "another robot"))
    book.settle(order, "given")
    assert client.get("/api/iso/print?accession_number=A,B").json()["made_before_minutes"] == 0
    assert "made_before_minutes" not in client.get("/api/iso/print?accession_number=A").json()
    desk.script = scripts.failed(PublisherRefused("The publisher refused: out of discs."))
    assert client.get("/api/iso/print?accession_number=C").status_code == 502


@pytest.mark.parametrize(
    ("kind", "error", "status"),
    [
        ("print", stopped("print"), 502),
        ("print", StorageFull("The disk of mkiso is full."), 503),
        ("download", stopped("download"), 503),
    ],
)
def test_nobody_is_told_to_come_back_for_a_print_that_may_be_made(
    client: httpx.Client, desk: Desk, scripts: Scripts, kind: str, error: MkisoError, status: int
) -> None:
    """Who came back as Retry-After says had a second disc made of a print that the robot had."""
    desk.script = scripts.failed(error)
    answer = client.get(f"/api/iso/{kind}?accession_number=A")
    assert (answer.status_code, answer.json()["code"]) == (status, error.code)
    assert ("retry-after" in answer.headers) is (status == 503)


def test_a_full_disk_after_the_order_tells_nobody_to_come_back(
    client: httpx.Client, desk: Desk, scripts: Scripts
) -> None:
    def script(job_id: str, question: Question) -> Standing:
        report = JobReport(job_id, "print", question.accession_numbers, publisher="rimage", proves="queued")
        write_report(scripts.storage, report.failed(StorageFull("The disk of mkiso is full.")))
        return "failed"

    desk.script = script
    answer = client.get("/api/iso/print?accession_number=A")
    assert (answer.status_code, answer.json()["code"]) == (502, "storage_full")
    assert "retry-after" not in answer.headers


def test_a_print_that_is_queued_is_sent_while_the_robot_is_at_it(
    client: httpx.Client, desk: Desk, scripts: Scripts
) -> None:
    desk.script = lambda job_id, question: scripts.report(job_id, question, stage="ordered", written=3, proves="queued")
    answer = client.get("/api/iso/print?accession_number=A")
    assert (answer.status_code, answer.json()["proves"], answer.json()["joined"]) == (200, "queued", False)
    assert client.get("/api/iso/print?accession_number=A").json()["joined"] is True
    assert client.get(f"/api/iso/jobs/{answer.json()['job_id']}").json()["state"] == "running"


def test_a_robot_that_must_be_done_is_waited_for(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, request_timeout_seconds=1)
    settings = settings.model_copy(update={"print": settings.print.model_copy(update={"wait_for": "done"})})
    scripts = Scripts(settings.storage)
    desk = Desk(lambda job_id, question: scripts.report(job_id, question, proves="queued"))
    with served(settings, desk) as client:
        assert client.get("/api/iso/print?accession_number=A").status_code == 504
        scripts.report(next(iter(desk.standings)), desk.asked[0], status="done", proves="done", written=3)
        desk.standings = dict.fromkeys(desk.standings, "completed")
        desk.script = scripts.done
        assert client.get("/api/iso/print?accession_number=A").status_code == 200


def test_a_disc_is_sent_as_soon_as_the_job_tells_of_it_and_not_when_prefect_does(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)

    def job(job_id: str, question: Question) -> Standing:
        scripts.report(job_id, question, stage="reading back")
        threading.Timer(0.3, lambda: scripts.done(job_id, question)).start()
        return "running"

    with served(settings, desk := Desk(job)) as client:
        answer = client.get(ONE)
        assert (answer.status_code, len(answer.content)) == (200, 37773)
        assert set(desk.standings.values()) == {"running"}
        told = client.get(answer.headers["content-location"].rpartition("/disc")[0]).json()
        assert (told["state"], len(told["discs"])) == ("done", 1)


def test_a_disc_of_an_earlier_attempt_is_not_sent_while_the_job_runs_anew(
    client: httpx.Client, desk: Desk, scripts: Scripts
) -> None:
    desk.script = lambda job_id, question: scripts.done(job_id, question) and "running"
    assert client.get(ONE).status_code == 504


def test_a_print_ends_when_its_run_does(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, request_timeout_seconds=1)
    settings = settings.model_copy(update={"print": settings.print.model_copy(update={"wait_for": "done"})})
    scripts = Scripts(settings.storage)

    def job(job_id: str, question: Question) -> Standing:
        threading.Timer(0.2, lambda: scripts.report(job_id, question, status="done", proves="done", written=3)).start()
        return "running"

    with served(settings, Desk(job)) as client:
        assert client.get("/api/iso/print?accession_number=A").status_code == 504


def test_looking_and_guessing_print_nothing(client: httpx.Client, desk: Desk) -> None:
    assert client.head("/api/iso/print?accession_number=A").status_code == 200
    assert (
        client.get("/api/iso/print?accession_number=A", headers={"Sec-Purpose": "prefetch;prerender"}).status_code
        == 400
    )
    assert desk.asked == []


def test_too_busy_and_prefect_down(client: httpx.Client, desk: Desk) -> None:
    desk.full = True
    answer = client.get(ONE)
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "queue_full", "7")
    desk.full, desk.down = False, True
    answer = client.get(ONE)
    assert (answer.status_code, answer.json()["code"]) == (503, "orchestrator_unavailable")
    assert int(answer.headers["retry-after"]) > 0


def test_a_finished_job_is_told_and_served_without_prefect(client: httpx.Client, desk: Desk) -> None:
    address = client.get(ONE).headers["content-location"]
    desk.down = True
    assert client.get(address).status_code == 200
    assert client.get(address.partition("/disc")[0]).json()["state"] == "done"
    assert client.get("/api/iso/jobs/123e4567-e89b-12d3-a456-426614174000").status_code == 503


@pytest.mark.parametrize(
    "job_id", ["x", "123e4567-e89b-12d3-a456-426614174000", "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "a" * 300, "%00"]
)
def test_a_job_that_nobody_knows(client: httpx.Client, desk: Desk, job_id: str) -> None:
    for path in (f"/api/iso/jobs/{job_id}", f"/api/iso/jobs/{job_id}/disc"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert {"error", "code", "request_id"} <= set(answer.json())


def test_low_disk_refuses_new_work(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    settings = settings.model_copy(update={"storage": settings.storage.model_copy(update={"min_free_gib": 1e6})})
    desk = Desk(Scripts(settings.storage).done)
    with served(settings, desk) as client:
        answer = client.get(ONE)
    assert (answer.status_code, answer.json()["code"], desk.asked) == (503, "storage_full", [])
    assert "retry-after" in answer.headers


def test_a_report_is_json_without_a_patients_name(client: httpx.Client, settings: Settings) -> None:
    client.get(ONE)
    assert next(iter(manifests(settings.storage))).filename.startswith("สมชาย")
    reports = [*settings.storage.reports_dir.rglob("*.json")]
    assert reports
    for file in reports:
        assert "สมชาย" not in json.dumps(json.loads(file.read_text()), ensure_ascii=False)


def test_a_job_whose_run_was_deleted_in_prefect_was_cut_off(client: httpx.Client, desk: Desk, scripts: Scripts) -> None:
    """It was shown as running until its report was too old, on its own page and not in the list."""
    desk.script = lambda job_id, question: scripts.report(job_id, question, stage="retrieving")
    job_id = client.get("/api/iso/download?accession_number=A1", headers={"Prefer": "respond-async"}).json()["job_id"]
    assert client.get(f"/api/iso/jobs/{job_id}").json()["state"] == "running"
    desk.down = True
    assert client.get(f"/api/iso/jobs/{job_id}").json()["state"] == "running", "nobody can say"
    desk.down = False
    del desk.standings[job_id]
    job = client.get(f"/api/iso/jobs/{job_id}").json()
    assert (job["state"], job["error"]["code"]) == ("failed", "job_crashed")
