"""`mkiso serve`: the processes of one machine, started in order, restarted when they die, ended in order.

Prefect server (skipped where prefect.api_url is set) · receiver · worker · webhook
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from mkiso.config.in_force import handed_on
from mkiso.config.settings import Settings
from mkiso.config.storage import Storage
from mkiso.errors import ConfigurationError
from mkiso.storage.files import Unreadable, read_json, write_whole
from mkiso_service.ending import SERVER_GRACE_SECONDS, end_within, jobs_grace_seconds

log = logging.getLogger("mkiso.serve")

PR_SET_PDEATHSIG = 1  # prctl(2)
CONFIGURATION_EXIT = 2
STEADY_SECONDS = 60
"""A process that ran so long starts its back-off anew when it dies."""
RECENT_SECONDS = 600
"""How long it is remembered that a process has ended by itself."""


@dataclass
class Child:
    """One process: its name, its command, and what became of it."""

    name: str
    command: tuple[str, ...]
    grace_seconds: float
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    ended: list[float] = field(default_factory=list)
    up: bool = False
    wanted: bool = field(default=True)

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)


def children(settings: Settings) -> list[Child]:
    """The processes of this machine, in the order in which they start; each has the settings of this one, however the
    file has changed since.
    """
    mkiso = (sys.executable, "-P", "-m", "mkiso_service", "--handed-on")
    grace = jobs_grace_seconds(settings.server)
    server = [] if settings.prefect.api_url else [Child("prefect", (*mkiso, "prefect"), SERVER_GRACE_SECONDS)]
    return [
        *server,
        Child("receiver", (*mkiso, "receiver"), SERVER_GRACE_SECONDS),
        Child("worker", (*mkiso, "worker"), grace),
        Child("webhook", (*mkiso, "webhook"), grace),
    ]


def back_off_seconds(restarts: int) -> float:
    """How long to wait before the n-th restart: 1, 2, 4 … at most 30."""
    return float(min(30, 2 ** min(restarts, 5)))


def run(settings: Settings) -> int:
    """Supervise until SIGINT or SIGTERM; the exit code: 0, or 2 where a process says that the configuration can't be
    used.
    """
    storage = settings.storage
    for folder in (storage.data_dir, storage.prefect_dir, storage.incoming_dir, storage.jobs_dir, storage.discs_dir):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"The folder {folder} can't be made: {error.strerror}.") from None
    storage.data_dir.chmod(0o700)  # whatever it was made with: patients' names lie in it
    if settings.warning:
        log.warning(settings.warning)
    with alone(settings.storage):
        return asyncio.run(_Supervisor(settings).run())


@contextmanager
def alone(storage: Storage) -> Iterator[None]:
    """Only one `mkiso serve` may work in a data folder."""
    with (storage.data_dir / "serve.lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(
                f"Another mkiso serve works in {storage.data_dir} already: end it, or set another storage.data_dir."
            ) from None
        yield


class ProcessState(TypedDict, total=False):
    """A process as the supervisor told of it; `ended`: when it ended by itself lately, in seconds since 1970."""

    up: bool
    pid: int | None
    ended: list[float]


def process_states(storage: Storage) -> dict[str, ProcessState]:
    """What the supervisor last wrote of each process. Empty where no `mkiso serve` runs in this folder."""
    try:
        return read_json(_states_file(storage), TypeAdapter(dict[str, ProcessState]))
    except (FileNotFoundError, Unreadable):
        return {}


def _states_file(storage: Storage) -> Path:
    return storage.data_dir / "processes.json"


class _Supervisor:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._children = children(settings)
        self._stop = asyncio.Event()
        self._exit_code = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._told_to_stop)
        keeping = [asyncio.create_task(self._keep(child)) for child in self._children]
        sweeping = asyncio.create_task(asyncio.to_thread(_sweep, self._settings))
        await self._stop.wait()
        try:
            # What asks and what works ends first; what they need stays until they are done.
            for group in (("webhook", "worker"), ("receiver",), ("prefect",)):
                await asyncio.gather(*(self._end(child) for child in self._children if child.name in group))
        finally:
            await asyncio.gather(*keeping, sweeping)
            _states_file(self._settings.storage).unlink(missing_ok=True)
        return self._exit_code

    def _told_to_stop(self) -> None:
        if not self._stop.is_set():
            log.info(
                "Stopping: running jobs get up to %s s. A second signal ends at once.",
                self._settings.server.shutdown_grace_seconds,
            )
            end_within(jobs_grace_seconds(self._settings.server) + 2 * SERVER_GRACE_SECONDS)
            self._stop.set()
            return
        log.warning("Ending at once.")
        for child in self._children:
            # A worker that is told twice ends its jobs' processes with itself.
            child.grace_seconds = 1
            child.signal(signal.SIGTERM)
            asyncio.get_running_loop().call_later(1, child.signal, signal.SIGKILL)

    async def _keep(self, child: Child) -> None:
        """Run one child for as long as it is wanted."""
        while child.wanted:
            started = time.monotonic()
            with handed_on(self._settings) as settings:
                child.process = await asyncio.create_subprocess_exec(
                    *child.command,
                    stdin=settings,
                    start_new_session=True,
                    preexec_fn=partial(_die_with_parent, os.getpid()),
                )
            self._tell(child, up=True)
            code = await child.process.wait()
            child.ended = [moment for moment in (*child.ended, time.time()) if time.time() - moment < RECENT_SECONDS]
            self._tell(child, up=False)
            if not child.wanted or self._stop.is_set():
                return
            if code == CONFIGURATION_EXIT:
                log.error("The %s can't run with this configuration (its own words are above): stopping.", child.name)
                self._exit_code = CONFIGURATION_EXIT
                self._stop.set()
                return
            child.restarts = 0 if time.monotonic() - started > STEADY_SECONDS else child.restarts + 1
            pause = back_off_seconds(child.restarts)
            log.error("The %s ended with %s: started again in %s s.", child.name, code, pause)
            try:
                await asyncio.wait_for(self._stop.wait(), pause)
            except TimeoutError:
                continue
            return

    async def _end(self, child: Child) -> None:
        child.wanted = False
        child.signal(signal.SIGTERM)
        told = time.monotonic()
        while child.process is not None and child.process.returncode is None:
            if time.monotonic() - told > child.grace_seconds:
                log.warning("The %s didn't end within %s s: it is killed.", child.name, child.grace_seconds)
                child.signal(signal.SIGKILL)
            await asyncio.sleep(0.05)

    def _tell(self, child: Child, *, up: bool) -> None:
        child.up = up
        states: dict[str, ProcessState] = {
            each.name: {"up": each.up, "pid": each.process.pid if each.process else None, "ended": each.ended}
            for each in self._children
        }
        try:
            write_whole(_states_file(self._settings.storage), json.dumps(states))
        except OSError as error:  # a full disk; no reason to keep nobody alive
            log.warning("The state of the processes can't be written down: %s.", error.strerror)


def _sweep(settings: Settings) -> None:
    from mkiso.housekeeping import sweep  # half a second, which no process waits for

    try:
        sweep(settings, standings=None)
    except OSError as error:
        log.warning("Clearing old files failed (%s); housekeeping tries it again.", error)


def _die_with_parent(parent: int) -> None:
    """A supervisor that is killed leaves nobody behind; nor does one that was killed before this."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
