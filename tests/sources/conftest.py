"""The real receiver, and settings that are short enough for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mkiso.config.settings import Settings
from mkiso.receiver.server import run
from peers.ports import free_port, is_open

MakeSettings = Callable[..., Settings]


@pytest.fixture
def receiver_port(tmp_path: Path) -> Iterator[int]:
    """The real receiver in a thread; its port."""
    port, stop = free_port(), threading.Event()
    settings = _settings(tmp_path, port, {})
    thread = threading.Thread(target=run, args=(settings, stop))
    thread.start()
    while not (is_open(port) and settings.storage.receiver_socket.exists()):
        assert thread.is_alive()
    yield port
    stop.set()
    thread.join()


@pytest.fixture
def settings_for(tmp_path: Path, receiver_port: int) -> MakeSettings:
    """Settings whose PACS is the given peer; keyword arguments change pacs."""

    def make(peer: Any, **pacs: Any) -> Settings:
        return _settings(tmp_path, receiver_port, {"ae_title": peer.ae_title, "port": peer.port, **pacs})

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A job's folder of instances."""
    folder = tmp_path / "data" / "jobs" / "job" / "instances"
    folder.mkdir(parents=True)
    return folder


def _settings(tmp_path: Path, receiver_port: int, pacs: dict[str, Any]) -> Settings:
    return Settings.model_validate(
        {
            "pacs": {
                "connect_timeout_seconds": 2,
                "response_timeout_seconds": 10,
                "quiet_timeout_seconds": 2,
                "back_off_seconds": 0.1,
                **pacs,
            },
            "receiver": {"host": "127.0.0.1", "port": receiver_port},
            "server": {"shutdown_grace_seconds": 1},
            "storage": {"data_dir": str(tmp_path / "data"), "min_free_gib": 0},
        }
    )
