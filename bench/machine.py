"""What a machine does to measurements by itself, seen and evened out before the first: slow new files, memory that its
host has yet to give.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from mmap import MAP_ANONYMOUS, MAP_POPULATE, MAP_PRIVATE, mmap
from pathlib import Path

_PROBED_FILES, _PROBE_SECONDS, _LONGEST_WAIT_SECONDS = 500, 0.05, 330
_TOUCHED_PART = 0.8  # of free memory; what the page cache holds is there already
_REPORTING_BIT = 5
_LARGEST_ORDER = 10  # of Linux's free blocks: 4 MiB; a greater one never comes up

Say = Callable[[str], None]


def wait_for_inodes(new_folder: Callable[[str], Path], say: Say) -> None:
    """Until a new file costs what it should: not while ext4 passes over those that something else deleted within the
    last five minutes.
    """
    until = time.monotonic() + _LONGEST_WAIT_SECONDS
    while time.monotonic() < until:
        folder, began = new_folder("probe"), time.perf_counter()
        for number in range(_PROBED_FILES):
            (folder / str(number)).touch()
        if time.perf_counter() - began < _PROBE_SECONDS:
            return
        say("waiting, since new files are slow: many were deleted a short while ago")
        time.sleep(15)


def touch_memory(say: Say) -> None:
    """Have a virtual machine's host give its memory now.

    The first touch of a page costs up to 6 µs there, 0.7 s for 504 MB, and would fall to whoever comes first.
    """
    free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    mmap(-1, int(free_bytes * _TOUCHED_PART), flags=MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE).close()
    if _gives_memory_back():
        say(
            "this virtual machine gives freed memory back to its host, so times of large studies vary at random: "
            "docs/performance.md says more"
        )


def _gives_memory_back() -> bool:
    """Whether Linux reports free pages to the host (VIRTIO_BALLOON_F_REPORTING, VIRTIO 1.2, 5.5.3)."""
    try:
        order = int(Path("/sys/module/page_reporting/parameters/page_reporting_order").read_text())
        balloons = [
            file.read_text() for file in Path("/sys/bus/virtio/drivers/virtio_balloon").glob("virtio*/features")
        ]
    except (OSError, ValueError):
        return False
    return order <= _LARGEST_ORDER and any(features[_REPORTING_BIT] == "1" for features in balloons)
