"""From accession numbers to complete studies of one patient: the part that every job shares."""

from __future__ import annotations

from tasks.collect import check_complete, check_one_patient, find_study, look_up_patient, retrieve_study, take_up
from tasks.job_run import JobRun


def find(run: JobRun) -> None:
    """Look up the patient and find the studies, side by side; they must be of one patient."""
    looked_up = [look_up_patient.submit(run, accession_number) for accession_number in run.job.accession_numbers]
    try:
        for accession_number in run.job.accession_numbers:
            find_study(run, accession_number)
    finally:
        for lookup in looked_up:
            lookup.result()
    check_one_patient(run)


def retrieve(run: JobRun) -> None:
    """Retrieve each study, and check that nothing is missing."""
    if run.job.started_before:
        take_up(run)
    for study in list(run.job.studies):
        retrieve_study(run, study, study.accession_number)
    check_complete(run)
