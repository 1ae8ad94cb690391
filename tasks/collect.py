"""The steps from accession numbers to complete studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mkiso import patient_api
from mkiso.audit import messages as audit
from mkiso.errors import MkisoError, PatientApiUnavailable
from mkiso.media.disc_set import within_medium
from mkiso.sources import collection, priors, several
from mkiso.sources.choosing import FoundStudies, found_together, studies_of
from mkiso.sources.registry import source_of, sources_of
from mkiso.sources.several import find_everywhere, find_everywhere_by_uid
from mkiso.storage.slots import slot
from mkiso.study.gate import CompleteStudies, complete_studies, leave_out
from mkiso.study.identity import same_as_shown
from mkiso.study.models import Patient, Study
from mkiso.study.priors import why_left_out
from mkiso.study.selection import numbers_of
from mkiso.study.values import Found, Retrieved, StudyRetrieved
from tasks.job_run import JobRun
from tasks.step import step


@step(
    "Look up patient",
    "Look up patient of {accession_number}",
    idle=lambda run, accession_number: not run.settings.patient_api.base_url,
)
def look_up_patient(run: JobRun, accession_number: str) -> Patient | PatientApiUnavailable | None:
    """Ask the hospital's patient data; where it can't be had the job goes on without and says so."""
    try:
        return patient_api.look_up(run.settings.patient_api, accession_number)
    except PatientApiUnavailable as error:
        run.log.warning("Going on without the patient API: %s", error.words)
        return error


@step("Find study in the PACS", "Find {accession_number} in the PACS")
def find_study(run: JobRun, accession_number: str) -> FoundStudies:
    """Ask all sources for the studies of the accession number and the instances that they hold."""
    audit.queried(run.settings, accession_number, job_id=run.job.id)
    found = find_everywhere(sources_of(run.settings), accession_number, run.selection)
    return _told(run, accession_number, found)


@step("Find chosen study in the PACS", "Find study {study_instance_uid} in the PACS")
def find_chosen_study(run: JobRun, study_instance_uid: str) -> FoundStudies:
    """As find_study, by Study Instance UID."""
    audit.queried_by_uid(run.settings, study_instance_uid, job_id=run.job.id)
    found = find_everywhere_by_uid(sources_of(run.settings), study_instance_uid, run.selection)
    return _told(run, study_instance_uid, found)


@step("Find what else their accession numbers have")
def find_beside(run: JobRun, studies: Sequence[FoundStudies]) -> FoundStudies:
    """Of studies that were asked for by UID: the disc carries their numbers, and says that it isn't all of them."""
    found = several.find_beside(
        sources_of(run.settings), studies, lambda number: audit.queried(run.settings, number, job_id=run.job.id)
    )
    return _told(run, ", ".join(numbers_of(studies_of(studies))), found)


def _told(run: JobRun, asked: str, found: FoundStudies) -> FoundStudies:
    for words in (*found.degraded, *found.reasons):
        run.log.warning("%s: %s", asked, words)
    return found


@step("Check that it is one patient")
def check_one_patient(
    run: JobRun,
    accession_numbers: tuple[str, ...],
    found_studies: Sequence[FoundStudies],
    looked_up: Sequence[Patient | PatientApiUnavailable | None],
    shown: str,
    without: tuple[str, ...] = (),
) -> Found:
    """Every study found, and the patient API's answers, must be of one patient: of the one whom somebody confirmed,
    where somebody did (`shown`: mkiso.study.identity.shown_digest).
    """
    rules = run.settings.identity
    found = found_together(accession_numbers, found_studies, looked_up, rules, run.selection, without)
    if shown:
        same_as_shown(found.named, shown)
    run.job.note(studies=[study.study_instance_uid for study in found.studies], patient_id=found.studies[0].patient_id)
    run.tell_found(found)
    return found


@step("Find earlier studies of the patient")
def find_priors(run: JobRun, found: Found) -> Found:
    """Those that go beside what was asked for, by the site's rule; what can't be had is told and keeps nobody from the
    disc.
    """
    settings = run.settings
    told = priors.find_priors(
        sources_of(settings),
        found,
        settings.priors,
        settings.identity,
        lambda patient_id: audit.queried_by_patient(settings, patient_id, job_id=run.job.id),
    )
    for words in told.reasons:
        run.log.warning("Earlier studies: %s", words)
    for why, count in Counter(told.choice.not_taken.values()).items():
        run.log.info("%d not taken as earlier studies: %s", count, why)
    run.job.note(studies=[study.study_instance_uid for study in told.found.studies])
    run.tell_found(told.found)
    return told.found


@step("Keep what an earlier attempt stored", idle=lambda run, found: not run.job.has_stored)
def resume(run: JobRun, found: Found) -> None:
    """What the folder holds of another answer of the PACS goes; the rest is checked and not moved again."""
    run.job.begin(found.content)


@step("Retrieve study", "Retrieve {study.label}", patient=True)
def retrieve_study(run: JobRun, study: Study) -> StudyRetrieved:
    """Into the job's folder; what an earlier attempt has stored there is checked and not moved again."""
    source = source_of(run.settings, study.origin.source)
    with slot(run.settings.storage.moves_of(study.origin.source), source.settings.max_moves):
        run.tell("retrieving")
        run.begin_study(study)
        audit.transfer_begins(run.settings, study, run.job.id)
        return collection.retrieve_study(source, run.job, study, run.count_arrival, on_kept=run.count_kept)


def retrieve_prior(run: JobRun, found: Found, study: Study) -> tuple[Found, tuple[StudyRetrieved, ...]]:
    """As retrieve_study; what was found is without a prior that can't be had whole, and the job says so."""
    try:
        return found, (retrieve_study(run, study),)
    except MkisoError as error:
        if not (why := why_left_out(error)):
            raise
        run.log.warning("Going on without the earlier study %s: %s", study.label, error.words)
        return leave_out(found, [study], why), ()


@step("Check that it is complete")
def check_complete(run: JobRun, found: Found, retrieved: Sequence[StudyRetrieved]) -> CompleteStudies:
    """The gate: every instance that the PACS lists has arrived, and nothing else; all headers together are of one
    patient. Earlier studies that fail it, or have no room on the medium, are left out.
    """
    studies = complete_studies(Retrieved(found, tuple(retrieved)), run.settings.identity)
    if studies.priors:
        studies = within_medium(studies, run.settings, run.carrier, run.envelopes)
    run.tell_complete(studies)
    return studies
