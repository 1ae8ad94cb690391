"""Rows of the ways on which images come: one study from one Orthanc by C-MOVE, C-GET and WADO-RS, beside dcmtk's getscu
and dicomweb-client.

`python -m bench.sources WHO ARGUMENTS…` is one retrieval in a process of its own, which writes down how long it took
once everything was imported.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dicomweb_client.api import DICOMwebClient

from bench.laboratory import Laboratory, Receiver, upload
from bench.processes import Watch
from bench.samples import Row, Sample, beside, faster
from bench.studies import StudyFiles
from mkiso.config.settings import Settings
from mkiso.sources.query import find_studies
from mkiso.sources.registry import source_of
from mkiso.sources.retrieve import retrieve
from peers.orthanc import Orthanc
from peers.service import AE_TITLE

PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
OPTIONS = {
    "SyncStorageArea": False,
    "DicomAlwaysAllowGet": True,
    "Plugins": [PLUGIN],
    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
}
SECONDS = "seconds"


def sources_rows(laboratory: Laboratory) -> Iterator[Row]:
    """From the question to the last image in a file; mkiso's with the list of what is expected, the checks, the hashes
    and the proof. All in turn.
    """
    study = laboratory.studies.get("CT1000")
    cmove, cget, wado, getscu, nodelay, client = (Sample() for _ in range(6))
    with Orthanc(laboratory.new_folder("orthanc-web"), verbose=False, options=OPTIONS) as orthanc:
        laboratory.say("storing CT1000 in an Orthanc with DICOMweb")
        upload(orthanc, study)
        base_url = f"http://127.0.0.1:{orthanc.http_port}/dicom-web"
        at = {"ae_title": orthanc.ae_title, "port": orthanc.port}
        for _ in range(laboratory.runs):
            by_mkiso(laboratory, orthanc, study, {"kind": "cmove", **at}, cmove)
            by_mkiso(laboratory, orthanc, study, {"kind": "cget", **at}, cget)
            by_getscu(laboratory, orthanc, study, getscu, {})
            by_getscu(laboratory, orthanc, study, nodelay, {"TCP_NODELAY": "1"})
            by_mkiso(laboratory, orthanc, study, {"kind": "dicomweb", "base_url": base_url}, wado)
            by_client(laboratory, base_url, study, client)
    words = "question → last image, 1,000 CT"
    yield Row("sources-cmove", f"{words} by C-MOVE", cmove, "", cmove.median)
    yield faster("sources-cget", f"{words} by C-GET; against getscu as it comes", cget, getscu, 1)
    yield beside("sources-cget-nodelay", f"{words} by C-GET; against getscu with TCP_NODELAY=1", cget, nodelay)
    yield faster("sources-wado", f"{words} by WADO-RS; against dicomweb-client", wado, client, 1)


def by_mkiso(
    laboratory: Laboratory, orthanc: Orthanc, study: StudyFiles, pacs: Mapping[str, Any], sample: Sample
) -> None:
    """Into a job's folder, beside a receiver, which C-MOVE alone needs."""
    with laboratory.scratch(str(pacs["kind"])) as folder, Receiver(folder) as receiver:
        orthanc.know(AE_TITLE, "127.0.0.1", receiver.port)
        sections = {
            "pacs": dict(pacs),
            "receiver": {"ae_title": AE_TITLE, "host": "127.0.0.1", "port": receiver.port},
            "storage": {"data_dir": str(receiver.data_dir), "min_free_gib": 0},
        }
        target = receiver.data_dir / "jobs" / "1" / "instances"
        target.mkdir(parents=True, mode=0o700)
        measured(folder, target, study, sample, receiver.pid, "mkiso", json.dumps(sections), study.accession_number)


def by_getscu(
    laboratory: Laboratory, orthanc: Orthanc, study: StudyFiles, sample: Sample, environment: Mapping[str, str]
) -> None:
    with laboratory.scratch("getscu") as folder:
        keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study.study_instance_uid}"]
        command: list[str | Path] = [
            "getscu",
            "-S",
            "-aec",
            orthanc.ae_title,
            "-od",
            folder,
            *keys,
            "127.0.0.1",
            str(orthanc.port),
        ]
        with Watch() as watch:
            watch.run(command, environment=environment)
        require_all(folder, study)
        sample.add(watch.seconds, watch.peak_mb)


def by_client(laboratory: Laboratory, base_url: str, study: StudyFiles, sample: Sample) -> None:
    with laboratory.scratch("dicomweb-client") as folder:
        target = folder / "files"
        target.mkdir()
        measured(folder, target, study, sample, None, "dicomweb-client", base_url, study.study_instance_uid)


def measured(
    folder: Path, target: Path, study: StudyFiles, sample: Sample, beside: int | None, who: str, *arguments: str
) -> None:
    """One retrieval in a process of its own; `beside` is one that belongs to it."""
    with Watch(*([beside] if beside else [])) as watch:
        watch.run([sys.executable, "-m", "bench.sources", who, folder / SECONDS, target, *arguments])
    require_all(target, study)
    sample.add(float((folder / SECONDS).read_text()), watch.peak_mb)


def require_all(folder: Path, study: StudyFiles) -> None:
    if (count := sum(1 for _ in folder.iterdir())) != len(study.files):
        raise RuntimeError(f"{count} of {len(study.files)} instances came")


def as_mkiso(target: Path, sections: str, accession_number: str) -> Callable[[], None]:
    """Retrieves by the source of these settings, which has imported what it needs."""
    settings = Settings.model_validate_json(sections)
    source = source_of(settings)

    def fetch() -> None:
        [study] = find_studies(source, accession_number)
        retrieve(source, settings.identity, study, target, [], lambda _: None)

    return fetch


def as_client(target: Path, base_url: str, study_instance_uid: str) -> Callable[[], None]:
    def fetch() -> None:
        for number, dataset in enumerate(DICOMwebClient(url=base_url).iter_study(study_instance_uid)):
            dataset.save_as(target / f"{number}.dcm")

    return fetch


def main() -> int:
    who, seconds, target, *arguments = sys.argv[1:]
    fetch = {"mkiso": as_mkiso, "dicomweb-client": as_client}[who](Path(target), *arguments)
    began = time.perf_counter()
    fetch()
    Path(seconds).write_text(str(time.perf_counter() - began))
    return 0


if __name__ == "__main__":
    sys.exit(main())
