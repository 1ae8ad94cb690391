"""Whose disc it would be, over HTTP, in front of a PACS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pydantic import TypeAdapter

from flows.parameters import ShownPatient
from mkiso.config.disc import Identity
from mkiso.config.publishers import Robot
from mkiso.config.settings import Audit, PatientApi
from mkiso.errors import OtherPatient, WrongBirthDate
from mkiso_service.webhook.questions import turns
from peers.corpus import CYRILLIC, JAPANESE, UMLAUT, Person
from peers.patience import LONG
from peers.patient_api import ScriptedPatientApi
from tests.webhook.desk import KEY, Desk, Scripts, served, settings_in
from tests.webhook.pacs import with_pacs
from tests.webhook.test_trail import events

BEFORE = Person("HN-0001", "Example^Anna", birth_date="1970.01.02", sex="F")
RENAMED = Person("HN-0001", "Example-Sample^Anna", sex="F")
PATIENTS = {"J1": JAPANESE, "U1": UMLAUT, "B1": BEFORE, "N1": RENAMED, "C1": CYRILLIC}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("preview")
    settings = settings_in(folder, auth=True).model_copy(
        update={
            "audit": Audit(enabled=True),
            "publishers": {
                "western": Robot(kind="epson", directory=folder, label_template="label.tdd"),
                "russian": Robot(kind="primera", directory=folder, label_template="label.std", label_encoding="cp1251"),
            },
        }
    )
    desk = Desk(Scripts(settings.storage).done)
    with (
        with_pacs(settings, folder / "pacs", "A1", "A2", patients=PATIENTS) as settings,
        served(settings, desk) as client,
    ):
        client.headers["X-API-Key"] = KEY
        yield client


def preview(client: httpx.Client, numbers: str, **query: str) -> dict[str, Any]:
    answer = client.get("/api/iso/preview", params={"accession_number": numbers, **query})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    told: dict[str, Any] = answer.json()
    return told


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_the_patient_and_the_studies_as_the_pacs_has_them(client: httpx.Client) -> None:
    told = preview(client, "A2,A1")
    assert told["patient"] == {
        "patient_id": "HN-0001",
        "name": "Example, Anna",
        "name_on_disc": "Example, Anna",
        "birth_date": "19700102",
        "sex": "F",
    }
    assert [(study["accession_number"], study["modalities"], study["images"]) for study in told["studies"]] == [
        ("A2", ["CT"], 1),
        ("A1", ["CT"], 1),
    ]
    assert preview(client, "J1")["patient"]["name"] == "Yamada, Tarou / 山田, 太郎 / やまだ, たろう"


def test_a_name_that_a_label_shows_in_other_letters_is_told_before_the_order(client: httpx.Client) -> None:
    assert preview(client, "C1")["labels"] == {"western": "Lyukcembypg Anna"}
    assert preview(client, "A1")["labels"] == preview(client, "J1")["labels"] == {}


def test_shown_stands_for_this_patient_and_for_what_the_pacs_says_of_them(client: httpx.Client) -> None:
    shown = preview(client, "A1")["shown"]
    assert preview(client, "A1,A2")["shown"] == preview(client, "A2")["shown"] == shown
    assert len({shown, *(preview(client, number)["shown"] for number in ("U1", "J1", "N1"))}) == 4
    both = preview(client, "A1,N1")
    assert both["patient"]["name"] == "Example, Anna / Example-Sample, Anna"
    assert both["shown"] not in (shown, preview(client, "N1")["shown"])


@pytest.mark.parametrize(
    ("numbers", "status", "code"),
    [
        ("X1", 404, "study_not_found"),
        ("A1,X1", 404, "study_not_found"),
        ("A1,U1", 409, "patient_mismatch"),
        ("A*", 400, "invalid_accession_number"),
        ("", 400, "invalid_request"),
    ],
)
def test_what_a_job_would_refuse_is_refused(client: httpx.Client, numbers: str, status: int, code: str) -> None:
    answer = client.get("/api/iso/preview", params={"accession_number": numbers})
    assert refusal(answer) == (status, code)
    assert "HN-0001" not in answer.text and "Anna" not in answer.text


def test_a_given_birth_date_has_to_be_the_one_of_the_pacs(client: httpx.Client) -> None:
    assert preview(client, "A1", birth_date="1970-01-02")["patient"]["name"] == "Example, Anna"
    assert preview(client, "B1", birth_date="1970-01-02")
    for number, day in (("A1", "1970-02-01"), ("A1", "2070-01-02")):
        answer = client.get("/api/iso/preview", params={"accession_number": number, "birth_date": day})
        assert refusal(answer) == (WrongBirthDate.http_status, WrongBirthDate.code)
        assert "1970" not in answer.text and "Anna" not in answer.text
    for day in ("02.01.1970", "1970-1-2", "1970-02-30", "19700102"):
        answer = client.get("/api/iso/preview", params={"accession_number": "A1", "birth_date": day})
        assert refusal(answer) == (400, "invalid_request")


def test_nobody_looks_without_the_key_or_from_another_site(client: httpx.Client) -> None:
    address = "/api/iso/preview?accession_number=A1"
    assert refusal(client.get(address, headers={"X-API-Key": "wrong"})) == (401, "unauthorized")
    for foreign in ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, {"Origin": "https://evil.example"}):
        assert refusal(client.get(address, headers=foreign)) == (403, "foreign_request")


def test_who_was_shown_stands_in_the_audit(tmp_path: Path) -> None:
    settings = settings_in(tmp_path).model_copy(update={"audit": Audit(enabled=True)})
    with with_pacs(settings, tmp_path / "pacs", "A1") as settings, served(settings, Desk()) as client:
        preview(client, "A1")
        client.get("/api/iso/preview", params={"accession_number": "A1", "birth_date": "1970-02-01"})
    told = [event for event, _ in events(tmp_path)]
    assert told == ["Query", "Query", "DICOM Instances Accessed", "Query", "Query", "Security Alert"]
    assert "HN-0001" in (tmp_path / "audit.xml").read_text(encoding="utf-8").splitlines()[2]


def test_where_a_site_asks_for_the_birth_date_nobody_gets_a_disc_without_it(tmp_path: Path) -> None:
    settings = settings_in(tmp_path).model_copy(update={"identity": Identity(confirm_birth_date=True)})
    desk = Desk(Scripts(settings.storage).done)
    with with_pacs(settings, tmp_path / "pacs", "A1", "A2") as settings, served(settings, desk) as client:
        questions = (
            ("/api/iso/preview", {"accession_number": "A1"}),
            ("/api/iso/download", {"accession_number": "A1"}),
            ("/api/iso/download-multiple", {"accession_numbers": "A1,A2"}),
            ("/api/iso/print", {"accession_number": "A1"}),
        )
        for path, query in questions:
            assert refusal(client.get(path, params=query)) == (400, "birth_date_needed")
            answer = client.get(path, params={**query, "birth_date": "1970-01-03"})
            assert refusal(answer) == (409, "wrong_birth_date")
        assert desk.asked == []
        shown = preview(client, "A1", birth_date="1970-01-02")["shown"]
        for path, query in questions[1:]:
            assert client.get(path, params={**query, "birth_date": "1970-01-02"}).status_code == 200
        assert {question.shown for question in desk.asked} == {
            shown
        }  # what the PACS says now is what the job must find
        assert client.get("/api/openapi.json").json()["components"]["parameters"]["birth_date"]["required"]


def test_what_is_on_the_shelf_is_told_to_nobody_without_the_birth_date_either(tmp_path: Path) -> None:
    settings = settings_in(tmp_path).model_copy(update={"identity": Identity(confirm_birth_date=True)})
    desk = Desk(Scripts(settings.storage).done)
    with with_pacs(settings, tmp_path / "pacs", "A1") as settings, served(settings, desk) as client:
        ask = partial(client.request, url="/api/iso/download")
        right = {"accession_number": "A1", "birth_date": "1970-01-02"}
        job = ask("GET", params=right).headers["content-location"]
        assert ask("HEAD", params=right).headers["content-location"] == job
        other_set = {"set": str(uuid4())}
        assert refusal(ask("GET", params=right | other_set)) == (409, "other_set")
        for birth_date, refused in (("", (400, "birth_date_needed")), ("1970-01-03", (409, "wrong_birth_date"))):
            asked = right | {"birth_date": birth_date}
            answer = ask("HEAD", params=asked)
            assert (answer.status_code, "content-location" in answer.headers) == (refused[0], False)
            assert refusal(ask("GET", params=asked | other_set)) == refused


def test_a_birth_date_that_is_given_must_be_the_patient_s_wherever_it_is_given(tmp_path: Path) -> None:
    desk = Desk(Scripts(settings_in(tmp_path).storage).done)
    with with_pacs(settings_in(tmp_path), tmp_path / "pacs", "A1", "A2") as settings, served(settings, desk) as client:
        questions = (
            ("/api/iso/download", {"accession_number": "A1"}),
            ("/api/iso/download-multiple", {"accession_numbers": "A1,A2"}),
            ("/api/iso/print", {"accession_number": "A1"}),
        )
        for path, query in questions:
            answer = client.get(path, params={**query, "birth_date": "1970-01-03"})
            assert refusal(answer) == (409, "wrong_birth_date")
        assert desk.asked == []
        shown = preview(client, "A1")["shown"]
        for path, query in questions:
            assert client.get(path, params={**query, "birth_date": "1970-01-02"}).status_code == 200
        assert {question.shown for question in desk.asked} == {shown}


def test_the_hospital_s_own_data_stand_beside_the_pacs_s(tmp_path: Path) -> None:
    known = {"A1": {"hn": "HN-0001", "name": "Sample^Anna"}, "U1": {"hn": "HN-0001", "name": "x"}}
    with ScriptedPatientApi() as api:
        api.script = lambda handler: api.answers(**known[handler.path.rpartition("/")[2]])(handler)
        settings = settings_in(tmp_path).model_copy(
            update={"patient_api": PatientApi(base_url=api.url, retries=0, timeout_seconds=LONG)}
        )
        pacs = with_pacs(settings, tmp_path / "pacs", "A1", patients=PATIENTS)
        with pacs as settings, served(settings, Desk()) as client:
            told = preview(client, "A1")
            assert told["patient"]["name_on_disc"] == "Sample, Anna" and told["patient"]["name"] == "Example, Anna"
            answer = client.get("/api/iso/preview?accession_number=U1")
            assert refusal(answer) == (409, "patient_mismatch")
            api.script = api.fails
            assert preview(client, "A1")["degraded"] == ["patient_api"]


def knows_nobody_later(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(10)
    with suppress(OSError):  # nobody waits any more
        handler.send_error(404)


def test_a_patient_api_that_is_slow_holds_no_look_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SHARE", 0.02)  # 0.6 s
    with ScriptedPatientApi() as api:
        api.script = knows_nobody_later
        slow = PatientApi(base_url=api.url, timeout_seconds=25)
        settings = settings_in(tmp_path).model_copy(update={"patient_api": slow})
        pacs = with_pacs(settings, tmp_path / "pacs", "A1", "A2")
        with pacs as settings, served(settings, Desk()) as client:
            began = time.monotonic()
            assert preview(client, "A1,A2")["degraded"] == ["patient_api"]
            assert time.monotonic() - began < LONG


def test_who_is_written_in_two_ways_is_shown_for_each_of_the_studies(client: httpx.Client) -> None:
    """A clerk takes a study away: who is on the screen still counts, over HTTP and as a parameter of the run."""
    one, both = (preview(client, numbers)["shown"] for numbers in ("A1", "A1,N1"))
    assert len(both) == 2 * len(one) and one in both
    assert client.get("/api/iso/download", params={"accession_number": "A1", "shown": both}).status_code == 200
    assert all(TypeAdapter(ShownPatient).validate_python(shown) == shown for shown in ("", one, both))
    for wrong in (both[1:], both * 10):
        assert client.get("/api/iso/download", params={"accession_number": "A1", "shown": wrong}).status_code == 400


def test_people_who_differ_in_anything_that_is_shown_are_told_apart(client: httpx.Client) -> None:
    question = {"accession_number": "A1", "shown": preview(client, "U1")["shown"]}
    assert client.get("/api/iso/download", params={**question, "shown": "nobody"}).status_code == 400
    assert OtherPatient.code in str(client.get("/api/openapi.json").json()["components"]["schemas"]["Error"])
