"""Push to burn: what is sent to an AE title of mkiso's own becomes a disc, or its job says what is missing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from peers.corpus import make_study, write
from peers.discs import assert_holds_exactly, extract
from peers.folder_robots import JsonRobot
from peers.orthanc import Orthanc
from peers.storescu import store
from tests.end_to_end.conftest import Hospital, Open

pytestmark = [pytest.mark.end_to_end]

MIXED = {"ct": 3, "sr": 1, "pr": 1, "pdf": 1, "jpeg_2000": 1}
SHELF, UNPROVEN, PRINTER, STRICT, MUTE = "BURN_SHELF", "BURN_ALONE", "BURN_PRINT", "BURN_STRICT", "BURN_MUTE"


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JsonRobot]:
    with JsonRobot(tmp_path_factory.mktemp("robot"), step_seconds=0.1) as robot:
        yield robot


@pytest.fixture(scope="module")
def hospital(open_hospital: Open, robot: JsonRobot, tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    mute = {"kind": "folder", "directory": str(tmp_path_factory.mktemp("mute")), "label_fields": {"a": "{patient_id}"}}
    quick = {"senders": ["STORESCU"], "quiet_seconds": 1}
    sections: dict[str, dict[str, Any]] = {
        "inboxes": {
            SHELF: quick,
            UNPROVEN: {**quick, "ask": "none"},
            PRINTER: {**quick, "publisher": "robot"},
            MUTE: {**quick, "publisher": "mute"},
            STRICT: {**quick, "fetch": "false", "again": "no", "wait_minutes": 0.05},
        },
        "publishers": {"robot": {"kind": "folder", "directory": str(robot.folder)}, "mute": mute},
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
    run = hospital.service.run_ended(ended["job_id"])
    assert (run["state_type"] == "COMPLETED") == (ended["state"] == "done"), (run["state"], ended)
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


def test_what_the_pacs_has_and_nobody_sent_is_fetched(hospital: Hospital, tmp_path: Path) -> None:
    files = make_study(tmp_path, "PUSH2", "HN-PUSH2", kinds=MIXED)
    archive(hospital, files)
    push(hospital, SHELF, files[:4])
    listed = job_of(hospital, "PUSH2")
    assert listed["job"]["state"] == "done", listed
    assert_holds_exactly(disc_of(hospital, listed["job"], tmp_path / "out"), files)


def test_what_lacks_is_named_and_makes_no_disc_until_it_comes(hospital: Hospital, tmp_path: Path) -> None:
    files = make_study(tmp_path, "PUSH3", "HN-PUSH3", kinds={"ct": 5})
    archive(hospital, files)
    push(hospital, STRICT, files[:3])
    failed = job_of(hospital, "PUSH3")["job"]
    assert (failed["state"], failed["error"]["code"]) == ("failed", "study_incomplete")
    assert failed["error"]["error"].startswith("2 of the 5 images that the PACS has were not sent to BURN_STRICT")
    push(hospital, STRICT, files[3:])
    made = job_of(hospital, "PUSH3", 2)["job"]
    assert_holds_exactly(disc_of(hospital, made, tmp_path / "out"), files)


def test_what_is_not_archived_is_waited_for_and_then_said(hospital: Hospital, tmp_path: Path) -> None:
    files = make_study(tmp_path, "PUSH4", "HN-PUSH4", kinds={"ct": 3})
    archive(hospital, files[:2])
    push(hospital, STRICT, files)
    failed = job_of(hospital, "PUSH4")["job"]
    assert failed["error"]["code"] == "not_archived"
    assert failed["error"]["error"].startswith("The PACS doesn't list 1 of the 3 images sent to BURN_STRICT")
    archive(hospital, files[2:])
    push(hospital, STRICT, files[:1])  # once more, after the PACS has it
    made = job_of(hospital, "PUSH4", 2)["job"]
    assert_holds_exactly(disc_of(hospital, made, tmp_path / "out"), files)


def test_a_late_archive_is_waited_for(hospital: Hospital, tmp_path: Path) -> None:
    files = make_study(tmp_path, "PUSH5", "HN-PUSH5", kinds={"ct": 3})
    push(hospital, SHELF, files)
    place = hospital.service.data_dir / "inboxes" / SHELF
    hospital.service.when(lambda: any((each / "arrivals.jsonl").exists() for each in place.iterdir()))
    assert jobs_of(hospital, "PUSH5") == []
    archive(hospital, files)
    made = job_of(hospital, "PUSH5")["job"]
    assert_holds_exactly(disc_of(hospital, made, tmp_path / "out"), files)


def test_where_no_pacs_is_asked_the_job_and_the_disc_say_so(hospital: Hospital, tmp_path: Path) -> None:
    files = make_study(tmp_path, "PUSH6", "HN-PUSH6", kinds=MIXED)
    push(hospital, UNPROVEN, files)
    made = job_of(hospital, "PUSH6")["job"]
    assert (made["state"], made["degraded"]) == ("done", ["completeness_not_proven"])
    disc = disc_of(hospital, made, tmp_path / "out")
    assert_holds_exactly(disc, files)
    words = "not proved: not every archive said how many"
    assert all(words in " ".join((disc / page).read_text().split()) for page in ("README.TXT", "INDEX.HTM"))


def test_a_study_without_an_accession_number_is_burnt_and_printed_too(
    hospital: Hospital, robot: JsonRobot, tmp_path: Path
) -> None:
    files = make_study(tmp_path, "PUSH10", "HN-NUMBERLESS", kinds={"ct": 2})
    for file in files:
        dataset = dcmread(file)
        dataset.AccessionNumber = ""
        write(dataset, file)
    archive(hospital, files)
    made = len(robot.made)
    push(hospital, SHELF, files)
    shelved = job_of(hospital, "HN-NUMBERLESS")["job"]
    assert_holds_exactly(disc_of(hospital, shelved, tmp_path / "out"), files)
    push(hospital, PRINTER, files)
    printed = job_of(hospital, "HN-NUMBERLESS", 2)["job"]
    assert (printed["state"], printed["proves"]) == ("done", "done"), printed
    assert len(robot.made) == made + 1


def test_one_of_two_studies_of_a_number_says_that_it_is_not_all_of_it(hospital: Hospital, tmp_path: Path) -> None:
    files = make_study(tmp_path / "1", "PUSH11", "HN-PUSH11", kinds={"ct": 2})
    archive(hospital, files + make_study(tmp_path / "2", "PUSH11", "HN-PUSH11", kinds={"ct": 1}, number=2))
    push(hospital, SHELF, files)
    made = job_of(hospital, "PUSH11")["job"]
    assert (made["state"], made["is_part"]) == ("done", True), made
    disc = disc_of(hospital, made, tmp_path / "out")
    assert_holds_exactly(disc, files)
    assert "Not everything is on this disc" in (disc / "INDEX.HTM").read_text("utf-8")
    push(hospital, MUTE, files)
    refused = job_of(hospital, "PUSH11", 2)["job"]
    assert (refused["state"], refused["error"]["code"]) == ("failed", "selection_not_told")


def test_a_number_of_two_patients_makes_no_disc_of_either(hospital: Hospital, tmp_path: Path) -> None:
    files = make_study(tmp_path / "1", "PUSH12", "HN-PUSH12", kinds={"ct": 1})
    archive(hospital, files + make_study(tmp_path / "2", "PUSH12", "HN-OTHER12", kinds={"ct": 1}))
    push(hospital, SHELF, files)
    failed = job_of(hospital, "PUSH12")["job"]
    assert (failed["state"], failed["error"]["code"]) == ("failed", "patient_mismatch")


def test_two_patients_in_one_study_make_no_disc(hospital: Hospital, tmp_path: Path) -> None:
    one, other = make_study(tmp_path, "PUSH7", "HN-PUSH7", kinds={"ct": 2})
    changed = dcmread(other)
    changed.PatientID = "HN-ANOTHER"
    push(hospital, UNPROVEN, [one, write(changed, tmp_path / "other.dcm")])
    failed = job_of(hospital, "PUSH7")["job"]
    assert (failed["state"], failed["error"]["code"]) == ("failed", "patient_mismatch")


def test_a_robot_makes_one_disc_however_often_and_late_more_is_sent(
    hospital: Hospital, robot: JsonRobot, tmp_path: Path
) -> None:
    files = make_study(tmp_path, "PUSH8", "HN-PUSH8", kinds={"ct": 4})
    archive(hospital, files[:3])
    before = set(robot.discs.glob("*.iso"))
    push(hospital, PRINTER, files[:3])
    printed = job_of(hospital, "PUSH8")["job"]
    assert (printed["state"], printed["kind"], printed["proves"]) == ("done", "print", "done"), printed
    [disc] = set(robot.discs.glob("*.iso")) - before
    made = len(robot.made)
    assert_holds_exactly(extract(disc, tmp_path / "printed"), files[:3])
    push(hospital, PRINTER, files[:3])
    archive(hospital, files[3:])
    push(hospital, PRINTER, files[3:])
    grown = job_of(hospital, "PUSH8", 2)["job"]
    assert (grown["state"], grown["kind"]) == ("done", "download"), grown
    assert_holds_exactly(disc_of(hospital, grown, tmp_path / "out"), files)
    assert len(robot.made) == made


def test_a_study_that_grows_is_said_where_no_second_disc_is_wanted(hospital: Hospital, tmp_path: Path) -> None:
    files = make_study(tmp_path, "PUSH9", "HN-PUSH9", kinds={"ct": 3})
    archive(hospital, files[:2])
    push(hospital, STRICT, files[:2])
    assert job_of(hospital, "PUSH9")["job"]["state"] == "done"
    archive(hospital, files[2:])
    push(hospital, STRICT, files[2:])
    assert job_of(hospital, "PUSH9", 2)["job"]["error"]["code"] == "study_grown"


def test_nothing_is_lost_or_made_twice_where_receiver_and_worker_are_killed(
    hospital: Hospital, robot: JsonRobot, tmp_path: Path
) -> None:
    files = make_study(tmp_path, "PUSHK", "HN-PUSHK", kinds={"ct": 6})
    made = len(robot.made)
    archive(hospital, files)
    for name, part in (("receiver", files[:3]), ("worker", files[3:])):
        push(hospital, PRINTER, part)
        before = hospital.service.processes()[name]
        os.kill(before, signal.SIGKILL)
        hospital.service.when(lambda: hospital.service.processes().get(name, before) != before)  # noqa: B023
        hospital.service.when(hospital.service.is_ready)
    hospital.service.when(lambda: len(robot.made) > made, 240)
    printed = job_of(hospital, "PUSHK")["job"]
    assert printed["state"] == "done", printed
    assert len(robot.made) == made + 1
