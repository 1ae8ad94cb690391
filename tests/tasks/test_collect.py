"""What the collecting steps tell of a job."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from mkiso.config.settings import Settings
from mkiso.config.sources import Origin
from mkiso.sources.choosing import FoundStudies
from mkiso.storage.job import Job
from mkiso.study.models import Study
from mkiso.study.selection import EVERYTHING
from mkiso.study.values import Found
from peers.ports import free_port
from tasks.collect import check_one_patient, look_up_patient
from tasks.job_run import JobRun


def test_what_a_job_does_without_is_told_once(tmp_path: Path) -> None:
    """However many accession numbers and studies it is that lack it."""
    settings = Settings.model_validate(
        {
            "patient_api": {"base_url": f"http://127.0.0.1:{free_port()}"},
            "storage": {"data_dir": str(tmp_path)},
        }
    )
    study = Study("A1", "1.2.3", "HN-1", origin=Origin(require_counts=False))
    told: list[Found] = []
    job = Job("job", "download", settings)
    job.open()
    run = cast(
        JobRun,
        SimpleNamespace(
            job=job,
            settings=settings,
            log=logging.getLogger("test"),
            tell_found=told.append,
            selection=EVERYTHING,
        ),
    )
    numbers = ("A1", "A2")
    studies = [
        FoundStudies((study,)),
        FoundStudies((replace(study, accession_number="A2", study_instance_uid="1.2.4"), study)),
    ]
    found = check_one_patient.fn(run, numbers, studies, [look_up_patient.fn(run, number) for number in numbers], "")
    assert found.degraded == ("patient_api", "counts_unknown")
    assert [each.study_instance_uid for each in found.studies] == ["1.2.3", "1.2.4"]
    assert told == [found]
