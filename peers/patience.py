"""Waiting for the thing itself. How busy the machine is decides nothing: what has to come is waited for, long, and no
longer than it takes.

A test that shows which of two limits ends something gives the other one ten times LONG, and asks for an end within
LONG.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LONG = 120.0
"""Seconds for what takes a few at most on a machine that has nothing else to do."""


def until(
    wanted: Callable[[], Any], seconds: float = LONG, *, pause: float = 0.01, told: Callable[[], str] = lambda: ""
) -> Any:
    """What `wanted` gives, once that is true. Raises TimeoutError with what is `told`."""
    deadline = time.monotonic() + seconds
    while not (found := wanted()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"it didn't come to pass within {seconds:g} s {told()}")
        time.sleep(pause)
    return found
