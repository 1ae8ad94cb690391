"""A program outside of mkiso that a test starts, watches and ends: by its own pid, with all that it wrote kept."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from peers.patience import LONG
from peers.ports import is_open


class Child(Protocol):
    """What is asked of a process that was started; `subprocess.Popen` answers it."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Process:
    """A running peer. Subclasses say what is started; `log` is what it wrote so far.

    A context manager: started and ready inside, gone after it, in whatever state the test left it.
    """

    ready_seconds = LONG
    poll_seconds = 0.02

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        port: int = 0,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ):
        self.command = [str(part) for part in command]
        self.log_file = log
        self.port = port
        self.environment = {**os.environ, **(environment or {})}
        self.folder = folder
        self.child: Child | None = None

    def start(self) -> Self:
        """Start it and return when its port is open. Raises RuntimeError with its log where it doesn't come up."""
        self.child = self.begin()
        deadline = time.monotonic() + self.ready_seconds
        while not self.is_ready():
            if self.child.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self.command[0]} didn't start:\n{self.log()}")
            time.sleep(self.poll_seconds)
        return self

    def begin(self) -> Child:
        """Start it."""
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd=self.folder
            )

    def is_ready(self) -> bool:
        return is_open(self.port) if self.port else True

    @property
    def pid(self) -> int:
        if self.child is None:
            raise RuntimeError(f"{self.command[0]} was not started")
        return self.child.pid

    def stop(self, seconds: float = 30) -> None:
        """End it: politely, then by force. Ending what has ended already is fine."""
        if self.child is None or self.child.poll() is not None:
            return
        self.child.send_signal(signal.SIGCONT)
        self.child.terminate()
        try:
            self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it by force, as a power cut would."""
        if self.child is not None:
            self.child.kill()
            self.child.wait()

    def pause(self) -> None:
        """Make it silent: connections stay open, nothing is answered (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def log(self) -> str:
        """Everything that it wrote, also to files that it keeps open."""
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
