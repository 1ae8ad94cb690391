"""What several machines share is theirs: where its storage is away, no machine begins it anew."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mkiso.config.access import SignIn
from mkiso.config.disc import Disc
from mkiso.config.storage import Storage
from mkiso.publishers import OrderBook, Watch
from mkiso.publishers.lock import publisher_lock
from mkiso.storage.askings import asking, write_asking
from mkiso.storage.key_use import KeyUse
from mkiso.storage.report import JobReport, write_report
from mkiso.storage.sessions import PersonSessions, Session
from mkiso.storage.shelf import shelve
from mkiso.study.question import Question
from tests.storage.test_shelf import IMAGE, manifest

JOB = "0b0a1b2c-0000-4000-8000-000000000001"


def ordered(storage: Storage) -> None:
    OrderBook.of(storage.orders_dir, ["A1"]).ask(JOB)


def locked(storage: Storage) -> None:
    with publisher_lock(storage.orders_dir / "robot.lock", "robot", Watch()):
        pass


def shelved(storage: Storage) -> None:
    image = storage.data_dir / "disc.iso"
    image.write_bytes(IMAGE)
    shelve(storage, image, manifest(), b"")


def told(storage: Storage) -> None:
    write_report(storage, JobReport(JOB, "download", ("A1",)))


def asked(storage: Storage) -> None:
    write_asking(storage, JOB, asking("127.0.0.1", "program", Question("download", ("A1",)), Disc()))


def signed_in(storage: Storage) -> None:
    PersonSessions(storage, SignIn()).begin(Session("1", "Anna", ("clerk",), 0.0))


@pytest.mark.parametrize(
    "write", [ordered, locked, shelved, told, asked, signed_in, lambda storage: KeyUse(storage).note("ward")]
)
def test_shared_storage_that_is_away_is_never_begun_anew(tmp_path: Path, write: Callable[[Storage], None]) -> None:
    """Its mount point lies on this machine's own disk; order books there know of no print."""
    (tmp_path / "own").mkdir()
    storage = Storage(data_dir=tmp_path / "own", shared_dir=tmp_path / "mounted" / "mkiso")
    with pytest.raises(FileNotFoundError):
        write(storage)
    assert not (tmp_path / "mounted").exists()
    (tmp_path / "mounted" / "mkiso").mkdir(parents=True)
    write(storage)
