"""Scenarios 7 to 14: what a C-MOVE can come to, over HTTP and Prefect.

The table of outcomes alone is held in tests/sources/test_move_outcome.py, every row of it against the receiver in
tests/sources/test_scripted.py, real PACS in tests/sources/test_peers.py, a PACS that is killed in mid-move in
tests/end_to_end/test_lifecycle.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread

from peers.house import PACS_AE, House
from peers.link import Link
from peers.orthanc import Orthanc
from peers.ports import free_port
from peers.scripted_pacs import MoveRequest, Script, whole
from peers.service import AE_TITLE

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("the_next_job_passes_and_nothing_is_left")]

SOME = 5
ATTEMPTS = 3  # pacs.move_attempts
TRIES = 4  # of a step whose error may pass (tasks/step.py)


def ends(status: int, stored: int = 3, **counts: int) -> Script:
    """Stores so many of what is asked, then ends with this status and these counts."""

    def script(move: MoveRequest) -> None:
        move.store(move.asked()[:stored])
        move.end(status, **counts)

    return script


def images_so_far(house: House) -> int:
    return len(list((house.service.data_dir / "jobs").glob("*/instances/*")))


def uid_of(file: Path) -> str:
    return str(dcmread(file, stop_before_pixels=True).SOPInstanceUID)


def test_07_a_pacs_that_doesnt_know_us_is_asked_once(house: House) -> None:
    house.ask_of("stranger")
    back, connections = house.back.connections, house.link.connections
    body = house.refused(
        "GOOD1",
        502,
        "pacs_refused",
        f"{PACS_AE}.*doesn't know the destination {AE_TITLE}.*port {house.service.receiver_port}",
    )
    assert body["status"] == "A801"
    assert house.back.connections == back
    assert house.link.connections == connections + 2, "one association to find, one to move"


def test_07_no_second_try_whatever_the_pacs_says_of_us(house: House) -> None:
    pacs = house.play("GOOD1", ends(0xA801, 0))
    house.refused("GOOD1", 502, "pacs_refused", "doesn't know the destination")
    assert len(pacs.moves) == 1


def test_08_a_port_that_the_pacs_cant_reach(house: House) -> None:
    orthanc = house.pacs["orthanc"]
    assert isinstance(orthanc, Orthanc)
    orthanc.know(AE_TITLE, "127.0.0.1", free_port())
    try:
        house.refused(
            "GOOD1", 502, "study_incomplete", f"3 of the 3 images.*reach this machine.*{house.service.receiver_port}"
        )
    finally:
        orthanc.know(AE_TITLE, "127.0.0.1", house.back.port)


def test_08_a_port_behind_a_firewall_is_tried_a_bounded_number_of_times(house: House) -> None:
    house.ask_of("dcmqrscp")
    house.back.target = 0
    back = house.back.connections
    house.refused("GOOD1", 502, "pacs_busy", "reach this machine.*firewall")
    assert 1 <= house.back.connections - back <= ATTEMPTS * TRIES


@pytest.mark.parametrize(("number", "status"), [(9, 0xB000), (10, 0x0000)])
def test_09_10_an_image_that_fails_is_moved_again(house: House, number: int, status: int, tmp_path: Path) -> None:
    pacs = house.play("GOOD1", ends(status, 2, completed=2, failed=1, warning=0, remaining=0), whole)
    house.disc("GOOD1", tmp_path / "disc")
    assert [move.QueryRetrieveLevel for move in pacs.moves] == ["STUDY", "IMAGE"]
    assert pacs.moves[1].SOPInstanceUID == uid_of(house.studies["GOOD1"][2])


@pytest.mark.parametrize(("number", "status"), [(9, 0xB000), (10, 0x0000)])
def test_09_10_an_image_that_always_fails_is_named(house: House, number: int, status: int) -> None:
    def all_but_the_last(move: MoveRequest) -> None:
        asked = [file for file in move.asked() if file != house.studies["GOOD1"][2]]
        move.store(asked)
        move.end(status, completed=len(asked), failed=1, warning=0, remaining=0)

    pacs = house.play("GOOD1", all_but_the_last)
    body = house.refused("GOOD1", 502, "study_incomplete", "^1 of the 3 images of accession number GOOD1")
    assert body["missing_sop_instance_uids"] == [uid_of(house.studies["GOOD1"][2])]
    assert len(pacs.moves) == ATTEMPTS


def test_11_success_without_counts_is_judged_by_what_arrived(house: House, tmp_path: Path) -> None:
    pacs = house.play("GOOD1", ends(0x0000, 3))
    house.disc("GOOD1", tmp_path / "disc")
    assert len(pacs.moves) == 1
    pacs = house.play("GOOD1", ends(0x0000, 0))
    house.refused("GOOD1", 502, "study_incomplete", "^3 of the 3")


def test_12_success_before_the_images(house: House, tmp_path: Path) -> None:
    house.ask_of("asynchronous")
    house.disc("MANY1", tmp_path / "disc")


def test_12_success_and_nobody_there(house: House) -> None:
    """Orthanc counts all as completed, also where the destination is dead."""
    house.ask_of("asynchronous")
    house.back.target = 0
    house.refused("GOOD1", 502, "study_incomplete", "^3 of the 3")


@pytest.mark.parametrize("cut", ["the C-MOVE", "the C-STOREs"])
@pytest.mark.parametrize("pacs", ["orthanc", "dcmqrscp"])
def test_13_a_connection_that_breaks_in_mid_move_costs_nothing(
    house: House, pacs: str, cut: str, tmp_path: Path
) -> None:
    house.ask_of(pacs)
    broken: list[int] = []

    def on_some_images(_: Link) -> None:
        if not broken and (arrived := images_so_far(house)) >= SOME:
            broken.append(arrived)
            (house.link if cut == "the C-MOVE" else house.back).cut()

    house.back.on_carried = on_some_images
    house.disc("MANY1", tmp_path / "disc")
    assert broken and broken[0] < len(house.studies["MANY1"])


def test_14_a_pacs_that_falls_silent_for_ever(house: House) -> None:
    """The job's own deadline would have ended it as deadline_passed."""

    def hush(back: Link) -> None:
        if images_so_far(house) >= SOME:
            house.link.hush()
            back.hush()

    house.back.on_carried = hush
    house.refused("MANY1", 504, "pacs_silent", "the PACS hangs")


def test_14_a_pacs_that_is_not_there(house: House) -> None:
    house.link.target = 0
    house.refused("GOOD1", 502, "pacs_unreachable", PACS_AE)
