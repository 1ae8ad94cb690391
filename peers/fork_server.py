"""The process whose forks make pictures, as the worker keeps it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from mkiso.pictures.process import bare_environment
from peers.patience import LONG, until


class ForkServer:
    """Runs at `socket` within a `with`."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def __enter__(self) -> Self:
        command = [sys.executable, "-P", "-m", "mkiso.pictures.fork_server", str(self.socket)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, env=bare_environment())
        until(self.socket.exists)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(LONG) == 0
