"""Each page for people is in the language that the browser asks for."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlencode
from uuid import uuid4

import httpx
import pytest

from documentation.messages import CATALOGUES, catalogue_of
from mkiso.config.disc import Disc
from mkiso.errors import PacsBusy
from mkiso.languages import Language, language
from mkiso.storage.handover import hand_over
from mkiso.storage.report import JobReport, write_report
from mkiso.study.priors import WORDS
from mkiso.study.question import Question
from mkiso_service.prefect.orchestrator import Standing
from mkiso_service.webhook.answers.advice import advice, advices
from mkiso_service.webhook.answers.job_words import LACKS, STAGES
from tests.webhook.desk import KEY, Desk, Scripts, served, settings_in
from tests.webhook.pacs import with_pacs
from tests.webhook.test_shown_pages import BROWSER

ACCEPTED = {"de": "de-AT,de;q=0.9,en;q=0.5", "th": "th"}
FOLDER = "mkiso_service/webhook/page"


@pytest.fixture(params=ACCEPTED)
def spoken(request: pytest.FixtureRequest) -> Language:
    return language(request.param)


def asked_in(spoken: Language) -> dict[str, str]:
    return {**BROWSER, "Accept-Language": ACCEPTED[spoken.code]}


def messages_of(spoken: Language, template: str) -> list[str]:
    """What the template says, of its own, without numbers or names in it."""
    messages = [
        message.id
        for message in catalogue_of(CATALOGUES / f"{spoken.code}.po")
        if isinstance(message.id, str) and "%(" not in message.id
        if f"{FOLDER}/{template}" in [file for file, _ in message.locations]
    ]
    assert messages
    return messages


def read(page: httpx.Response, spoken: Language, template: str, *, apart: int = 2) -> str:
    """The page's text, after seeing that it says which language it is in and has each message of its template in it,
    but for so many that don't apply.
    """
    assert page.headers["content-type"].startswith("text/html"), page.text
    assert "Accept-Language" in page.headers["vary"]
    assert f'<html lang="{spoken.code}" dir="{spoken.direction}"' in page.text
    text = html.unescape(re.sub("data-told='[^']*'", "", page.text))
    messages = messages_of(spoken, template)
    for message in messages:
        said, places = spoken.gettext(message), (">{}<", '"{}"', "> {}<")
        assert not any(place.format(message) in text for place in places) or said == message, message
    there = sum(spoken.gettext(message) in text for message in messages)
    assert there >= len(messages) - apart
    return text


def test_the_counter_page_and_its_script_are_spoken(tmp_path: Path, spoken: Language) -> None:
    with served(settings_in(tmp_path), Desk()) as client:
        page = client.get("/", headers=asked_in(spoken))
        assert spoken.gettext("Is this the right patient?") in read(page, spoken, "counter.html", apart=3)
        found = re.search("data-told='([^']*)'", page.text)
        assert found
        told = json.loads(html.unescape(found[1]))
        assert told["words"] == spoken.words_of(FOLDER) and "Ready" in told["words"]
        assert told["advice"] == advices(spoken)
        assert told["advice"]["pacs_busy"].startswith(spoken.gettext("The PACS is busy."))
        assert told["stages"] == {stage: spoken.gettext(words) for stage, words in STAGES.items()}
        assert told["stages"]["retrieving"] != STAGES["retrieving"]


def test_no_page_is_a_dead_end() -> None:
    """Each leads on, or to the counter page."""
    pages = {file.name: file.read_text(encoding="utf-8") for file in (CATALOGUES.parents[2] / FOLDER).glob("*.html")}
    plain = {name: text for name, text in pages.items() if '{% extends "plain.html" %}' in text}
    assert len(plain) > 8
    [way] = re.findall(r"{% block way %}.*?{% endblock %}", pages["plain.html"])
    for name, text in plain.items():
        whole = text if "{% block way %}{% endblock %}" in text else way + text
        assert re.search(r'href="\{\{ (home|address).* \}\}"|include "born.html"', whole), name


def test_who_goes_back_after_the_session_has_ended_is_told_why_to_sign_in(tmp_path: Path, spoken: Language) -> None:
    ended = spoken.gettext("Your session has ended. Sign in again.")
    with served(settings_in(tmp_path, auth=True), Desk()) as client:
        headers = {**asked_in(spoken), "Sec-Fetch-Site": "same-origin"}
        client.post("/session", data={"key": KEY}, headers=headers)
        signed_in = client.get("/api/keys", headers=headers).text
        client.cookies.clear()
        with_key = client.get("/api/keys", headers={**headers, "X-API-Key": KEY}).text  # as nginx adds it: no session
        stranger = client.get("/nowhere", headers=headers).text
        for page, is_told in ((signed_in, True), (with_key, False), (stranger, False)):
            [back] = re.findall(f'<a href="([^"]*)">{spoken.gettext("Patient discs")}</a>', page)
            assert (ended in client.get(back, headers=headers).text) is is_told


@pytest.mark.parametrize("auth", [True, False])
def test_who_goes_back_and_is_signed_in_gets_the_first_page_at_its_address(tmp_path: Path, auth: bool) -> None:
    with served(settings_in(tmp_path, auth=auth), Desk()) as client:
        back = client.get("/?ended", headers={**asked_in(language("de")), "X-API-Key": KEY}, follow_redirects=False)
    assert (back.status_code, back.headers["location"]) == (303, "/")


def test_the_sign_in_is_spoken(tmp_path: Path, spoken: Language) -> None:
    with served(settings_in(tmp_path, auth=True), Desk()) as client:
        assert "data-wrong" not in read(client.get("/", headers=asked_in(spoken)), spoken, "sign-in.html")
        own = {**asked_in(spoken), "Sec-Fetch-Site": "same-origin"}
        wrong = client.post("/session", data={"key": f"not {KEY}"}, headers=own)
        assert wrong.status_code == 401 and "data-wrong" in read(wrong, spoken, "sign-in.html")


def test_the_print_question_is_spoken(tmp_path: Path, spoken: Language) -> None:
    settings = settings_in(tmp_path)
    with with_pacs(settings, tmp_path / "pacs", "A1", "A2") as settings, served(settings, Desk()) as client:
        order = urlencode({"accession_number": "A1,A2", "confirm_reprint": "true", "language": "fr"})
        text = read(client.get(f"/api/iso/print?{order}", headers=asked_in(spoken)), spoken, "print.html", apart=10)
        assert "language=fr" in text
        asks = spoken.gettext(
            "A link asks for a disc of %(numbers)s from the disc robot %(publisher)s.",
            numbers='<strong class="numbers">A1, A2</strong>',
            publisher="rimage",
        )
        assert asks in text
        unclear = "It prints although an earlier print ended unclear: look at the disc robot first."
        assert spoken.gettext(unclear) in text


def test_an_error_page_is_spoken_and_has_the_errors_own_words_too(tmp_path: Path, spoken: Language) -> None:
    with served(settings_in(tmp_path), Desk()) as client:
        text = read(client.get("/nowhere", headers=asked_in(spoken)), spoken, "error.html")
        own = '<p{} lang="en" dir="ltr">There is nothing at this address.</p>'
        if spoken.code != "en":  # in English the error's own words say it best
            assert f'<p class="words">{advice("not_found", spoken)}</p>' in text
        assert own.format(' class="words"' if spoken.code == "en" else "") in text
        assert f'<a href="/">{spoken.gettext("Patient discs")}</a>' in text
        told = re.search("<p>(.*not_found.*)</p>", text)
        assert told and told[1].startswith(spoken.gettext("Code %(code)s.", code="not_found").rstrip("."))


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("ordering from rimage", "Sending to %(publisher)s"),
        ("sent to rimage (3 of 8)", "Sending to %(publisher)s"),
        ("copying the image to rimage (0 of 1)", "Sending to %(publisher)s"),
        ("waiting for another print (at rimage)", STAGES["waiting for another print"]),
        ("waiting for an earlier study (rimage may be at it; 30 s)", STAGES["waiting for an earlier study"]),
    ],
)
def test_what_a_robot_is_given_is_told_in_the_readers_language(
    tmp_path: Path, spoken: Language, stage: str, words: str
) -> None:
    settings, desk, job_id = settings_in(tmp_path), Desk(), str(uuid4())
    write_report(settings.storage, JobReport(job_id, "print", ("A1",), publisher="rimage", stage=stage))
    desk.standings[job_id] = "running"
    with served(settings, desk) as client:
        page = client.get(f"/api/iso/jobs/{job_id}", headers=asked_in(spoken))
    told = spoken.gettext("%(stage)s.", stage=spoken.gettext(words, publisher="rimage"))
    assert f">{told}<" in html.unescape(page.text)


def test_a_jobs_page_is_spoken_in_each_of_its_states(tmp_path: Path, spoken: Language) -> None:
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)

    def script(job_id: str, question: Question) -> Standing:
        facts = {"stage": "retrieving from MRI", "expected": 1204, "received": 1}
        scripts.report(job_id, question, **facts, deidentified=True)
        return "running"

    desk, seen = Desk(script), []
    with served(settings, desk) as client:
        client.get("/api/iso/download?accession_number=A1", headers={"Prefer": "respond-async"})
        [job_id] = desk.standings

        def shown() -> str:
            page = client.get(f"/api/iso/jobs/{job_id}", headers=asked_in(spoken))
            seen.append(read(page, spoken, "job.html", apart=6))
            return seen[-1]

        things = spoken.ngettext("%(number)s image", "%(number)s images", 1204)
        images = spoken.gettext("%(number)s of %(things)s", number="1", things=things)
        stage = spoken.gettext("Fetching images")
        text = shown()
        assert spoken.gettext("De-identified copy. Not a patient's disc.") in text.replace("&#39;", "'")
        assert spoken.gettext("%(stage)s: %(images)s.", stage=stage, images=images) in text
        assert spoken.gettext("Working") in text and f'aria-label="{spoken.gettext("Progress")}"' in text
        scripts.report(job_id, desk.asked[0], stage="starting")
        assert (
            f">{spoken.gettext('%(stage)s.', stage=spoken.gettext('Starting'))}<" in shown()
        )  # and nothing of 0 images
        desk.standings[job_id] = scripts.set_of(1)(job_id, desk.asked[0])
        text = shown()
        assert spoken.gettext("The disc is ready.") in text and spoken.gettext("Ready") in text
        assert spoken.gettext("Download %(name)s (%(size)s)", name="A1.iso", size=spoken.size(100)) in text
        scripts.failed(PacsBusy("Busy."))(job_id, desk.asked[0])
        desk.standings[job_id] = "failed"
        text = shown()
        assert spoken.gettext("Failed") in text and 'lang="en" dir="ltr">Busy. (pacs_busy)' in text
        scripts.report(job_id, replace(desk.asked[0], accession_numbers=()), status="done", is_part=True)
        desk.standings[job_id] = "completed"
        shown()
    unseen = [message for message in messages_of(spoken, "job.html") if spoken.gettext(message) not in "".join(seen)]
    assert unseen == []


def test_the_password_of_an_encrypted_disc_is_spoken(tmp_path: Path, spoken: Language) -> None:
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)

    def script(job_id: str, question: Question) -> Standing:
        hand_over(settings.storage, job_id, question.seal, "11111-22222")
        return scripts.done(job_id, question)

    with served(settings, Desk(script)) as client:
        asked = client.get(
            "/api/iso/download?accession_number=A1&format=zip-encrypted", headers={"Prefer": "respond-async"}
        ).json()
        headers = {**asked_in(spoken), "Cookie": f"mkiso-claim={asked['claim']}"}
        assert asked["claim"] not in read(client.get(asked["job"], headers=headers), spoken, "claim.html")
        own = {**headers, "Sec-Fetch-Site": "same-origin"}
        assert "11111-22222" in read(client.post(f"{asked['job']}/password", headers=own), spoken, "password.html")


@pytest.mark.parametrize(("accepted", "code"), [("", "fr"), ("ja, *;q=0.1", "fr"), ("en-GB, fr;q=0.3", "en")])
def test_what_no_catalogue_has_is_in_the_sites_language(tmp_path: Path, accepted: str, code: str) -> None:
    settings = settings_in(tmp_path).model_copy(update={"disc": Disc(language="fr")})
    with served(settings, Desk()) as client:
        page = client.get("/", headers={**BROWSER, "Accept-Language": accepted})
        assert f'<html lang="{code}" dir="ltr"' in page.text
        assert (language("fr").gettext("Patient discs") in page.text) == (code == "fr")


def test_the_counters_script_has_words_for_whatever_a_disc_lacks() -> None:
    script = files("mkiso_service.webhook").joinpath("page", "words.js").read_text(encoding="utf-8")
    untold = [lack for lack in (*WORDS, *LACKS) if not re.search(rf'^  "?{lack}"?: ', script, re.MULTILINE)]
    assert untold == []
