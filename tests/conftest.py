"""What every test relies on: no deadline that a busy machine would miss, and nothing of a test that outlives it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from mkiso.pictures import process
from mkiso_service.processes.parts import importing
from peers.fork_server import ForkServer
from peers.nursery import nursery

pytest_plugins = ["peers.hospital"]

TOGETHER = "tests/faults/"
"""What one process of tests runs in a row, and first: its tests share a house, which takes processor time to start and
while nobody asks it.
"""

settings.register_profile("mkiso", deadline=None)
settings.load_profile("mkiso")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """All modules that are imported and all tests that are collected stay."""
    with importing():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that at the end no process of tests waits long for another."""
    turns: dict[Path, int] = {}
    for item in items:
        turn = 0 if item.get_closest_marker("end_to_end") else 1 if item.get_closest_marker("peer") else 2
        turns[item.path] = min(turn, turns.get(item.path, turn))
    items.sort(key=lambda item: (not item.nodeid.startswith(TOGETHER), turns[item.path]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Any:
    """Give the tests of a file to one process, and those of TOGETHER."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    scheduling = LoadFileScheduling(config, log)
    of_a_file = scheduling._split_scope
    scheduling._split_scope = lambda test: TOGETHER if test.startswith(TOGETHER) else of_a_file(test)
    return scheduling


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """At the end of this process's tests no program that they started still runs."""
    yield
    assert nursery.close() == 0
    multiprocessing.active_children()  # reaps those that have ended
    assert children_of(os.getpid()) == []


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """The process whose forks decode."""
    with ForkServer(tmp_path_factory.mktemp("forks") / "pictures.sock") as server:
        yield server


@pytest.fixture(scope="module")
def forked_decoders(fork_server: ForkServer) -> Iterator[None]:
    """What decodes is a fork, as in a service, and no interpreter of its own."""
    real = process._forked
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_forked", lambda limits, _: real(limits, fork_server.socket))
        yield


def children_of(pid: int) -> list[str]:
    """The command lines of a process's living children; multiprocessing's own tracker and fork server end with their
    parent.
    """
    commands = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread or child that has just ended
            for child in (task / "children").read_text().split():
                command = (
                    Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                )
                if command and "multiprocessing" not in command:
                    commands.append(command)
    return commands
