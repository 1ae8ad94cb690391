"""Which discs on the shelf answer a question once more."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mkiso.config.settings import Settings
from mkiso.config.storage import Storage
from mkiso.formats.proven_set import disc_fingerprint
from mkiso.formats.registry import FORMATS
from mkiso.formats.reuse import (
    ToldSet,
    finished_discs,
    kept_sets,
    right_report,
    sets_told_of,
    young_report,
    young_sets,
)
from mkiso.storage.kept_reports import KeptReports
from mkiso.storage.marks import marks_of
from mkiso.storage.report import JobReport, write_report
from mkiso.storage.shelf import Manifest, new_disc_id, shelve, take_off
from mkiso.study.models import Expected, Study
from mkiso.study.question import Question
from mkiso.study.selection import Selection
from mkiso.study.values import Found

JOB, OTHER = "0b0a1b2c-0000-4000-8000-000000000001", "0b0a1b2c-0000-4000-8000-000000000002"
IMAGE = b"an image" * 100
QUESTION = Question("download", ("A1", "B2"))
STUDIES = tuple(
    Study(number, uid, "P1", "Doe^Jane", expected=Expected("image", 1, {f"{uid}.1": frozenset({f"{uid}.1.1"})}))
    for number, uid in (("A1", "1.2.1"), ("B2", "1.2.2"))
)
FOUND = Found(("A1", "B2"), STUDIES)


def told_of(settings: Settings, question: Question) -> dict[str, str]:
    return sets_told_of(settings, KeptReports(settings.storage), question)


def had(settings: Settings, question: Question) -> list[ToldSet]:
    return kept_sets(settings, KeptReports(settings.storage), question)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(storage=Storage(data_dir=tmp_path))


def shelved(
    settings: Settings, *, job_id: str = JOB, total: int = 1, minutes: float = 0, **facts: Any
) -> list[Manifest]:
    """The set of a job that has told of it, made so many minutes ago of what was found."""
    ids = [new_disc_id() for _ in range(total)]
    made = Manifest(
        disc_id=ids[0],
        job_id=job_id,
        created=(datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(),
        volume_id="A1",
        filename="A1.iso",
        accession_numbers=("B2", "A1"),
        fingerprint=disc_fingerprint(FOUND.fingerprint, settings),
        size=len(IMAGE),
        sha256=hashlib.sha256(IMAGE).hexdigest(),
        instances=3,
        medium="cd",
        total=total,
        first_disc=ids[0],
    )
    made = replace(made, **facts)
    discs = []
    for number, disc_id in enumerate(ids, start=1):
        image = settings.storage.data_dir / "image"
        image.write_bytes(IMAGE)
        manifest = replace(made, disc_id=disc_id, number=number)
        discs.append(shelve(settings.storage, image, manifest, marks_of(IMAGE)))
    report = JobReport(job_id, "download", made.accession_numbers, status="done", disc_ids=tuple(ids))
    facts = {name: getattr(made, name) for name in ("selection", "format", "transfer_syntax", "deidentified")}
    write_report(settings.storage, replace(report, **facts))
    return discs


def sets_of(settings: Settings, question: Question) -> list[list[str]]:
    return [[disc.job_id for disc in discs] for discs in young_sets(settings, question)]


@pytest.mark.parametrize(
    ("facts", "change"),
    [
        ({}, {}),
        ({}, {"accession_numbers": ("B2", "A1", "B2")}),
        ({}, {"transfer_syntax": "as-archived"}),
        ({"format": "zip"}, {"format": "zip"}),
        ({"transfer_syntax": "explicit-le"}, {"transfer_syntax": "explicit-le"}),
        ({"selection": Selection(("1.2.1",))}, {"selection": Selection(("1.2.1",))}),
    ],
)
def test_a_young_set_answers_the_question_that_it_was_made_for_and_no_other(
    settings: Settings, facts: dict[str, Any], change: dict[str, Any]
) -> None:
    shelved(settings, total=2, **facts)
    question = replace(QUESTION, **change)
    others = [
        replace(question, accession_numbers=("A1",)),
        replace(question, accession_numbers=("A1", "B2", "C3")),
        replace(question, format="zip" if question.format == "iso" else "iso"),
        replace(question, transfer_syntax="explicit-le" if "transfer_syntax" not in facts else ""),
        replace(question, selection=Selection((), ("1.3",), priors=True)),
        replace(question, deidentified=True),
    ]
    assert sets_of(settings, question) == [[JOB, JOB]] and list(told_of(settings, question).values()) == [JOB]
    assert [sets_of(settings, other) for other in others] == [[]] * len(others)
    assert [told_of(settings, other) for other in others] == [{}] * len(others)


def test_what_is_nobody_elses_is_never_given_again(settings: Settings) -> None:
    shelved(settings, format="zip-encrypted")
    shelved(settings, job_id=OTHER, deidentified=True)
    locked, copy = replace(QUESTION, format="zip-encrypted"), replace(QUESTION, deidentified=True)
    assert sets_of(settings, locked) == sets_of(settings, copy) == sets_of(settings, QUESTION) == []
    assert young_report(settings, locked) is young_report(settings, copy) is None
    for form, deidentified in ((FORMATS["zip-encrypted"], False), (FORMATS["iso"], True)):
        assert finished_discs(settings, FOUND, form, deidentified=deidentified) == []
    # Who has some of a set may have the rest of it.
    assert [list(told_of(settings, each).values()) for each in (locked, copy)] == [[JOB], [OTHER]]


def test_the_youngest_whole_set_that_holds_what_was_found_is_given(settings: Settings) -> None:
    shelved(settings, minutes=settings.disc.reuse_minutes + 1)
    assert sets_of(settings, QUESTION) == [] and young_report(settings, QUESTION) is None
    first = shelved(settings, minutes=2, total=2)
    grown = shelved(settings, job_id=OTHER, minutes=1, fingerprint="0" * 64)
    assert sets_of(settings, QUESTION) == [[OTHER], [JOB, JOB]]
    assert finished_discs(settings, FOUND, FORMATS["iso"], deidentified=False) == first
    report = young_report(settings, QUESTION)
    assert report is not None and report.disc_ids == (grown[0].disc_id,)
    take_off(settings.storage, grown[0])
    (settings.storage.discs_dir / first[1].disc_id / "manifest.json").unlink()
    assert sets_of(settings, QUESTION) == [] and young_report(settings, QUESTION) is None
    assert finished_discs(settings, FOUND, FORMATS["iso"], deidentified=False) == []


def test_the_job_of_a_set_that_holds_what_was_found_has_to_serve_just_it(settings: Settings) -> None:
    discs = shelved(settings, total=2)
    young, ids = young_sets(settings, QUESTION), tuple(disc.disc_id for disc in discs)

    def job_of(question: Question = QUESTION, found: Found = FOUND) -> str:
        report = right_report(settings, question, found, young)
        return report.job_id if report else ""

    assert job_of() == job_of(replace(QUESTION, shown=FOUND.shown)) == JOB
    assert job_of(replace(QUESTION, shown="0" * 32)) == "", "another patient was shown"
    assert job_of(replace(QUESTION, language="de")) == "", "its pages are in the site's language"
    assert job_of(found=replace(FOUND, degraded=("patient_api",))) == ""
    counted = tuple(replace(study, expected=Expected("study", 1)) for study in STUDIES)
    assert job_of(found=replace(FOUND, studies=counted)) == "", "one image may be there in place of another"
    for report in (
        JobReport(JOB, "download", ("A1", "B2"), status="running", disc_ids=ids),
        JobReport(JOB, "download", ("A1", "B2"), status="done", disc_ids=ids[:1]),
        JobReport(JOB, "print", ("A1", "B2"), status="done", disc_ids=ids),
    ):
        write_report(settings.storage, report)
        assert job_of() == ""
    (settings.storage.reports_dir / f"{JOB}.json").unlink()
    assert job_of() == ""


def test_what_was_sent_to_an_inbox_answers_nobody(settings: Settings) -> None:
    [disc] = shelved(settings)
    told = JobReport(JOB, "download", ("A1", "B2"), status="done", disc_ids=(disc.disc_id,), inbox="BURN")
    write_report(settings.storage, told)
    assert young_report(settings, QUESTION) is None
    assert told_of(settings, QUESTION) == {} and had(settings, QUESTION) == []


def test_a_question_of_a_language_is_answered_by_no_report(settings: Settings) -> None:
    shelved(settings)
    assert young_report(settings, QUESTION) is not None
    assert young_report(settings, replace(QUESTION, language="en")) is None


def test_the_sets_that_can_be_had_are_told_and_lie_whole_on_the_shelf(settings: Settings) -> None:
    old = shelved(settings, minutes=settings.disc.reuse_minutes + 60, total=2)
    new = shelved(settings, job_id=OTHER)
    assert had(settings, QUESTION) == [(tuple(new), OTHER), (tuple(old), JOB)]
    (settings.storage.reports_dir / f"{OTHER}.json").unlink()
    assert had(settings, QUESTION) == [(tuple(old), JOB)]
    take_off(settings.storage, old[0])
    assert had(settings, QUESTION) == [] and list(told_of(settings, QUESTION).values()) == [JOB]
