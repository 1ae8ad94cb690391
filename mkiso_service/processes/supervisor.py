"""`mkiso serve`: the processes of one machine, forked in order, forked again when they die, ended in order.

Prefect server (skipped where prefect.api_url is set) · receiver · worker · webhook

This process imports what they need, once, and then only waits: it has one thread, no event loop, no connection and no
other descriptor than that of its lock, so that a fork of it is as good as a new interpreter
(docs/decisions/forks.md).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from mkiso.config.settings import Settings
from mkiso.config.storage import Storage
from mkiso.errors import ConfigurationError
from mkiso.storage.files import write_whole
from mkiso.storage.room import unusable
from mkiso_service.ending import SERVER_GRACE_SECONDS, Root, end_with, end_within, jobs_grace_seconds
from mkiso_service.prefect.environment import begin_with
from mkiso_service.process_states import RECENT_SECONDS, ProcessState, called, states_file
from mkiso_service.process_title import name_process
from mkiso_service.processes.parts import PREFECT, RECEIVER, WEBHOOK, WORKER, Part, Run, importing

log = logging.getLogger("mkiso.serve")

PR_SET_PDEATHSIG = 1  # prctl(2)
CONFIGURATION_EXIT = 2
STEADY_SECONDS = 60
"""A process that ran so long starts its back-off anew when it dies."""
TELL_AGAIN_SECONDS = 30
"""After so long the state of the processes is written down again where it couldn't be."""
AT_ONCE_SECONDS = 1
"""What each process gets to end after a second signal."""
ENDING = (("webhook", "worker", "sweep"), ("receiver",), ("prefect",))
"""What asks and what works ends first; what they need stays until they are done."""
TOLD = frozenset((signal.SIGINT, signal.SIGTERM))
SIGNALS = TOLD | {signal.SIGCHLD}
"""Blocked, and waited for: so none is lost, and none interrupts anything but an import."""


@dataclass
class Child:
    """A process: what it runs, and what became of it. `due` and `kill_at` are moments of time.monotonic: when it is
    forked, and when it is killed; `begun` and `ended` are those that ProcessState has.
    """

    part: Part
    grace_seconds: float
    once: bool = False
    pid: int | None = None
    due: float = -math.inf
    kill_at: float = math.inf
    started: float = 0
    begun: float = field(default_factory=time.time)
    restarts: int = 0
    ended: list[float] = field(default_factory=list)

    def signal(self, number: signal.Signals) -> None:
        if self.pid is not None:  # it isn't waited for yet, so its id is nobody else's
            os.kill(self.pid, number)


def parts(settings: Settings) -> list[Part]:
    """The parts of this machine, in the order in which they start: what each imports is there for those behind it.
    Prefect's server takes longest, so it comes first.
    """
    return [*([] if settings.prefect.api_url else [PREFECT]), RECEIVER, WORKER, WEBHOOK]


def back_off_seconds(restarts: int) -> float:
    """How long to wait before the n-th restart: 1, 2, 4 … at most 30."""
    return float(min(30, 2 ** min(restarts, 5)))


def run(settings: Settings) -> int:
    """Supervise until SIGINT or SIGTERM; the exit code: 0, or 2 where a process says that the configuration can't be
    used. In each process that is forked from this one: run its part, and return with it.
    """
    storage = settings.storage
    for folder in (storage.data_dir, storage.prefect_dir, storage.incoming_dir, storage.jobs_dir, storage.discs_dir):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise unusable(f"The folder {folder} can't be made", error) from None
    storage.data_dir.chmod(0o700)  # whatever it was made with: patients' names lie in it
    if settings.warning:
        log.warning(settings.warning)
    supervisor, before = os.getpid(), dict(os.environ)
    begin_with(settings)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever started this may ignore it, and then nobody is waited for
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    with alone(storage):
        ended = _Supervisor(settings, parts(settings)).run()
    if isinstance(ended, int):
        return ended
    _leave(supervisor, ended)
    if not ended.knows_prefect:
        os.environ.clear()
        os.environ.update(before)
    end_with(Root.of(supervisor), ended.grace_seconds(settings.server))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    with importing():
        run_part = ended.load()
    run_part(settings)
    return 0


def _leave(supervisor: int, part: Part) -> None:
    """Become a process of one's own, with nothing of the supervisor but what it has imported."""
    _die_with_parent(supervisor)
    os.setsid()
    name_process(f"mkiso {part.name}")
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    nothing = os.open(os.devnull, os.O_RDONLY)
    if nothing:  # where this was started without an input it is that already
        os.dup2(nothing, 0)
        os.close(nothing)


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


class _Supervisor:
    def __init__(self, settings: Settings, wanted: Sequence[Part]) -> None:
        self._settings = settings
        self._kept = [Child(part, part.grace_seconds(settings.server)) for part in wanted]
        self._children = [*self._kept, Child(SWEEP, AT_ONCE_SECONDS, once=True)]
        self._stopping = self._told = False
        self._exit_code = 0
        self._tell_at = math.inf

    def run(self) -> int | Part:
        """Supervise, to the exit code; in a process that was forked, its part."""
        self._tell()  # before the first import, so that whoever asks knows that they are coming
        while not self._stopping:
            for child in self._children:
                if not self._stopping and child.pid is None and time.monotonic() >= child.due:
                    if self._fork(child):
                        return child.part
                    self._wait(0)
            if not self._stopping:
                self._wait(min(child.due for child in self._children))
        for group in ENDING:
            self._end([child for child in self._children if child.part.name in group])
        states_file(self._settings.storage).unlink(missing_ok=True)
        return self._exit_code

    def _fork(self, child: Child) -> bool:
        """Whether this is the new process."""
        heard: list[int] = []
        try:
            with importing(), _hearing(heard):  # which freezes what is there: a collection would touch each page of it
                (child.part.share or child.part.load)()
        except BaseException:  # what an import makes of being interrupted is any exception at all
            if not heard:
                raise
        if heard:
            self._told_to_stop()
            return False
        child.due, child.started, child.begun = math.inf, time.monotonic(), time.time()
        try:
            pid = os.fork()
        except OSError as error:
            self._has_ended(child, error.strerror)
            return False
        if not pid:
            return True
        child.pid = pid
        self._tell()
        return False

    def _wait(self, until: float) -> None:
        """Wait for this moment, or one at which a process is to be killed, or a signal, and do what it says."""
        until = min(until, self._tell_at, *(child.kill_at for child in self._children))
        told = signal.sigtimedwait(SIGNALS, min(max(0.0, until - time.monotonic()), 3600))
        for child in self._children:
            self._reap(child)
        if told is not None and told.si_signo != signal.SIGCHLD:
            self._told_to_stop()
        if self._tell_at <= time.monotonic():
            self._tell()
        for child in self._children:
            if child.kill_at <= time.monotonic():
                log.warning("%s didn't end within %s s: it is killed.", called(child.part.name), child.grace_seconds)
                child.signal(signal.SIGKILL)
                child.kill_at = math.inf

    def _reap(self, child: Child) -> None:
        if child.pid is None:
            return
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if pid:
            child.pid, child.kill_at = None, math.inf
            if not child.once:
                self._has_ended(child, os.waitstatus_to_exitcode(status))

    def _has_ended(self, child: Child, how: int | str | None) -> None:
        """Remember it, and when it is forked again."""
        now = time.time()
        child.ended = [moment for moment in (*child.ended, now) if now - moment < RECENT_SECONDS]
        self._tell()
        if self._stopping:
            return
        if how == CONFIGURATION_EXIT:
            log.error(
                "%s can't run with this configuration (its own words are above): stopping.", called(child.part.name)
            )
            self._exit_code, self._stopping = CONFIGURATION_EXIT, True
            return
        child.restarts = 0 if time.monotonic() - child.started > STEADY_SECONDS else child.restarts + 1
        pause = back_off_seconds(child.restarts)
        child.due = time.monotonic() + pause
        log.error("%s ended with %s: started again in %s s.", called(child.part.name), how, pause)

    def _told_to_stop(self) -> None:
        if not self._told:
            log.info(
                "Stopping: running jobs get up to %s s. A second signal ends at once.",
                self._settings.server.shutdown_grace_seconds,
            )
            end_within(jobs_grace_seconds(self._settings.server) + 2 * SERVER_GRACE_SECONDS)
            self._stopping = self._told = True
            return
        log.warning("Ending at once.")
        for child in self._children:
            # A worker that is told twice ends its jobs' processes with itself.
            child.grace_seconds = AT_ONCE_SECONDS
            self._end_soon(child)

    def _end_soon(self, child: Child) -> None:
        child.signal(signal.SIGTERM)
        if child.pid is not None:
            child.kill_at = time.monotonic() + child.grace_seconds

    def _end(self, group: Sequence[Child]) -> None:
        for child in group:
            self._end_soon(child)
        while any(child.pid is not None for child in group):
            self._wait(math.inf)

    def _tell(self) -> None:
        states: dict[str, ProcessState] = {
            child.part.name: {
                "up": child.pid is not None,
                "pid": child.pid,
                "begun": child.begun,
                "ended": child.ended,
            }
            for child in self._kept
        }
        self._tell_at = math.inf
        try:
            write_whole(states_file(self._settings.storage), json.dumps(states))
        except OSError as error:  # a full disk; no reason to keep nobody alive
            log.warning("The state of the processes can't be written down: %s.", error.strerror)
            self._tell_at = time.monotonic() + TELL_AGAIN_SECONDS


class _Told(BaseException):
    """Ends an import: it takes seconds on a busy machine, and whoever wants the end waits for it."""


@contextmanager
def _hearing(heard: list[int]) -> Iterator[None]:
    """SIGINT and SIGTERM end what is done meanwhile, once, and are put into `heard`."""

    def hear(number: int, _: object) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)
        heard.append(number)
        raise _Told

    def say(lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is not _Told:  # where C calls Python nobody takes it: the import goes on, and it was heard
            sys.__unraisablehook__(lost)

    before = {number: signal.signal(number, hear) for number in TOLD}
    sys.unraisablehook = say
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)
        sys.unraisablehook = sys.__unraisablehook__
        for number, handler in before.items():
            signal.signal(number, handler)


def _load_sweep() -> Run:
    from mkiso.housekeeping import sweep

    def run(settings: Settings) -> None:
        try:
            sweep(settings, standings=None)
        except OSError as error:
            log.warning("Clearing old files failed (%s); housekeeping tries it again.", error)

    return run


SWEEP = Part("sweep", _load_sweep, knows_prefect=False)
"""Clears what is too old before anything else does, and ends."""


def _die_with_parent(parent: int) -> None:
    """A supervisor that is killed leaves nobody behind; nor does one that was killed before this."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
