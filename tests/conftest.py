"""What every test relies on: no deadline that a busy machine would miss, and nothing of a test that outlives it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

from peers.nursery import nursery

pytest_plugins = ["peers.hospital"]

settings.register_profile("mkiso", deadline=None)
settings.load_profile("mkiso")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one process run what shares a service: the tests of a file, and those of the one house. What takes longest
    begins first, so that at the end no process waits long for another.
    """
    begins: dict[str, int] = {}
    groups = dict[pytest.Item, str]()
    for item in items:
        assert isinstance(item, pytest.Function)
        groups[item] = group = "house" if "house" in item.fixturenames else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
        turn = 0 if group == "house" else 1 if item.get_closest_marker("end_to_end") else 2
        turn += turn == 2 and not item.get_closest_marker("peer")
        begins[group] = min(turn, begins.get(group, turn))
    items.sort(key=lambda item: begins[groups[item]])


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """At the end of this process's tests no program that they started still runs."""
    yield
    nursery.close()
    multiprocessing.active_children()  # reaps those that have ended
    assert children_of(os.getpid()) == []


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
