"""What happens before a certain line of what is tested: a process is killed there, or a folder goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any


def at_each_line(work: Callable[[], object], happens: Callable[[int], object], files: Collection[str | None]) -> int:
    """Do `work`, with `happens(n)` before its n-th line in the modules of these files; how many lines there were."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            lines += 1
            happens(lines)  # Python traces nothing within it
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    return lines
