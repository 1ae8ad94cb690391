"""So many at a time on this machine: lock files that the kernel frees when a process dies, however it dies.

A PACS has room for a few C-MOVEs. Clerks come before the archive: while one of them moves a study or waits to, the
archive moves nothing.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from mkiso.storage.files import descriptor_of, locked

POLL_SECONDS = 0.05
CLERKS = "clerks"


@contextmanager
def slot(folder: Path, count: int) -> Iterator[int]:
    """Hold one of `count` slots for somebody who waits; waits until one is free."""
    with _opened(folder, CLERKS) as clerks:
        fcntl.flock(clerks, fcntl.LOCK_SH)
        with _one_of(folder, count) as number:
            yield number


@contextmanager
def slot_behind_clerks(folder: Path, count: int) -> Iterator[threading.Event]:
    """Hold a slot while no clerk wants one. The event is set as soon as a clerk comes: then whoever holds this lets go
    of it and asks again.
    """
    with _opened(folder, CLERKS) as clerks:
        while _are_there(clerks):
            time.sleep(POLL_SECONDS)
        with _one_of(folder, count):
            wanted, ended = threading.Event(), threading.Event()

            def watch() -> None:
                while not ended.wait(POLL_SECONDS):
                    if _are_there(clerks):
                        wanted.set()
                        return

            watcher = threading.Thread(target=watch, name="clerks", daemon=True)
            watcher.start()
            try:
                yield wanted
            finally:
                ended.set()
                watcher.join()


def _are_there(clerks: int) -> bool:
    if not locked(clerks):
        return True
    fcntl.flock(clerks, fcntl.LOCK_UN)
    return False


@contextmanager
def _one_of(folder: Path, count: int) -> Iterator[int]:
    with ExitStack() as opened:
        files = [opened.enter_context(_opened(folder, f"{number}.slot")) for number in range(count)]
        yield _first_free(files)


def _first_free(files: list[int]) -> int:
    while True:
        for number, file in enumerate(files):
            if locked(file):
                return number
        time.sleep(POLL_SECONDS)


def _opened(folder: Path, name: str) -> AbstractContextManager[int]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return descriptor_of(folder / name, os.O_RDWR | os.O_CREAT)
