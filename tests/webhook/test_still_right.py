"""A question whose disc is on the shelf and still holds just what the PACS has is answered without another job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from mkiso.config.settings import Audit, Settings
from mkiso.config.sources import CMove
from mkiso.formats.proven_set import disc_fingerprint
from mkiso.sources.query import find_studies
from mkiso.sources.registry import source_of
from mkiso.storage.report import read_report, write_report
from mkiso.storage.shelf import manifest_of, take_off
from mkiso.study.identity import fingerprint
from peers.ports import free_port
from tests.webhook.desk import Desk, Scripts, served, settings_in
from tests.webhook.pacs import with_pacs
from tests.webhook.test_trail import events

A1 = "/api/iso/download?accession_number=A1"


@dataclass
class Counter:
    """A webhook in front of a PACS, whose jobs make discs of what this PACS has."""

    client: httpx.Client
    desk: Desk
    settings: Settings
    scripts: Scripts


def made_of(settings: Settings, number: str, language: str = "") -> str:
    found = find_studies(source_of(settings), number)
    return disc_fingerprint(fingerprint(found, None, accession_numbers=[number]), settings.as_asked(language))


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[Counter]:
    settings = settings_in(tmp_path).model_copy(update={"audit": Audit(enabled=True)})
    scripts = Scripts(settings.storage)
    with with_pacs(settings, tmp_path / "pacs", "A1", "A2") as settings:
        print_of = {number: made_of(settings, number) for number in ("A1", "A2")}
        desk = Desk(
            lambda job_id, question: scripts.done(
                job_id, question, fingerprint=print_of.get(question.accession_numbers[0], "other")
            )
        )
        with served(settings, desk) as client:
            yield Counter(client, desk, settings, scripts)


def test_the_same_disc_comes_from_the_same_job(counter: Counter, tmp_path: Path) -> None:
    first = counter.client.get(A1)
    again = counter.client.get(A1)
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["content-location"] == first.headers["content-location"]
    assert len(counter.desk.asked) == 1
    told = counter.client.get(A1, headers={"Prefer": "respond-async"})
    assert (told.status_code, told.json()["job_id"]) == (202, first.headers["content-location"].split("/")[4])
    assert counter.client.get(told.json()["job"]).json()["state"] == "done"
    assert counter.client.get("/api/iso/download?accession_number=A2").status_code == 200
    assert len(counter.desk.asked) == 2
    trail = [event for event, _ in events(tmp_path)]
    assert (trail.count("Export"), trail.count("Query")) == (3, 6), "four questions, and the PACS was asked twice"
    listed = counter.client.get("/api/iso/jobs").json()["jobs"]
    assert [len(job["asked"]) for job in listed if job["job"]["accession_numbers"] == ["A1"]] == [3]


def test_it_comes_while_prefect_is_away(counter: Counter) -> None:
    first = counter.client.get(A1)
    counter.desk.down = True
    again = counter.client.get(A1)
    assert (again.status_code, again.content) == (200, first.content)
    assert counter.client.get("/api/iso/download?accession_number=A2").status_code == 503


def grown(counter: Counter, job_id: str) -> None:
    """The disc was made of another answer of the PACS."""
    report = read_report(counter.settings.storage, job_id)
    file = counter.settings.storage.discs_dir / report.disc_ids[0] / "manifest.json"
    told = manifest_of(counter.settings.storage, report.disc_ids[0]).fingerprint
    file.write_text(file.read_text(encoding="utf-8").replace(told, "0" * 64), encoding="utf-8")


def gone(counter: Counter, job_id: str) -> None:
    [disc_id] = read_report(counter.settings.storage, job_id).disc_ids
    take_off(counter.settings.storage, manifest_of(counter.settings.storage, disc_id))


def run_again(counter: Counter, job_id: str) -> None:
    write_report(counter.settings.storage, replace(read_report(counter.settings.storage, job_id), status="running"))


def forgotten(counter: Counter, job_id: str) -> None:
    (counter.settings.storage.reports_dir / f"{job_id}.json").unlink()


@pytest.mark.parametrize("what", [grown, gone, run_again, forgotten])
def test_a_job_finds_out_where_anything_speaks_against_it(
    counter: Counter, what: Callable[[Counter, str], None]
) -> None:
    first = counter.client.get(A1)
    what(counter, first.headers["content-location"].split("/")[4])
    again = counter.client.get(A1)
    assert again.status_code == 200 and len(counter.desk.asked) == 2
    assert again.headers["content-location"] != first.headers["content-location"]


@pytest.mark.parametrize("other", ["&language=de", "&format=zip", "&shown=" + "0" * 32])
def test_another_question_is_not_answered_by_it(counter: Counter, other: str) -> None:
    counter.client.get(A1)
    counter.client.get(A1 + other)
    assert len(counter.desk.asked) == 2


def test_a_pacs_that_is_away_is_no_proof(counter: Counter, tmp_path: Path) -> None:
    assert counter.client.get(A1).status_code == 200
    server = counter.settings.server.model_copy(update={"port": free_port()})
    pacs = CMove(port=free_port(), connect_timeout_seconds=1)
    away = counter.settings.model_copy(update={"pacs": pacs, "server": server})
    with served(away, counter.desk) as client:
        assert client.get(A1).status_code == 200
    assert len(counter.desk.asked) == 2
