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

SLOW = 5.0
"""Seconds after which who asks would take time from what is waited for."""

PATIENCE = 9
"""How much longer a pause is than the answer before it took: to ask takes a tenth of the time at most."""

LONGEST_PAUSE = 0.5
"""Seconds between two questions at most, however long one takes to answer."""


def until(
    wanted: Callable[[], Any], seconds: float = LONG, *, pause: float = 0.01, told: Callable[[], str] = lambda: ""
) -> Any:
    """What `wanted` gives, once that is true; asked less often where it takes SLOW, and where to ask takes time
    itself. Raises TimeoutError with what is `told`.
    """
    begun = asked = time.monotonic()
    while not (found := wanted()):
        now = time.monotonic()
        if now - begun > seconds:
            raise TimeoutError(f"it didn't come to pass within {seconds:g} s {told()}")
        time.sleep(max(pause if now - begun < SLOW else 5 * pause, min(PATIENCE * (now - asked), LONGEST_PAUSE)))
        asked = time.monotonic()
    return found
