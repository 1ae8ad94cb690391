"""Which studies a night owes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mkiso.archive.catalogue import FailedStudy
from mkiso.archive.planning import (
    is_complete,
    is_hopeless,
    needs_a_look,
    patient_by_patient,
    plan,
    says_something_of_the_study,
    to_try_again,
)
from mkiso.errors import (
    CountsUnknown,
    InstanceConflict,
    MkisoError,
    PacsSilent,
    PacsUnreachable,
    StorageFull,
    StudyIncomplete,
)
from mkiso.study.models import Expected, Study

UIDS = st.frozensets(st.integers(1, 9).map(lambda number: f"1.2.{number}"))


def study(uid: str, expected: Expected, study_date: str = "20260213") -> Study:
    return Study("A1", uid, "P1", study_date=study_date, expected=expected)


def named(*uids: str) -> Expected:
    return Expected("image", len(uids), {"1.9": frozenset(uids)})


def test_a_study_that_the_ledger_does_not_know_is_archived_whole() -> None:
    (work,) = plan([study("1", named("1.1", "1.2"))], {}, {}, 5).to_archive
    assert work.wanted == frozenset({"1.1", "1.2"})


def test_of_a_study_that_has_grown_the_new_instances_alone_are_archived() -> None:
    (work,) = plan([study("1", named("1.1", "1.2"))], {"1": frozenset({"1.1"})}, {}, 5).to_archive
    assert work.wanted == frozenset({"1.2"})


def test_a_study_that_lost_instances_in_the_pacs_is_complete() -> None:
    assert plan([study("1", named("1.1"))], {"1": frozenset({"1.1", "1.2"})}, {}, 5).complete


def test_counts_decide_where_the_pacs_names_nothing() -> None:
    grown, same = Expected("series", 3), Expected("study", 2)
    archived = {"1": frozenset({"1.1", "1.2"}), "2": frozenset({"2.1", "2.2"})}
    night = plan([study("1", grown), study("2", same)], archived, {}, 5)
    assert [(work.study.study_instance_uid, work.wanted) for work in night.to_archive] == [("1", None)]
    assert [found.study_instance_uid for found in night.complete] == ["2"]
    listed_elsewhere = [replace(study("2", same), listed_elsewhere=uids) for uids in (("2.1",), ("2.1", "2.3"))]
    assert [is_complete(each, archived["2"]) for each in listed_elsewhere] == [True, False]


def test_where_the_pacs_tells_no_count_a_study_is_archived_once() -> None:
    unknown = Expected("none", None)
    assert plan([study("1", unknown)], {}, {}, 5).to_archive
    assert is_complete(study("1", unknown), frozenset({"1.1"}))


def test_a_study_without_instances_is_neither_work_nor_failure() -> None:
    assert plan([study("1", Expected("image", 0))], {}, {}, 5).empty


def test_a_study_is_given_up_after_its_attempts() -> None:
    found = [study("1", named("1.1"))]
    assert plan(found, {}, {"1": 4}, 5).to_archive
    assert plan(found, {}, {"1": 5}, 5).given_up


@given(
    st.dictionaries(st.sampled_from("abcdef"), UIDS),
    st.dictionaries(st.sampled_from("abcdef"), UIDS),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9)),
)
def test_every_study_has_one_fate_and_what_is_archived_then_is_all(
    in_pacs: dict[str, frozenset[str]], archived: dict[str, frozenset[str]], attempts: dict[str, int]
) -> None:
    found = [study(uid, named(*uids)) for uid, uids in in_pacs.items()]
    night = plan([*found, *found], archived, attempts, 5)
    fates = [*(work.study for work in night.to_archive), *night.complete, *night.empty, *night.given_up]
    assert sorted(fate.study_instance_uid for fate in fates) == sorted(in_pacs)
    for work in night.to_archive:
        before = archived.get(work.study.study_instance_uid, frozenset())
        assert work.wanted
        assert not work.wanted & before
        archived = {**archived, work.study.study_instance_uid: before | work.wanted}
    assert not plan(found, archived, {}, 5).to_archive or night.given_up


@pytest.mark.parametrize(
    ("study_date", "count", "asked"),
    [
        ("20260213", 7, True),
        ("20260214", 7, True),
        ("20260212", 7, False),
        ("20260212", 8, True),
        ("20260212", 6, True),
        ("20260212", None, True),
        ("", 7, True),
        ("2026.2.9", 7, True),
        ("20261399", 7, True),
        ("2026W013", 7, True),
    ],
)
def test_older_studies_are_looked_at_only_where_their_number_changed(
    study_date: str, count: int | None, asked: bool
) -> None:
    found = study("1", Expected("study", count), study_date)
    assert needs_a_look(found, 7, frozenset({date(2026, 2, 13), date(2026, 2, 14)})) is asked


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (StudyIncomplete("x"), True),
        (InstanceConflict("x"), True),
        (CountsUnknown("x"), True),
        (PacsSilent("x"), True),
        (PacsUnreachable("x"), False),
        (StorageFull("x"), False),
    ],
)
def test_what_meets_every_study_is_not_counted_against_one(error: MkisoError, counts: bool) -> None:
    assert says_something_of_the_study(error) is counts


def test_a_night_ends_after_three_studies_in_a_row_fail_for_reasons_not_theirs() -> None:
    theirs, no_pacs = StudyIncomplete("incomplete"), PacsUnreachable("no PACS")
    assert not is_hopeless([])
    assert not is_hopeless([no_pacs, no_pacs])
    assert not is_hopeless([theirs] * 20)
    assert not is_hopeless([no_pacs, no_pacs, theirs, no_pacs])
    assert is_hopeless([theirs, no_pacs, PacsUnreachable("no PACS"), no_pacs])


def failed(uid: str, attempts: int, study_date: str = "20260213") -> FailedStudy:
    return FailedStudy(uid, "A1", study_date, attempts, "study_incomplete", "words", datetime(2026, 2, 14, tzinfo=UTC))


def test_what_failed_is_tried_again_until_it_is_given_up() -> None:
    again = to_try_again([failed("1", 4), failed("2", 5), failed("3", 6)], 5, by_hand=None)
    assert again == {"1": Study("A1", "1", "", study_date="20260213")}


@pytest.mark.parametrize(
    ("study_date", "days", "tried"),
    [
        ("20260213", {date(2026, 2, 13)}, True),
        ("20260213", {date(2026, 2, 12)}, False),
        ("", {date(2026, 2, 12)}, True),
        ("2026021x", set(), True),
    ],
)
def test_who_asks_by_hand_tries_what_was_given_up_of_these_days_or_of_none(
    study_date: str, days: set[date], tried: bool
) -> None:
    assert bool(to_try_again([failed("1", 5, study_date)], 5, by_hand=days)) is tried


def test_the_images_of_a_night_are_counted_where_the_pacs_counts_them() -> None:
    studies = [study("1", named("1.1", "1.2")), study("2", Expected("study", 7))]
    assert plan(studies, {"1": frozenset({"1.1"})}, {}, 5).images == 1 + 7
    assert plan([*studies, study("3", Expected("none", None))], {}, {}, 5).images is None
    assert plan([], {}, {}, 5).images == 0


def test_studies_of_a_patient_follow_each_other() -> None:
    asked = [("3", "P2", "20260101"), ("2", "P1", "20260102"), ("1", "P2", "20251231"), ("4", "P1", "20260101")]
    studies = [Study("A1", uid, patient, study_date=day) for uid, patient, day in asked]
    assert [each.study_instance_uid for each in patient_by_patient(studies)] == ["4", "2", "1", "3"]
