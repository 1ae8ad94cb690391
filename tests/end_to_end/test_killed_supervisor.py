"""The supervisor is killed, alone and with sets of its processes, in mid-job: nobody is left behind."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import pytest

from mkiso_service.ending import started_of
from peers.patience import LONG, until
from peers.service import Service

pytestmark = [pytest.mark.end_to_end]

PARTS = ("prefect", "receiver", "worker", "webhook")
SETS = [names for size in (0, 2, 4) for names in combinations(PARTS, size)]
"""Any three of the four are killed and left alive in all eight ways: how one ends, with each state of two others."""
AT_ONCE = 4
"""Services side by side: most of the time one waits for the bounds of another's processes."""


def descendants(pid: int) -> Iterator[int]:
    """Every process that was started by this one, by those that it started, and so on."""
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and int(folder.joinpath("stat").read_text().rpartition(")")[2].split()[1]) == pid:
                yield int(folder.name)
                yield from descendants(int(folder.name))


def lives(pid: int, started: str) -> bool:
    """Whether it still runs; one that only waits for its parent to notice doesn't."""
    with suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" and started_of(pid) == started
    return False


def command_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
    return ""


def test_the_sets_hold_each_way_of_any_three() -> None:
    for three in combinations(PARTS, 3):
        assert len({frozenset(killed) & frozenset(three) for killed in SETS}) == 8


def test_nobody_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=2 * len(SETS)) as silent_pacs,
        ThreadPoolExecutor(AT_ONCE) as at_once,
    ):
        port = silent_pacs.getsockname()[1]
        list(at_once.map(lambda killed: kill_in_mid_job(tmp_path / ("-".join(killed) or "alone"), port, killed), SETS))


def kill_in_mid_job(folder: Path, silent_pacs: int, killed: tuple[str, ...]) -> None:
    """Start a service, kill its supervisor and these of its processes while a job waits for the PACS, and wait for the
    end of everything that was started.
    """
    sections = {
        "server": {"shutdown_grace_seconds": 1},
        "pacs": {"response_timeout_seconds": 3000, "quiet_timeout_seconds": 3000},  # the job alone wouldn't end
    }
    with Service(folder, ("SILENT", silent_pacs), sections, warm=True) as service:
        job_id = service.ask("/api/iso/download", accession_number="HELD")
        process = service.when(
            lambda: service.run(job_id)["state_type"] == "RUNNING" and service.run(job_id)["infrastructure_pid"]
        )
        all_of_it = {pid: started_of(pid) for pid in descendants(service.pid)}
        parts = service.processes()
        assert {*parts.values(), int(process.split("/")[1])} <= all_of_it.keys()
        for pid in (service.pid, *(parts[name] for name in killed)):
            with suppress(ProcessLookupError):  # it has followed its supervisor already
                os.kill(pid, signal.SIGKILL)
        service.kill()
        until(
            lambda: not [pid for pid, started in all_of_it.items() if lives(pid, started)],
            LONG,
            pause=0.1,
            told=lambda: str({pid: command_of(pid) for pid, started in all_of_it.items() if lives(pid, started)}),
        )
