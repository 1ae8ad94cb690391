"""How a process of mkiso ends: within a bound, whatever else is gone and whatever it is doing.

The time is kept by `faulthandler`: a thread of its own in C, which needs neither an event loop nor the interpreter's
lock. It writes where each thread stood and ends the process.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mkiso.config.settings import Server

SERVER_GRACE_SECONDS = 10
"""What a process without jobs gets to end, and one with jobs beyond `server.shutdown_grace_seconds`."""
BOUND_SECONDS = 5
"""How much later than a supervisor would have killed it a process ends by itself."""

_is_ending = threading.Event()


def started_of(pid: int) -> str:
    """The start time of a process, empty where there is none (proc_pid_stat(5), field 22)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


@dataclass(frozen=True, slots=True)
class Root:
    """The process that all others of this machine end with. `started` tells it from a later one of the same id."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Root:
        return cls(pid, started_of(pid))


root = Root.of(os.getpid())
"""Of this process: itself, unless a supervisor has started it."""


def jobs_grace_seconds(server: Server) -> float:
    """What a process with jobs gets to end."""
    return server.shutdown_grace_seconds + SERVER_GRACE_SECONDS


def end_within(seconds: float) -> None:
    """End this process so much later than after these seconds as BOUND_SECONDS says, unless it has ended by then. The
    first call counts."""
    if not _is_ending.is_set():
        _is_ending.set()
        faulthandler.dump_traceback_later(seconds + BOUND_SECONDS, exit=True)


def on_signals(seconds: float, told: Callable[[], object], at_once: Callable[[], None] = lambda: None) -> None:
    """SIGINT or SIGTERM calls `told` and bounds the end; a second one calls `at_once` and ends the process.

    Both are called between two instructions of the main thread, so an event loop that hangs keeps nobody from ending.
    """
    was_told = False

    def handle(number: int, _: object) -> None:
        nonlocal was_told
        if was_told:
            try:
                at_once()
            finally:
                os._exit(128 + number)
        was_told = True
        end_within(seconds)
        told()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def end_with(process: Root, seconds: float) -> None:
    """Take a process for this one's root: a thread sees that it is gone, and then this one ends."""
    global root
    root = process
    threading.Thread(target=_watch, args=(process, seconds), name="end with the root", daemon=True).start()


def _watch(process: Root, seconds: float) -> None:
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        end_within(seconds)
        return
    try:
        if started_of(process.pid) == process.started:
            watched = select.poll()
            watched.register(descriptor, select.POLLIN)
            watched.poll()
    finally:
        os.close(descriptor)
    end_within(seconds)
