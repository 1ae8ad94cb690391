"""From an inbox into a job's folder: what was sent, by hard link, and what the archive says of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from mkiso.dataset.header import read_header
from mkiso.errors import JobNotFound
from mkiso.receiver.pushed import Pushed
from mkiso.storage.job import Job
from mkiso.study import identity
from mkiso.study.models import Arrival, Expected, Instance, Study
from mkiso.study.text import text
from mkiso.study.values import StudyRetrieved


def as_sent(pushed: Pushed) -> Study:
    """The study as its images describe it: what is expected is what was sent. Raises DamagedInstance, JobNotFound where
    nothing lies there any more.
    """
    series: dict[str, set[str]] = {}
    modalities: dict[str, None] = {}
    header = None
    for arrival in pushed.instances:
        each = read_header(arrival.path)
        header = header or each
        series.setdefault(text(each, "SeriesInstanceUID"), set()).add(arrival.sop_instance_uid)
        modalities |= dict.fromkeys([text(each, "Modality")] if text(each, "Modality") else [])
    if header is None:
        raise JobNotFound("What was sent isn't kept any more: send the study again.")
    listed = {uid: frozenset(instances) for uid, instances in series.items()}
    return Study(
        accession_number=text(header, "AccessionNumber"),
        study_instance_uid=pushed.study_instance_uid,
        patient_id=text(header, "PatientID"),
        patient_name=text(header, "PatientName"),
        patient_birth_date=text(header, "PatientBirthDate"),
        patient_sex=text(header, "PatientSex"),
        study_date=text(header, "StudyDate"),
        study_time=text(header, "StudyTime"),
        study_id=text(header, "StudyID"),
        study_description=text(header, "StudyDescription"),
        modalities_in_study=tuple(modalities),
        issuer_of_patient_id=text(header, "IssuerOfPatientID"),
        expected=Expected("image", len(pushed.instances), listed),
    )


def into_job(job: Job, pushed: Pushed) -> None:
    """Link what was sent into the job's folder, as an earlier attempt would have left it there: each file is checked by
    its hash before it is used. What came under one UID with different bytes stays away.
    """
    for arrival in pushed.instances:
        path = job.instances_dir / arrival.sop_instance_uid
        if arrival.sop_instance_uid not in pushed.conflicts and not path.exists():
            os.link(arrival.path, path)
            job.remember(replace(arrival, path=path))


def taken(job: Job, study: Study, pushed: Pushed, on_kept: Callable[[Arrival], None]) -> StudyRetrieved:
    """The study of what lies in the job's folder, and nothing else; whether it is whole is the gate's to say. Raises
    PatientMismatch, DamagedInstance.
    """
    instances = []
    for arrival in job.kept(study.study_instance_uid, study.expected.instances or pushed.uids):
        header = read_header(arrival.path)
        identity.same_patient(header, study)
        instances.append(Instance(arrival, header))
        on_kept(arrival)
    return StudyRetrieved(study, tuple(instances))
