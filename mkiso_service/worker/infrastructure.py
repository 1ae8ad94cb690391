"""Where a run's process is, as its infrastructure id in Prefect tells: machine, process id, and when that process
started.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from mkiso_service.ending import started_of

_WRITTEN = re.compile(r"([^/]*)/([0-9]{1,10})/([^/]*)")


@dataclass(frozen=True, slots=True)
class Infrastructure:
    """`started` is in clock ticks since boot, so that a process id used again isn't taken for the run."""

    host: str
    pid: int
    started: str

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}/{self.started}"

    @classmethod
    def parse(cls, text: str | None) -> Infrastructure | None:
        """None where it is none of ours: whoever has Prefect's password can write anything."""
        found = _WRITTEN.fullmatch(text or "")
        return cls(found[1], int(found[2]), found[3]) if found else None

    def lives(self) -> bool:
        """Whether the process still runs; asked on its own machine."""
        return bool(self.started) and started_of(self.pid) == self.started


def worker_label(pid: int | None) -> str:
    """The infrastructure id of a process of this machine."""
    return str(Infrastructure(socket.gethostname(), pid or 0, started_of(pid or 0)))
