"""The list of this site's discs, and cancelling one, over HTTP."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect._internal.uuid7 import uuid7
from pydantic import SecretStr

from mkiso.config.disc import Deidentified, Disc, Identity
from mkiso.config.settings import Audit, Settings
from mkiso.errors import JobStopped, PacsBusy, StorageFull
from mkiso.storage.askings import MAX_BYTES, Asking, askings_of, write_asking
from mkiso.storage.report import JobReport, report_in, write_report
from mkiso.storage.report_files import ASKED, REPORT, file_of
from mkiso.storage.shelf import manifests, take_off
from mkiso.study.question import Question
from mkiso_service.prefect.orchestrator import Standing
from mkiso_service.webhook.counter import listing
from peers.small_disk import failing
from tests.webhook.desk import KEY, Desk, Script, Scripts, served, settings_in
from tests.webhook.test_trail import events

ASYNC = {"Prefer": "respond-async"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LOOK_SECONDS", 0.0)


def listed(client: httpx.Client, **query: str) -> list[dict[str, Any]]:
    answer = client.get("/api/iso/jobs", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    jobs: list[dict[str, Any]] = answer.json()["jobs"]
    return jobs


def numbers(jobs: list[dict[str, Any]]) -> list[str]:
    return [",".join(each["job"]["accession_numbers"]) for each in jobs]


def test_everybody_sees_how_each_disc_stands(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)

    def script(job_id: str, question: Question) -> Standing:
        match question.accession_numbers[0]:
            case "WAITS":
                return "waiting"
            case "RUNS":
                facts = {"patient_id": "HN-1", "patient_name": "Example^Anna", "patient_birth_date": "19700102"}
                scripts.report(job_id, question, stage="retrieving", expected=10, received=5, **facts)
                return "running"
            case "FAILS":
                return scripts.failed(PacsBusy("Busy."))(job_id, question)
            case "BREAKS":
                scripts.report(job_id, question, stage="mastering")
                return "crashed"
        return scripts.done(job_id, question)

    with served(settings, Desk(script)) as client:
        for number in ("DONE", "WAITS", "RUNS", "FAILS", "BREAKS"):
            client.get("/api/iso/download", params={"accession_number": number}, headers=ASYNC)
        client.post("/api/iso/print?accession_number=DONE,OTHER", headers={**ASYNC, "Origin": str(client.base_url)})
        jobs = listed(client)
        assert numbers(jobs) == ["DONE,OTHER", "BREAKS", "FAILS", "RUNS", "WAITS", "DONE"]
        assert [(each["job"]["state"], each["job"]["progress"]) for each in jobs] == [
            ("done", 1.0),
            ("failed", 0.82),
            ("failed", 0.0),
            ("running", 0.34),
            ("waiting", 0.0),
            ("done", 1.0),
        ]
        assert [asker["by"] for asker in jobs[0]["asked"]] == ["page"]
        assert [(asker["who"], asker["by"]) for asker in jobs[1]["asked"]] == [("127.0.0.1", "program")]
        assert (jobs[3]["patient_id"], jobs[3]["patient_name"]) == ("HN-1", "Example, Anna")
        assert jobs[3]["patient_birth_date"] == "19700102"
        assert jobs[1]["job"]["error"]["code"] == "job_crashed"
        [disc] = jobs[5]["job"]["discs"]
        assert client.get(disc["href"]).status_code == 200
        assert "Anna" not in client.get(f"/api/iso/jobs/{jobs[3]['job']['job_id']}").text


def test_a_job_that_never_began_is_told_as_it_was_asked_for(tmp_path: Path) -> None:
    """Asked again, an open file came for an encrypted one, and the patient's own disc for a de-identified copy."""
    offered = {"deidentified": Deidentified(secret=SecretStr("s" * 32)), "disc": Disc(transfer_syntax="explicit-le")}
    settings, desk = settings_in(tmp_path).model_copy(update=offered), Desk(lambda job_id, question: "cancelled")
    asked: tuple[dict[str, str], ...] = (
        {},
        {"format": "zip-encrypted", "language": "th"},
        {"transfer_syntax": "as-archived"},
        {"deidentified": "true"},
    )
    with served(settings, desk) as client:
        for query in asked:
            client.get("/api/iso/download", params={"accession_number": "A1", **query}, headers=ASYNC)
        jobs = [each["job"] for each in reversed(listed(client))]
        assert jobs == [client.get(f"/api/iso/jobs/{job['job_id']}").json() for job in jobs]
    facts = ("format", "language", "transfer_syntax", "deidentified")
    assert [tuple(job[fact] for fact in facts) for job in jobs] == [
        ("iso", "en", "explicit-le", False),
        ("zip-encrypted", "th", "explicit-le", False),
        ("iso", "en", "as-archived", False),
        ("iso", "en", "explicit-le", True),
    ]


@pytest.mark.parametrize(("kind", "code", "status"), [("download", "storage_full", 503), ("print", "job_crashed", 502)])
def test_everybody_sees_why_a_job_failed_that_found_no_room_to_say_it(
    tmp_path: Path, kind: str, code: str, status: int
) -> None:
    """The list said that it was interrupted, though the job's own page and who waited for it were told why."""
    settings, desk = settings_in(tmp_path), Desk(lambda job_id, question: "failed")
    with served(settings, desk) as client:
        headers = {**ASYNC, "Origin": str(client.base_url)}
        method = "POST" if kind == "print" else "GET"
        asked = client.request(method, f"/api/iso/{kind}?accession_number=A1", headers=headers)
        job_id = asked.json()["job_id"]
        desk.why[job_id] = StorageFull("The disk of mkiso is full.")
        [of_all] = [each["job"] for each in listed(client)]
        own = client.get(f"/api/iso/jobs/{job_id}").json()
        assert of_all == own
        told = own["error"]
        assert (own["state"], own["kind"], told["code"], told["http_status"]) == ("failed", kind, code, status)
        assert told["error"] == "The disk of mkiso is full."
        page = client.get(f"/api/iso/jobs/{job_id}", headers={"Accept": "text/html"}).text
        assert ("look at the disc robot first" in page.lower()) == (kind == "print")


def test_those_who_join_a_job_are_named_with_it(tmp_path: Path) -> None:
    with served(settings_in(tmp_path), Desk(lambda job_id, question: "running")) as client:
        client.get("/api/iso/download?accession_number=A1", headers=ASYNC)
        client.get("/api/iso/download?accession_number=A1", headers={**ASYNC, "Origin": str(client.base_url)})
        [job] = listed(client)
        assert [asker["by"] for asker in job["asked"]] == ["program", "page"]


def test_a_disc_that_answers_a_question_of_now_is_listed_first(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    old = _kept(settings, "OLD", 1.5)
    _kept(settings, "NEW", 0.1)
    with served(settings, Desk()) as client:
        assert numbers(listed(client)) == ["NEW"]
        now = datetime.now(UTC).isoformat()
        write_asking(settings.storage, old, Asking(now, "10.0.0.8", "page", "download", ("OLD",)))
        jobs = listed(client)
        assert numbers(jobs) == ["OLD", "NEW"]
        assert datetime.fromisoformat(jobs[0]["begun"]) < datetime.now(UTC) - timedelta(days=1)


def _kept(settings: Settings, number: str, days: float, **facts: Any) -> str:
    """A job of then, in the folder of its day, which nobody has changed since."""
    when = datetime.now(UTC) - timedelta(days=days)
    job_id = str(uuid7(ms=int(when.timestamp() * 1000)))
    write_report(settings.storage, JobReport(job_id, "download", (number,), status="done", **facts))
    write_asking(settings.storage, job_id, Asking(when.isoformat(), "10.0.0.7", "page", "download", (number,)))
    folder = file_of(settings.storage, job_id, ASKED).parent
    for path in (*folder.iterdir(), folder):
        os.utime(path, (when.timestamp(),) * 2)
    return job_id


def test_a_birth_date_that_clerks_have_to_know_is_told_to_none(tmp_path: Path) -> None:
    settings = settings_in(tmp_path).model_copy(update={"identity": Identity(confirm_birth_date=True)})
    _kept(settings, "A1", 0.1, patient_name="Example^Anna", patient_birth_date="19700102")
    with served(settings, Desk()) as client:
        assert [each["patient_birth_date"] for each in listed(client)] == [""]


def test_a_search_finds_what_is_kept_by_number_patient_id_and_name(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    _kept(settings, "OLD1", 20, patient_id="HN-1", patient_name="Müller^Jörg^^Dr.")
    _kept(settings, "NEW1", 0.1, patient_id="HN-1", patient_name="Müller^Jörg^^Dr.")
    _kept(settings, "OLD2", 3, patient_id="HN-12", patient_name="Yamada^Tarou=山田^太郎")
    with served(settings, Desk()) as client:
        assert numbers(listed(client)) == ["NEW1"]
        for search, found in {
            "old1": ["OLD1"],
            "OLD": [],
            "hn-1": ["NEW1", "OLD1"],
            "HN-12": ["OLD2"],
            "jörg müller": ["NEW1", "OLD1"],
            "山田": ["OLD2"],
            " ": ["NEW1"],
            "nobody": [],
        }.items():
            assert numbers(listed(client, search=search)) == found, search
        since = (datetime.now(UTC) - timedelta(days=4)).isoformat()
        assert numbers(listed(client, since=since)) == ["NEW1", "OLD2"]
        for wrong in (
            {"search": "x" * 65},
            {"search": "a\nb"},
            {"since": "yesterday"},
            {"since": "2026-01-01T00:00:00"},
        ):
            assert client.get("/api/iso/jobs", params=wrong).status_code == 400


def test_what_one_has_just_seen_hides_nothing_of_what_another_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are looked at once for all who ask for the same within half a second."""
    monkeypatch.setattr(listing, "LOOK_SECONDS", 60.0)
    settings = settings_in(tmp_path)
    for days in (0.1, 3, 20):
        _kept(settings, f"A{days:g}", days, patient_id="HN-1")
    with served(settings, Desk()) as client:
        for days, found in ((1, ["A0.1"]), (4, ["A0.1", "A3"]), (30, ["A0.1", "A3", "A20"]), (1, ["A0.1"])):
            since = (datetime.now(UTC) - timedelta(days=days)).isoformat()
            assert numbers(listed(client, since=since)) == found
            assert numbers(listed(client, search="hn-1")) == ["A0.1", "A3", "A20"]


def test_no_more_are_listed_than_anybody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST", 2)
    settings = settings_in(tmp_path)
    for hours in (3, 1, 2):
        _kept(settings, f"A{hours}", hours / 24)
    with served(settings, Desk()) as client:
        answer = client.get("/api/iso/jobs").json()
        assert (numbers(answer["jobs"]), answer["more"]) == (["A1", "A2"], True)


def test_what_lies_there_damaged_hides_nothing_else(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    _kept(settings, "A1", 0)
    reports = settings.storage.reports_dir
    (reports / f"{uuid4()}.json").write_text("{")
    (reports / f"{uuid4()}.asked").write_text('{"time": "half a li')
    (reports / "no id.asked").write_text("{}")
    asked = file_of(settings.storage, _kept(settings, "A2", 0), ASKED)
    asked.write_text(asked.read_text() + '{"time"')
    with served(settings, Desk()) as client:
        assert sorted(numbers(listed(client))) == ["A1", "A2"]


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "yesterday", ""])
def test_a_wrong_clock_of_long_ago_hides_nothing_else(tmp_path: Path, time: str) -> None:
    settings = settings_in(tmp_path)
    first = _kept(settings, "A1", 0)
    write_asking(settings.storage, first, Asking(time, "10.0.0.8", "page", "download", ("A1",)))
    alone = str(uuid4())
    write_asking(settings.storage, alone, Asking(time, "10.0.0.8", "page", "download", ("A2",)))
    page = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    with served(settings, Desk()) as client:
        assert sorted(numbers(listed(client))) == ["A1", "A2"]
        assert client.get("/api/iso/made", headers=page).status_code == 200


@pytest.mark.parametrize(
    ("standing", "state", "code"),
    [("running", "running", ""), ("cancelled", "failed", "job_cancelled"), ("failed", "failed", "job_stopped")],
)
def test_a_stopped_job_stands_as_prefect_has_it(tmp_path: Path, standing: Standing, state: str, code: str) -> None:
    """A cancelled job's own report says that it was stopped, some seconds before Prefect says why."""
    settings = settings_in(tmp_path)
    desk = Desk(Scripts(settings.storage).failed(JobStopped("Stopped.")))
    with served(settings, desk) as client:
        client.get("/api/iso/download?accession_number=A1", headers=ASYNC)
        desk.standings = dict.fromkeys(desk.standings, standing)
        [job] = [each["job"] for each in listed(client)]
        assert (job["state"], (job["error"] or {}).get("code", "")) == (state, code)
        desk.standings.clear()  # the run isn't kept any more
        [job] = [each["job"] for each in listed(client)]
        assert (job["state"], job["error"]["code"]) == ("failed", "job_stopped")


def test_a_disc_that_is_not_kept_any_more_hides_no_other(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with served(settings, Desk(Scripts(settings.storage).done)) as client:
        for number in ("GONE", "THERE"):
            client.get("/api/iso/download", params={"accession_number": number}, headers=ASYNC)
        [gone] = [disc for disc in manifests(settings.storage) if disc.accession_numbers == ("GONE",)]
        take_off(settings.storage, gone)
        jobs = listed(client)
        assert [(each["job"]["state"], len(each["job"]["discs"])) for each in jobs] == [("done", 1), ("done", 0)]


def test_a_disc_that_cannot_be_read_just_now_hides_no_other(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with served(settings, Desk(Scripts(settings.storage).done)) as client:
        for number in ("FAILS", "THERE"):
            client.get("/api/iso/download", params={"accession_number": number}, headers=ASYNC)
        [fails] = [disc for disc in manifests(settings.storage) if disc.accession_numbers == ("FAILS",)]
        with failing(settings.storage.discs_dir / fails.disc_id / "manifest.json"):
            assert [len(each["job"]["discs"]) for each in listed(client)] == [1, 0]
        assert [len(each["job"]["discs"]) for each in listed(client)] == [1, 1]


def test_without_prefect_the_list_says_what_the_reports_say(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)
    ends: list[Script] = [scripts.done, lambda job_id, question: "waiting"]
    desk = Desk(lambda job_id, question: ends.pop(0)(job_id, question))
    with served(settings, desk) as client:
        for number in ("DONE", "WAITS"):
            client.get("/api/iso/download", params={"accession_number": number}, headers=ASYNC)
        desk.down = True
        assert [(each["job"]["state"]) for each in listed(client)] == ["waiting", "done"]


def test_a_job_is_cancelled_by_a_person_or_a_program_and_by_no_other_page(tmp_path: Path) -> None:
    desk = Desk(lambda job_id, question: "running")
    with served(settings_in(tmp_path, auth=True), desk) as client:
        key = {"X-API-Key": KEY}
        job = client.get("/api/iso/download?accession_number=A1", headers={**ASYNC, **key}).json()["job"]
        assert client.post(f"{job}/cancel").status_code == 401
        foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert client.post(f"{job}/cancel", headers={**key, **foreign}).json()["code"] == "foreign_request"
        assert client.get(f"{job}/cancel", headers=key).status_code == 405
        assert client.get(job, headers=key).json()["state"] == "running"
        told = client.post(f"{job}/cancel", headers=key).json()
        assert (told["state"], told["error"]["code"]) == ("failed", "job_cancelled")
        assert client.post(f"{job}/cancel", headers=key).json() == told
        assert client.post(f"/api/iso/jobs/{uuid4()}/cancel", headers=key).status_code == 404


@pytest.mark.parametrize(
    ("kind", "words"), [("print", "may already be with the publisher"), ("download", "Nothing was sent")]
)
def test_a_cancelled_job_whose_report_is_damaged_ends_as_what_was_asked(tmp_path: Path, kind: str, words: str) -> None:
    settings = settings_in(tmp_path)
    desk = Desk(lambda job_id, question: "running")
    with served(settings, desk) as client:
        job = client.get(f"/api/iso/{kind}?accession_number=A1", headers=ASYNC).json()["job"]
        file_of(settings.storage, job.rpartition("/")[2], REPORT).write_text('{"job_id": "half a re')
        told = client.post(f"{job}/cancel").json()
        assert (told["kind"], told["error"]["code"]) == (kind, "job_cancelled")
        assert words in told["error"]["error"]
        assert words in client.get(f"{job}/disc").json()["error"]


def test_what_has_ended_stays_as_it_is(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with served(settings, Desk(Scripts(settings.storage).done)) as client:
        job = client.get("/api/iso/download?accession_number=A1", headers=ASYNC).json()["job"]
        assert client.post(f"{job}/cancel").json()["state"] == "done"


def test_nobody_sees_the_list_without_the_key_or_from_another_site(tmp_path: Path) -> None:
    with served(settings_in(tmp_path, auth=True), Desk()) as client:
        assert client.get("/api/iso/jobs").status_code == 401
        foreign = {"X-API-Key": KEY, "Origin": "https://evil.example"}
        assert client.get("/api/iso/jobs", headers=foreign).status_code == 403


def test_who_looks_at_the_list_stands_in_the_audit(tmp_path: Path) -> None:
    settings = settings_in(tmp_path).model_copy(update={"audit": Audit(enabled=True)})
    with served(settings, Desk()) as client:
        for query in ({}, {}, {"search": "HN-1"}, {"search": "HN-1"}):
            listed(client, **query)
    assert [event for event, _ in events(tmp_path)] == ["Query"] * 3


def test_a_program_that_asks_all_day_fills_no_disk(tmp_path: Path) -> None:
    storage, job_id = settings_in(tmp_path).storage, str(uuid4())
    asked = Asking("2026-01-01T00:00:00+00:00", "10.0.0.7", "program", "download", ("A" * 16,) * 50)
    for _ in range(2 * MAX_BYTES // 1000):
        write_asking(storage, job_id, asked)
    kept = askings_of(storage, job_id)
    assert kept[0] == asked and MAX_BYTES <= (storage.reports_dir / f"{job_id}.asked").stat().st_size < MAX_BYTES + 2000


def test_metrics_that_many_ask_for_at_once_read_each_report_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look of all may take minutes. Each scrape meanwhile began another one, until no thread was left for
    anybody's disc.
    """
    settings, moment, most = settings_in(tmp_path), time.time() - 9 * 86_400, 12
    for number in range(most):
        job_id = str(uuid7(ms=int(moment * 1000)))
        write_report(settings.storage, JobReport(job_id, "download", (f"A{number}",), status="done"))
    os.utime(file_of(settings.storage, job_id, ASKED).parent, (moment, moment))
    read = []

    def noted(file: Path) -> JobReport | None:
        read.append(file.name)
        time.sleep(0.05)
        return report_in(file)

    monkeypatch.setattr("mkiso.storage.kept_reports.report_in", noted)
    with served(settings, Desk()) as client, ThreadPoolExecutor(4) as scrapes:
        told = list(scrapes.map(lambda _: client.get("/metrics").text, range(4)))
    line = f'mkiso_jobs{{code="",kind="download",status="done"}} {most}.0'
    assert [line in text for text in told] == [True] * 4
    assert len(read) == most
