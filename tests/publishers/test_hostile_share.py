"""A robot's folder is somebody else's: whatever lies in it, nothing outside is touched, read or waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mkiso.errors import PublisherUnavailable
from mkiso.publishers import Watch, publisher_of
from mkiso.publishers.hotfolder import FolderPublisher
from tests.publishers.orders import give, order_of, settings_of

LONG_AGO = (0, 0)


@pytest.fixture
def robot(tmp_path: Path) -> FolderPublisher:
    (tmp_path / "robot").mkdir()
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "key").write_text("a secret")
    os.utime(tmp_path / "ours" / "key", LONG_AGO)
    (tmp_path / "disc.iso").write_bytes(b"an image" * 1000)
    publisher = publisher_of("robot", settings_of(tmp_path, kind="folder", directory=tmp_path / "robot"))
    assert isinstance(publisher, FolderPublisher)
    return publisher


def printed(folder: Path, robot: FolderPublisher) -> str:
    order = order_of(image=folder / "disc.iso")
    return give(robot, order, folder / "orders", Watch()).order_id


def untouched(folder: Path) -> bool:
    return [(file.name, file.read_text()) for file in (folder / "ours").iterdir()] == [("key", "a secret")]


def test_old_folders_links_and_pipes_in_it_stop_no_print(tmp_path: Path, robot: FolderPublisher) -> None:
    robot.staging.mkdir()
    (robot.staging / "System Volume Information").mkdir()
    (robot.staging / "link").symlink_to(tmp_path / "ours" / "key")
    (robot.staging / "broken").symlink_to(tmp_path / "nowhere")
    os.mkfifo(robot.staging / "pipe")
    for left in robot.staging.iterdir():
        os.utime(left, LONG_AGO, follow_symlinks=False)
    order_id = printed(tmp_path, robot)
    assert (robot.directory / f"{order_id}.JSON").is_file()
    names = {file.name for file in robot.staging.iterdir()}
    assert names == {"System Volume Information", f"{order_id}.ISO"} | {
        name for name in names if name.startswith(order_id)
    }
    assert untouched(tmp_path)


def test_what_lies_beside_it_is_no_link_to_somewhere_else(tmp_path: Path, robot: FolderPublisher) -> None:
    robot.staging.symlink_to(tmp_path / "ours")
    with pytest.raises(PublisherUnavailable, match="link"):
        robot.check()
    with pytest.raises(PublisherUnavailable, match="link"):
        printed(tmp_path, robot)
    assert untouched(tmp_path)


def test_one_that_goes_while_it_is_written_to_is_told_as_nothing_printed(
    tmp_path: Path, robot: FolderPublisher
) -> None:
    def go(*_: object) -> None:
        if robot.directory.is_dir():
            robot.directory.rename(tmp_path / "gone")
            robot.directory.write_text("the share is another thing now")

    order = order_of(image=tmp_path / "disc.iso")
    with pytest.raises(PublisherUnavailable, match="nothing was printed"):
        give(robot, order, tmp_path / "orders", Watch(progress=go))


def test_looking_whether_it_is_there_writes_through_no_link(tmp_path: Path, robot: FolderPublisher) -> None:
    robot.staging.mkdir()
    (robot.staging / f"check-{os.getpid()}").symlink_to(tmp_path / "ours" / "key")
    with pytest.raises(PublisherUnavailable):
        robot.check()
    assert untouched(tmp_path)


@pytest.mark.timeout(60)
def test_a_status_that_is_a_link_or_a_pipe_says_nothing(tmp_path: Path, robot: FolderPublisher) -> None:
    order_id = printed(tmp_path, robot)
    order = order_of(image=tmp_path / "disc.iso", order_id=order_id)
    status = robot.directory / f"{order_id}.FAILED"
    status.symlink_to(tmp_path / "ours" / "key")
    assert robot._seen(order).words == ""
    status.unlink()
    os.mkfifo(status)
    assert robot._seen(order).words == ""
