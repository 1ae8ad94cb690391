"""The letter of a job over HTTP: of one that is made, and with nothing of the patient in its code's address."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from mkiso.config.settings import Audit, Settings
from mkiso.study.question import Question
from mkiso_service.cli.client import Client, DiscRequest, ServiceError
from mkiso_service.prefect.orchestrator import Standing
from tests.webhook.desk import KEY, Desk, Scripts, served, settings_in
from tests.webhook.test_trail import events

ASYNC = {"Prefer": "respond-async"}


def letter_of(client: httpx.Client, job_id: str, **query: str) -> httpx.Response:
    return client.get(f"/api/iso/jobs/{job_id}/letter.pdf", params=query)


def test_a_made_disc_has_a_letter(client: httpx.Client, settings: Settings) -> None:
    job_id = client.get("/api/iso/download?accession_number=A1", headers=ASYNC).json()["job_id"]
    answer = letter_of(client, job_id)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.content.startswith(b"%PDF-") and b"%%EOF" in answer.content[-16:]
    assert letter_of(client, job_id, paper="insert", language="th").content.startswith(b"%PDF-")
    page = client.get(f"/api/iso/jobs/{job_id}", headers={"Accept": "text/html"}).text
    assert f'"{job_id}/letter.pdf"' in page and f'"{job_id}/letter.pdf?paper=insert"' in page


def test_a_letter_speaks_the_language_of_its_disc(client: httpx.Client) -> None:
    """A Thai disc had a letter in the site's language wherever nobody said it once more."""

    for asked, named, spoken in (("", {}, "en"), ("de", {}, "de"), ("de", {"language": "es"}, "es")):
        query = {"accession_number": "A1", "language": asked}
        job_id = client.get("/api/iso/download", params=query, headers=ASYNC).json()["job_id"]
        assert f"/Lang ({spoken})".encode() in letter_of(client, job_id, **named).content


def test_a_file_that_is_no_disc_has_a_letter_and_no_insert(client: httpx.Client) -> None:
    job_id = client.get("/api/iso/download?accession_number=A1&format=zip", headers=ASYNC).json()["job_id"]
    page = client.get(f"/api/iso/jobs/{job_id}", headers={"Accept": "text/html"}).text
    assert f'"{job_id}/letter.pdf"' in page and "paper=insert" not in page


def test_what_a_letter_is_refused_for(client: httpx.Client, desk: Desk) -> None:
    job_id = client.get("/api/iso/download?accession_number=A1", headers=ASYNC).json()["job_id"]
    assert letter_of(client, job_id, paper="a5").json()["code"] == "invalid_request"
    assert letter_of(client, job_id, language="xx").json()["code"] == "invalid_request"
    assert letter_of(client, str(uuid4())).json()["code"] == "job_not_found"
    desk.anew()
    waits = client.get("/api/iso/download?accession_number=A2", headers=ASYNC).json()["job_id"]
    assert letter_of(client, waits).json()["code"] == "job_running"


def test_a_print_has_its_letter_as_soon_as_the_publisher_has_everything(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    scripts = Scripts(settings.storage)

    def script(job_id: str, question: Question) -> Standing:
        scripts.report(job_id, question, stage="ordered", publisher="rimage", proves="queued")
        return "running"

    with served(settings, Desk(script)) as client:
        own = {**ASYNC, "Origin": str(client.base_url)}
        job_id = client.post("/api/iso/print?accession_number=A1", headers=own).json()["job_id"]
        assert letter_of(client, job_id).status_code == 200


def test_the_command_writes_it_and_the_trail_has_it(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, auth=True).model_copy(update={"audit": Audit(enabled=True)})
    with served(settings, Desk(Scripts(settings.storage).done)) as client:
        assert client.get("/api/iso/jobs/x/letter.pdf").status_code == 401
        with Client(str(client.base_url), KEY) as ours:
            job_id = ours.ask_for_disc(DiscRequest(["A1"])).job_id
            assert ours.letter(job_id, paper="insert", language="de").startswith(b"%PDF-")
            with pytest.raises(ServiceError, match="paper is a4 or insert"):
                ours.letter(job_id, paper="a5")
    assert ("Query", "127.0.0.1") in events(tmp_path)
