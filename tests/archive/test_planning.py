"""Which studies a night owes."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mkiso.archive.planning import is_complete, is_hopeless, needs_a_look, plan, says_something_of_the_study
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
    assert (work.wanted, work.supplement) == (frozenset({"1.1", "1.2"}), False)


def test_of_a_study_that_has_grown_the_new_instances_are_a_supplement() -> None:
    (work,) = plan([study("1", named("1.1", "1.2"))], {"1": frozenset({"1.1"})}, {}, 5).to_archive
    assert (work.wanted, work.supplement) == (frozenset({"1.2"}), True)


def test_a_study_that_lost_instances_in_the_pacs_is_complete() -> None:
    assert plan([study("1", named("1.1"))], {"1": frozenset({"1.1", "1.2"})}, {}, 5).complete


def test_counts_decide_where_the_pacs_names_nothing() -> None:
    grown, same = Expected("series", 3), Expected("study", 2)
    archived = {"1": frozenset({"1.1", "1.2"}), "2": frozenset({"2.1", "2.2"})}
    night = plan([study("1", grown), study("2", same)], archived, {}, 5)
    assert [(work.study.study_instance_uid, work.wanted, work.supplement) for work in night.to_archive] == [
        ("1", None, True)
    ]
    assert [found.study_instance_uid for found in night.complete] == ["2"]


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
