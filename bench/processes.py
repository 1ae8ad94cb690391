"""Running and watching processes: how long, and the most memory that any one of them had (VmHWM,
proc_pid_status(5)).
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

SAMPLE_SECONDS = 0.05


class Watch:
    """Measures the time of a `with` and the peak memory of some processes, everything that they start included."""

    def __init__(self, *roots: int) -> None:
        self._roots = list(roots)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.seconds = 0.0
        self.peak_mb = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._began
        self._ended.set()
        self._thread.join()

    def run(
        self, command: Sequence[str | Path], *, folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        """Run a program to its end. Raises RuntimeError with its words where it fails."""
        child = subprocess.Popen(
            [str(part) for part in command], cwd=folder, env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._roots.append(child.pid)
        _, words = child.communicate()
        if child.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{words.decode(errors='replace')[-2000:]}")

    def _sample(self) -> None:
        while True:
            last = self._ended.is_set()
            for pid in family(self._roots):
                self.peak_mb = max(self.peak_mb, _peak_mb(pid))
            if last:
                return
            self._ended.wait(SAMPLE_SECONDS)


def family(roots: Sequence[int]) -> list[int]:
    """These processes and all that they have started."""
    found, waiting = [], list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        try:
            threads = list(Path(f"/proc/{pid}/task").iterdir())
            waiting += [int(child) for thread in threads for child in (thread / "children").read_text().split()]
        except OSError:
            continue
    return found


def _peak_mb(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0
