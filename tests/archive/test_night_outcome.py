"""What an operator reads of a night: what is wrong stands first, by number and name."""

from __future__ import annotations

from datetime import date

import pytest

from mkiso.archive.night_outcome import NAMED, Outcome, described, dry_run_words, words
from mkiso.study.models import Study

GOOD = Outcome(found=3, archived=2, images=40, volumes=("A20260213_0001",))


def test_a_good_night() -> None:
    assert GOOD.is_good
    assert words(GOOD) == "2 studies with 40 images archived on A20260213_0001."
    assert words(Outcome(found=1)) == "Nothing to archive: 1 study found."
    several = Outcome(
        found=3, archived=3, images=40, volumes=("A20260213_0001", "A20260213_0002", "A20260213_0003"), elsewhere=1
    )
    assert words(several).endswith(
        "on 3 volumes (A20260213_0001 to A20260213_0003). Another archive run works on 1 study."
    )


def test_a_study_that_failed_is_named_first() -> None:
    night = Outcome(found=3, archived=2, images=40, volumes=("A20260213_0001",), failed=("A7", "1.2.3"))
    assert not night.is_good
    assert words(night).startswith("NOT ARCHIVED: 2 of 3 studies: A7, 1.2.3. ")
    assert "2 studies with 40 images archived" in words(night)


def test_many_that_failed_are_counted_and_the_first_of_them_named() -> None:
    said = words(Outcome(found=900, failed=[f"A{number}" for number in range(NAMED + 7)]))
    assert said.startswith(f"NOT ARCHIVED: {NAMED + 7} of 900 studies: A0, A1")
    assert " and 7 more. " in said and f"A{NAMED}," not in said


@pytest.mark.parametrize(
    ("night", "said"),
    [
        (Outcome(stopped="The PACS is away."), "The PACS is away."),
        (Outcome(undelivered=("A20260213_0001 IS NOT DELIVERED: the robot is off.",)), "IS NOT DELIVERED"),
        (Outcome(found=5, doubtful=(date(2026, 2, 13),)), "The PACS cuts its answers for 2026-02-13"),
        (
            Outcome(found=5, unusable=("A7", "one of 2026-02-13")),
            "NOT ARCHIVED, because the PACS gives 2 studies no Study Instance UID",
        ),
        (Outcome(found=4, given_up=("A9",)), "NOT ARCHIVED, and tried no more after archive.max_attempts: A9. "),
        (Outcome(found=4, given_up=("A9",)), "`mkiso archive settle A9 --forget`."),
        (Outcome(found=5, unusable=("A7",)), "several patients: A7. Have it corrected."),
    ],
)
def test_what_nobody_may_overlook_is_not_good(night: Outcome, said: str) -> None:
    assert not night.is_good
    assert said in words(night)
    assert "Nothing to archive" not in words(night)


def test_a_study_without_a_uid_is_described_by_what_it_has() -> None:
    told = [
        described(Study(number, "", "", study_date=day))
        for number, day in (("A1", "20260213"), ("", "20260213"), ("", "x\ny"), ("", ""))
    ]
    assert told == [
        "A1",
        "one of 2026-02-13",
        "one without accession number and date",
        "one without accession number and date",
    ]


def test_what_is_left_to_the_next_nights_is_said_of_a_good_night() -> None:
    night = Outcome(found=4, days_left=330)
    assert night.is_good
    assert words(night).endswith("330 earlier days are still owed: the next nights search them.")


def test_a_dry_run_says_that_nothing_was_archived() -> None:
    assert (
        dry_run_words(9, 2, 30, ())
        == "Dry run: 9 studies found, of which 2 would be archived, with 30 images. Nothing was archived."
    )
    assert "an unknown number of images" in dry_run_words(9, 2, None, ("A9",)) and "A9" in dry_run_words(
        9, 2, None, ("A9",)
    )
