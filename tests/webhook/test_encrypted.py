"""Encrypted discs over HTTP: never shared, the password told once, to who asked, and written down nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from mkiso.config.disc import Deidentified, Disc
from mkiso.errors import InvalidRequest, StudyNotFound
from mkiso.storage.handover import claimed, hand_over, new_claim, seal_of
from mkiso.study.question import Question
from mkiso_service.prefect.orchestrator import Standing
from mkiso_service.webhook.questions.query import Query
from peers.patience import until
from tests.webhook.desk import Desk, Scripts, served, settings_in

ASK = "/api/iso/download?accession_number=A1&format=zip-encrypted"
ASYNC = {"Prefer": "respond-async"}
PASSWORD = "11111-22222-33333-44444-55555"
BROWSER = {
    "Accept": "text/html,*/*;q=0.8",
    "Accept-Language": "en",
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}
OWN_FORM = {**BROWSER, "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def encrypting(desk: Desk, scripts: Scripts) -> Desk:
    """Jobs make a disc and leave its password, as the worker does."""

    def script(job_id: str, question: Question) -> Standing:
        hand_over(scripts.storage, job_id, question.seal, PASSWORD)
        return scripts.done(job_id, question)

    desk.script = script
    return desk


def test_the_password_is_told_once_to_who_has_the_claim(client: httpx.Client, encrypting: Desk) -> None:
    asked = client.get(ASK, headers=ASYNC).json()
    address = f"{asked['job']}/password"
    stranger = client.post(address, data={"claim": new_claim()})
    assert (stranger.status_code, stranger.json()["code"]) == (403, "wrong_claim")
    assert client.post(address).status_code == 400
    told = client.post(address, data={"claim": asked["claim"]})
    assert told.json() == {"password": PASSWORD}
    assert told.headers["cache-control"] == "no-store"
    again = client.post(address, data={"claim": asked["claim"]})
    assert (again.status_code, again.json()["code"]) == (410, "password_gone")
    assert client.get(f"{asked['job']}/disc").headers["content-type"] == "application/zip"


def test_nothing_that_is_kept_or_passed_on_opens_the_password(
    client: httpx.Client, encrypting: Desk, scripts: Scripts, caplog: pytest.LogCaptureFixture
) -> None:
    asked = client.get(ASK, headers=ASYNC).json()
    [question] = encrypting.asked
    assert question.seal == question.parameters["seal"] != asked["claim"]
    written = [file.read_text("latin-1") for file in scripts.storage.data_dir.rglob("*") if file.is_file()]
    assert len(written) > 3
    client.post(f"{asked['job']}/password", data={"claim": asked["claim"]})
    for text in (*written, caplog.text, asked["job"], str(question.parameters)):
        assert PASSWORD not in text
        assert asked["claim"] not in text


@pytest.mark.parametrize("copied", [False, True])
def test_a_letter_with_the_password_is_offered_where_there_is_one(tmp_path: Path, copied: bool) -> None:
    """Of a de-identified copy the button led to an error, always."""
    offered = {"deidentified": Deidentified(secret=SecretStr("s" * 32))}
    settings = settings_in(tmp_path).model_copy(update=offered)
    scripts = Scripts(settings.storage)

    def script(job_id: str, question: Question) -> Standing:
        hand_over(scripts.storage, job_id, question.seal, PASSWORD)
        return scripts.done(job_id, question)

    with served(settings, Desk(script)) as client:
        address = f"{ASK}&deidentified={str(copied).lower()}"
        page = client.get(address, headers=BROWSER, follow_redirects=True).text
        assert ("Show the password" in page, "Letter with the password" in page) == (True, not copied)


def test_an_answer_that_is_never_given_keeps_no_disc_open(client: httpx.Client, desk: Desk, scripts: Scripts) -> None:
    desk.script = scripts.done  # which leaves no password
    before = _open_discs()
    for _ in range(3):
        answer = client.get(f"{ASK}&password=header")
        assert (answer.status_code, answer.json()["code"]) == (410, "password_gone")
    until(lambda: _open_discs() <= before)  # each is closed behind its answer


def _open_discs() -> int:
    """How many files of discs this process has open; the webhook runs in it."""
    opened = Path("/proc/self/fd").iterdir()
    return sum("/discs/" in str(each.readlink()) for each in opened if each.is_symlink())


def test_who_waits_gets_the_password_in_the_header_that_they_name(client: httpx.Client, encrypting: Desk) -> None:
    refused = client.get(ASK)
    assert (refused.status_code, encrypting.asked) == (400, [])
    assert "password=header" in refused.json()["error"]
    assert client.get(f"{ASK}&password=yes").status_code == 400
    answer = client.get(f"{ASK}&password=header")
    assert answer.headers["x-mkiso-password"] == PASSWORD
    rest = client.get(answer.headers["content-location"], headers={"Range": "bytes=5-"})
    assert (rest.status_code, rest.content) == (206, answer.content[5:])
    assert "x-mkiso-password" not in rest.headers


def test_no_two_who_ask_share_a_disc(client: httpx.Client, desk: Desk, scripts: Scripts) -> None:
    desk.script = lambda job_id, question: "running"
    first, second = (client.get(ASK, headers=ASYNC).json() for _ in range(2))
    assert first["job_id"] != second["job_id"]
    assert (first["joined"], second["joined"]) == (False, False)
    assert len({question.key for question in desk.asked}) == 2
    assert Question.of_run("download", desk.asked[0].parameters) == desk.asked[0]


def test_a_finished_disc_is_nobody_elses(client: httpx.Client, encrypting: Desk) -> None:
    one = client.get(f"{ASK}&password=header")
    assert "etag" not in client.head(ASK).headers
    other = client.get(f"{ASK}&password=header")
    assert one.headers["content-location"] != other.headers["content-location"]
    assert len(encrypting.asked) == 2


def test_a_job_that_goes_on_keeps_the_claim(client: httpx.Client, desk: Desk, scripts: Scripts) -> None:
    desk.script = scripts.set_of(2)
    several = client.get(f"{ASK}&password=header").json()
    assert several["code"] == "several_discs"
    seal_of(several["claim"])
    desk.script = scripts.failed(StudyNotFound("There is none."))
    assert "x-mkiso-password" not in client.get(f"{ASK}&password=header").headers


def test_no_part_is_led_to_where_nobody_learns_its_password(
    client: httpx.Client, encrypting: Desk, scripts: Scripts
) -> None:
    for part in (1, 2):
        refused = client.get(f"{ASK}&password=header&part={part}")
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
        assert "without 'part'" in refused.json()["error"]
    assert encrypting.asked == []


def test_a_person_is_shown_the_password_on_a_page(client: httpx.Client, encrypting: Desk) -> None:
    led = client.get(ASK, headers=BROWSER)
    assert led.status_code == 303
    address = led.headers["location"].partition("?")[0]
    cookie = led.headers["set-cookie"]
    assert f"Path={address}" in cookie and "HttpOnly" in cookie and "samesite=lax" in cookie.lower()
    [claim] = re.findall(r"mkiso-claim=([A-Za-z0-9_-]{43});", cookie)
    assert claim not in led.headers["location"]
    page = client.get(address, headers={**BROWSER, "Cookie": f"mkiso-claim={claim}"})
    assert "Show the password" in page.text and claim not in page.text
    assert "Show the password" not in client.get(address, headers={**BROWSER, "Cookie": ""}).text
    shown = client.post(f"{address}/password", headers={**OWN_FORM, "Cookie": f"mkiso-claim={claim}"})
    assert PASSWORD in shown.text
    assert shown.headers["cache-control"] == "no-store"


def test_another_sites_page_is_told_nothing(client: httpx.Client, encrypting: Desk, scripts: Scripts) -> None:
    asked = client.get(ASK, headers=ASYNC).json()
    foreign = {**BROWSER, "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    refused = client.post(f"{asked['job']}/password", data={"claim": asked["claim"]}, headers=foreign)
    assert refused.status_code == 403
    assert claimed(scripts.storage, asked["job_id"], asked["claim"]) == PASSWORD


def test_the_letter_carries_the_password_where_that_is_asked(client: httpx.Client, encrypting: Desk) -> None:
    asked = client.get(ASK, headers=ASYNC).json()
    plain = client.get(f"{asked['job']}/letter.pdf")
    letter = client.post(f"{asked['job']}/letter.pdf", data={"claim": asked["claim"]})
    assert (letter.status_code, letter.headers["content-type"]) == (200, "application/pdf")
    assert len(letter.content) > len(plain.content)
    for address in ("password", "letter.pdf"):
        assert client.post(f"{asked['job']}/{address}", data={"claim": asked["claim"]}).status_code == 410


def test_a_disc_that_isnt_encrypted_has_no_password(client: httpx.Client, desk: Desk, scripts: Scripts) -> None:
    desk.script = scripts.done
    asked = client.get("/api/iso/download?accession_number=A1", headers=ASYNC).json()
    assert "claim" not in asked
    assert client.post(f"{asked['job']}/password", data={"claim": new_claim()}).status_code == 400


@pytest.mark.parametrize("claim", ["", "x", "A" * 42, "A" * 44, "?" * 43, "ä" * 43])
def test_what_is_no_claim_is_refused(client: httpx.Client, encrypting: Desk, claim: str) -> None:
    asked = client.get(ASK, headers=ASYNC).json()
    assert client.post(f"{asked['job']}/password", data={"claim": claim}).status_code in (400, 403)


def test_password_says_header_or_nothing() -> None:
    assert not Query(b"").password_in_header()
    with pytest.raises(InvalidRequest):
        Query(b"password=url").password_in_header()


@pytest.fixture(params=["required_for_files", "required"])
def strict(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[httpx.Client, Desk, str]]:
    base = settings_in(tmp_path)
    settings = base.model_copy(update={"disc": Disc(encryption=request.param)})
    desk = Desk()
    with served(settings, desk) as client:
        yield client, desk, request.param


def test_a_site_may_hand_out_nothing_that_is_open(strict: tuple[httpx.Client, Desk, str]) -> None:
    client, desk, _ = strict
    for query in ("", "&format=iso", "&format=zip", "&format=usb"):
        refused = client.get(f"/api/iso/download?accession_number=A1{query}")
        assert (refused.status_code, refused.json()["code"]) == (403, "encryption_required")
        assert "zip-encrypted" in refused.json()["error"]
    assert not desk.asked
    assert client.get(ASK, headers=ASYNC).status_code == 202
    page = client.get("/").text
    assert re.findall(r'name="format" value="([^"]+)"', page) == ["zip-encrypted"]


def test_encrypted_dicom_files_are_offered_where_there_are_programs_for_them(tmp_path: Path) -> None:
    for recipients, count in (((), 1), ((tmp_path / "practice.pem",), 4)):
        disc = Disc(encryption="required_for_files", recipients=recipients)
        with served(settings_in(tmp_path).model_copy(update={"disc": disc}), Desk()) as client:
            assert len(re.findall(r'name="format" value="([^"]+)"', client.get("/").text)) == count
            for name in ("iso-cms", "zip-cms", "usb-cms"):
                asked = client.get(f"/api/iso/download?accession_number=A1&format={name}", headers=ASYNC)
                assert (asked.status_code, "claim" in asked.json()) == (202, True)


def test_what_was_made_before_the_site_asked_for_encryption_leaves_no_more(
    strict: tuple[httpx.Client, Desk, str], tmp_path: Path
) -> None:
    client, desk, _ = strict
    scripts = Scripts(settings_in(tmp_path).storage)
    job_id = "123e4567-e89b-12d3-a456-426614174000"
    desk.standings[job_id] = scripts.done(job_id, Question("download", ("A1",)))
    assert client.get(f"/api/iso/jobs/{job_id}/disc").json()["code"] == "encryption_required"


def test_whether_robots_print_is_the_sites_choice(strict: tuple[httpx.Client, Desk, str]) -> None:
    client, _, encryption = strict
    answer = client.post("/api/iso/print?accession_number=A1", headers=ASYNC)
    assert answer.status_code == (403 if encryption == "required" else 202)
