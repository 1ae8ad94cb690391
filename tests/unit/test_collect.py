"""What the collecting steps tell of a job."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from mkiso.config import Settings
from mkiso.job import Job
from mkiso.models import Study
from tasks.collect import check_one_patient, look_up_patient
from tests.peers.ports import free_port


def test_what_a_job_does_without_is_told_once(tmp_path: Path) -> None:
    """However many accession numbers and studies it is that lack it."""
    settings = Settings.model_validate(
        {
            "pacs": {"require_counts": False},
            "patient_api": {"base_url": f"http://127.0.0.1:{free_port()}"},
            "storage": {"data_dir": str(tmp_path)},
        }
    )
    study = Study("A1", "1.2.3", "HN-1")
    job = Job("job", "download", settings, ("A1", "A2"), studies=[study, replace(study, accession_number="A2", study_instance_uid="1.2.4")])
    job.open()
    run = SimpleNamespace(job=job, log=logging.getLogger("test"), tell_found=lambda: None)
    for accession_number in job.accession_numbers:
        look_up_patient.fn(run, accession_number)
    check_one_patient.fn(run)
    assert job.degraded == ["patient_api", "counts_unknown"]
