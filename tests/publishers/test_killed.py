"""A worker that is killed (SIGKILL) at any point of a print never makes two discs or an unnoticed half of one."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path

import pytest

import mkiso.publishers.hotfolder as hotfolder
import mkiso.publishers.mcm as mcm
from mkiso.config.settings import Settings
from mkiso.errors import PrintUncertain, PublisherUnavailable
from mkiso.publishers import Order, Watch, follow, publisher_of
from peers.folder_robots import JsonRobot
from peers.media_creation import MediaCreationPublisher
from peers.patience import LONG, until
from peers.storage_publisher import StoragePublisher
from tests.publishers.dying import print_and_die
from tests.publishers.orders import give, order_of, settings_of, study

pytestmark = pytest.mark.peer

POINTS = 12
JOB = "0b0a1b2c-0000-4000-8000-0000000000{:02}"
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tests.publishers.dying"])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hotfolder, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(mcm, "POLL_SECONDS", 0.05)


@pytest.fixture(scope="module", autouse=True)
def _no_forkserver_left() -> Iterator[None]:
    """Forked from a process that has imported everything, a print starts in milliseconds; that process ends with these
    tests.
    """
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def run(settings: Settings, order: Order, at_line: int, lines: Path) -> int:
    process = FORKSERVER.Process(target=print_and_die, args=(settings, order, at_line, lines))
    process.start()
    process.join(LONG)
    assert process.exitcode is not None
    return process.exitcode


def points(settings: Settings, order: Order, lines: Path) -> list[int]:
    """Where to die: spread over the lines that an undisturbed print takes, half of the points before the order is
    written down and half after it.

    The lines are those of a first order, so the others must be like it in every length.
    """
    assert run(settings, order, 0, lines) == 0
    follow(publisher_of("robot", settings), order, settings.storage.orders_dir, Watch())
    total, begun = map(int, lines.read_text().split())
    half = POINTS // 2
    assert 0 < begun < total
    return [1 + begun * point // half for point in range(half)] + [
        begun + 1 + (total - begun) * point // half for point in range(half)
    ]


def test_a_relay(tmp_path: Path) -> None:
    instances = study(tmp_path, {"ct": 3})
    whole = sorted(arrival.sop_instance_uid for arrival in instances)
    outcomes = set()
    with StoragePublisher(tmp_path / "robot") as robot:
        settings = settings_of(tmp_path, port=robot.port)
        for number, line in enumerate(
            points(settings, order_of(instances, JOB.format(99), accession_numbers=("A00",)), tmp_path / "lines"), 1
        ):
            robot.clear()
            order = order_of(instances, JOB.format(number), accession_numbers=(f"A{number:02}",))
            assert run(settings, order, line, tmp_path / "lines") == -signal.SIGKILL
            until(lambda: not robot._ae.active_associations)  # it has noticed
            before = robot.discs()
            try:
                give(publisher_of("robot", settings), order, settings.storage.orders_dir, Watch())
            except PrintUncertain:
                outcomes.add("uncertain")
                assert robot.discs() == before  # not a byte more
                again = order_of(instances, JOB.format(number + 50), accession_numbers=(f"A{number:02}",))
                with pytest.raises(PrintUncertain):  # nor for anybody else who asks the same
                    give(publisher_of("robot", settings), again, settings.storage.orders_dir, Watch())
                assert robot.discs() == before
                looked = replace(again, job_id=JOB.format(number + 70))
                assert (
                    give(
                        publisher_of("robot", settings),
                        looked,
                        settings.storage.orders_dir,
                        Watch(),
                        confirm_reprint=True,
                    ).instances
                    == 3
                )
            else:
                outcomes.add("known")
                assert robot.discs() == [whole]
    assert outcomes == {"known", "uncertain"}


@pytest.mark.parametrize("kind", ["folder", "mcm"])
def test_robots_that_can_be_asked_always_make_exactly_one(tmp_path: Path, kind: str) -> None:
    instances = study(tmp_path, {"ct": 2})
    image = tmp_path / "disc.iso"
    image.write_bytes(b"an image")
    robot = (
        JsonRobot(tmp_path / "robot", step_seconds=0.02)
        if kind == "folder"
        else MediaCreationPublisher(tmp_path / "robot", step_seconds=0.02)
    )
    with robot:
        where = {"directory": robot.folder} if isinstance(robot, JsonRobot) else {"port": robot.port}
        settings = settings_of(tmp_path, kind=kind, **where)
        publisher = publisher_of("robot", settings)
        first = order_of(instances, JOB.format(99), image=image, accession_numbers=("A00",))
        for number, line in enumerate(points(settings, first, tmp_path / "lines"), 1):
            time.sleep(0.1)
            robot.made.clear()
            if isinstance(robot, MediaCreationPublisher):
                robot.started.clear()
            order = order_of(instances, JOB.format(number), image=image, accession_numbers=(f"A{number:02}",))
            assert run(settings, order, line, tmp_path / "lines") == -signal.SIGKILL
            try:
                give(publisher, order, settings.storage.orders_dir, Watch())
            except PublisherUnavailable as error:
                assert kind == "mcm" and "has the request of an attempt that broke off" in error.words
                give(publisher, order, settings.storage.orders_dir, Watch())
            assert follow(publisher, order, settings.storage.orders_dir, Watch()).proves == "done"
            assert len(robot.made) == 1
            if isinstance(robot, JsonRobot):
                assert list((robot.folder / "mkiso").iterdir()) == []
            else:
                assert len(robot.started) == 1
