"""What a person sees whom a link or an address has led to the API."""

from __future__ import annotations

from pathlib import Path

import pytest

from mkiso.errors import PacsBusy
from mkiso.languages import language
from mkiso.study.question import Question
from mkiso_service.prefect.orchestrator import Standing
from mkiso_service.webhook.answers.advice import advice, must_look
from mkiso_service.webhook.discs import downloads
from tests.webhook.desk import Desk, Scripts, served, settings_in

BROWSER = {
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Accept-Language": "en",
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}


def test_errors_are_pages_for_people_and_json_for_programs(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with served(settings, Desk(Scripts(settings.storage).failed(PacsBusy("<b>Busy</b>.")))) as client:
        for path, status, words in (
            ("/api/iso/download?accession_number=*", 400, "wildcard"),
            ("/api/iso/download?accession_number=A1", 502, "&lt;b&gt;Busy&lt;/b&gt;."),
            ("/api/iso/jobs/none", 404, "job"),
            ("/nowhere", 404, "There is nothing at this address."),
        ):
            page = client.get(path, headers=BROWSER)
            assert page.status_code == status, page.text
            assert page.headers["content-type"].startswith("text/html") and words in page.text
            assert page.headers["x-request-id"] in page.text
            assert "default-src 'none'" in page.headers["content-security-policy"]
            told = client.get(path)
            assert told.status_code == status and "error" in told.json()


def test_what_to_do_about_an_error_is_told_in_the_browsers_language(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    busy = PacsBusy("It is busy.")
    with served(settings, Desk(Scripts(settings.storage).failed(busy))) as client:
        for code in ("de", "en"):
            headers = {**BROWSER, "Accept-Language": code}
            page = client.get("/api/iso/download?accession_number=A1", headers=headers)
            failed = client.get("/api/iso/download?accession_number=A1").json()["job_id"]
            job = client.get(f"/api/iso/jobs/{failed}", headers=headers)
            for text in (page.text, job.text):
                words = text.partition('<p class="words">')[2].partition("</p>")[0]
                assert words.startswith(advice("pacs_busy", language(code))), text
                assert "It is busy." in text, "the service's own words are there for the administrator"
    assert advice("pacs_busy", language("de")) != advice("pacs_busy", language("en"))


def test_who_types_the_address_of_a_form_is_told_where_to_go_on(tmp_path: Path) -> None:
    with served(settings_in(tmp_path), Desk()) as client:
        for code in ("de", "en"):
            page = client.get("/session", headers={**BROWSER, "Accept-Language": code})
            words = page.text.partition('<p class="words">')[2].partition("</p>")[0]
            assert (page.status_code, words) == (405, advice("method_not_allowed", language(code)))


def test_who_waits_is_told_that_an_operator_has_halted_the_job(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)

    def script(job_id: str, question: Question) -> Standing:
        scripts.report(job_id, question, stage="retrieving", expected=4, received=1)
        return "suspended"

    with served(settings, Desk(script)) as client:
        job = client.get("/api/iso/download?accession_number=A1", headers={"Prefer": "respond-async"}).json()["job"]
        told = client.get(job).json()
        assert (told["state"], told["stage"]) == ("running", "suspended")
        page = client.get(job, headers=BROWSER)
        assert "Halted by an operator; it goes on when they resume it" in page.text and page.headers["refresh"]
        [listed] = client.get("/api/iso/jobs").json()["jobs"]
        assert listed["job"]["stage"] == "suspended"


def test_a_job_that_waits_says_what_was_asked_for(tmp_path: Path) -> None:
    with served(settings_in(tmp_path), Desk(lambda job_id, question: "waiting")) as client:
        job = client.get("/api/iso/download?accession_number=A1", headers={"Prefer": "respond-async"}).json()["job"]
        assert (client.get(job).json()["accession_numbers"], client.get(job).json()["kind"]) == (["A1"], "download")
        assert '<strong class="numbers">A1</strong>' in client.get(job, headers=BROWSER).text


def test_a_browser_sees_how_far_a_disc_is_and_then_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "PAGE_SECONDS", 0.1)
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)

    def script(job_id: str, question: Question) -> Standing:
        scripts.report(job_id, question, stage="retrieving", expected=4, received=1)
        return "running"

    desk = Desk(script)
    with served(settings, desk) as client:
        led = client.get("/api/iso/download?accession_number=A1", headers=BROWSER)
        assert led.status_code == 303
        page = client.get(led.headers["location"], headers=BROWSER)
        assert page.headers["refresh"] == "2"
        assert '<progress max="1" value="0.185"' in page.text
        [job_id] = desk.standings
        desk.standings[job_id] = scripts.done(job_id, desk.asked[0])
        page = client.get(led.headers["location"], headers=BROWSER)
        assert "Download A1.iso (" in page.text
        address = page.headers["refresh"].removeprefix("0; url=")
        disc = client.get(led.headers["location"].rpartition("/")[0] + "/" + address, headers=BROWSER)
        assert disc.status_code == 200 and disc.headers["content-disposition"].startswith("attachment")
        assert "refresh" not in client.get(f"/api/iso/jobs/{job_id}", headers=BROWSER).headers
        program = client.get("/api/iso/download?accession_number=A2", headers={"Prefer": "respond-async"})
        assert program.status_code == 202


def test_who_hears_of_a_print_that_the_robot_may_have_a_part_of_is_sent_there_first() -> None:
    for code in ("proof_failed", "publisher_refused", "job_crashed"):
        assert must_look("print", code) and not must_look("download", code)
        assert "look at the disc robot first" in advice(code, language("en"), look=must_look("print", code))
