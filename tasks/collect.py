"""The steps from accession numbers to a complete study in the job's folder."""

from __future__ import annotations

from mkiso import audit, collection, completeness, identity, patient_api
from mkiso.dicom.query import find_studies
from mkiso.errors import PatientApiUnavailable, PatientMismatch
from mkiso.models import Study
from mkiso.slots import slot
from tasks.job_run import JobRun
from tasks.step import step

PATIENT_API, COUNTS_UNKNOWN = "patient_api", "counts_unknown"


@step("Look up patient", "Look up patient of {accession_number}")
def look_up_patient(run: JobRun, accession_number: str) -> None:
    """Ask the hospital's patient data; where it can't be had the job goes on without and says so."""
    try:
        patient = patient_api.look_up(run.job.settings.patient_api, accession_number)
    except PatientApiUnavailable as error:
        run.log.warning("Going on without the patient API: %s", error.words)
        if PATIENT_API not in run.job.degraded:
            run.job.degraded.append(PATIENT_API)
        return
    if patient is not None:
        run.job.patients[accession_number] = patient


@step("Find study in the PACS", "Find {accession_number} in the PACS")
def find_study(run: JobRun, accession_number: str) -> None:
    """C-FIND: the studies of the accession number and the instances that they hold."""
    audit.queried(run.job.settings, accession_number, run.job.id)
    run.job.studies += find_studies(run.job.settings, accession_number)


@step("Check that it is one patient")
def check_one_patient(run: JobRun) -> None:
    """Every study found, and the patient API's answers, must be of one patient."""
    job = run.job
    for patient in job.patients.values() or [None]:
        identity.one_patient(job.studies, patient)
    job.studies = list({study.study_instance_uid: study for study in job.studies}.values())
    job.fingerprint = identity.fingerprint(job.studies, job.patient)
    job.note(studies=[study.study_instance_uid for study in job.studies], patient_id=job.studies[0].patient_id)
    for study in job.studies:
        completeness.provable(study, require_counts=job.settings.pacs.require_counts)
        if study.expected.count is None and COUNTS_UNKNOWN not in job.degraded:
            job.degraded.append(COUNTS_UNKNOWN)
    run.tell_found()


@step("Take up what an earlier attempt stored")
def take_up(run: JobRun) -> None:
    """Instances in the job's folder that are whole and still wanted are not moved again."""
    collection.take_up(run.job)
    run.recount()
    run.log.info("%s images of an earlier attempt are whole and are not moved again.", len(run.job.instances))


@step("Retrieve study", "Retrieve {accession_number}", patient=True)
def retrieve_study(run: JobRun, study: Study, accession_number: str) -> None:
    """C-MOVE into the job's folder; what an earlier attempt has stored there is checked and not moved again."""
    with slot(run.job.settings.storage.moves_dir, run.job.settings.pacs.max_moves):
        run.tell("retrieving")
        audit.transfer_begins(run.job.settings, study, run.job.id)
        collection.retrieve_study(run.job, study, run.count_arrival)


@step("Check that it is complete")
def check_complete(run: JobRun) -> None:
    """Every instance that the PACS lists has arrived, and nothing else; every one is of this patient."""
    job = run.job
    for study in job.studies:
        of_study = {uid: each for uid, each in job.instances.items() if each.arrival.study_instance_uid == study.study_instance_uid}
        completeness.complete(study, of_study.keys(), require_counts=job.settings.pacs.require_counts)
        for instance in of_study.values():
            identity.same_patient(instance.header, study)
    strangers = {each.arrival.study_instance_uid for each in job.instances.values()} - {study.study_instance_uid for study in job.studies}
    if strangers:
        raise PatientMismatch("An instance of a study that nobody asked for lies in the job's folder: nothing is made of it. Ask for the disc again.")
    run.recount()
    run.tell("complete", expected=len(job.instances), received=len(job.instances))
    run.show_progress()
