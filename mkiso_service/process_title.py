"""What `ps` and `top` show of a process that was forked and not started by a command line of its own."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

_COMM_BYTES = 15  # proc_pid_comm(5)
_ARG_START, _ARG_END = 45, 46  # proc_pid_stat(5), fields 48 and 49, counted from behind the command's name


def name_process(title: str) -> None:
    """Put a title in the place of the command line, as far as that had room. Where the system doesn't tell where that
    lies, it stays.
    """
    with suppress(OSError):
        Path("/proc/self/comm").write_text(title[:_COMM_BYTES])
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        start, size = int(fields[_ARG_START]), int(fields[_ARG_END]) - int(fields[_ARG_START])
        if start and size > 0:
            ctypes.memmove(start, title.encode()[: size - 1].ljust(size, b"\0"), size)
