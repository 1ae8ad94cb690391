"""A night that was missed, caught up when the service starts, and volumes that a robot makes (issue: Archive)."""

from __future__ import annotations

import os
import signal
from base64 import b64decode
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest
from pydicom import dcmread

from mkiso.archive.days import owe
from mkiso.archive.ledger import Ledger
from mkiso.archive.nights import Night, NightRange
from mkiso.archive.schedule import last_fire
from mkiso.config.file import load
from peers.archives import archive, assert_holds, contents, mkiso_archive, start
from peers.corpus import make_study
from peers.folder_robots import JsonRobot
from peers.orthanc import Orthanc
from peers.patience import until
from peers.ports import free_port
from peers.service import AE_TITLE, Service
from tests.archive.discs import archive as archive_volume

pytestmark = [pytest.mark.end_to_end]

SCHEDULE, TIMEZONE = "0 2 * * *", "Asia/Bangkok"
RECHECK_DAYS = 10
FIRST, FAILED, LAST = (
    13,
    11,
    4,
)  # days before the last night of the schedule: the archive's first one, one that failed, the last that was searched


STUDY, PATIENT, QUERY = "110180", "2", "ParticipantObjectQuery"


def ids(messages: Iterable[Element], type_code: str) -> list[str]:
    """What these audit messages are about, of one kind."""
    path = f"ParticipantObjectIdentification/ParticipantObjectIDTypeCode[@csd-code='{type_code}']/.."
    return [thing.attrib["ParticipantObjectID"] for each in messages for thing in each.findall(path)]


@dataclass
class Place:
    service: Service
    robot: JsonRobot
    pacs: Orthanc
    folder: Path
    fired: datetime

    def day(self, days_before: int) -> date:
        return (self.fired - timedelta(days=days_before)).date()

    def study(self, accession_number: str, days_before: int) -> list[Path]:
        """A study of so many days before the last night, in the PACS."""
        day = f"{self.day(days_before):%Y%m%d}"
        files = make_study(self.folder / "dicom", accession_number, f"HN-{accession_number}", study_date=day)
        self.pacs.store(files)
        return files

    def told(self, event: str) -> list[Element]:
        """The audit's messages of one kind."""
        lines = (self.service.data_dir / "audit.xml").read_text("utf-8").splitlines()
        return [each for each in map(fromstring, lines) if each[0][0].attrib["csd-code"] == event]

    def made(self, folder: Path) -> dict[str, Path]:
        return contents(sorted(self.robot.discs.glob("*.iso")), folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Not started yet: the ledger says that nights were missed."""
    folder, receiver_port = tmp_path_factory.mktemp("robot"), free_port()
    sections: dict[str, dict[str, Any]] = {
        "audit": {"enabled": True},
        "archive": {
            "enabled": True,
            "schedule": SCHEDULE,
            "timezone": TIMEZONE,
            "medium": "cd",
            "output": "robot",
            "recheck_days": RECHECK_DAYS,
        },
        "publishers": {
            "rimage": {},
            "robot": {"kind": "folder", "directory": str(folder / "robot"), "silent_minutes": 0.05},
        },
    }
    with ExitStack() as stack:
        pacs = stack.enter_context(
            Orthanc(folder / "pacs", destinations={AE_TITLE: ("127.0.0.1", receiver_port)}, verbose=False)
        )
        robot = stack.enter_context(JsonRobot(folder / "robot", step_seconds=0.1))
        service = Service(
            folder / "mkiso", (pacs.ae_title, pacs.port), sections, receiver_port=receiver_port, warm=True
        )
        fired = last_fire(SCHEDULE, TIMEZONE, datetime.now(UTC))
        place = Place(service, robot, pacs, folder, fired)
        replaced = place.study("REPLACED1", FIRST - 1)
        with Ledger.open(load(service.configuration)) as ledger:
            owe(ledger, place.day(FIRST), place.day(0))
            with Night.begin(ledger, "before", NightRange(place.day(FIRST), place.day(LAST))) as night:
                for number in set(range(LAST, FIRST + 1)) - {FAILED}:
                    night.searched([place.day(number)], place.day(number - 1))
                # As many instances as the PACS has now, and other ones.
                volume = archive_volume(
                    night, {dcmread(replaced[0]).StudyInstanceUID: [f"1.2.{number}" for number in range(len(replaced))]}
                )
                night.advance(volume.label, "done")
        yield place
        service.stop()


def test_what_was_missed_is_caught_up_when_the_service_starts(place: Place, tmp_path: Path) -> None:
    """The missed days and the one that failed, a late study of an older day, and one whose images were replaced by as
    many others; what is older still was never to be archived.
    """
    owed = (
        place.study("MISSED1", 1) + place.study("MISSED2", 3) + place.study("FAILED1", FAILED) + place.study("LATE1", 9)
    )
    owed += sorted((place.folder / "dicom").glob("REPLACED1*"))
    place.study("OLDER1", 20)
    place.study("TODAY1", 0)
    service = place.service.start()

    def caught_up() -> str | None:
        wanted = {
            "deployments": {"name": {"any_": ["nightly"]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}},
        }
        ended = service.prefect.post("/flow_runs/filter", json=wanted).raise_for_status().json()
        return ended[0]["state"]["message"] if ended else None

    message = service.when(caught_up)
    assert message.startswith(f"5 studies with {len(owed)} images archived on A")
    assert_holds(place.made(tmp_path), owed)
    night = mkiso_archive(service, "report").stdout.splitlines()[0]
    assert night.startswith(f"{place.day(FAILED)} to {place.day(1)}  night  done")

    headers = [dcmread(file, stop_before_pixels=True) for file in owed]
    transfers = ids(place.told("110102"), STUDY)
    assert len(transfers) == len(set(transfers)) and set(transfers) == {str(each.StudyInstanceUID) for each in headers}
    exports = place.told("110106")
    assert sorted(ids(exports, STUDY)) == sorted(transfers)
    assert set(ids(exports, PATIENT)) == {str(each.PatientID) for each in headers}
    assert {each.findall("ActiveParticipant")[1].attrib["UserID"] for each in exports} == {"robot"}
    asked = [b64decode(query.text or "") for each in place.told("110112") for query in each.iter(QUERY)]
    assert any(b"-" in dcmread(BytesIO(query), force=True).get("StudyDate", "").encode() for query in asked)

    worker = service.processes()["worker"]
    os.kill(worker, signal.SIGKILL)  # another starts, and finds that nothing is owed any more
    service.when(lambda: service.processes().get("worker", worker) != worker and service.is_ready())
    runs = service.prefect.post(
        "/flow_runs/filter", json={"deployments": {"name": {"any_": ["nightly"]}}, "limit": 50}
    ).json()
    assert [run["state_type"] for run in runs if run["state_type"] != "SCHEDULED"] == ["COMPLETED"]


def test_a_robot_that_fails_is_asked_again_by_the_next_night(place: Place, tmp_path: Path) -> None:
    before = set(place.made(tmp_path / "before"))
    files, place.robot.fault = place.study("FAILS1", 2), "fail"
    run = archive(place.service)
    assert run["state_type"] == "FAILED"
    assert "IS NOT DELIVERED: robot failed at the order: write error." in run["state"]["message"]
    assert "1 NOT YET DELIVERED" in mkiso_archive(place.service, "report").stdout

    place.robot.fault = ""
    assert archive(place.service)["state"]["message"].startswith("Nothing to archive")
    made = place.made(tmp_path / "after")
    assert_holds({uid: file for uid, file in made.items() if uid not in before}, files)


def test_a_robot_that_is_silent_is_asked_about_until_a_person_says(place: Place, tmp_path: Path) -> None:
    before = set(place.made(tmp_path / "before"))
    files, place.robot.fault = place.study("SILENT1", 2), "silent"
    run = archive(place.service)
    assert run["state_type"] == "FAILED" and "look at the robot" in run["state"]["message"]
    label = next(word for word in run["state"]["message"].split() if word.startswith("A2"))
    assert archive(place.service)["state_type"] == "FAILED"
    assert set(place.made(tmp_path / "silent")) == before

    place.robot.fault = ""
    assert mkiso_archive(place.service, "settle", label, "--again").returncode == 0
    assert archive(place.service)["state_type"] == "COMPLETED"
    made = place.made(tmp_path / "after")
    assert_holds({uid: file for uid, file in made.items() if uid not in before}, files)
    assert [entry.name for entry in (place.service.data_dir / "volumes").iterdir()] == [".place"]


@pytest.mark.parametrize("moment", ["mastered", "given"])
def test_killed_around_an_order_the_archive_orders_once(place: Place, tmp_path: Path, moment: str) -> None:
    before, service = set(place.made(tmp_path / "before")), place.service
    files, tickets = place.study(f"KILL{moment.upper()}", 2), len(place.robot.tickets)
    run = start(service)
    process = int(service.when(lambda: service.run(run)["infrastructure_pid"]).split("/")[1])
    until(
        lambda: (
            list((service.data_dir / "volumes").glob("*/disc.iso"))
            if moment == "mastered"
            else len(place.robot.tickets) > tickets
        ),
        pause=0,
    )
    os.kill(process, signal.SIGKILL)
    assert service.run_ended(run)["state_type"] == "CRASHED"
    assert archive(service)["state_type"] == "COMPLETED"
    made = place.made(tmp_path / "after")  # which fails where an instance is on two discs
    assert_holds({uid: file for uid, file in made.items() if uid not in before}, files)
    assert [entry.name for entry in (service.data_dir / "volumes").iterdir()] == [".place"]
