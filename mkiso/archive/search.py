"""What a night has to archive: the studies of its dates, and what failed or was lost before, as far as no volume holds
it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from functools import partial
from itertools import chain
from typing import TypeVar

from mkiso.archive.catalogue import archived, archived_counts, failed_studies, lost_studies
from mkiso.archive.job import ArchiveJob
from mkiso.archive.night_outcome import described, dry_run_words
from mkiso.archive.paging import Answer, Found, Page, find_all, once_each
from mkiso.archive.planning import HOPELESS, Plan, needs_a_look, patient_by_patient, plan, to_try_again
from mkiso.archive.schedule import LOST_A_NIGHT, share_of_a_night
from mkiso.audit import messages as audit
from mkiso.errors import (
    MkisoError,
    NotAskedEverywhere,
    PacsBusy,
    PacsSilent,
    PacsUnreachable,
    RetriableError,
    StudyNotFound,
)
from mkiso.sources.choosing import chosen
from mkiso.sources.protocol import Source
from mkiso.sources.query import expected_instances, find_studies_by_date, find_studies_by_uid, of_modalities
from mkiso.sources.registry import source_of, sources_of
from mkiso.sources.several import ask_all, rules_of
from mkiso.storage.job import Job
from mkiso.study.models import Study

T = TypeVar("T")
_AWAY = (PacsUnreachable, PacsBusy, PacsSilent)


def find(run: ArchiveJob) -> None:
    """By StudyDate; the days before are looked through again for what came late. What failed, and what lay on a volume
    that is lost, is found by its UID: its date may be long ago, or another by now.
    """
    archive = run.job.settings.archive
    run.begin_to_ask()
    found = _by_date(run, [Page(first, last) for first, last in run.dates.spans()])
    run.add_found(of_modalities(found.studies, archive.modalities))
    unusable = of_modalities(found.unusable, archive.modalities)
    failed = to_try_again(
        failed_studies(run.ledger), archive.max_attempts, by_hand=None if run.scheduled else run.dates.days
    )
    lost = [study.study_instance_uid for study in lost_studies(run.ledger)]
    sought = failed.keys() | share_of_a_night(lost, LOST_A_NIGHT, run.began_on)
    sought -= {study.study_instance_uid for study in (*found.studies, *found.unusable)}
    told, absent = _each(run, sorted(sought), _by_uid)
    for studies, shared in told.values():
        run.add_found(studies)
        unusable += shared
    run.outcome = replace(
        run.outcome, found=len(run.copies), doubtful=found.doubtful, unusable=tuple(map(described, unusable))
    )
    run.not_done.update(found.doubtful, filter(None, (study.day for study in unusable)))
    run.log.info("%s studies found.", len(run.copies))
    # At the end, since a step that is tried again begins anew. What is lost and not found is said at the end of the
    # night.
    for uid in failed.keys() & absent.keys() if not run.dry_run else ():
        run.fail(failed[uid], absent[uid])


def _by_date(run: ArchiveJob, spans: Sequence[Page]) -> Found:
    def search(source: Source) -> Found:
        def ask(page: Page) -> Answer:
            found = find_studies_by_date(source, page.study_date, page.study_time)
            return Answer(found.studies, found.sent, found.status, found.unusable)

        return find_all(spans, ask, source.settings.find_limit)

    for page in spans:
        audit.queried_by_date(run.job.settings, page.study_date, run.job.id)
    answers = _ask(run, search)
    if run.not_asked:
        run.not_done.update(chain.from_iterable(page.days() for page in spans))
    doubtful = sorted({day for found in answers for day in found.doubtful})
    studies = tuple(chain.from_iterable(found.studies for found in answers))
    return Found(studies, tuple(doubtful), tuple(chain.from_iterable(found.unusable for found in answers)))


def _by_uid(run: ArchiveJob, uid: str) -> tuple[Sequence[Study], Sequence[Study]]:
    """What the sources have under a UID, and what of it several patients have. Raises what find_studies_by_uid raises,
    and NotAskedEverywhere where it is nowhere and a source can't be asked.
    """

    def search(source: Source) -> tuple[Sequence[Study], Sequence[Study]] | StudyNotFound:
        try:
            return once_each(find_studies_by_uid(source, uid))
        except StudyNotFound as error:
            return error

    audit.queried_by_uid(run.job.settings, uid, job_id=run.job.id)
    answers = _ask(run, search)
    found = [answer for answer in answers if not isinstance(answer, StudyNotFound)]
    if not found and run.not_asked:
        raise NotAskedEverywhere("A source that may have this study can't be asked: the next night tries it again.")
    if not found:
        raise next(answer for answer in answers if isinstance(answer, StudyNotFound))
    usable, shared = (list(chain.from_iterable(some)) for some in zip(*found, strict=True))
    return usable, shared


def _ask(run: ArchiveJob, ask: Callable[[Source], T]) -> list[T]:
    """The answers of all sources that haven't been found away in this night."""
    asked = [source for source in sources_of(run.job.settings) if source.settings.name not in run.not_asked]
    told = ask_all(asked, ask)
    for name, error in told.down.items():
        run.goes_on_without(name, error)
    return list(told.answers.values())


def plan_night(run: ArchiveJob) -> None:
    """Claim what was found, ask the PACS what it holds of what may be owed, and leave out what lies on volumes."""
    attempts = {study.study_instance_uid: study.attempts for study in failed_studies(run.ledger)}
    owed = _maybe_owed(run, attempts)
    mine = frozenset(owed) if run.dry_run else run.night.claim(list(run.copies))
    asked, torn = _asked(run, [uid for uid in owed if uid in mine])
    planned = plan(
        asked,
        archived(run.ledger, [study.study_instance_uid for study in asked]),
        attempts if run.scheduled else {},
        run.job.settings.archive.max_attempts,
    )
    if run.dry_run:
        given_up = tuple(study.label for study in planned.given_up)
        untold = [run.copies[uid][0].label for uid in torn]
        run.words = dry_run_words(len(run.copies), len(planned.to_archive), planned.images, given_up, untold)
        return
    _take_up(run, planned, mine)
    elsewhere = [uid for uid in owed if uid not in mine]
    run.outcome = replace(run.outcome, elsewhere=len(elsewhere))
    run.not_done.update(filter(None, (run.copies[uid][0].day for uid in elsewhere)))
    for uid, why in torn.items():
        run.fail(run.copies[uid][0], why)


def _maybe_owed(run: ArchiveJob, failed: Collection[str]) -> list[str]:
    """The UIDs of what was found and may have more than lies on volumes; `failed` are those that failed before."""
    again = {*failed, *(study.study_instance_uid for study in lost_studies(run.ledger))}
    counts = archived_counts(run.ledger, run.copies)
    return [
        uid
        for uid, copies in run.copies.items()
        if uid in again or any(needs_a_look(study, counts.get(uid, 0), run.dates.compared) for study in copies)
    ]


def _asked(run: ArchiveJob, uids: Sequence[str]) -> tuple[list[Study], dict[str, MkisoError]]:
    """Each of these studies with what it holds, as it is taken from one source; and of others why they can't be: a
    source is away, none has it wholly, or two have it of two patients.
    """
    asked: list[Study] = []
    listed, torn = _each(run, uids, partial(_copies, failed_in_a_row=Counter()))
    is_for = rules_of(sources_of(run.job.settings), date.today())
    for uid, copies in listed.items():
        try:
            if run.not_asked and not _is_compared_later(run, copies):
                raise NotAskedEverywhere(
                    "A source that may have more of this study can't be asked, and it may be that no later night comes "
                    "across its date: the next night tries it again."
                )
            asked += chosen(copies, is_for=is_for).studies
        except MkisoError as error:
            torn[uid] = error
    return asked, torn


def _take_up(run: ArchiveJob, planned: Plan, mine: frozenset[str]) -> None:
    """What is to be archived waits from now on; the rest of what was claimed is given back."""
    to_archive = [work.study for work in planned.to_archive]
    run.night.complete([study.study_instance_uid for study in planned.complete])
    on_volumes = mine - {study.study_instance_uid for study in to_archive}
    _clear_left_overs(run, on_volumes)
    run.night.release(on_volumes)
    run.waiting.extend(patient_by_patient(to_archive))
    run.log.info(
        "%s studies to archive, %s are complete, %s are empty.",
        len(to_archive),
        len(planned.complete),
        len(planned.empty),
    )


def _each(
    run: ArchiveJob, uids: Iterable[str], ask: Callable[[ArchiveJob, str], T]
) -> tuple[dict[str, T], dict[str, MkisoError]]:
    """What is told of each study, and why of others nothing is: one that a PACS fails at keeps none of the others.
    Asked for is once more what may have passed. Raises what is wrong where HOPELESS in a row find the PACS away, and
    none of them had the night go on without that one.
    """
    told: dict[str, T] = {}
    untold: dict[str, MkisoError] = {}
    in_a_row, left = 0, len(run.not_asked)
    for uid in uids:
        try:
            told[uid] = ask(run, uid)
            in_a_row = 0
        except MkisoError as error:
            if isinstance(error, _AWAY):
                in_a_row += 1
            elif not isinstance(error, NotAskedEverywhere) or len(run.not_asked) > left:
                in_a_row, left = 0, len(run.not_asked)
            if in_a_row == HOPELESS:
                raise
            untold[uid] = error
        run.show_progress()
    for uid in [uid for uid, error in untold.items() if isinstance(error, _AWAY)]:
        with suppress(MkisoError):
            told[uid] = ask(run, uid)
            del untold[uid]
    return told, untold


def _copies(run: ArchiveJob, uid: str, failed_in_a_row: Counter[str]) -> list[Study]:
    """A study in each source that has it, with what it holds of it. The night goes on without a source that was away
    HOPELESS times in a row, as long as it has another. Raises NotAskedEverywhere for a study that such a source has.
    """
    copies = []
    for copy in (*run.copies[uid], *_of_other_dates(run, uid)):
        source, name = source_of(run.job.settings, copy.origin.source), copy.origin.source
        try:
            if failed_in_a_row[name] < HOPELESS:
                copies.append(replace(copy, expected=expected_instances(source, copy)))
                failed_in_a_row[name] = 0
                continue
        except _AWAY as error:
            failed_in_a_row[name] += 1
            others = {each.settings.name for each in sources_of(run.job.settings)} - run.not_asked - {name}
            if failed_in_a_row[name] < HOPELESS or source.settings.must_answer or not others:
                raise
            _leave(run, name, error)
        raise NotAskedEverywhere("A source that has this study can't be asked any more: the next night tries it again.")
    return copies


def _is_compared_later(run: ArchiveJob, copies: Iterable[Study]) -> bool:
    """Whether nights to come ask all sources for a study by its date: it wasn't found by its UID alone, nor by hand."""
    spans = run.dates.spans() if run.scheduled else ()
    days = [copy.day for copy in copies if copy.day]
    return any(first <= day <= last for first, last in spans for day in days)


def _leave(run: ArchiveJob, source: str, error: MkisoError) -> None:
    """Go on without a source; what of the night's days can't be compared with it is still owed."""
    if source not in run.not_asked:
        run.goes_on_without(source, error)
    run.not_done.update(run.dates.compared)


def _of_other_dates(run: ArchiveJob, uid: str) -> Iterator[Study]:
    """A study in the sources that weren't found to have it: they may tell another date of it, and hold more."""
    known = run.not_asked.union(copy.origin.source for copy in run.copies[uid])
    for source in sources_of(run.job.settings):
        if source.settings.name in known:
            continue
        audit.queried_by_uid(run.job.settings, uid, source.settings.name, job_id=run.job.id)
        try:
            yield from find_studies_by_uid(source, uid)
        except StudyNotFound:
            continue
        except RetriableError as error:
            if source.settings.must_answer:
                raise
            _leave(run, source.settings.name, error)


def _clear_left_overs(run: ArchiveJob, on_volumes: Collection[str]) -> None:
    """Folders of studies that are on volumes: a run that was killed before it could clear them away left them."""
    for folder in run.job.settings.storage.jobs_dir.glob("*/*"):
        if folder.name in on_volumes:
            Job(f"{folder.parent.name}/{folder.name}", "archive", run.job.settings).discard()
            with suppress(OSError):  # others wait in it, or a fault is described there
                folder.parent.rmdir()
