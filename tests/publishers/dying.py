"""A print in a process of its own that dies by SIGKILL at the n-th line of the publishers' code; nothing in that code
knows of it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import mkiso.publishers
from mkiso.config.settings import Settings
from mkiso.publishers import Order, Watch, publisher_of
from tests.publishers.orders import give

HERE = str(Path(mkiso.publishers.__file__).parent)
FILES = str(Path(mkiso.publishers.__file__).parent.parent / "files.py")


def print_and_die(settings: Settings, order: Order, at_line: int, lines: Path) -> None:
    """Give the order; die at line `at_line` (0: never). How many lines it took, and how many until the order was
    written down, is left in `lines`.
    """
    executed = begun = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal executed, begun
        if not frame.f_code.co_filename.startswith((HERE, FILES)):
            return None
        if event == "line":
            executed += 1
            if executed == at_line:
                os.kill(os.getpid(), signal.SIGKILL)
        if event == "return" and frame.f_code.co_name == "before_giving":
            begun = executed
        return trace

    publisher = publisher_of("robot", settings)
    sys.settrace(trace)
    try:
        give(publisher, order, settings.storage.orders_dir, Watch())
    finally:
        sys.settrace(None)
    lines.write_text(f"{executed} {begun}")
