"""C-FIND in pages: every study once, whatever the PACS cuts."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mkiso.archive.paging import Answer, Page, find_all, was_cut
from mkiso.errors import AnswerCut
from mkiso.study.models import Study

DAY = date(2026, 2, 13)


def study(number: int, study_time: str = "", day: date = DAY) -> Study:
    return Study(f"A{number}", f"1.2.{number}", "P1", study_date=f"{day:%Y%m%d}", study_time=study_time)


@st.composite
def times(draw: st.DrawFn) -> str:
    """A TM value: hours, perhaps minutes, seconds, a fraction (PS3.5 6.2)."""
    time = f"{draw(st.integers(0, 23)):02d}"
    for _ in range(draw(st.integers(0, 2))):
        time += f"{draw(st.integers(0, 59)):02d}"
    return time + (f".{draw(st.integers(0, 999999)):06d}" if len(time) == 6 and draw(st.booleans()) else "")


def as_text(time: str) -> str:
    return time


def as_number(time: str) -> float:
    whole, _, fraction = time.partition(".")
    hours, minutes, seconds = whole[0:2], whole[2:4] or "0", whole[4:6] or "0"
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction or 0}")


class Pacs:
    """Matches as a PACS does, and cuts each answer at its limit; with a status other than success, or silently. The
    first `twice` come twice."""

    def __init__(self, studies: list[Study], limit: int, compare: object = as_text, status: int = 0, twice: int = 0):
        self.studies, self.limit, self.compare, self.status, self.twice, self.asked = (
            studies,
            limit,
            compare,
            status,
            twice,
            0,
        )

    def __call__(self, page: Page) -> Answer:
        self.asked += 1
        first, _, last = page.study_date.partition("-")
        found = [entry for entry in self.studies if first <= entry.study_date <= (last or first)]
        if page.study_time:
            begin, end = (self.compare(time) for time in page.study_time.split("-"))  # type: ignore[operator]
            found = [entry for entry in found if entry.study_time and begin <= self.compare(entry.study_time) <= end]  # type: ignore[operator]
        found = [*found[: self.twice], *found]
        cut = self.limit and len(found) > self.limit
        sent = found[: self.limit] if self.limit else found
        usable, unusable = (
            [entry for entry in sent if bool(entry.study_instance_uid) is is_usable] for is_usable in (True, False)
        )
        return Answer(usable, len(sent), self.status if cut else 0, unusable)


@given(times(), st.sampled_from([as_text, as_number]))
def test_each_time_falls_into_exactly_one_part(time: str, compare: object) -> None:
    pages: tuple[Page, ...] = Page(DAY, DAY).parts()
    while pages:
        holding = [page for page in pages if Pacs([study(1, time)], 0, compare)(page).studies]
        assert len(holding) == 1
        pages = holding[0].parts()


@given(st.dates(), st.integers(1, 40))
def test_days_are_covered_once(first: date, days: int) -> None:
    last = min(date.max, first + timedelta(days=min(days, (date.max - first).days)))
    if first == last:
        return
    parts = Page(first, last).parts()
    assert [part.date_from for part in parts] == [
        first + timedelta(days=number) for number in range((last - first).days + 1)
    ]
    assert all(part.date_from == part.date_to and not part.study_time for part in parts)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(times(), st.integers(0, 3)), max_size=40),
    st.integers(8, 12),
    st.sampled_from([as_text, as_number]),
    st.sampled_from([0, 0xA700]),
    st.integers(0, 2),
)
def test_every_study_is_found_once(
    values: list[tuple[str, int]], limit: int, compare: object, status: int, twice: int
) -> None:
    studies = [study(number, time, DAY + timedelta(days=day)) for number, (time, day) in enumerate(values)]
    pacs = Pacs(studies, limit, compare, status, twice)
    try:
        found = find_all([Page(DAY, DAY + timedelta(days=3))], pacs, limit)
    except AnswerCut:
        seconds = [(entry.study_date, int(as_number(entry.study_time))) for entry in studies]
        assert max(map(seconds.count, seconds)) >= limit - twice
        return
    assert sorted(entry.accession_number for entry in found.studies) == sorted(
        entry.accession_number for entry in studies
    )
    assert found.doubtful == ()


def test_what_came_twice_is_counted_twice() -> None:
    """100 answers, one of them twice, and a limit of 100: taken for whole, the last study would be in no archive."""
    studies = [study(number, f"{number % 24:02d}00") for number in range(100)]
    for limit in (100, 0):  # a limit that nobody told, too
        found = find_all([Page(DAY, DAY)], Pacs(studies, 100, twice=1), limit)
        assert len(found.studies) == 100


def test_a_study_with_a_time_that_is_none_is_kept() -> None:
    """It comes in the answer of its day and in that of no hour."""
    studies = [study(0, "morning"), *(study(number, f"{number % 24:02d}00") for number in range(1, 50))]
    found = find_all([Page(DAY, DAY)], Pacs(studies, 20), 20)
    assert len(found.studies) == 50 and found.doubtful == (DAY,)


def test_a_study_that_matches_a_range_and_none_of_its_days_is_kept() -> None:
    def ask(page: Page) -> Answer:
        found = [study(1)] if page.date_from < page.date_to else []
        return Answer(found, len(found), 0xA700 if found else 0)

    found = find_all([Page(DAY, DAY + timedelta(days=1))], ask)
    assert (len(found.studies), found.doubtful) == (1, (DAY, DAY + timedelta(days=1)))


@pytest.mark.parametrize("limit", [0, 20])
def test_what_cant_be_archived_is_named_once(limit: int) -> None:
    nameless = [
        Study("A100", "", "P1", study_date=f"{DAY:%Y%m%d}", study_time="0900"),
        Study("A101", "", "P1", study_date=f"{DAY:%Y%m%d}"),
    ]
    studies = [*nameless, *(study(number, f"{number % 24:02d}00") for number in range(1, 50))]
    found = find_all([Page(DAY, DAY)], Pacs(studies, limit), limit)
    assert len(found.studies) == 49
    assert sorted(entry.accession_number for entry in found.unusable) == ["A100", "A101"]


def test_a_uid_of_several_patients_is_nobodys() -> None:
    day: dict[str, Any] = {"study_date": f"{DAY:%Y%m%d}"}
    of = {
        "two": [Study("A1", "1.2.1", "P1", **day), Study("A1", "1.2.1", "P2", **day)],
        "issuers": [Study("A2", "1.2.2", "P1", issuer_of_patient_id=issuer, **day) for issuer in ("", "X", "Y")],
        "one": [Study("A3", "1.2.3", "P1", issuer_of_patient_id=issuer, **day) for issuer in ("X", "")],
    }
    found = find_all([Page(DAY, DAY)], Pacs([entry for entries in of.values() for entry in entries], 0))
    assert [(entry.study_instance_uid, entry.issuer_of_patient_id) for entry in found.studies] == [("1.2.3", "X")]
    assert sorted(entry.study_instance_uid for entry in found.unusable) == ["1.2.1", "1.2.2"]


def test_an_answer_that_is_not_cut_is_one_question() -> None:
    pacs = Pacs([study(number) for number in range(99)], 0)
    assert len(find_all([Page(DAY, DAY + timedelta(days=30))], pacs).studies) == 99
    assert pacs.asked == 1


def test_studies_without_a_time_on_a_day_that_is_cut_make_it_doubtful() -> None:
    found = find_all(
        [Page(DAY, DAY)], Pacs([study(0), *(study(number, f"{number % 24:02d}00") for number in range(1, 50))], 20), 20
    )
    assert len(found.studies) == 50
    assert found.doubtful == (DAY,)


def test_a_pacs_that_always_cuts_is_given_up_soon() -> None:
    asked = []

    def ask(page: Page) -> Answer:
        asked.append(page)
        return Answer([], 0, 0xA700)

    with pytest.raises(AnswerCut, match="A700"):
        find_all([Page(DAY, DAY + timedelta(days=30))], ask)
    assert [page.study_time for page in asked] == ["", "", "00-005959.999999", "00-000059.999999", "00-000000.999999"]


def test_a_round_number_that_is_all_is_no_harm() -> None:
    """200 studies of one second, or without a time: the parts show nothing new, so nothing was cut."""
    for time in ("101500", ""):
        found = find_all([Page(DAY, DAY)], Pacs([study(number, time) for number in range(200)], 0))
        assert len(found.studies) == 200
        assert found.doubtful == ()


def test_a_limit_that_nobody_told_is_found_out() -> None:
    studies = [study(number, f"{number % 24:02d}{number % 60:02d}") for number in range(1000)] + [study(1000)]
    found = find_all([Page(DAY, DAY)], Pacs(studies, 500))
    assert len({entry.accession_number for entry in found.studies}) == 1000
    found = find_all([Page(DAY, DAY)], Pacs(list(reversed(studies)), 500))
    assert (len(found.studies), found.doubtful) == (1001, (DAY,))


@pytest.mark.parametrize(
    ("count", "status", "limit", "cut"),
    [
        (0, 0, 0, False),
        (200, 0, 0, False),
        (250, 0, 250, True),
        (249, 0, 250, False),
        (3, 0xFE00, 0, True),
        (0, 0xA700, 0, True),
    ],
)
def test_what_counts_as_cut(count: int, status: int, limit: int, cut: bool) -> None:
    assert was_cut(Answer([study(number) for number in range(count)], count, status), limit) is cut
