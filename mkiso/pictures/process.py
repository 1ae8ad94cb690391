"""One worker process as its parent sees it: asked some questions at once, and ended when it is silent for too long."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from pydantic import ValidationError

from mkiso.errors import Unforeseen
from mkiso.pictures.messages import ANSWER, LIMITS, QUESTIONS, Answer, Limits, Question
from mkiso.pictures.values import Reason
from mkiso.unix_address import connected

_START_SECONDS = 120
_END_SECONDS = 60
_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
# Of the environment: no secrets.
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # theirs take address space and are never used


class WorkerDied(Exception):
    """The process is gone, and what that says of the frame that it was at: nothing where it went `with_server`, whose
    fork it was.
    """

    def __init__(self, reason: Reason, *, with_server: bool = False) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.with_server = with_server


def bare_environment() -> dict[str, str]:
    """What a process that decodes may know of ours."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("COVERAGE")}
    return kept | _ONE_THREAD


class _Process(Protocol):
    pid: int

    def kill(self) -> None: ...

    def wait(self) -> int:
        """Its exit code; the number of the signal that ended it, negative."""


class _Forked:
    """A worker that the fork server (mkiso.pictures.fork_server) makes. Raises OSError where there is no such server,
    ValueError where it makes none.
    """

    def __init__(self, limits: Limits, server: Path, descriptors: tuple[int, int]) -> None:
        self._connection = connected(server, _END_SECONDS)
        try:
            socket.send_fds(self._connection, [LIMITS.dump_json(limits)], descriptors)
            self._told = self._connection.makefile("rb")
            self.pid = int(self._told.readline())
        except BaseException:
            self._connection.close()
            raise
        self._code: int | None = None
        self.is_orphan = False

    def kill(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def wait(self) -> int:
        """As for a killed one where the server is gone: so are its workers."""
        if self._code is None:
            try:
                self._code = int(self._told.readline())
            except (OSError, ValueError):
                self._code, self.is_orphan = -signal.SIGKILL, True
            self._told.close()
            self._connection.close()
        return self._code


def _forked(limits: Limits, server: Path | None) -> tuple[_Process, IO[bytes], IO[bytes]] | None:
    """A fork of the server's process, its input and output; None where no server answers."""
    if server is None:
        return None
    (theirs_in, ours_in), (ours_out, theirs_out) = os.pipe(), os.pipe()
    try:
        process = _Forked(limits, server, (theirs_in, theirs_out))
    except (OSError, ValueError):
        os.close(ours_in)
        os.close(ours_out)
        return None
    finally:
        os.close(theirs_in)
        os.close(theirs_out)
    return process, os.fdopen(ours_in, "wb"), os.fdopen(ours_out, "rb")


def _begun(limits: Limits) -> tuple[_Process, IO[bytes], IO[bytes]]:
    """A new interpreter, its input and output."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mkiso.pictures.worker", LIMITS.dump_json(limits).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=bare_environment(),
    )
    assert process.stdin and process.stdout
    return process, process.stdin, process.stdout


class WorkerProcess:
    """A process that decodes: a fork of the fork server's, or a new interpreter where there is none, or it ends
    meanwhile. Raises Unforeseen where it doesn't start.
    """

    def __init__(self, limits: Limits, fork_server: Path | None = None) -> None:
        self._limits = limits
        self._buffer = b""
        forked = _forked(limits, fork_server)
        if forked and self._start(forked) is None:
            return
        if reason := self._start(_begun(limits)):
            words = "The process that makes pictures doesn't start. See why: python -m mkiso.pictures.worker '{}'"
            raise Unforeseen(f"{words} ({reason})")

    def _start(self, begun: tuple[_Process, IO[bytes], IO[bytes]]) -> Reason | None:
        """Wait until it has started; why it hasn't, where it is gone."""
        self._process, self._input, self._output = begun
        try:
            self._answer(_START_SECONDS)
        except WorkerDied as death:
            self.end()
            self._buffer = b""
            return death.reason
        return None

    def ask(self, *questions: Question) -> Iterator[Answer]:
        """The answers to each in turn, up to the last. Raises WorkerDied where the process is gone, or is killed for
        being silent or for saying what can't be read.
        """
        try:
            self._input.write(QUESTIONS.dump_json(questions) + b"\n")
            self._input.flush()
        except OSError:
            raise self._death() from None
        left = len(questions)
        while left:
            answer = self._answer(self._limits.seconds + self._limits.grace_seconds)
            left -= answer.is_last
            yield answer

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """Ended and reaped, its pipes closed."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._input, self._output):
            with suppress(OSError):  # what it never read
                pipe.close()

    def _answer(self, seconds: float) -> Answer:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            readable, _, _ = select.select([self._output], [], [], max(0, deadline - time.monotonic()))
            if not readable:
                self.kill()
                raise WorkerDied(Reason.TOO_SLOW)
            chunk = os.read(self._output.fileno(), _CHUNK_BYTES)
            if not chunk:
                raise self._death()
            self._buffer += chunk
            if len(self._buffer) > _MAX_ANSWER_BYTES:
                raise WorkerDied(Reason.DECODER_CRASHED)
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            return ANSWER.validate_json(line)
        except ValidationError:
            raise WorkerDied(Reason.DECODER_CRASHED) from None

    def _death(self) -> WorkerDied:
        alarms = (-signal.SIGALRM, -signal.SIGPROF)
        reason = Reason.TOO_SLOW if self._process.wait() in alarms else Reason.DECODER_CRASHED
        return WorkerDied(reason, with_server=isinstance(self._process, _Forked) and self._process.is_orphan)
