"""A job's instances: what an earlier attempt stored is taken up, the rest is retrieved, and each one is of its study's patient."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from mkiso import completeness, identity
from mkiso.dicom.header import read_header
from mkiso.dicom.retrieve import retrieve
from mkiso.job import Job
from mkiso.models import Arrival, Instance, Study


def take_up(job: Job) -> None:
    """Instances in the job's folder that are whole and still wanted are not moved again; the others go. Raises PatientMismatch."""
    for arrival in job.kept_arrivals():
        study = next((study for study in job.studies if study.study_instance_uid == arrival.study_instance_uid), None)
        if study is None or completeness.unexpected(study.expected, [arrival.sop_instance_uid]):
            arrival.path.unlink()
            continue
        header = read_header(arrival.path)
        identity.same_patient(header, study)
        job.instances[arrival.sop_instance_uid] = Instance(arrival, header)


def retrieve_study(
    job: Job, study: Study, on_arrival: Callable[[Arrival], None], *, elsewhere: Collection[str] = (), stop: threading.Event | None = None
) -> None:
    """C-MOVE into the job's folder; the job's study becomes what the PACS held at the end.

    What the job has already isn't moved again, nor are the instances that lie `elsewhere` (SOP Instance UIDs). Raises what retrieve raises, and
    PatientMismatch.
    """

    def take(arrival: Arrival) -> None:
        header = read_header(arrival.path)
        identity.same_patient(header, study)
        job.remember(arrival)
        job.instances[arrival.sop_instance_uid] = Instance(arrival, header)
        on_arrival(arrival)

    already = [instance.arrival for instance in job.instances.values()]
    already += [Arrival(uid, "", "", study.study_instance_uid, job.instances_dir / uid, 0, "") for uid in elsewhere]
    grown = retrieve(job.settings, study, job.instances_dir, already, take, stop)
    job.studies[job.studies.index(study)] = grown
