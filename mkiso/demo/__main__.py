"""The demo PACS, patient API and disc publisher as one process, until it is told to end: `python -m mkiso.demo
--help`.
"""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from mkiso.demo.library import write_bundled_studies
from mkiso.demo.pacs import DemoPacs
from mkiso.demo.patient_api import DemoPatientApi, patients_of
from mkiso.demo.phantoms import ACCESSION_NUMBER, write_phantoms
from mkiso.demo.publisher import DemoPublisher


def main() -> None:
    """Write the studies into the folder, listen, wait for SIGINT or SIGTERM."""
    arguments = argparse.ArgumentParser(prog="python -m mkiso.demo", description=__doc__)
    arguments.add_argument("folder", type=Path, help="where the demo studies and what is printed are written")
    arguments.add_argument("--pacs-port", type=int, default=11112)
    arguments.add_argument("--pacs-ae-title", default="ABPACS")
    arguments.add_argument("--api-port", type=int, default=8081)
    arguments.add_argument("--publisher-port", type=int, default=10105)
    arguments.add_argument(
        "--destination", default="CDRECORD:127.0.0.1:10104", metavar="AE:HOST:PORT", help="the one C-MOVE destination"
    )
    given = arguments.parse_args()
    name, host, port = given.destination.split(":")
    files = write_bundled_studies(given.folder / "studies")
    (phantoms := given.folder / "studies" / ACCESSION_NUMBER).mkdir(exist_ok=True)
    files += write_phantoms(phantoms)
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    with (
        DemoPacs(files, {name: (host, int(port))}, given.pacs_ae_title, port=given.pacs_port) as pacs,
        DemoPatientApi(patients_of(files), port=given.api_port) as api,
        DemoPublisher(given.folder / "printed", port=given.publisher_port) as publisher,
    ):
        print(
            f"{len(files)} instances; PACS {pacs.ae_title}:{pacs.port}, {api.base_url}, "
            f"{publisher.ae_title}:{publisher.port}",
            flush=True,
        )
        end.wait()


if __name__ == "__main__":
    main()
