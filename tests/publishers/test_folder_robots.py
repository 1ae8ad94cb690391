"""Each robot's whole life cycle against its simulator: made, refused, failed, paused, silent, cancelled, and orders
that broke off.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

import mkiso.publishers.hotfolder as hotfolder
from mkiso.errors import PrintUncertain, ProofFailed, PublisherRefused, PublisherUnavailable
from mkiso.publishers import Order, OrderBook, Publisher, Receipt, Watch, cancel, follow, publisher_of
from mkiso.publishers import give as give_order
from mkiso.publishers.hotfolder import FolderPublisher
from mkiso.study.models import Patient, Volume
from peers.folder_robots import EpsonRobot, Fault, FolderRobot, JsonRobot, PrimeraRobot, RimageRobot
from peers.small_disk import fill, small_disk
from tests.publishers.orders import give, order_of, settings_of

pytestmark = pytest.mark.peer

ROBOTS: dict[str, type[FolderRobot]] = {
    "epson": EpsonRobot,
    "primera": PrimeraRobot,
    "rimage": RimageRobot,
    "folder": JsonRobot,
}
CANCELLABLE = ["epson", "primera", "folder"]
WINDOWS = "D:\\Jobs"
LABEL = {"Name": "{patient_name}", "Disc": "{number} of {total}"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hotfolder, "POLL_SECONDS", 0.05)


class Room:
    """A robot's folder, an image, a publisher configured for both."""

    def __init__(self, folder: Path, kind: str, fault: Fault = "", **settings: Any) -> None:
        self.robot = ROBOTS[kind](folder / "robot", fault, step_seconds=0.1, root=WINDOWS)
        values = {
            "kind": kind,
            "directory": self.robot.folder,
            "robot_directory": WINDOWS,
            "label_template": "D:\\label.tdd",
            "label_fields": LABEL,
        }
        if isinstance(self.robot, RimageRobot):
            values["status_directory"] = self.robot.status
        self.settings = settings_of(folder, **{**values, **settings})
        self.orders_dir = self.settings.storage.orders_dir
        image = folder / "disc.iso"
        image.write_bytes(b"an image" * 1000)
        self.order = order_of(image=image, volume_id="A1001", volume=Volume(1, 2))

    @property
    def publisher(self) -> Publisher:
        return publisher_of("robot", self.settings)

    def give(self, **values: Any) -> Receipt:
        return give(self.publisher, self.order, self.orders_dir, Watch(), **values)

    def follow(self, watch: Watch | None = None) -> Receipt:
        return follow(self.publisher, self.order, self.orders_dir, watch or Watch())

    def beside(self) -> list[str]:
        return sorted(file.name for file in (self.robot.folder / "mkiso").iterdir())


@pytest.mark.parametrize("kind", ROBOTS)
def test_a_disc_is_made(tmp_path: Path, kind: str) -> None:
    room = Room(tmp_path, kind)
    seen: list[str] = []
    with room.robot as robot:
        assert str(robot.folder) in room.publisher.check()
        receipt = room.give()
        assert receipt.proves == "queued"
        done = room.follow(Watch(progress=lambda words, done, total: seen.append(words)))
        assert done.proves == "done"
        assert robot.made == [receipt.order_id]
        assert [disc.read_bytes() for disc in robot.discs.iterdir()] == [room.order.image.read_bytes()]  # type: ignore[union-attr]
        assert room.beside() == []
        assert any("running" in words for words in seen)
        assert room.give().proves == "done"  # a rerun rests
        assert room.follow().proves == "done"
        assert robot.made == [receipt.order_id]


def test_an_order_that_cant_be_written_down_leaves_no_image_on_the_share(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", "size=256k") as disk:
        room = Room(tmp_path, "folder")
        OrderBook.of(room.orders_dir, room.order.questions).ask(room.order.job_id)
        filler = fill(disk)
        with pytest.raises(OSError, match="No space left"):
            give_order(room.publisher, room.order, room.orders_dir, Watch())
        assert room.beside() == []
        filler.unlink()
        with room.robot as robot:
            room.give()
            assert room.follow().proves == "done" and len(robot.made) == 1


def test_an_order_of_which_one_page_found_no_room_is_given_by_a_retry(tmp_path: Path) -> None:
    """The robot has nothing of it, so nobody has to look there first."""
    with small_disk(tmp_path / "data", "size=256k") as disk:
        room = Room(tmp_path, "folder")
        room.order = replace(room.order, accession_numbers=("A1001", "B2002"))
        book = OrderBook.of(room.orders_dir, room.order.questions)
        book.ask(room.order.job_id)
        for number in range(40):  # the second page alone is longer than what is left
            OrderBook(book.paths[1:]).ask(f"another job {number}")
        os.truncate(filler := fill(disk), filler.stat().st_size - mmap.PAGESIZE)
        with pytest.raises(OSError, match="No space left"):
            give_order(room.publisher, room.order, room.orders_dir, Watch())
        assert {entry.state for entry in book.pages()[0]} == {"asked", "not given"}
        filler.unlink()
        with room.robot as robot:
            give_order(room.publisher, room.order, room.orders_dir, Watch())
            assert room.follow().proves == "done" and len(robot.made) == 1


@pytest.mark.parametrize("kind", ROBOTS)
def test_the_robots_account_may_read_what_its_folder_lets_it(tmp_path: Path, kind: str) -> None:
    """mkiso runs with a umask that keeps everybody else out."""
    before = os.umask(0o077)
    try:
        room = Room(tmp_path, kind)
        room.robot.folder.chmod(0o770)
        room.give()
    finally:
        os.umask(before)
    assert isinstance(room.publisher, FolderPublisher)
    staging = room.publisher.staging
    given = [*room.robot.folder.iterdir(), *staging.iterdir()]
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in given if path.is_file() or path == staging}
    assert len(modes) >= 3 and set(modes.values()) == {"0o660", "0o770"}, modes


@pytest.mark.parametrize("kind", ROBOTS)
def test_a_failed_order_is_told_in_the_robots_words_and_a_rerun_makes_another(tmp_path: Path, kind: str) -> None:
    room = Room(tmp_path, kind, "fail")
    with room.robot as robot:
        room.give()
        with pytest.raises(PublisherRefused, match="write error"):
            room.follow()
        robot.fault = ""
        room.give()
        assert room.follow().proves == "done"
        assert len(robot.made) == 1


def test_a_share_that_does_what_it_says_that_it_cant_leaves_it_unclear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is lost on its way, and what this machine remembers of the folder is old."""
    room, rename = Room(tmp_path, "folder"), Path.rename

    def lost(path: Path, target: Path) -> Path:
        if target.suffix != ".JSON":
            return rename(path, target)
        os.link(path, target)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "rename", lost)
    with pytest.raises(PrintUncertain, match=r"failed while the order was given.*confirm_reprint"):
        room.give()
    monkeypatch.undo()
    assert room.beside(), "the robot may come for its image"
    [ticket] = room.robot.folder.glob("*.JSON")
    assert room.give().order_id == ticket.stem  # it follows that one


def test_a_robot_that_says_that_it_failed_and_that_it_is_done_is_looked_at(tmp_path: Path) -> None:
    """A retry made a second disc."""
    room = Room(tmp_path, "folder")
    order_id = room.give().order_id
    ticket = room.robot.folder / f"{order_id}.JSON"
    ticket.rename(ticket.with_suffix(".DONE"))
    ticket.with_suffix(".FAILED").write_text("the label can't be printed")
    for _ in range(2):
        with pytest.raises(PublisherRefused, match=r"label.*says elsewhere that the disc is done.*confirm_reprint"):
            room.follow()
        assert room.give().order_id == order_id  # it follows the same order
    other = replace(room.order, job_id="0b0a1b2c-0000-4000-8000-000000000002")
    with pytest.raises(PublisherRefused):
        room.follow()
    with pytest.raises(PrintUncertain, match="ended unclear"):
        give(room.publisher, other, room.orders_dir, Watch())
    assert not [*room.robot.folder.glob("*.JSON")]


@pytest.mark.parametrize("kind", ROBOTS)
def test_a_refused_order(tmp_path: Path, kind: str) -> None:
    room = Room(tmp_path, kind, "refuse")
    with room.robot as robot:
        room.give()
        with pytest.raises(PublisherRefused, match="ticket not accepted"):
            room.follow()
        assert robot.made == []


@pytest.mark.parametrize("kind", ROBOTS)
@pytest.mark.parametrize("fault", ["silent", "disc out", "dead"])
def test_an_order_without_an_end_is_unknown_and_a_rerun_goes_on_following(
    tmp_path: Path, kind: str, fault: Fault
) -> None:
    room = Room(tmp_path, kind, fault, silent_minutes=0.01)
    with room.robot as robot:
        room.give()
        if fault == "silent" and kind in (
            "epson",
            "primera",
        ):  # its service lives, so it may be busy with others; it is the service that ends here
            threading.Timer(0.5, lambda: setattr(robot, "fault", "dead")).start()
        with pytest.raises(PrintUncertain, match=r"said nothing new for 0\.01 minutes.*confirm_reprint"):
            room.follow()
        room.give()  # the robot has the order: it isn't given again
        if fault == "disc out":
            robot.fault = ""
            assert room.follow().proves == "done"
            assert len(robot.made) == 1
        else:
            with pytest.raises(PrintUncertain):
                room.follow()


@pytest.mark.parametrize("kind", CANCELLABLE)
def test_a_cancelled_order_is_dropped_by_the_robot(tmp_path: Path, kind: str) -> None:
    room = Room(tmp_path, kind, "disc out")
    with room.robot as robot:
        room.give()
        assert cancel(room.publisher, room.order, room.orders_dir)
        with pytest.raises(PublisherRefused, match="stopped the order"):
            room.follow()
        assert robot.stopped
        assert robot.made == []
        assert not cancel(room.publisher, room.order, room.orders_dir)  # there is nothing left to cancel


def test_following_ends_when_the_caller_stops_it(tmp_path: Path) -> None:
    room = Room(tmp_path, "epson", "disc out")
    watch = Watch()
    with room.robot:
        room.give()
        threading.Timer(0.3, watch.stop.set).start()
        assert room.follow(watch).proves == "queued"


def test_some_copies_of_a_failed_order_may_be_there(tmp_path: Path) -> None:
    room = Room(tmp_path, "epson", "fail")
    room.order = replace(room.order, copies=2)
    with room.robot as robot:
        room.give()
        with pytest.raises(PublisherRefused, match="Some of the 2 copies may have been made"):
            room.follow()
        robot.fault = ""
        room.give()  # the ticket is there: it is looked at again, not given again
        with pytest.raises(PublisherRefused):
            room.follow()
        assert robot.made == []


def test_copies_and_the_label_reach_the_robot(tmp_path: Path) -> None:
    room = Room(tmp_path, "folder")
    room.order = replace(room.order, copies=2)
    with room.robot as robot:
        receipt = room.give()
        room.follow()
        assert robot.made == [receipt.order_id] * 2
        ticket = json.loads(robot.tickets[receipt.order_id])
    assert ticket["label"] == {"Name": "Example Anna", "Disc": "1 of 2"}
    assert ticket["image"] == f"{WINDOWS}\\mkiso\\{receipt.order_id}.ISO"


def test_a_dead_service_is_noticed_by_the_check(tmp_path: Path) -> None:
    for kind, status in (("epson", "TDBStatus.txt"), ("primera", "SystemStatus.txt")):
        room = Room(tmp_path / kind, kind)
        with pytest.raises(PublisherUnavailable, match="no status file"):
            room.publisher.check()
        with room.robot:
            room.publisher.check()
        old = time.time() - 300

        os.utime(room.robot.folder / status, (old, old))
        with pytest.raises(PublisherUnavailable, match="stands still"):
            room.publisher.check()


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    room = Room(tmp_path, "folder")
    shutil.rmtree(room.robot.folder)
    with pytest.raises(PublisherUnavailable, match="can't be used"):
        room.publisher.check()
    with pytest.raises(PublisherUnavailable, match="nothing was printed"):
        room.give()
    room.robot.folder.mkdir()
    assert room.give().proves == "queued"


def test_a_folder_that_a_service_may_not_write_to_since_it_came_late(tmp_path: Path) -> None:
    room = Room(tmp_path, "folder")
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(room.robot.folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine mounts nothing")
    try:
        with pytest.raises(PublisherUnavailable, match="restart mkiso"):
            room.publisher.check()
    finally:
        subprocess.run(["umount", room.robot.folder], check=True)


def test_of_an_order_that_may_be_given_nobody_says_that_nothing_was_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(tmp_path, "folder")
    _killed_at(room.order, room.publisher, room.orders_dir, "after", monkeypatch)
    shutil.rmtree(room.robot.folder)
    with pytest.raises(PublisherUnavailable) as gone:
        room.give()
    assert "nothing was printed" not in gone.value.words


def test_a_full_disk_at_the_publisher_leaves_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(tmp_path, "folder")

    def full(source: BinaryIO, copy: BinaryIO, length: int) -> None:
        copy.write(b"a part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(PublisherUnavailable, match="No space left on device"):
        room.give()
    assert room.beside() == []
    monkeypatch.undo()
    assert room.give().proves == "queued"


def test_nobody_is_sent_to_the_publishers_folder_for_our_own_full_disk(tmp_path: Path) -> None:
    """How far it is can't be written down."""
    room = Room(tmp_path, "folder")

    def full(words: str, done: int, total: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device"):
        room.publisher.place(room.order, lambda: None, Watch(progress=full))


def test_a_copy_that_is_not_the_image_is_never_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The robot compares its disc with this copy, so nobody but mkiso can notice."""
    room = Room(tmp_path, "folder")

    def flipped(source: BinaryIO, copy: BinaryIO, length: int) -> None:
        content = bytearray(source.read())
        content[4000] ^= 1
        copy.write(content)

    monkeypatch.setattr(shutil, "copyfileobj", flipped)
    with pytest.raises(ProofFailed, match="nothing was printed"):
        room.give()
    assert room.beside() == []
    assert not list(room.robot.folder.glob("*.JSON"))
    monkeypatch.undo()
    assert room.give().proves == "queued"


def test_the_copy_is_compared_with_what_was_proved(tmp_path: Path) -> None:
    room = Room(tmp_path, "folder")
    for proved in ("0" * 64, ""):  # the image has changed since it was read back; nobody has read it back
        room.order = replace(room.order, image_sha256=proved)
        with pytest.raises(ProofFailed):
            room.give()
        assert room.beside() == []


def test_a_ticket_that_was_not_given_is_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(tmp_path, "folder")
    _killed_at(room.order, room.publisher, room.orders_dir, "before", monkeypatch)
    assert cancel(room.publisher, room.order, room.orders_dir) is True
    assert room.beside() == []
    another = replace(room.order, job_id="0b0a1b2c-0000-4000-8000-000000000002")
    assert give(room.publisher, another, room.orders_dir, Watch()).proves == "queued"  # nothing is unclear


def test_a_name_that_the_code_page_lacks_is_told(tmp_path: Path) -> None:
    room = Room(tmp_path, "epson")
    room.order = replace(room.order, patient=Patient("HN-3", "ตัวอย่าง^สมชาย"))
    with room.robot:
        assert "cp1252 hasn't" in room.give().warnings[0]
    other = Room(tmp_path / "thai", "epson", label_encoding="cp874")
    other.order = replace(other.order, patient=Patient("HN-3", "ตัวอย่าง^สมชาย"))
    receipt = other.give()
    assert receipt.warnings == ()
    assert "ตัวอย่าง".encode("cp874") in (other.robot.folder / "mkiso" / f"{receipt.order_id}.TXT").read_bytes()


@pytest.mark.parametrize("kind", ["epson", "primera", "rimage"])
def test_no_question_mark_reaches_a_label(kind: str, tmp_path: Path) -> None:
    room = Room(tmp_path, kind)
    assert isinstance(room.publisher, FolderPublisher)
    for name, shown in (
        ("Иванова^Ольга", "Ivanova Olga"),
        ("Żółć^Łucja", "Zólc Lucja"),
        ("Yamada^Tarou=山田^太郎", "Yamada Tarou"),
    ):
        order = replace(room.order, patient=Patient("HN-3", name), order_id="a-1", institution="Klinik")
        texts = "".join(room.publisher.files(order, "x.ISO").values())
        assert shown in texts and "?" not in texts.replace("<?xml", "").replace("?>", "")
        texts.encode("cp1252")
        assert room.publisher.rewrites(order) is ("=" not in name)
    assert room.publisher.rewrites(room.order) is False
    shows_institution = {**LABEL, "From": "{institution}"}
    other = Room(tmp_path / "other", kind, label_fields=shows_institution).publisher
    assert other.rewrites(replace(room.order, institution="Клиника")) is True


def test_a_label_without_a_name_is_not_ordered(tmp_path: Path) -> None:
    room = Room(tmp_path, "epson")
    room.order = replace(room.order, patient=Patient("HN-3", "\ufffd\ufffd^\ufffd"))
    with pytest.raises(PublisherRefused, match="label can't show"):
        room.give()
    template = Room(tmp_path / "template", "primera", label_template="D:\\метка.std")
    with pytest.raises(PublisherRefused, match="nothing was printed"):
        template.give()
    for each in (room, template):
        assert not [
            file for file in each.robot.folder.rglob("*") if file.suffix in (".JDF", ".JRQ", ".ISO", ".ungiven")
        ]


class _Killed(BaseException):
    """The process ends here."""


def _killed_at(
    order: Order, publisher: Publisher, orders_dir: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give the order and die: before the ticket is renamed in, or after it."""
    rename = Path.rename

    def dying(path: Path, target: Path) -> Path:
        if path.suffix == hotfolder.UNGIVEN:
            if place == "after":
                rename(path, target)
            raise _Killed
        return rename(path, target)

    with monkeypatch.context() as context:
        context.setattr(Path, "rename", dying)
        with pytest.raises(_Killed):
            give(publisher, order, orders_dir, Watch())


@pytest.mark.parametrize("kind", ROBOTS)
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("alive", [True, False])
def test_an_order_that_broke_off_around_its_ticket_makes_one_disc(
    tmp_path: Path, kind: str, place: str, alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(tmp_path, kind)
    if alive:
        with room.robot as robot:
            _killed_at(room.order, room.publisher, room.orders_dir, place, monkeypatch)
            time.sleep(0.4)  # the robot takes what it has
            room.give()
            assert room.follow().proves == "done"
            assert len(robot.made) == 1
    else:
        _killed_at(room.order, room.publisher, room.orders_dir, place, monkeypatch)
        room.give()
        assert len(list(room.robot.folder.glob(f"*{room.robot.ticket_suffix}"))) == 1
        assert len([name for name in room.beside() if name.endswith(".ISO")]) == 1


def test_an_order_whose_ticket_is_nowhere_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(tmp_path, "folder")
    _killed_at(room.order, room.publisher, room.orders_dir, "after", monkeypatch)
    for ticket in room.robot.folder.glob("*.JSON"):
        ticket.unlink()
    with pytest.raises(PrintUncertain, match="confirm_reprint"):
        room.give()
    room.order = replace(room.order, job_id="a newer run")
    assert room.give(confirm_reprint=True).proves == "queued"


@pytest.mark.parametrize("days_ahead", [-30, 30])
def test_what_is_left_beside_a_folder_is_swept_by_the_clock_of_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days_ahead: int
) -> None:
    """The share's server dates its files. By our clock a waiting order would be swept at once, or nothing ever."""
    room = Room(tmp_path, "folder")
    room.give()
    now = time.time() + days_ahead * 86_400
    monkeypatch.setattr(hotfolder, "clock_of", lambda probe: now)
    waiting, left = room.publisher.staging / "waiting.ISO", room.publisher.staging / "left.ISO"  # type: ignore[attr-defined]
    for file, days_old in ((waiting, 6), (left, 8)):
        file.write_bytes(b"an image")
        os.utime(file, (now - days_old * 86_400,) * 2)
    room.order = replace(room.order, job_id="another", accession_numbers=("A2",))
    room.give()
    assert waiting.exists() and not left.exists()
