"""What lies in the PACS outside of every night is named, and what it can't tell is said."""

from __future__ import annotations

from datetime import date, timedelta

from mkiso.archive.night_outcome import NAMED
from mkiso.archive.outside import Outside, lines, outside, owed_line
from mkiso.archive.paging import Answer
from mkiso.study.models import Study

FIRST, TODAY = date(2026, 1, 1), date(2026, 2, 13)
SEARCHED = {FIRST: TODAY, FIRST + timedelta(days=40): TODAY}  # the recheck of 30 days has passed the first alone


def study(number: int, study_date: str) -> Study:
    return Study(f"A{number}", f"1.2.{number}", "P1", study_date=study_date)


def test_each_kind_is_named() -> None:
    dates = ["", "0", "20260230", "20620213", "20260101", "20260210", "20260213", "19260213"]
    answer = Answer([study(number, day) for number, day in enumerate(dates)], 9, unusable=[Study("A9", "", "P1")])
    found = outside(answer, (), SEARCHED, 30, TODAY)
    assert [study.accession_number for study in found.undated] == ["A0", "A1", "A2"]
    assert [study.accession_number for study in found.ahead] == ["A3"]
    assert [study.accession_number for study in found.late] == ["A4"]
    assert found.before == 1
    said = list(lines(found, answer, 0))
    assert [line.split()[1] for line in said[:-1]] == ["A0", "A1", "A2", "A3", "A4", "A9"]
    assert said[-1].endswith("archives what is wanted.") and "archived: 1. " in said[-1]


def test_what_is_archived_or_looked_for_is_inside() -> None:
    answer = Answer([study(0, ""), study(1, "20620213"), study(2, "20260101")], 3)
    assert outside(answer, {"1.2.0", "1.2.1", "1.2.2"}, SEARCHED, 30, TODAY) == Outside()


def test_an_answer_that_may_be_cut_is_said() -> None:
    for answer, limit in ((Answer([], 5, 0xFE00), 0), (Answer([], 7), 7), (Answer([], 200), 0)):
        (said,) = lines(Outside(), answer, limit)
        assert said.startswith("The PACS may hold more than")
    assert list(lines(Outside(), Answer([], 200), 500)) == []


def test_many_are_counted() -> None:
    answer = Answer([study(number, "") for number in range(NAMED + 3)], NAMED + 3)
    assert len(said := list(lines(outside(answer, (), SEARCHED, 30, TODAY), answer, 0))) == NAMED + 1
    assert "and 3 more studies without" in said[-1]


def test_owed_days() -> None:
    assert owed_line([]) == ""
    assert owed_line([FIRST]) == "OWED  2026-01-01: the next night searches these days."
