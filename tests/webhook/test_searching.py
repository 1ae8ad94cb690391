"""Studies by what a person knows of the patient, over HTTP and by `mkiso find`, in front of a PACS."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import httpx
import pytest
from pydicom import dcmread

from mkiso.config.disc import Identity
from mkiso.config.settings import Audit
from mkiso_service.cli.main import run
from peers.corpus import JAPANESE, UMLAUT
from tests.webhook.desk import KEY, Desk, served, settings_in
from tests.webhook.pacs import EVERYBODY, with_pacs
from tests.webhook.test_trail import events

PATIENTS = {"J1": JAPANESE, "U1": UMLAUT}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("search")
    settings = settings_in(folder, auth=True)
    with (
        with_pacs(settings, folder / "pacs", "A1", "A2", patients=PATIENTS) as settings,
        served(settings, Desk()) as client,
    ):
        client.headers["X-API-Key"] = KEY
        yield client


def numbers(client: httpx.Client, **known: str) -> list[str]:
    answer = client.get("/api/studies", params=known)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["more"] is False
    return sorted(study["accession_number"] for study in answer.json()["studies"])


def test_studies_are_found_with_whose_they_are(client: httpx.Client) -> None:
    assert numbers(client, patient_id=EVERYBODY.patient_id) == ["A1", "A2"]
    assert numbers(client, patient_name="Exam", birth_date="1970-01-02") == ["A1", "A2"]
    assert numbers(client, patient_name="Exam", birth_date="1971-01-02") == []
    for name in ("Yamada Tarou", "yamada, tarou", "Yamada^Tarou", "Yamada, Tarou / 山田, 太郎"):
        assert numbers(client, patient_name=name) == ["J1"]
    assert numbers(client, patient_id=EVERYBODY.patient_id, modality=" ") == ["A1", "A2"]
    assert numbers(client, study_date="2024-02-29") == numbers(client, study_date="2024-02-01/2024-03-01")
    assert numbers(client, study_date="2024-02-29/") == ["A1", "A2", "J1", "U1"]
    assert numbers(client, study_date="/2024-02-28") == []
    [study] = client.get("/api/studies?accession_number=J1").json()["studies"]
    assert study["patient_name"] == "Yamada, Tarou / 山田, 太郎 / やまだ, たろう"
    assert (study["modalities"], study["images"], study["study_date"]) == (["CT"], 1, "20240229")


@pytest.mark.parametrize(
    "query",
    ["", "modality=CT", "modality=%20", "birth_date=1970-01-02", "study_date=2024", "patient_id=1&patient_id=2"],
)
def test_what_selects_nothing_isnt_asked(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/api/studies?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("query", ["patient_name=*", "patient_name=Doe?", "patient_id=%E2%80%8B1", "patient_id=%5C"])
def test_a_sign_that_a_pacs_takes_for_others_isnt_asked(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/api/studies?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "unsafe_character")


def test_a_wrong_day_is_told_how_days_are_written_here(client: httpx.Client) -> None:
    assert "2024-01-01/2024-01-31" in client.get("/api/studies?study_date=20240230").json()["error"]


def test_nobody_searches_where_nobody_needs_a_key(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with with_pacs(settings, tmp_path / "pacs", "A1") as settings, served(settings, Desk()) as client:
        answer = client.get("/api/studies", params={"patient_id": EVERYBODY.patient_id})
    assert (answer.status_code, answer.json()["code"]) == (403, "search_closed")


def test_a_page_of_another_site_finds_nobody(client: httpx.Client) -> None:
    for foreign in ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, {"Origin": "https://evil.example"}):
        answer = client.get("/api/studies?accession_number=A1", headers=foreign)
        assert (answer.status_code, answer.json()["code"]) == (403, "foreign_request")


def test_where_a_site_asks_for_the_birth_date_a_search_doesnt_tell_it(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, auth=True).model_copy(update={"identity": Identity(confirm_birth_date=True)})
    with with_pacs(settings, tmp_path / "pacs", "A1") as settings, served(settings, Desk()) as client:
        client.headers["X-API-Key"] = KEY
        for known in ("accession_number=A1", "patient_id=1", "patient_name=Exam"):
            answer = client.get(f"/api/studies?{known}")
            assert (answer.status_code, answer.json()["code"]) == (400, "birth_date_needed")
        assert numbers(client, accession_number="A1", birth_date="1970-01-02") == ["A1"]
        assert numbers(client, accession_number="A1", birth_date="1970-01-03") == []


@pytest.mark.parametrize("names", [True, False])
def test_who_searched_for_whom_stands_in_the_audit(tmp_path: Path, names: bool) -> None:
    audited = {"audit": Audit(enabled=True, patient_names=names)}
    settings = settings_in(tmp_path, auth=True).model_copy(update=audited)
    with with_pacs(settings, tmp_path / "pacs", "A1") as settings, served(settings, Desk()) as client:
        client.headers["X-API-Key"] = KEY
        assert numbers(client, patient_name="Exam", modality="CT") == ["A1"]
    assert [event for event, _ in events(tmp_path)] == ["Query", "Query"]
    lines = (tmp_path / "audit.xml").read_text(encoding="utf-8").splitlines()
    asked, sent = (base64.b64decode(fromstring(line).findtext(".//ParticipantObjectQuery") or "") for line in lines)
    assert asked == (b"PatientName=Exam*&ModalitiesInStudy=CT" if names else b"PatientName&ModalitiesInStudy=CT")
    query = dcmread(BytesIO(sent), force=True)
    assert (str(query.PatientName), query.ModalitiesInStudy) == ("Exam*" * names, "CT")


def test_the_command_shows_two_lines_a_study_or_json(
    client: httpx.Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MKISO__AUTH__API_KEY", KEY)
    monkeypatch.setenv("COLUMNS", "80")
    address = ["--url", str(client.base_url)]
    assert run(["find", "--patient-id", EVERYBODY.patient_id, *address]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines if not line.startswith(" ")) == ["A1", "A2"]
    assert max(map(len, lines)) <= 80
    assert run(["find", "--accession-number", "J1", "--json", *address]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [study["accession_number"] for study in told["studies"]] == ["J1"]
    assert run(["find", "--name", "Nobody", *address]) == 0
    assert "No study was found." in capsys.readouterr().err
    assert run(["find", *address]) == 1
    assert "Nothing selects a study" in capsys.readouterr().err
