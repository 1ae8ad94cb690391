"""A receiver that starts while its disk is full, as after it was killed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mkiso.config.settings import Receiver, Settings
from mkiso.config.storage import Storage
from mkiso.errors import StorageFull
from mkiso.receiver.server import run
from peers.ports import free_port
from peers.small_disk import small_disk, use_up_names


@pytest.mark.parametrize("lacks", ["a folder", "the socket"])
def test_a_receiver_without_room_says_so_and_may_be_started_again(lacks: str, tmp_path: Path) -> None:
    """What can't be used by its configuration would end the whole service."""
    with small_disk(tmp_path / "data", "nr_inodes=40") as disk:
        settings = Settings(storage=Storage(data_dir=disk), receiver=Receiver(host="127.0.0.1", port=free_port()))
        if lacks == "the socket":
            for folder in (settings.storage.incoming_dir, settings.storage.jobs_dir):
                folder.mkdir()
        names = use_up_names(disk)
        with pytest.raises(StorageFull, match=r"No space left on device\. Make room there\."):
            run(settings, threading.Event())
        for name in names:
            name.unlink()
        stop = threading.Event()
        stop.set()
        run(settings, stop)
