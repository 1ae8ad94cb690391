"""Push to burn: what is sent to an AE title of mkiso's own becomes a disc, or its job says what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mkiso.demo.robots.folder_robots import JsonRobot
from peers.corpus import make_study
from peers.discs import assert_holds_exactly, extract
from peers.orthanc import Orthanc
from peers.storescu import store
from tests.end_to_end.conftest import Hospital, Open

pytestmark = [pytest.mark.end_to_end]

MIXED = {"ct": 3, "sr": 1, "pr": 1, "pdf": 1, "jpeg_2000": 1}
SHELF, UNPROVEN, PRINTER, STRICT = "BURN_SHELF", "BURN_ALONE", "BURN_PRINT", "BURN_STRICT"


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JsonRobot]:
    with JsonRobot(tmp_path_factory.mktemp("robot"), step_seconds=0.1) as robot:
        yield robot


@pytest.fixture(scope="module")
def hospital(open_hospital: Open, robot: JsonRobot) -> Hospital:
    quick = {"senders": ["STORESCU"], "quiet_seconds": 1}
    sections: dict[str, dict[str, Any]] = {
        "inboxes": {
            SHELF: quick,
            UNPROVEN: {**quick, "ask": "none"},
            PRINTER: {**quick, "publisher": "robot"},
            STRICT: {**quick, "fetch": "false", "again": "no", "wait_minutes": 0.05},
        },
        "publishers": {"robot": {"kind": "folder", "directory": str(robot.folder)}},
        "print": {"publisher": "robot"},
    }
    return open_hospital("orthanc", [], sections)


def archive(hospital: Hospital, files: list[Path]) -> None:
    assert isinstance(hospital.pacs, Orthanc)
    hospital.pacs.store(files)


def push(hospital: Hospital, inbox: str, files: list[Path]) -> None:
    sent = store(hospital.service.receiver_port, files, called=inbox)
    assert sent.returncode == 0, sent.stdout + sent.stderr


def jobs_of(hospital: Hospital, number: str) -> list[dict[str, Any]]:
    """The jobs of this accession number as the list of discs has them, the newest first."""
    listing = hospital.service.http.get("/api/iso/jobs", params={"search": number}).raise_for_status().json()
    return list(listing["jobs"])


def job_of(hospital: Hospital, number: str, count: int = 1) -> dict[str, Any]:
    """The newest job of this number once it has ended, when there are so many of them."""
    [newest, *_] = hospital.service.when(lambda: jobs if len(jobs := jobs_of(hospital, number)) == count else None, 240)
    ended = hospital.service.ended(newest["job"]["job_id"])
    hospital.service.run_ended(ended["job_id"])
    return {**newest, "job": ended}


def disc_of(hospital: Hospital, job: dict[str, Any], folder: Path) -> Path:
    """What is on the disc of a job."""
    answer = hospital.service.http.get(f"/api/iso/jobs/{job['job_id']}/disc")
    assert answer.status_code == 200, answer.text
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "disc.iso").write_bytes(answer.content)
    return extract(folder / "disc.iso", folder / "disc")


def test_a_study_that_is_sent_becomes_a_disc_on_the_shelf(hospital: Hospital, tmp_path: Path) -> None:
    files = make_study(tmp_path, "PUSH1", "HN-PUSH1", kinds=MIXED)
    archive(hospital, files)
    push(hospital, SHELF, files)
    listed = job_of(hospital, "PUSH1")
    assert listed["job"]["state"] == "done", listed
    assert listed["job"]["degraded"] == []
    assert [(each["by"], each["who"], each["name"]) for each in listed["asked"]] == [
        ("inbox", "STORESCU@127.0.0.1", SHELF)
    ]
    assert_holds_exactly(disc_of(hospital, listed["job"], tmp_path / "out"), files)
    assert hospital.pacs.log().count("CMove") == 0, "what was sent isn't moved again"
