"""What a clerk's download takes while the archive runs, beside what it takes alone: `python -m bench.archive_download
[--downloads 7]`.

Orthanc is the PACS, and everything runs on this machine. Prints the seconds of each download, the medians and their
ratio; the downloads during the archive are asked for at moments spread over the night, so that some meet a retrieval
and some a volume that is being made.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from peers.archives import start
from peers.corpus import Person, make_ct_series
from peers.orthanc import Orthanc
from peers.ports import free_port
from peers.service import AE_TITLE, Service


def download(service: Service) -> float:
    began = time.perf_counter()
    answer = service.download("CLERK1")
    seconds = time.perf_counter() - began
    assert answer.status_code == 200, answer.text
    return seconds


def measure(folder: Path, images: int, studies: int, downloads: int, pause_seconds: float) -> None:
    receiver_port = free_port()
    clerks = make_ct_series(folder / "clerk", "CLERK1", images, patient=Person("CLERK", "Clerk^Clara"))
    archived = []
    for number in range(studies):
        patient = Person(f"P{number}", f"Archive^Number{number}")
        archived += make_ct_series(folder / "archived", f"A{number}", 100, patient=patient, study_date="20240301")
    sections: dict[str, dict[str, Any]] = {"disc": {"reuse_minutes": 0}, "archive": {"medium": "cd"}}
    with Orthanc(folder / "pacs", destinations={AE_TITLE: ("127.0.0.1", receiver_port)}, verbose=False) as pacs:
        pacs.store([*clerks, *archived])
        with Service(folder / "mkiso", (pacs.ae_title, pacs.port), sections, receiver_port=receiver_port) as service:
            download(service)
            alone = [download(service) for _ in range(downloads)]
            run = start(service, date_from="2024-03-01")
            service.when(lambda: service.run(run)["state_type"] == "RUNNING")
            time.sleep(3)
            during = []
            for _ in range(downloads):
                during.append(download(service))
                state = service.run(run)["state_type"]
                if state != "RUNNING":
                    print(f"The archive ended ({state}) during download {len(during)}: give it more --studies.")
                    break
                time.sleep(pause_seconds)
            print(service.run_ended(run, 900)["state"]["message"])
    print("alone ", *(f"{seconds:.2f}" for seconds in alone), f"  median {median(alone):.2f} s")
    print("during", *(f"{seconds:.2f}" for seconds in during), f"  median {median(during):.2f} s")
    print(f"{images} images of 0.5 MB: {median(during) / median(alone):.2f} times as long during the archive")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--studies", type=int, default=60, help="of 100 images each, in the archive")
    parser.add_argument("--downloads", type=int, default=7)
    parser.add_argument("--pause-seconds", type=float, default=2.3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mkiso-bench-") as folder:
        measure(Path(folder), asked.images, asked.studies, asked.downloads, asked.pause_seconds)
