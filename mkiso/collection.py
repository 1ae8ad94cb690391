"""A job's instances: what an earlier attempt stored is taken up, the rest is retrieved, and each one is of its study's patient."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from mkiso import identity
from mkiso.dicom.header import read_header
from mkiso.dicom.retrieve import retrieve
from mkiso.job import Job
from mkiso.models import Arrival, Instance, Study


def take_up(job: Job) -> None:
    """Instances in the job's folder that are whole and still wanted are not moved again; the others go. Raises PatientMismatch.

    All go where the PACS or the patient API tells of the job's studies anything else than it did then: a corrected image keeps its UID, and half a
    disc from before a correction and half from after it would be whole by every count.
    """
    if job.facts().get("fingerprint") != job.fingerprint:
        for file in job.instances_dir.iterdir():
            file.unlink()
    wanted = {study.study_instance_uid: (study, study.expected.instances or frozenset()) for study in job.studies}
    for arrival in job.kept_arrivals():
        study, listed = wanted.get(arrival.study_instance_uid, (None, frozenset()))
        if study is None or arrival.sop_instance_uid not in listed:
            arrival.path.unlink()
            continue
        header = read_header(arrival.path)
        identity.same_patient(header, study)
        job.instances[arrival.sop_instance_uid] = Instance(arrival, header)


def retrieve_study(
    job: Job, study: Study, on_arrival: Callable[[Arrival], None], *, elsewhere: Collection[str] = (), stop: threading.Event | None = None
) -> None:
    """C-MOVE into the job's folder; the job's study becomes what the PACS held at the end.

    What the job has already isn't moved again, nor are the instances that lie `elsewhere` (SOP Instance UIDs); of a study without a list of instances
    everything is. Raises what retrieve raises, and PatientMismatch.
    """
    job.note(fingerprint=job.fingerprint)
    if study.expected.instances is None:  # as many as are counted may be others by now
        for instance in [each for each in job.instances.values() if each.arrival.study_instance_uid == study.study_instance_uid]:
            instance.arrival.path.unlink(missing_ok=True)
            del job.instances[instance.arrival.sop_instance_uid]

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
