"""Discs on the shelf that answer a question once more: while they are young, and hold just what the PACS says; or as
discs of a set that was told of, as long as it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mkiso.config.settings import Settings
from mkiso.errors import MkisoError
from mkiso.formats.protocol import Format
from mkiso.formats.proven_set import disc_fingerprint
from mkiso.formats.registry import FORMATS
from mkiso.storage.kept_reports import KeptReports
from mkiso.storage.report import JobReport, find_report
from mkiso.storage.shelf import Manifest, is_young, manifests, reusable, whole_sets
from mkiso.study.identity import same_as_shown
from mkiso.study.question import Question, what_is_asked
from mkiso.study.values import Found

ToldSet = tuple[Sequence[Manifest], str]
"""The discs of a set, in order, and the id of a job that serves them."""


def finished_discs(settings: Settings, found: Found, form: Format, *, deidentified: bool) -> list[Manifest]:
    """The youngest set that holds just what was found, in order; empty where there is none."""
    if form.is_encrypted or deidentified:  # its password was for somebody else; it is like no other
        return []
    return reusable(settings.storage, disc_fingerprint(found.fingerprint, settings, form), settings.disc.reuse_minutes)


def young_sets(settings: Settings, question: Question) -> list[tuple[Manifest, ...]]:
    """The sets that were made for a question a short while ago, the youngest first; none that is encrypted, since its
    password was somebody else's, and none that is de-identified.
    """
    if FORMATS[question.format].is_encrypted or question.deidentified:
        return []
    storage, asked = settings.storage, what_is_asked(_of_this_site(settings, question))
    return [
        discs
        for discs in whole_sets(manifests(storage))
        if what_is_asked(discs[0]) == asked
        and all(is_young(storage, disc, settings.disc.reuse_minutes) for disc in discs)
    ]


def young_report(settings: Settings, question: Question) -> JobReport | None:
    """A job that has made a set which is young enough to be served again; None where there is none."""
    if question.language:  # nothing tells which language a disc on the shelf is in
        return None
    for discs in young_sets(settings, question):
        made = find_report(settings.storage, discs[0].job_id)
        if made and made.inbox:  # no GET gives it
            continue
        ids = tuple(disc.disc_id for disc in discs)
        numbers, chosen = question.accession_numbers, question.selection
        return JobReport(discs[0].job_id, "download", numbers, disc_ids=ids, selection=chosen)
    return None


def right_report(
    settings: Settings, question: Question, found: Found, young: Sequence[tuple[Manifest, ...]]
) -> JobReport | None:
    """The job of one of these sets that hold just what was found, and of the patient who was shown; None where anything
    speaks against it: a job then says what.
    """
    try:
        if question.shown:
            same_as_shown(found.named, question.shown)
    except MkisoError:
        return None
    asked = _as_asked(settings, question)
    fingerprint = disc_fingerprint(found.fingerprint, asked, FORMATS[question.format])
    discs = next((each for each in young if all(disc.fingerprint == fingerprint for disc in each)), None)
    if discs is None:
        return None
    report, ids = find_report(settings.storage, discs[0].job_id), tuple(disc.disc_id for disc in discs)
    return report if report and report.is_on_the_shelf and report.disc_ids == ids else None


def sets_told_of(settings: Settings, kept: KeptReports, question: Question) -> dict[str, str]:
    """The sets that jobs have told of for a question: by the id of each, a job that serves it."""
    return kept.sets_told(_of_this_site(settings, question))


def kept_sets(settings: Settings, kept: KeptReports, question: Question) -> list[ToldSet]:
    """The sets of a question that can be had, the newest first, each with a job that serves it."""
    told = sets_told_of(settings, kept, question)
    shelf = whole_sets(manifests(settings.storage))
    return [(discs, told[discs[0].set_id]) for discs in shelf if discs[0].set_id in told]


def _as_asked(settings: Settings, question: Question) -> Settings:
    return settings.as_asked(question.language, question.transfer_syntax)


def _of_this_site(settings: Settings, question: Question) -> Question:
    """With the transfer syntax that is meant where none is said."""
    return replace(question, transfer_syntax=_as_asked(settings, question).disc.transfer_syntax)
