"""A receiver in this process, so that its threads and descriptors can be counted; and the check that it left none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mkiso.config.settings import Settings
from mkiso.errors import ReceiverUnavailable
from mkiso.receiver.client import Expectation, receiver_status
from mkiso.receiver.server import run
from peers.patience import LONG, until
from peers.ports import free_port, is_open

Start = Callable[..., "Running"]


@dataclass
class Running:
    """A running receiver."""

    settings: Settings
    thread: threading.Thread
    stop: threading.Event

    @property
    def port(self) -> int:
        return self.settings.receiver.port

    def folder(self, job: str = "job") -> Path:
        folder = self.settings.storage.jobs_dir / job / "instances"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def expect(self, study: str, instances: frozenset[str] | None = None, job: str = "job") -> Expectation:
        return Expectation(self.settings.storage.receiver_socket, study, self.folder(job), instances)

    def end(self) -> None:
        self.stop.set()
        self.thread.join(LONG)
        assert not self.thread.is_alive()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts receivers with the given keys of `receiver`; afterwards threads, descriptors, port and socket file are as
    before.
    """
    threads, descriptors = set(threading.enumerate()), _descriptors()
    started: list[Running] = []

    def begin(
        storage: dict[str, Any] | None = None,
        inboxes: dict[str, Any] | None = None,
        *,
        grace_seconds: float = 3,
        **keys: Any,
    ) -> Running:
        values = {
            "host": "127.0.0.1",
            "port": free_port(),
            "pdu_timeout_seconds": 10 * LONG,
            "idle_timeout_seconds": 10 * LONG,
            **keys,
        }
        kept = {"data_dir": tmp_path / "data", "min_free_gib": 0, **(storage or {})}
        settings = Settings.model_validate(
            {
                "receiver": values,
                "storage": kept,
                "server": {"shutdown_grace_seconds": grace_seconds},
                "inboxes": inboxes or {},
            }
        )
        stop = threading.Event()
        running = Running(settings, threading.Thread(target=run, args=(settings, stop)), stop)
        started.append(running)
        running.thread.start()
        eventually(lambda: _answers(settings.storage.receiver_socket))  # once the port is open
        return running

    yield begin
    for running in started:
        running.end()
        assert not is_open(running.port)
        assert not running.settings.storage.receiver_socket.exists()
        assert not list(running.settings.storage.incoming_dir.iterdir())
    eventually(lambda: not set(threading.enumerate()) - threads)
    eventually(lambda: not _descriptors() - descriptors)


@pytest.fixture
def receiver(start: Start) -> Running:
    """One receiver with limits that no test waits for."""
    return start()


@pytest.fixture
def impatient(start: Start) -> Running:
    """One receiver with a short limit inside a PDU, and a long one between them."""
    return start(pdu_timeout_seconds=1)


def eventually(condition: Callable[[], bool], seconds: float = LONG) -> None:
    """Wait until a condition holds."""
    until(condition, seconds)


def _answers(socket_path: Path) -> bool:
    try:
        receiver_status(socket_path)
    except ReceiverUnavailable:
        return False
    return True


def _descriptors() -> set[str]:
    """The sockets and the files of receivers that this process has open."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.add(str(entry.readlink()))
    return {target for target in found if target.startswith("socket:") or "/data" in target}
