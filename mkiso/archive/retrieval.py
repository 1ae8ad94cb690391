"""From a study that is owed to complete instances in the run's folder, which wait for their volume."""

from __future__ import annotations

from contextlib import suppress

from mkiso import patient_api
from mkiso.archive.catalogue import archived
from mkiso.archive.job import ArchiveJob
from mkiso.audit import messages as audit
from mkiso.errors import JobStopped, PatientApiUnavailable
from mkiso.sources import collection
from mkiso.sources.registry import source_of
from mkiso.storage.job import Job
from mkiso.storage.room import require_room
from mkiso.storage.slots import slot_behind_clerks
from mkiso.study import gate, identity
from mkiso.study.gate import CompleteStudies
from mkiso.study.models import Patient, Study
from mkiso.study.values import Retrieved


def retrieve(run: ArchiveJob, study: Study) -> None:
    """C-MOVE of what isn't archived of a study, as a download does; a clerk who comes meanwhile goes first."""
    settings = run.job.settings
    require_room(settings.storage)
    on_volumes = archived(run.ledger, [study.study_instance_uid]).get(study.study_instance_uid, frozenset())
    elsewhere = on_volumes & (study.expected.instances or frozenset())
    rules, patients = settings.identity, [_patient_of(run, study)]
    found = gate.found((study.accession_number,), [study], patients, rules, degraded=False)
    job = _folder_of(run, study)
    job.begin(identity.fingerprint([study], None))
    name = study.origin.source
    source, moves_dir = source_of(settings, name), settings.storage.moves_of(name)
    while True:
        with slot_behind_clerks(moves_dir, source.settings.max_moves) as clerk_waits:
            audit.transfer_begins(settings, study, run.job.id)
            try:
                retrieved = collection.retrieve_study(
                    source, job, study, lambda _: run.show_progress(), elsewhere=elsewhere, stop=clerk_waits
                )
                break
            except JobStopped:
                run.log.info("%s waits for a clerk's job.", study.label)
    run.pool.add(job, CompleteStudies(Retrieved(found, (retrieved,), on_volumes), rules))


def _patient_of(run: ArchiveJob, study: Study) -> Patient | None:
    """The hospital's patient data of it; where they can't be had the night goes on without."""
    if run.without_patient_api or not study.accession_number:
        return None
    try:
        return patient_api.look_up(run.job.settings.patient_api, study.accession_number)
    except PatientApiUnavailable as error:
        run.log.warning("The night goes on without the patient API: %s", error.words)
        run.without_patient_api = True
        return None


def _folder_of(run: ArchiveJob, study: Study) -> Job:
    """The study's folder in the run's; what a run that is gone has left of it moves there. The claim says that nobody
    else works on it.
    """
    job = Job(f"{run.job.id}/{study.study_instance_uid}", "archive", run.job.settings)
    for left in run.job.settings.storage.jobs_dir.glob(f"*/{study.study_instance_uid}"):
        if not job.folder.exists():
            # It was swept just now; others wait in the run's folder, or a fault is described there.
            with suppress(OSError):
                left.rename(job.folder)
                left.parent.rmdir()
    job.open()
    return job
