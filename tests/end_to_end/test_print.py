"""From an accession number to a disc in a publisher's tray, over HTTP (issue: Print)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from peers.corpus import dataset_bytes, make_study
from peers.discs import assert_holds_exactly, extract
from peers.folder_robots import EpsonRobot, JsonRobot
from peers.orthanc import Orthanc
from peers.patience import LONG
from peers.ports import free_port
from peers.storescp import Storescp
from tests.end_to_end.conftest import Hospital, Open

pytestmark = [pytest.mark.end_to_end]

MIXED = {"ct": 3, "sr": 1, "pr": 1, "pdf": 1, "jpeg_2000": 1}
QUICK = {"settle_seconds": 0, "connect_timeout_seconds": 2, "response_timeout_seconds": 5}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("studies")
    return {
        name: make_study(folder, name, f"HN-{name}", kinds=MIXED)
        for name in ("MIXED1", "MIXED2", "MIXED3", "MIXED4", "MIXED5", "MIXED6")
    }


@pytest.fixture(scope="module")
def storescp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storescp]:
    with Storescp(tmp_path_factory.mktemp("storescp")) as publisher:
        yield publisher


@pytest.fixture(scope="module")
def publishing_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("publishing-orthanc"), ae_title="PUBLISH") as publisher:
        yield publisher


@pytest.fixture(scope="module")
def robots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, JsonRobot | EpsonRobot]]:
    folder = tmp_path_factory.mktemp("robots")
    good, slow, bad = (
        JsonRobot(folder / "good", step_seconds=0.1),
        EpsonRobot(folder / "slow", step_seconds=3),
        JsonRobot(folder / "bad", "fail"),
    )
    with good, slow, bad:
        yield {"good": good, "slow": slow, "bad": bad}


@pytest.fixture(scope="module")
def hospital(
    open_hospital: Open,
    studies: dict[str, list[Path]],
    storescp: Storescp,
    publishing_orthanc: Orthanc,
    robots: dict[str, JsonRobot | EpsonRobot],
) -> Hospital:
    publishers = {
        "storescp": {"kind": "cstore", "ae_title": "RIMAGE", "port": storescp.port, **QUICK},
        "orthanc": {"kind": "cstore", "ae_title": "PUBLISH", "port": publishing_orthanc.port, **QUICK},
        "down": {"kind": "cstore", "ae_title": "DOWN", "port": free_port(), **QUICK, "attempts": 2},
        "away": {"kind": "cstore", "ae_title": "AWAY", "port": free_port(), **QUICK, "attempts": 1},
        "good": {"kind": "folder", "directory": str(robots["good"].folder)},
        "slow": {"kind": "epson", "directory": str(robots["slow"].folder)},
        "bad": {"kind": "folder", "directory": str(robots["bad"].folder)},
    }
    return open_hospital(
        "orthanc",
        [file for files in studies.values() for file in files],
        {"publishers": publishers, "print": {"publisher": "storescp"}},
    )


def test_a_dicom_publisher_holds_exactly_the_study(
    hospital: Hospital, studies: dict[str, list[Path]], storescp: Storescp
) -> None:
    answer = hospital.service.http.get("/api/iso/print", params={"accession_number": "MIXED1"})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["status"], told["publisher"], told["instances"], told["proves"]) == ("sent", "storescp", 7, "queued")
    assert sorted(dataset_bytes(file) for file in storescp.files()) == sorted(
        dataset_bytes(file) for file in studies["MIXED1"]
    )
    assert hospital.service.run_ended(told["job_id"])["state_type"] == "COMPLETED"


def test_an_orthanc_as_publisher_holds_exactly_the_study(
    hospital: Hospital, studies: dict[str, list[Path]], publishing_orthanc: Orthanc
) -> None:
    answer = hospital.service.http.get("/api/iso/print", params={"accession_number": "MIXED1", "publisher": "orthanc"})
    assert answer.status_code == 200, answer.text
    held = sorted(dataset_bytes(file) for file in publishing_orthanc.files("MIXED1").values())
    assert held == sorted(dataset_bytes(file) for file in studies["MIXED1"])


def test_a_robot_makes_the_disc(
    hospital: Hospital, studies: dict[str, list[Path]], robots: dict[str, JsonRobot], tmp_path: Path
) -> None:
    answer = hospital.service.http.get("/api/iso/print", params={"accession_number": "MIXED2", "publisher": "good"})
    assert answer.status_code == 200, answer.text
    assert hospital.service.ended(answer.json()["job_id"])["proves"] == "done"
    [image] = robots["good"].discs.glob("*.iso")
    assert_holds_exactly(extract(image, tmp_path / "disc"), studies["MIXED2"])


def test_the_answer_comes_when_the_robot_has_the_order_and_the_run_goes_on(
    hospital: Hospital, robots: dict[str, EpsonRobot]
) -> None:
    answer = hospital.service.http.get("/api/iso/print", params={"accession_number": "MIXED3", "publisher": "slow"})
    assert (answer.status_code, answer.json()["proves"]) == (200, "queued"), answer.text
    job_id = answer.json()["job_id"]
    assert hospital.service.run(job_id)["state_type"] == "RUNNING"
    assert not robots["slow"].made
    assert hospital.service.ended(job_id)["proves"] == "done"
    assert len(robots["slow"].made) == 1


def test_cancelling_the_run_cancels_the_order(hospital: Hospital, robots: dict[str, EpsonRobot]) -> None:
    made = len(robots["slow"].made)
    answer = hospital.service.http.get("/api/iso/print", params={"accession_number": "MIXED4", "publisher": "slow"})
    assert answer.status_code == 200, answer.text
    hospital.service.cancel(answer.json()["job_id"])
    assert hospital.service.run_ended(answer.json()["job_id"])["state_type"] == "CANCELLED"
    hospital.service.when(lambda: len(robots["slow"].stopped) == 1)
    assert len(robots["slow"].made) == made


def test_a_robot_that_fails_is_told_in_its_own_words(hospital: Hospital) -> None:
    job_id = hospital.service.ask("/api/iso/print", accession_number="MIXED4", publisher="bad")
    run = hospital.service.run_ended(job_id)
    assert run["state_type"] == "FAILED"
    job = hospital.service.ended(job_id)
    assert job["error"]["code"] == "publisher_refused"
    assert f"{job['error']['error']} [publisher_refused]" == run["state"]["message"]


def test_a_publisher_that_is_down_is_never_sent_and_a_retry_does_right(
    hospital: Hospital, studies: dict[str, list[Path]], tmp_path: Path
) -> None:
    answer = hospital.service.http.get("/api/iso/print", params={"accession_number": "MIXED5", "publisher": "down"})
    assert (answer.status_code, answer.json()["code"]) == (502, "publisher_unavailable"), answer.text
    job_id = answer.json()["job_id"]
    hospital.service.run_ended(job_id)  # a moment after its answer; the UI offers no retry before
    moves = hospital.pacs.log().count("CMove")
    port = hospital.service.settings["publishers"]["down"]["port"]
    with Storescp(tmp_path / "late", ae_title="DOWN", port=port) as late:
        hospital.service.retry(job_id)
        hospital.service.when(lambda: hospital.service.run(job_id)["run_count"] == 2)
        assert hospital.service.run_ended(job_id)["state_type"] == "COMPLETED"
        assert sorted(dataset_bytes(file) for file in late.files()) == sorted(
            dataset_bytes(file) for file in studies["MIXED5"]
        )
    assert hospital.pacs.log().count("CMove") == moves, "the study was whole already"


@pytest.mark.parametrize("publisher", ["away", "good"])
def test_a_retry_of_an_older_request_makes_no_second_disc(
    hospital: Hospital, robots: dict[str, JsonRobot], tmp_path: Path, publisher: str
) -> None:
    """The robot is away and the print fails; asked again, there or at another robot, it prints; then an operator
    retries the first run.
    """
    question = {"accession_number": "MIXED6", "publisher": "away"}
    first = hospital.service.http.get("/api/iso/print", params=question)
    assert (first.status_code, first.json()["code"]) == (502, "publisher_unavailable"), first.text
    job_id, made = first.json()["job_id"], len(robots["good"].made)
    with Storescp(
        tmp_path / "back", ae_title="AWAY", port=hospital.service.settings["publishers"]["away"]["port"]
    ) as back:
        second = hospital.service.http.get("/api/iso/print", params={**question, "publisher": publisher})
        assert second.status_code == 200, second.text
        hospital.service.run_ended(second.json()["job_id"])
        files = len(back.files())
        assert files == (7 if publisher == "away" else 0)
        for run_count in (2, 3):
            hospital.service.retry(job_id)
            hospital.service.when(lambda: hospital.service.run(job_id)["run_count"] == run_count)  # noqa: B023
            assert hospital.service.run_ended(job_id)["state_type"] == "FAILED"
            told = hospital.service.ended(job_id)["error"]
            assert told["code"] == "print_uncertain" and f"at {publisher} since" in told["error"]
        assert len(back.files()) == files
        third = hospital.service.http.get("/api/iso/print", params=question)  # asked anew it prints
        assert third.status_code == 200, third.text
        hospital.service.run_ended(third.json()["job_id"])
        assert len(robots["good"].made) == made + (publisher == "good")


def test_two_identical_requests_at_the_same_time_make_one_disc(
    hospital: Hospital, robots: dict[str, EpsonRobot]
) -> None:
    made = len(robots["slow"].made)
    answers = []

    def ask() -> None:
        answers.append(
            hospital.service.http.get("/api/iso/print", params={"accession_number": "MIXED5", "publisher": "slow"})
        )

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    hospital.service.ended(answers[0].json()["job_id"])
    assert len(robots["slow"].made) == made + 1
    again = hospital.service.http.get("/api/iso/print", params={"accession_number": "MIXED5", "publisher": "slow"})
    assert again.json()["job_id"] != answers[0].json()["job_id"]
    assert again.json()["made_before_minutes"] == 0
    hospital.service.ended(again.json()["job_id"])
    assert len(robots["slow"].made) == made + 2


def test_a_killed_job_never_orders_twice(hospital: Hospital, robots: dict[str, EpsonRobot]) -> None:
    """The flow's process is killed after the order was given: the rerun follows that order and gives no other."""
    made = len(robots["slow"].made)
    job_id = hospital.service.ask("/api/iso/print", accession_number="MIXED2", publisher="slow")
    hospital.service.when(lambda: hospital.service.job(job_id).get("proves") == "queued")
    os.kill(int(hospital.service.run(job_id)["infrastructure_pid"].split("/")[1]), signal.SIGKILL)
    assert hospital.service.run_ended(job_id)["state_type"] == "CRASHED"
    hospital.service.retry(job_id)
    hospital.service.when(lambda: hospital.service.run(job_id)["run_count"] == 2)
    assert hospital.service.run_ended(job_id)["state_type"] == "COMPLETED"
    assert len(robots["slow"].made) == made + 1


def test_a_confirmed_print_is_a_run_of_its_own(hospital: Hospital) -> None:
    question = {"accession_number": "MIXED1", "publisher": "storescp"}
    answer = hospital.service.http.get("/api/iso/print", params={**question, "confirm_reprint": "true"})
    assert answer.status_code == 200, answer.text
    assert hospital.service.run(answer.json()["job_id"])["parameters"]["confirm_reprint"] is True
    answer = hospital.service.http.get("/api/iso/print", params={**question, "confirm_reprint": "yes"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_an_unknown_publisher_is_refused_at_the_door(hospital: Hospital) -> None:
    answer = hospital.service.http.get("/api/iso/print", params={"accession_number": "MIXED1", "publisher": "nobody"})
    assert answer.status_code in (400, 404)
    assert "storescp" in answer.json()["error"]
