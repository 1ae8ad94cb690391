"""The steps from a night's dates to complete studies that wait for their volumes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace

from mkiso import patient_api
from mkiso.archive.catalogue import archived, archived_counts, failed_studies, lost_studies
from mkiso.archive.night_outcome import described, dry_run_words
from mkiso.archive.paging import Answer, Found, Page, find_all, once_each
from mkiso.archive.planning import day_of, name_of, needs_a_look, plan
from mkiso.archive.schedule import LOST_A_NIGHT, share_of_a_night
from mkiso.errors import (
    AnswerCut,
    JobStopped,
    MkisoError,
    PacsRefused,
    PatientApiUnavailable,
    StudyNotFound,
)
from mkiso.housekeeping import require_room
from mkiso.sources import collection
from mkiso.sources.query import expected_instances, find_studies_by_date, find_studies_by_uid, of_modalities
from mkiso.sources.registry import source_of
from mkiso.storage.job import Job
from mkiso.storage.slots import slot_behind_clerks
from mkiso.study import gate, identity
from mkiso.study.gate import CompleteStudies
from mkiso.study.models import Patient, Study
from mkiso.study.values import Retrieved
from tasks.archive_run import ArchiveRun
from tasks.step import step


@step("Find the studies of the night", patient=True)
def find(run: ArchiveRun) -> None:
    """By StudyDate; the days before are looked through again for what came late. What failed, and what lay on a volume
    that is lost, is found by its UID: its date may be long ago, or another by now.
    """
    settings, dates = run.job.settings, run.dates
    found = _find(run, [Page(first, last) for first, last in dates.spans()])
    modalities = settings.archive.modalities
    run.found = {study.study_instance_uid: study for study in of_modalities(found.studies, modalities)}
    unusable = of_modalities(found.unusable, modalities)
    failed: dict[str, Study] = {}
    for each in failed_studies(run.ledger):
        study = Study(each.accession_number, each.study_instance_uid, "", study_date=each.study_date)
        # What was given up is tried again by who asks for its date by hand, or for any where it has none.
        if each.attempts < settings.archive.max_attempts or (
            not run.scheduled and day_of(study) in {None, *dates.days}
        ):
            failed[study.study_instance_uid] = study
    lost = [study.study_instance_uid for study in lost_studies(run.ledger)]
    sought = failed.keys() | share_of_a_night(lost, LOST_A_NIGHT, run.began_on)
    absent: dict[str, MkisoError] = {}
    for uid in sought - {study.study_instance_uid for study in (*found.studies, *found.unusable)}:
        try:
            studies, shared = once_each(find_studies_by_uid(source_of(settings), uid))
        except (StudyNotFound, PacsRefused, AnswerCut) as error:
            absent[uid] = error
        else:
            run.found |= {study.study_instance_uid: study for study in studies}
            unusable += shared
        run.show_progress()
    run.outcome = replace(
        run.outcome, found=len(run.found), doubtful=found.doubtful, unusable=tuple(map(described, unusable))
    )
    run.not_done.update(found.doubtful, filter(None, map(day_of, unusable)))
    run.log.info("%s studies found.", len(run.found))
    # At the end, since a step that is tried again begins anew. What is lost and not found is said at the end of the
    # night.
    for uid in failed.keys() & absent.keys() if not run.dry_run else ():
        with run.attempt(failed[uid]):
            raise absent[uid]


def _find(run: ArchiveRun, spans: Iterable[Page]) -> Found:
    def ask(page: Page) -> Answer:
        found = find_studies_by_date(source_of(run.job.settings), page.study_date, page.study_time)
        return Answer(found.studies, found.sent, found.status, found.unusable)

    return find_all(spans, ask, run.job.settings.pacs.find_limit)


@step("Plan the night", patient=True)
def plan_night(run: ArchiveRun) -> None:
    """Claim what was found, ask the PACS what it holds of what may be owed, and leave out what lies on volumes."""
    settings, compared = run.job.settings, run.dates.compared
    attempts = {study.study_instance_uid: study.attempts for study in failed_studies(run.ledger)}
    lost = {study.study_instance_uid for study in lost_studies(run.ledger)}
    counts = archived_counts(run.ledger, run.found)
    owed = [
        uid
        for uid, study in run.found.items()
        if uid in attempts or uid in lost or needs_a_look(study, counts.get(uid, 0), compared)
    ]
    mine = frozenset(owed) if run.dry_run else run.night.claim(run.found)
    asked = []
    for uid in filter(mine.__contains__, owed):
        asked.append(replace(run.found[uid], expected=expected_instances(source_of(settings), run.found[uid])))
        run.show_progress()
    planned = plan(
        asked,
        archived(run.ledger, [study.study_instance_uid for study in asked]),
        attempts if run.scheduled else {},
        settings.archive.max_attempts,
    )
    to_archive = [work.study for work in planned.to_archive]
    if run.dry_run:
        lacking = [
            work.study.expected.count if work.wanted is None else len(work.wanted) for work in planned.to_archive
        ]
        images = None if None in lacking else sum(count or 0 for count in lacking)
        run.words = dry_run_words(len(run.found), len(to_archive), images, _names(planned.given_up))
        return
    run.night.complete([study.study_instance_uid for study in planned.complete])
    on_volumes = mine - {study.study_instance_uid for study in to_archive}
    _clear_left_overs(run, on_volumes)
    run.night.release(on_volumes)
    # A patient's studies one after another, so that they are in the pool together.
    run.waiting.extend(
        sorted(to_archive, key=lambda study: (study.patient_id, study.study_date, study.study_instance_uid))
    )
    elsewhere = [uid for uid in owed if uid not in mine]
    run.outcome = replace(run.outcome, elsewhere=len(elsewhere))
    run.not_done.update(filter(None, (day_of(run.found[uid]) for uid in elsewhere)))
    run.log.info(
        "%s studies to archive, %s are complete, %s are empty.",
        len(to_archive),
        len(planned.complete),
        len(planned.empty),
    )


def _clear_left_overs(run: ArchiveRun, on_volumes: Collection[str]) -> None:
    """Folders of studies that are on volumes: a run that was killed before it could clear them away left them."""
    for folder in run.job.settings.storage.jobs_dir.glob("*/*"):
        if folder.name in on_volumes:
            Job(f"{folder.parent.name}/{folder.name}", "archive", run.job.settings).discard()
            with suppress(OSError):  # others wait in it, or a fault is described there
                folder.parent.rmdir()


def _names(studies: Iterable[Study]) -> tuple[str, ...]:
    return tuple(map(name_of, studies))


@step("Retrieve study", "Retrieve {name}", patient=True)
def retrieve_study(run: ArchiveRun, study: Study, name: str) -> None:
    """C-MOVE of what isn't archived of it, as a download does; a clerk who comes meanwhile goes first."""
    require_room(run.job.settings.storage)
    on_volumes = archived(run.ledger, [study.study_instance_uid]).get(study.study_instance_uid, frozenset())
    settings = run.job.settings
    rules, require_counts = settings.identity, settings.pacs.require_counts
    found = gate.found(
        (study.accession_number,),
        [study],
        [_patient_of(run, study)],
        rules,
        require_counts=require_counts,
        degraded=False,
    )
    job = _folder_of(run, study)
    job.begin(identity.fingerprint([study], None))
    while True:
        with slot_behind_clerks(job.settings.storage.moves_dir, job.settings.pacs.max_moves) as clerk_waits:
            try:
                elsewhere = on_volumes & (study.expected.instances or frozenset())
                retrieved = collection.retrieve_study(
                    source_of(settings),
                    job,
                    study,
                    lambda _: run.show_progress(),
                    elsewhere=elsewhere,
                    stop=clerk_waits,
                )
                break
            except JobStopped:
                run.log.info("%s waits for a clerk's job.", name)
    run.pool.add(job, CompleteStudies(Retrieved(found, (retrieved,), on_volumes), rules, require_counts))


def _patient_of(run: ArchiveRun, study: Study) -> Patient | None:
    """The hospital's patient data of it; where they can't be had the night goes on without."""
    if run.without_patient_api or not study.accession_number:
        return None
    try:
        return patient_api.look_up(run.job.settings.patient_api, study.accession_number)
    except PatientApiUnavailable as error:
        run.log.warning("The night goes on without the patient API: %s", error.words)
        run.without_patient_api = True
        return None


def _folder_of(run: ArchiveRun, study: Study) -> Job:
    """The study's folder in the run's; what a run that is gone has left of it moves there. The claim says that nobody
    else works on it.
    """
    job = Job(f"{run.job.id}/{study.study_instance_uid}", "archive", run.job.settings)
    for left in run.job.settings.storage.jobs_dir.glob(f"*/{study.study_instance_uid}"):
        if not job.folder.exists():
            with suppress(
                OSError
            ):  # it was swept just now; others wait in the run's folder, or a fault is described there
                left.rename(job.folder)
                left.parent.rmdir()
    job.open()
    return job
