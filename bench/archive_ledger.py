"""How fast the ledger answers when it is large: `python -m bench.archive_ledger [--studies 10000] [--instances 100]
[--ledger-url URL]`.

Fills a new ledger with volumes of 100 studies each and prints seconds: writing, finding (by accession number, by
StudyInstanceUID, by SOP Instance UID, of what isn't there), planning a night over every study, the report.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any

from mkiso.archive.catalogue import archived, archived_counts, find, report
from mkiso.archive.ledger import Ledger
from mkiso.archive.nights import Night, NightRange
from mkiso.archive.planning import plan
from mkiso.archive.volumes import MasteredVolume, StudyOnVolume
from mkiso.config.settings import Settings
from mkiso.study.models import DiscFile, Expected, Study

DAY = date(2026, 2, 13)
ROOT = "1.2.826.0.1.3680043.8.498.7"  # UIDs as long as real ones
STUDIES_A_VOLUME = 100


def study_of(number: int, count: int) -> Study:
    uid = f"{ROOT}.{number:08d}.20260213"
    instances = frozenset(f"{uid}.1.{instance}.6031" for instance in range(count))
    return Study(
        f"A{number:08d}", uid, "", study_date="20260213", expected=Expected("image", count, {f"{uid}.1": instances})
    )


def fill(ledger: Ledger, studies: list[Study]) -> list[float]:
    seconds = []
    with Night.begin(ledger, "bench", NightRange(DAY, DAY)) as night:
        for start in range(0, len(studies), STUDIES_A_VOLUME):
            some = studies[start : start + STUDIES_A_VOLUME]
            began = time.perf_counter()
            night.claim([study.study_instance_uid for study in some])
            (volume,) = night.plan("dvd", "store", DAY)
            volume.image.write_bytes(b"")
            parts = [
                StudyOnVolume(study.study_instance_uid, study.accession_number, study.study_date, files_of(study))
                for study in some
            ]
            night.mastered([MasteredVolume(volume, "0" * 64, parts)])
            night.advance(volume.label, "done")
            seconds.append(time.perf_counter() - began)
        night.finish(len(studies))
    return seconds


def files_of(study: Study) -> list[DiscFile]:
    paths = (PurePosixPath(f"/DICOM/P0000001/S0000001/I{number:07d}") for number in range(study.expected.count or 0))
    uids = sorted(study.expected.instances or ())
    return [
        DiscFile(path, 524_288, hashlib.sha256(uid.encode()).hexdigest(), sop_instance_uid=uid)
        for path, uid in zip(paths, uids, strict=True)
    ]


def timed(name: str, act: Callable[[], Any], times: int = 1) -> None:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - began)
    print(f"{name:45} {min(seconds):8.4f} / {median(seconds):8.4f} / {max(seconds):8.4f} s")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--studies", type=int, default=10_000)
    arguments.add_argument("--instances", type=int, default=100)
    arguments.add_argument("--ledger-url", default="")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate(
            {"storage": {"data_dir": folder}, "archive": {"ledger_url": given.ledger_url}}
        )
        studies = [study_of(number, given.instances) for number in range(given.studies)]
        with Ledger.open(settings) as ledger:
            seconds = fill(ledger, studies)
            print(f"{given.studies} studies, {given.studies * given.instances} instances; min / median / max")
            print(
                f"{'a volume of 100 studies written down':45} {min(seconds):8.4f} / {median(seconds):8.4f} / "
                f"{max(seconds):8.4f} s"
            )
            asked = studies[:: max(1, len(studies) // 50)]
            numbers = iter(asked * 4)
            timed("find an accession number", lambda: find(ledger, next(numbers).accession_number), len(asked))
            timed("find a StudyInstanceUID", lambda: find(ledger, next(numbers).study_instance_uid), len(asked))
            timed(
                "find a SOP Instance UID", lambda: find(ledger, min(next(numbers).expected.instances or ())), len(asked)
            )
            timed("find what isn't there", lambda: find(ledger, "1.2.3"), 20)
            uids = [study.study_instance_uid for study in studies]
            timed("counts of every study", lambda: archived_counts(ledger, uids))
            timed("plan a night that owes nothing", lambda: plan(studies, archived(ledger, uids), {}, 5))
            timed("the report", lambda: report(ledger), 5)
            file = Path(folder) / "ledger.sqlite"
            if file.exists():
                print(f"{'ledger.sqlite':45} {file.stat().st_size / 2**20:8.0f} MiB")


if __name__ == "__main__":
    main()
