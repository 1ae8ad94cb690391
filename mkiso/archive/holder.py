"""Who holds a night: a process, told apart from any other that this machine has run since it started."""

from __future__ import annotations

import os
from pathlib import Path


def this_process() -> str:
    """This process's name in the ledger: boot, PID namespace, PID, start time; empty where there is no /proc."""
    return _describe(os.getpid())


def certainly_dead(process: str) -> bool:
    """Whether that process is known to be gone. False where it can't be known from here: another machine or container,
    no /proc.

    A new process may have its PID, but neither its boot nor its start time (proc(5), field 22).
    """
    here = this_process()
    if not process or not here or process.split()[:2] != here.split()[:2]:
        return False
    return _describe(int(process.split()[2])) != process


def _describe(pid: int) -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  no path: pid:[4026531836]
        # The name in field 2 may hold spaces and brackets; what follows its last bracket begins with field 3.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{boot} {namespace} {pid} {fields[19]}"
