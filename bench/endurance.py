"""Many small jobs through one machine: does the last hundred cost what the first hundred did? Not part of any test;
`python -m bench.endurance 1000`.

After each hundred jobs: memory, threads and descriptors of each process of `mkiso serve` (the worker with its fork
server), the bytes under the data folder, and from asking to the first line of the flow.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from peers.corpus import make_ct_series
from peers.orthanc import Orthanc
from peers.ports import free_port
from peers.service import AE_TITLE, Service

HUNDRED = 100
AT_ONCE = 2
STUDIES = 20


def main(jobs: int) -> None:
    with tempfile.TemporaryDirectory(prefix="mkiso-endurance-") as name:
        folder, receiver_port = Path(name), free_port()
        names = [f"END{number}" for number in range(STUDIES)]
        with Orthanc(folder / "pacs", destinations={AE_TITLE: ("127.0.0.1", receiver_port)}, verbose=False) as pacs:
            pacs.store([file for each in names for file in make_ct_series(folder / "studies" / each, each, 4, size=64)])
            sections: dict[str, dict[str, Any]] = {
                "disc": {"reuse_minutes": 0, "keep_hours": 0.01},
                "storage": {"data_dir": str(folder / "mkiso" / "data"), "min_free_gib": 0},
            }
            with Service(
                folder / "mkiso", (pacs.ae_title, pacs.port), sections, receiver_port=receiver_port
            ) as service:
                question = itertools.cycle(names)
                for done in range(0, jobs, HUNDRED):
                    began = time.monotonic()
                    with ThreadPoolExecutor(AT_ONCE) as clerks:
                        latencies = list(
                            clerks.map(lambda each: one_job(service, each), itertools.islice(question, HUNDRED))
                        )
                    seconds = time.monotonic() - began
                    time.sleep(5)  # whoever has ended by now is gone
                    print(
                        json.dumps(
                            {
                                "jobs": done + HUNDRED,
                                "seconds": round(seconds),
                                **started(latencies),
                                **measured(service),
                            }
                        ),
                        flush=True,
                    )


def one_job(service: Service, name: str) -> float:
    """Ask, wait for the end; the seconds from asking to the first line of the flow. Raises where the job didn't end
    well.
    """
    job_id = service.ask("/api/iso/download", accession_number=name)
    run = service.run_ended(job_id)
    if run["state_type"] != "COMPLETED":
        raise RuntimeError(run["state"]["message"])
    return (datetime.fromisoformat(run["start_time"]) - datetime.fromisoformat(run["created"])).total_seconds()


def started(latencies: list[float]) -> dict[str, float]:
    return {
        "start_median": round(statistics.median(latencies), 2),
        "start_90": round(statistics.quantiles(latencies, n=10)[-1], 2),
    }


def measured(service: Service) -> dict[str, Any]:
    """Of each process MiB of its own memory, threads and descriptors; and MiB on the disk."""
    processes = {name: figures(pid) for name, pid in service.processes().items()}
    for number, child in enumerate(children_of(service.processes()["worker"])):
        processes[f"worker's child {number}"] = figures(child)
    sizes = {
        kind: sum(size_of(file) for file in (service.data_dir / kind).rglob("*")) >> 10
        for kind in ("prefect", "jobs", "incoming")
    }
    return {
        "processes": processes,
        "disk_kib": sizes,
        "reports": len(list((service.data_dir / "discs" / "jobs").rglob("*.*"))),
    }


def figures(pid: int) -> list[float]:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    memory = int(status["RssAnon"].split()[0]) / 1024
    return [round(memory, 1), int(status["Threads"]), len(list(Path(f"/proc/{pid}/fd").iterdir()))]


def children_of(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield from map(int, (task / "children").read_text(encoding="utf-8").split())


def size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
