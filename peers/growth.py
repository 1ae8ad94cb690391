"""Whether what a parser costs grows no faster than what it is given.

What is measured is the processor's time of this thread, so that waiting doesn't count, and little and much beside each
other until the growth is one that linear time can have: a quadratic parser never comes to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

TIMES = 16
"""How much more there is of the second: 16 times the cost is linear, 256 times is quadratic."""

MOST_GROWTH = 64
"""No neighbour on its core makes a parser four times as slow each time that it is measured."""

NOTHING = 0.02
"""Seconds below which growth says nothing."""


def check_growth(
    parse: Callable[[Any], object], size: int, make: Callable[[int], object] = int, what: object = ""
) -> None:
    """Raises AssertionError where what `make` gives for a size takes more than 64 times as long as for a sixteenth."""
    little, much = make(size // TIMES), make(size)
    before, took = _seconds(parse, little), _seconds(parse, much)
    for _ in range(4):  # the first call may have had something to import
        if took <= max(NOTHING, MOST_GROWTH * before):
            return
        before, took = _seconds(parse, little), min(took, _seconds(parse, much))
    assert took <= max(NOTHING, MOST_GROWTH * before), (
        f"{what}: {TIMES} times as much took {took / (before or 1e-6):.0f} times as long: {took:.1f} s"
    )


def _seconds(parse: Callable[[Any], object], given: object) -> float:
    began = time.thread_time()
    parse(given)
    return time.thread_time() - began
