"""The supervisor is killed, alone and with each set of its processes, in mid-job: nobody is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import pytest

from mkiso_service.worker.infrastructure import started_of
from peers.corpus import make_study
from peers.patience import LONG, until
from tests.end_to_end.conftest import Hospital, Open

pytestmark = [pytest.mark.end_to_end]

PARTS = ("prefect", "receiver", "worker", "webhook")
SETS = [names for size in range(len(PARTS) + 1) for names in combinations(PARTS, size)]


@pytest.fixture(scope="module")
def hospital(open_hospital: Open, tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    sections = {
        "server": {"shutdown_grace_seconds": 1},
        "pacs": {"response_timeout_seconds": 3000, "quiet_timeout_seconds": 3000},  # the job alone wouldn't end
        "disc": {"reuse_minutes": 0},
    }
    folder = tmp_path_factory.mktemp("studies")
    files = [file for number in range(len(SETS)) for file in make_study(folder, f"HELD{number}")]
    return open_hospital("dcmqrscp", files, sections)


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


@pytest.mark.parametrize("killed", SETS, ids="-".join)
def test_nobody_outlives_a_supervisor_that_is_killed(hospital: Hospital, killed: tuple[str, ...]) -> None:
    service = hospital.service
    if service.child is None or service.child.poll() is not None:
        service.start()
    hospital.pacs.pause()
    try:
        job_id = service.ask("/api/iso/download", accession_number=f"HELD{SETS.index(killed)}")
        process = service.when(
            lambda: service.run(job_id)["state_type"] == "RUNNING" and service.run(job_id)["infrastructure_pid"]
        )
        all_of_it = {pid: started_of(pid) for pid in descendants(service.pid)}
        parts = service.processes()
        assert {*parts.values(), int(process.split("/")[1])} <= all_of_it.keys()
        for pid in (service.pid, *(parts[name] for name in killed)):
            os.kill(pid, signal.SIGKILL)
        service.kill()
        until(
            lambda: not [pid for pid, started in all_of_it.items() if lives(pid, started)],
            LONG,
            pause=0.1,
            told=lambda: str({pid: names_of(pid) for pid, started in all_of_it.items() if lives(pid, started)}),
        )
    finally:
        hospital.pacs.resume()


def names_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
