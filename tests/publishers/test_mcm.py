"""Media Creation Management against its simulator: a disc of exactly the study, refusals, failures, and a start that
nobody confirmed.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mkiso.publishers.cstore as cstore
import mkiso.publishers.mcm as mcm
from mkiso.config.publishers import MediaCreation
from mkiso.errors import MkisoError, PrintUncertain, ProofFailed, PublisherRefused, PublisherUnavailable
from mkiso.publishers import Order, Publisher, Watch, cancel, follow, publisher_of
from peers.media_creation import MediaCreationPublisher
from peers.patience import LONG
from peers.storage_publisher import Faults
from tests.publishers.orders import give, order_of, settings_of, study

pytestmark = pytest.mark.peer


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcm, "POLL_SECONDS", 0.05)
    monkeypatch.setattr("mkiso.publishers.dicom.ECHO_LIMIT_SECONDS", LONG)


def room(folder: Path, robot: MediaCreationPublisher, **settings: Any) -> tuple[Publisher, Order, Path]:
    configured = settings_of(folder, kind="mcm", port=robot.port, **settings)
    return publisher_of("robot", configured), order_of(study(folder)), configured.storage.orders_dir


def test_a_disc_of_exactly_the_study(tmp_path: Path) -> None:
    with MediaCreationPublisher(tmp_path / "robot") as robot:
        publisher, order, orders_dir = room(tmp_path, robot)
        assert "answers C-ECHO" in publisher.check()
        order = replace(order, copies=2)
        assert give(publisher, order, orders_dir, Watch()).proves == "queued"
        assert follow(publisher, order, orders_dir, Watch()).proves == "done"
        assert robot.made == [sorted(arrival.sop_instance_uid for arrival in order.instances)] * 2
        assert give(publisher, order, orders_dir, Watch()).proves == "done"
        assert len(robot.made) == 2
        [asked] = robot.asked.values()
        assert "Example Anna" in asked.LabelText
        # A JPEG 2000 image is among them, which STD-GEN-CD doesn't allow.
        assert not [item for item in asked.ReferencedSOPSequence if "RequestedMediaApplicationProfile" in item]


@pytest.mark.parametrize(
    ("medium", "kinds", "profile"),
    [
        ("cd", {"ct": 2, "sr": 1}, "STD-GEN-CD"),
        ("cd", {"ct": 1, "jpeg": 1}, None),
        ("dvd", {"ct": 1, "jpeg": 1}, "STD-GEN-DVD-JPEG"),
        ("dvd", {"ct": 1, "jpeg_2000": 1}, "STD-GEN-DVD-J2K"),
        ("dvd", {"jpeg": 1, "jpeg_2000": 1}, None),
        ("bd", {"ct": 1}, "STD-GEN-BD-JPEG"),
    ],
)
def test_a_profile_is_asked_for_that_allows_the_instances(
    tmp_path: Path, medium: Any, kinds: dict[str, int], profile: str | None
) -> None:
    order = replace(order_of(study(tmp_path, kinds)), medium=medium)
    settings = settings_of(tmp_path, kind="mcm").publishers["robot"]
    assert isinstance(settings, MediaCreation)
    asked = mcm.media_request(order, settings)
    assert {item.get("RequestedMediaApplicationProfile") for item in asked.ReferencedSOPSequence} == {profile}


@pytest.mark.parametrize(
    ("fault", "words"),
    [("refuse request", "refused the request for a disc: 0110"), ("refuse start", "refused to start the disc: C203")],
)
def test_a_refusal_is_told_and_a_rerun_is_free(tmp_path: Path, fault: Any, words: str) -> None:
    with MediaCreationPublisher(tmp_path / "robot", fault=fault) as robot:
        publisher, order, orders_dir = room(tmp_path, robot)
        with pytest.raises(PublisherRefused, match=words):
            give(publisher, order, orders_dir, Watch())
        robot.fault = ""
        give(publisher, order, orders_dir, Watch())
        follow(publisher, order, orders_dir, Watch())
        assert len(robot.made) == 1


def test_a_failure_is_told_in_the_publishers_words(tmp_path: Path) -> None:
    with MediaCreationPublisher(tmp_path / "robot", fault="failure") as robot:
        publisher, order, orders_dir = room(tmp_path, robot)
        give(publisher, order, orders_dir, Watch())
        with pytest.raises(PublisherRefused, match="FAILURE MCD_FAILURE"):
            follow(publisher, order, orders_dir, Watch())
        assert robot.made == []


def test_storing_alone_makes_no_disc_so_a_lost_association_is_no_riddle(tmp_path: Path) -> None:
    with MediaCreationPublisher(tmp_path / "robot", faults=Faults(abort_after=2)) as robot:
        publisher, order, orders_dir = room(tmp_path, robot)
        with pytest.raises(PublisherUnavailable, match="No disc was started"):
            give(publisher, order, orders_dir, Watch())
        robot.faults.abort_after = None
        give(publisher, order, orders_dir, Watch())
        follow(publisher, order, orders_dir, Watch())
        assert len(robot.made) == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [("changed", ProofFailed), ("refuse", PublisherRefused), ("full", PublisherUnavailable)],
)
def test_nobody_is_told_to_throw_a_disc_away_that_was_not_started(
    tmp_path: Path, fault: str, error: type[MkisoError], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = {"changed": Faults(), "refuse": Faults(refuse_after=2), "full": Faults(disk_full_after=2)}[fault]
    monkeypatch.setattr(cstore, "back_off_seconds", lambda _: 0.0)
    with MediaCreationPublisher(tmp_path / "robot", faults=faults) as robot:
        publisher, order, orders_dir = room(tmp_path, robot)
        if fault == "changed":
            monkeypatch.setattr(mcm, "prove", lambda _: order.instances[2].path.write_bytes(b"x"))
        with pytest.raises(error, match=r"Nothing was printed\.$") as raised:
            give(publisher, order, orders_dir, Watch())
        assert "throw" not in raised.value.words
        assert robot.made == []


def test_a_start_that_was_not_confirmed_is_looked_up(tmp_path: Path) -> None:
    with MediaCreationPublisher(tmp_path / "robot", fault="no answer to start") as robot:
        publisher, order, orders_dir = room(tmp_path, robot)
        with pytest.raises(PrintUncertain, match="aborted the association when it was told to start"):
            give(publisher, order, orders_dir, Watch())
        robot.fault = ""
        give(publisher, order, orders_dir, Watch())
        assert follow(publisher, order, orders_dir, Watch()).proves == "done"
        assert len(robot.made) == len(robot.started) == 1


def test_a_request_that_was_not_confirmed_is_made_anew(tmp_path: Path) -> None:
    """The publisher may have it: its UID is taken, and no disc of it was started."""
    with MediaCreationPublisher(tmp_path / "robot", fault="no answer to request") as robot:
        publisher, order, orders_dir = room(tmp_path, robot)
        with pytest.raises(PublisherUnavailable, match="no disc was started"):
            give(publisher, order, orders_dir, Watch())
        robot.fault = ""
        give(publisher, order, orders_dir, Watch())
        assert follow(publisher, order, orders_dir, Watch()).proves == "done"
        assert (len(robot.requests), len(robot.made)) == (2, 1)


def test_who_says_that_a_disc_was_started_before_is_not_asked_for_another(tmp_path: Path) -> None:
    with MediaCreationPublisher(tmp_path / "robot", fault="started before") as robot:
        publisher, order, orders_dir = room(tmp_path, robot)
        with pytest.raises(PrintUncertain, match=r"started before.*confirm_reprint"):
            give(publisher, order, orders_dir, Watch())
        other = replace(order, job_id="0b0a1b2c-0000-4000-8000-000000000002")
        with pytest.raises(PrintUncertain, match="ended unclear"):
            give(publisher, other, orders_dir, Watch())
        assert robot.made == []


def test_a_request_that_is_forgotten_stays_unknown(tmp_path: Path) -> None:
    with MediaCreationPublisher(tmp_path / "robot", fault="forget") as robot:
        publisher, order, orders_dir = room(tmp_path, robot, silent_minutes=0.01)
        give(publisher, order, orders_dir, Watch())
        with pytest.raises(PrintUncertain, match="didn't tell of the disc"):
            follow(publisher, order, orders_dir, Watch())
        with pytest.raises(PrintUncertain, match="confirm_reprint"):
            give(publisher, order, orders_dir, Watch())


def test_what_is_said_of_another_request_says_nothing_of_this_disc(tmp_path: Path) -> None:
    with MediaCreationPublisher(tmp_path / "robot", step_seconds=0.01, fault="another's status") as robot:
        publisher, order, orders_dir = room(tmp_path, robot, silent_minutes=0.01)
        give(publisher, order, orders_dir, Watch())
        with pytest.raises(PrintUncertain, match="didn't tell of the disc"):
            follow(publisher, order, orders_dir, Watch())
        robot.fault = ""
        give(publisher, order, orders_dir, Watch())
        assert follow(publisher, order, orders_dir, Watch()).proves == "done"


@pytest.mark.parametrize(("standing", "limit_seconds"), [("IDLE", 0.3), ("PENDING", 2.4), ("CREATING", 2.4)])
def test_a_publisher_that_answers_the_same_for_ever_leaves_the_outcome_unknown(
    tmp_path: Path, standing: str, limit_seconds: float
) -> None:
    with MediaCreationPublisher(tmp_path / "robot", fault="stuck") as robot:
        publisher, order, orders_dir = room(tmp_path, robot, silent_minutes=0.005)
        give(publisher, order, orders_dir, Watch())
        too_long = threading.Event()
        robot._state = lambda uid: standing  # type: ignore[method-assign]
        timer = threading.Timer(10, too_long.set)
        timer.start()
        began = time.monotonic()
        with pytest.raises(PrintUncertain, match="has said the same of the disc"):
            follow(publisher, order, orders_dir, Watch(stop=too_long))
        timer.cancel()
        assert time.monotonic() - began >= limit_seconds


def test_a_request_that_was_never_started_never_will_be(tmp_path: Path) -> None:
    """A start that the publisher acknowledged and forgot: before another is given the first request is cancelled."""
    with MediaCreationPublisher(tmp_path / "robot", fault="stuck") as robot:
        publisher, order, orders_dir = room(tmp_path, robot, silent_minutes=0.005)
        give(publisher, order, orders_dir, Watch())
        [first] = robot.requests
        robot.requests[first] = "IDLE"
        with pytest.raises(PrintUncertain, match="has said the same"):
            follow(publisher, order, orders_dir, Watch())
        robot.fault = ""
        give(publisher, order, orders_dir, Watch())
        assert robot.requests[first] == "FAILURE"
        assert follow(publisher, order, orders_dir, Watch()).proves == "done"
        assert len(robot.made) == 1


def test_an_order_is_cancelled(tmp_path: Path) -> None:
    with MediaCreationPublisher(tmp_path / "robot", fault="stuck") as robot:
        publisher, order, orders_dir = room(tmp_path, robot)
        give(publisher, order, orders_dir, Watch())
        assert cancel(publisher, order, orders_dir)
        with pytest.raises(PublisherRefused, match="FAILURE"):
            follow(publisher, order, orders_dir, Watch())
