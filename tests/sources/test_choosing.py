"""Which source a study is taken from, and what the others tell of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mkiso.config.settings import Settings
from mkiso.config.sources import Origin
from mkiso.errors import (
    CountsUnknown,
    MkisoError,
    PatientApiUnavailable,
    PatientMismatch,
    SelectionNotFound,
    StudyIncomplete,
)
from mkiso.sources.choosing import FoundStudies, chosen, differs, found_together
from mkiso.study import gate
from mkiso.study.models import Expected, Patient, Study
from mkiso.study.selection import Selection

UID = "1.2.3"
NORTH, SOUTH = {"issuer_of_patient_id": "NORTH"}, {"issuer_of_patient_id": "SOUTH"}
SHARED, OTHER = "region", "abroad"


def copy(source: str, *instances: str, **told: Any) -> Study:
    """What a source tells of one study; its instances are listed."""
    listed = Expected("image", len(instances), {"1.2": frozenset(instances)})
    return replace(Study("A1", UID, "P1", "Doe^John", origin=Origin(source), expected=listed), **told)


def counted(source: str, count: int | None, *, require_counts: bool = True, **told: Any) -> Study:
    expected = Expected("none", None) if count is None else Expected("study", count)
    return copy(source, origin=Origin(source, require_counts=require_counts), expected=expected, **told)


@pytest.mark.parametrize(
    ("copies", "taken", "degraded"),
    [
        ([copy("a", "1", "2")], "a", ()),
        ([copy("a", "1", "2"), copy("b", "2", "1")], "a", ()),
        ([copy("a", "1"), copy("b", "1", "2")], "b", ("sources_differ:a",)),
        ([copy("a", "1", "2"), copy("b", "1")], "a", ("sources_differ:b",)),
        ([copy("a"), copy("b", "1"), copy("c", "1")], "b", ("sources_differ:a",)),
        ([counted("a", 1), copy("b", "1", "2"), counted("c", 2)], "b", ("sources_differ:a",)),
        ([counted("a", 3), counted("b", 3)], "a", ()),
        ([counted("a", None, require_counts=False), copy("b", "1")], "b", ("sources_differ:a",)),
        ([counted("a", None, require_counts=False)], "a", ()),
        ([copy("a", "1"), copy("b", "1", patient_name="Doe^Jane")], "a", ("sources_differ:b",)),
        ([copy("a", "1"), copy("b", "1", study_description="Head")], "a", ()),
        ([copy("a", "1", study_description="Head"), copy("b", "1")], "a", ()),
        ([copy("a", "1"), copy("b", "1", modalities_in_study=("CT",))], "a", ()),
        ([copy("a", "1", study_date="20240101"), copy("b", "1", study_date="20240102")], "a", ("sources_differ:b",)),
    ],
)
def test_a_study_is_taken_from_the_first_that_has_it_wholly(
    copies: list[Study], taken: str, degraded: tuple[str, ...]
) -> None:
    found = chosen(copies)
    assert ([study.origin.source for study in found.studies], found.degraded) == ([taken], degraded)


@pytest.mark.parametrize(
    ("copies", "listed_elsewhere"),
    [
        ([counted("a", 2), copy("b", "2", "1")], ("1", "2")),
        ([counted("a", 3), copy("b", "1"), copy("c", "2")], ("1", "2")),
        ([copy("b", "1"), counted("a", 3, listed_elsewhere=("2",))], ("1", "2")),
        ([copy("b", "1", "2"), counted("a", 2)], ()),
        ([counted("a", 2), counted("b", 2)], ()),
    ],
)
def test_what_one_source_lists_has_to_be_among_what_another_only_counts(
    copies: list[Study], listed_elsewhere: tuple[str, ...]
) -> None:
    [taken] = chosen(copies).studies
    assert taken.listed_elsewhere == listed_elsewhere


@pytest.mark.parametrize(
    ("copies", "error", "words"),
    [
        ([copy("a", "1", "2"), copy("b", "2", "3")], StudyIncomplete, r"\(a 2, b 2, together 3\)"),
        ([copy("a", "1", "2"), copy("b", "2", "3")], StudyIncomplete, r"a lacks 3\. b lacks 1\. Have"),
        ([copy("a", *"123456"), copy("b", "7")], StudyIncomplete, r"a lacks 7\. b lacks 1, 2, 3 and 3 more\. Have"),
        ([copy("a", "1", "2", "3"), copy("b", "4")], StudyIncomplete, r"b lacks 1, 2, 3\. Have"),
        ([copy("a", "1", "2"), counted("b", 3)], None, ""),
        ([counted("a", None)], None, ""),
        ([copy("a", "1", "2"), copy("b", "3"), counted("c", 2)], StudyIncomplete, "a 2, b 1, c 2"),
        ([copy("a", "1"), counted("b", None)], CountsUnknown, r"sources\.b\.require_counts"),
        ([copy("a", "1"), copy("b", "1", patient_id="P2")], PatientMismatch, r"one source and another's in another"),
        (
            [copy("a", "1", issuer_of_patient_id="N"), copy("b", "1", issuer_of_patient_id="S")],
            PatientMismatch,
            r"\(a and b\)",
        ),
        ([copy("a", "1", issuer_of_patient_id="N"), copy("b", "1")], None, ""),
        ([copy("", "1"), copy("", "1", patient_id="P2")], PatientMismatch, r"more than one patient in the PACS\. Have"),
    ],
)
def test_what_nobody_has_wholly_or_two_have_of_two_patients_is_nobodys_disc(
    copies: list[Study], error: type[MkisoError] | None, words: str
) -> None:
    if error is None:
        assert len(chosen(copies).studies) == 1
    else:
        with pytest.raises(error, match=words):
            chosen(copies)


def test_where_nobody_has_all_it_is_said_how_many_there_are() -> None:
    with pytest.raises(StudyIncomplete, match="images of accession number A1") as caught:
        chosen([copy("a", "1", "2"), copy("b", "2", "3", accession_number="B1")])
    assert caught.value.details == {"accession_number": "A1", "expected": 3}


def test_a_study_chosen_by_its_uid_is_taken_from_who_has_it_wholly_too() -> None:
    found = chosen([copy("a", "1"), copy("b", "1", "2")], selection=Selection((UID,)))
    assert ([study.origin.source for study in found.studies], found.degraded) == (["b"], ("sources_differ:a",))


def test_sources_that_list_other_images_differ_whatever_their_number() -> None:
    assert differs(copy("a", "1"), copy("b", "2"))
    assert not differs(copy("a", "1"), copy("b", "1"))


def test_sources_that_name_other_modalities_differ_and_their_order_means_nothing() -> None:
    def of(*modalities: str) -> Study:
        return replace(copy("a", "1"), modalities_in_study=modalities)

    assert differs(of("CT"), of("CT", "SR"))
    assert not differs(of("CT", "SR"), of("SR", "CT"))
    assert not differs(of("CT"), of())


def test_of_chosen_series_that_one_cannot_count_the_one_that_lists_them_is_taken() -> None:
    series = ("1.2.3.1",)
    untold = replace(counted("a", None, require_counts=False), chosen=series)
    found = chosen([untold, copy("b", "1", chosen=series)], selection=Selection((), series))
    assert [study.origin.source for study in found.studies] == ["b"]


def test_a_disc_is_made_without_the_patient_api_only_where_that_is_told() -> None:
    answers, known = [FoundStudies((copy("a", "1"),))], Patient("P1")
    cases: list[tuple[list[Patient | PatientApiUnavailable | None], tuple[str, ...]]] = [
        ([PatientApiUnavailable("x"), known], ("patient_api",)),
        ([None, known], ()),
        ([], ()),
    ]
    for looked_up, degraded in cases:
        found = found_together(("A1",), answers, looked_up, Settings().identity)
        assert (found.degraded, found.patient) == (degraded, known if looked_up else None)


def test_a_source_without_the_chosen_series_isnt_taken_for_its_whole_study() -> None:
    some, whole = copy("a", "1", chosen=("1.2.3.1",)), copy("b", "2", "3", "4")
    found = chosen([whole, some], selection=Selection((), ("1.2.3.1",)))
    assert [study.origin.source for study in found.studies] == ["a"]


@pytest.mark.parametrize("count", [None, 9])
def test_a_source_that_tells_no_series_may_have_more_of_the_chosen_ones(count: int | None) -> None:
    copies = [copy("a", "1", chosen=("1.2.3.1",)), counted("b", count, require_counts=False)]
    with pytest.raises(CountsUnknown, match="b has"):
        chosen(copies, selection=Selection((), ("1.2.3.1",)))


def test_each_of_two_sources_with_one_of_two_chosen_series_is_none() -> None:
    copies = [copy("a", "1", chosen=("1.2.3.1",)), copy("b", "2", chosen=("1.2.3.2",))]
    with pytest.raises(StudyIncomplete):
        chosen(copies, selection=Selection((), ("1.2.3.1", "1.2.3.2")))


def test_images_of_a_chosen_series_count_in_a_source_with_fewer_series() -> None:
    both, one = copy("a", "1", "9", chosen=("1.2.3.1", "1.2.3.2")), copy("b", "1", "2", chosen=("1.2.3.1",))
    with pytest.raises(StudyIncomplete):
        chosen([both, one], selection=Selection((), ("1.2.3.1", "1.2.3.2")))
    less = copy("b", "1", chosen=("1.2.3.1",))
    found = chosen([less, both], selection=Selection((), ("1.2.3.1", "1.2.3.2")))
    assert [study.origin.source for study in found.studies] == ["a"]


def test_a_study_that_isnt_chosen_needs_to_be_whole_nowhere_and_is_of_one_patient() -> None:
    copies = [counted("a", None), counted("b", None)]
    other = Selection(("9.9",))
    assert [study.origin.source for study in chosen(copies, selection=other).studies] == ["a"]
    with pytest.raises(PatientMismatch):
        chosen([copies[0], replace(copies[1], patient_id="P2")], selection=other)


@pytest.mark.parametrize(
    ("first", "second", "domains", "is_one"),
    [
        ({}, {}, ("", ""), False),
        (NORTH, NORTH, ("", ""), True),
        (NORTH, SOUTH, ("", ""), False),
        (NORTH, SOUTH, (SHARED, SHARED), False),
        (NORTH, {}, ("", ""), False),
        (NORTH, {}, (SHARED, SHARED), True),
        ({}, {}, (SHARED, SHARED), True),
        ({}, {}, (SHARED, OTHER), False),
        ({}, {}, (SHARED, ""), False),
    ],
)
def test_a_patient_id_of_two_sources_is_one_patient_by_issuer_or_domain_alone(
    first: dict[str, str], second: dict[str, str], domains: tuple[str, str], is_one: bool
) -> None:
    studies = [
        copy("a", "1", **first, origin=Origin("a", domains[0])),
        copy("b", "2", **second, origin=Origin("b", domains[1]), study_instance_uid="1.2.4"),
    ]
    if is_one:
        assert gate.found(("A1",), studies, [], Settings().identity, degraded=False).studies == tuple(studies)
    else:
        with pytest.raises(PatientMismatch):
            gate.found(("A1",), studies, [], Settings().identity, degraded=False)


@pytest.mark.parametrize("numbers", [("A1", "B1"), ("B1", "A1")])
def test_a_study_of_two_numbers_is_taken_whole_whichever_is_asked_last(numbers: tuple[str, str]) -> None:
    """Each source has a number of its own for it, and is asked for its own numbers alone."""
    issuer: dict[str, Any] = {"issuer_of_patient_id": "HOSPITAL"}
    of_number = {"A1": copy("a", "1", "2", **issuer), "B1": copy("b", "1", accession_number="B1", **issuer)}
    answers = [chosen([of_number[number]]) for number in numbers]
    found = found_together(numbers, answers, [], Settings().identity)
    assert [(study.origin.source, study.expected.count) for study in found.studies] == [("a", 2)]
    assert found.degraded == ("sources_differ:b",)
    told = found_together(numbers, answers, [], Settings().identity, Selection((UID,)))
    assert [study.origin.source for study in told.studies] == ["a"]
    with pytest.raises(SelectionNotFound, match="C1"):
        found_together((*numbers, "C1"), answers, [], Settings().identity, Selection((UID,)))
    others = [chosen([copy(name, uid, **issuer)]) for name, uid in (("a", "1"), ("b", "2"))]
    with pytest.raises(StudyIncomplete):
        found_together(numbers, others, [], Settings().identity)


@pytest.mark.parametrize("numbers", [("A1", "B1"), ("B1", "A1")])
def test_what_one_source_lists_under_one_number_counts_for_each_of_the_study(numbers: tuple[str, str]) -> None:
    """One source lists images under the first number alone; the study is had from one that only counts."""
    issuer: dict[str, Any] = {"issuer_of_patient_id": "HOSPITAL"}
    counts, lists = counted("a", 3, **issuer), copy("b", "1", "2", **issuer)
    of_number = {"A1": chosen([counts, lists]), "B1": chosen([replace(counts, accession_number="B1")])}
    found = found_together(numbers, [of_number[number] for number in numbers], [], Settings().identity)
    assert [(study.origin.source, study.listed_elsewhere) for study in found.studies] == [("a", ("1", "2"))]
    of_number["B1"] = chosen([copy("c", "1", "3", "4", accession_number="B1", **issuer), counts])
    with pytest.raises(StudyIncomplete, match="together 4"):
        found_together(numbers, [of_number[number] for number in numbers], [], Settings().identity)


@pytest.mark.parametrize("numbers", [("A1", "B1"), ("B1", "A1")])
def test_what_another_lists_counts_where_a_source_lists_once_and_counts_once(
    numbers: tuple[str, str],
) -> None:
    """Under the first number it lists what it has, under the second it only counts: whichever answer is taken."""
    issuer: dict[str, Any] = {"issuer_of_patient_id": "HOSPITAL"}
    counts = counted("a", 2, accession_number="B1", **issuer)
    of_number = {
        "A1": chosen([copy("a", "1", "2", **issuer)]),
        "B1": chosen([counts, copy("b", "1", "2", **issuer)]),
    }
    [taken] = found_together(numbers, [of_number[number] for number in numbers], [], Settings().identity).studies
    assert {"1", "2"} == {*taken.listed_elsewhere, *(taken.expected.instances or ())}
