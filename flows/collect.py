"""From accession numbers to complete studies of one patient, and from these to discs laid out: what jobs share."""

from __future__ import annotations

from mkiso.media.disc_set import DiscSet
from mkiso.sources.choosing import studies_of
from mkiso.study.gate import CompleteStudies
from mkiso.study.selection import numbers_of
from mkiso.study.values import Found
from tasks.collect import (
    check_complete,
    check_one_patient,
    find_beside,
    find_chosen_study,
    find_priors,
    find_study,
    look_up_patient,
    resume,
    retrieve_prior,
    retrieve_study,
)
from tasks.disc import convert_images, finish_pictures, lay_out_discs, read_reports
from tasks.job_run import JobRun


def find(run: JobRun, accession_numbers: tuple[str, ...], shown: str) -> Found:
    """Look up the patient and find the studies, side by side; they must be of one patient, and of the one who was
    shown. What goes beside them is looked for then.
    """
    found = find_asked(run, accession_numbers, shown)
    return find_priors(run, found) if run.selection.priors else found


def find_asked(run: JobRun, accession_numbers: tuple[str, ...], shown: str) -> Found:
    """What the question names. Studies that are asked for by UID are found first: their accession numbers lead to the
    patient, and to what else they have.
    """
    if not accession_numbers:
        studies = [find_chosen_study(run, uid) for uid in run.selection.studies]
        numbers = numbers_of(studies_of(studies))
        asked = [look_up_patient.submit(run, number) for number in numbers]
        try:
            studies.append(find_beside(run, studies))
        finally:
            looked_up = [answer.result() for answer in asked]
        return check_one_patient(run, accession_numbers, studies, looked_up, shown)
    asked = [look_up_patient.submit(run, accession_number) for accession_number in accession_numbers]
    try:
        studies = [find_study(run, accession_number) for accession_number in accession_numbers]
    finally:
        looked_up = [answer.result() for answer in asked]
    return check_one_patient(run, accession_numbers, studies, looked_up, shown)


def retrieve(run: JobRun, found: Found) -> CompleteStudies:
    """Retrieve each study, and check that nothing is missing and all is of one patient. An earlier study that can't be
    had whole is left out.
    """
    resume(run, found)
    retrieved = [retrieve_study(run, study) for study in found.asked]
    for study in found.priors:
        found, prior = retrieve_prior(run, found, study)
        retrieved += prior
    return check_complete(run, found, retrieved)


def lay_out(run: JobRun, studies: CompleteStudies) -> DiscSet:
    """Convert images where they are to be, finish pictures and reports, and lay the discs out. An earlier study that
    can't be converted is left out.
    """
    studies, conversion = convert_images(run, studies)
    return lay_out_discs(run, studies, conversion, finish_pictures(run, studies), read_reports(run, studies))
