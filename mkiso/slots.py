"""So many at a time on this machine: lock files that the kernel frees when a process dies, however it dies.

A PACS has room for a few C-MOVEs; clerks come before archives, so an archive leaves the last slot to them (`reserve`).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS = 0.05


@contextmanager
def slot(folder: Path, count: int, reserve: int = 0) -> Iterator[int]:
    """Hold one of `count` slots, without the last `reserve` of them where more than that are there; waits until one is free."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    usable = max(1, count - reserve)
    files = [os.open(folder / f"{number}.slot", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for number in range(usable)]
    try:
        yield _first_free(files)
    finally:
        for file in files:
            os.close(file)


def _first_free(files: list[int]) -> int:
    while True:
        for number, file in enumerate(files):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            return number
        time.sleep(POLL_SECONDS)
