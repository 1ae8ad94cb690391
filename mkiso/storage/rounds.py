"""When housekeeping last went round on this machine, so that a clock that is suddenly far ahead has nothing removed at
once: reports and pages of the order book would be gone for good.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from mkiso.config.storage import Storage
from mkiso.storage.files import find_json, moment_of, write_whole

LEAP_SECONDS = 7 * 86_400
"""So long after the last round a clock is rather wrong than a machine was off."""
STEP_SECONDS = 43_200
"""So much more than the machine has run since the last round, where it wasn't started anew. A virtual machine that is
paused for its nightly backup doesn't count those hours.
"""
REST_SECONDS = 86_400


class Awake(NamedTuple):
    """How long this machine has been running, by a clock that can't be set, and since which start."""

    seconds: float
    start: str


NOT_KNOWN = Awake(0.0, "")


@dataclass(frozen=True, slots=True)
class Rounds:
    """The last round, and where there was a leap, the one before and the one after it; in seconds since 1970. `awake`:
    at the last round.
    """

    last: float
    before_leap: float = 0.0
    after_leap: float = 0.0
    awake: Awake = NOT_KNOWN

    def rests(self, now: float) -> bool:
        """Whether nothing is removed now; by a clock that was set back everything is as before."""
        return self.after_leap <= now < self.after_leap + REST_SECONDS


_ROUNDS = TypeAdapter(Rounds)
_START = Path("/proc/sys/kernel/random/boot_id")


def after(before: Rounds | None, now: float, awake: Awake = NOT_KNOWN) -> Rounds:
    """What is known after a round. Pure."""
    if before is None or now < before.last:
        return Rounds(now, awake=awake)
    passed, ran = now - before.last, awake.seconds - before.awake.seconds
    is_same_start = bool(awake.start) and awake.start == before.awake.start
    if passed - ran > STEP_SECONDS if is_same_start else passed > LEAP_SECONDS:
        return Rounds(now, before.last, now, awake)
    return Rounds(now, before.before_leap, before.after_leap, awake)


def begin_round(storage: Storage) -> None:
    """Write a round down."""
    rounds = after(find_json(storage.rounds_file, _ROUNDS), time.time(), _awake())
    with suppress(OSError):  # on a full disk housekeeping makes room all the same
        write_whole(storage.rounds_file, _ROUNDS.dump_json(rounds))


def _awake() -> Awake:
    try:
        return Awake(time.clock_gettime(time.CLOCK_BOOTTIME), _START.read_text().strip())
    except OSError:  # no /proc
        return NOT_KNOWN


def why_resting(storage: Storage) -> str:
    """Why housekeeping removes nothing now, in words; empty where it does."""
    rounds = find_json(storage.rounds_file, _ROUNDS)
    if rounds is None or not rounds.rests(time.time()):
        return ""
    return (
        f"Housekeeping removes nothing until {moment_of(rounds.after_leap + REST_SECONDS)}, since this machine's clock "
        f"has gone from {moment_of(rounds.before_leap)} to {moment_of(rounds.after_leap)} without a round: set the "
        "clock right if it is wrong; if mkiso was off so long, nothing is to be done."
    )
