"""Scenarios 22 and 23: the disc under doubt, and names that are not ASCII.

Every kind of damage to every kind of file (a flipped bit, a cut, a swapped pair, a missing and an additional file;
DICOM, DICOMDIR, viewer) is held at the proof itself in tests/formats/test_verify.py, and on a disc years later,
by `mkiso verify`, in tests/media/test_tools.py. Here the same goes through the whole service, where it can be had: no
byte of such a disc is sent.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from pydicom.fileset import FileSet

from peers.discs import extract, flip
from peers.house import THAI_CANARY, House
from peers.inotify import closed_after_writing
from peers.patience import until
from peers.scripted_pacs import MoveRequest

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("the_next_job_passes_and_nothing_is_left")]


def find_in(file: Path, wanted: bytes) -> int:
    return file.read_bytes().rindex(wanted)


def is_stopped(pid: int) -> bool:
    """Whether every thread of a process is."""
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    return {thread.read_text().rpartition(")")[2].split()[0] for thread in threads} == {"T"}


@contextmanager
def damaged(house: House, damage: Callable[[Path], None]) -> Iterator[list[Path]]:
    """Do this to the next image of a disc between mastering and reading it back."""
    images: list[Path] = []
    stop = threading.Event()

    def watch() -> None:
        for file in closed_after_writing(house.service.data_dir / "jobs", stop):
            if writer := re.fullmatch(
                r"(disc\d+\.iso)\.(\d+)\.new", file.name
            ):  # it gets its own name once it is whole
                flow = int(writer[2])
                os.kill(flow, signal.SIGSTOP)
                try:
                    until(partial(is_stopped, flow))  # until then it may rename the image
                    image = file if file.exists() else file.with_name(writer[1])
                    damage(image)
                    images.append(image)
                finally:
                    os.kill(flow, signal.SIGCONT)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield images
    finally:
        stop.set()
        watcher.join()


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a bit of a DICOM file": lambda image: flip(image, image.stat().st_size // 2),
    "a bit of DICOMDIR": lambda image: flip(image, find_in(image, b"PATIENT ")),
    "a bit of README.TXT": lambda image: flip(image, find_in(image, b"Test Hospital")),
    "a name in a directory": lambda image: flip(image, image.read_bytes().index(b"README.TXT")),
    "the end is missing": lambda image: os.truncate(image, image.stat().st_size - 2048),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_22_an_image_that_changes_after_mastering_is_never_sent(house: House, damage: Callable[[Path], None]) -> None:
    with damaged(house, damage) as images:
        house.refused("MANY1", 500, "proof_failed", ".")
    assert len(images) == 1


def test_22_an_instance_that_changes_before_mastering_is_never_sent(house: House) -> None:
    """Its bytes were right when they came, and are not when they are put on the disc."""

    def sends_and_flips(move: MoveRequest) -> None:
        move.store(move.files[:-1])
        [kept, *_] = (house.service.data_dir / "jobs").glob("*/instances/*")
        flip(kept, kept.stat().st_size - 10)
        move.store(move.files[-1:])
        move.end(0x0000)

    house.play("GOOD1", sends_and_flips)
    house.refused("GOOD1", 500, "proof_failed", "not what was received")


def test_22_an_image_that_changes_on_the_shelf_is_never_sent(house: House, tmp_path: Path) -> None:
    """It was proved and sent before; the rest of a broken download comes from its own address, hours later."""
    sent = house.disc("GOOD1", tmp_path / "sent")
    address = sent.headers["content-location"]
    [image] = [
        manifest.with_name("disc.iso")
        for manifest in (house.service.data_dir / "discs").glob("*/manifest.json")
        if json.loads(manifest.read_text("utf-8"))["job_id"] in address
    ]
    assert image.read_bytes() == sent.content
    rest = house.service.http.get(address, headers={"Range": "bytes=1000-"})
    assert (rest.status_code, rest.content) == (206, sent.content[1000:])
    flip(image, len(sent.content) // 2)
    half = f"bytes={len(sent.content) // 2}-"
    answer = house.service.http.get(address, headers={"Range": half})
    assert (answer.status_code, answer.json()["code"]) == (500, "proof_failed")
    assert not image.parent.exists()
    assert "taken off the shelf" in house.service.log()


@pytest.mark.parametrize("pacs", ["orthanc", "dcmqrscp"])
def test_23_a_thai_name_is_itself(house: House, pacs: str, tmp_path: Path) -> None:
    """And no name breaks a header: RFC 8187 beside plain ASCII."""
    house.ask_of(pacs)
    answer = house.service.http.get("/api/iso/download-multiple", params={"accession_numbers": "THAI1,THAI2"})
    assert answer.status_code == 200, answer.text
    disposition = answer.headers["content-disposition"]
    assert disposition.isascii() and 'filename="' in disposition and "filename*=UTF-8''%E0%B8%99" in disposition
    (tmp_path / "disc.iso").write_bytes(answer.content)
    disc = FileSet(extract(tmp_path / "disc.iso", tmp_path / "x") / "DICOMDIR")
    assert [str(name) for name in disc.find_values("PatientName")] == [THAI_CANARY.name]
