"""What is chosen: parsed strictly, found wholly, and part of what a disc is found by."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom import Dataset

from mkiso.config.disc import Identity
from mkiso.config.settings import Settings
from mkiso.errors import InstanceConflict, InvalidRequest, PatientMismatch, ProofFailed, SelectionNotFound
from mkiso.media.disc_set import lay_out_volumes
from mkiso.media.names import file_set_id
from mkiso.study.gate import CompleteStudies, Part, found
from mkiso.study.identity import shown_digest
from mkiso.study.models import Expected, Study, Volume
from mkiso.study.question import Question, run_name
from mkiso.study.selection import EVERYTHING, MAX_SERIES, Selection, numbers_of, parse_selection, selection_of
from mkiso.study.values import Found, Retrieved, StudyRetrieved
from tests.media.discs import CREATED
from tests.study.test_gate import instance

RULES = Identity()


def study(
    number: int, accession_number: str = "A1", series: int = 2, chosen: tuple[int, ...] = (), patient_id: str = "HN-1"
) -> Study:
    """Of `series` series with one instance each, as a PACS tells it of the chosen ones."""
    uid = f"1.2.{number}"
    told = {f"{uid}.{each}": frozenset({f"{uid}.{each}.1"}) for each in chosen or range(1, series + 1)}
    expected = Expected("image", len(told), told, series if chosen else 0)
    chosen_uids = tuple(f"{uid}.{each}" for each in chosen)
    return Study(accession_number, uid, patient_id, expected=expected, chosen=chosen_uids)


def found_of(numbers: tuple[str, ...], selection: Selection, *studies: Study) -> Found:
    return found(numbers, studies, [], RULES, degraded=False, selection=selection)


@pytest.mark.parametrize(
    ("studies", "series"),
    [
        (["1.2", "1.2\0"], []),
        (["1.2\n3"], []),
        ([], ["1.2 "]),
        ([], [""]),
        ([], ["1..2"]),
        ([], ["1.2*"]),
        ([], ["1.2\\1.3"]),
        ([], ["1.２"]),  # a digit, and not one of ASCII
        (["1." + "2" * 63], []),
        (["1.2.1", "1.2.2", "1.2.3"], []),
        ([], [f"1.2.{number}" for number in range(MAX_SERIES + 1)]),
        ([], [f"1.2.{number}" for number in range(10_000)]),
    ],
)
def test_what_is_no_uid_or_too_much_is_refused(studies: list[str], series: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        parse_selection(studies, series, 2)


def test_as_many_may_be_chosen_as_the_bound_says_and_no_more() -> None:
    uids = [f"1.2.{number}" for number in range(200)]
    assert len(parse_selection(["1.2", "1.3"], uids, 2).series) == 200
    with pytest.raises(InvalidRequest, match="At most 200 times series_uid"):
        parse_selection([], [*uids, "1.3"], 2)
    assert len(parse_selection(["1." + "2" * 62], [], 1).studies[0]) == 64


def test_the_order_of_uids_and_twice_the_same_mean_nothing() -> None:
    one = parse_selection(["1.3", "1.2", "1.3"], ["1.2.2", "1.2.1"], 5)
    assert (
        one
        == parse_selection(["1.2", "1.3"], ["1.2.1", "1.2.2", "1.2.1"], 5)
        == Selection(("1.2", "1.3"), ("1.2.1", "1.2.2"))
    )
    assert one == selection_of({"study_uids": ["1.3", "1.2"], "series_uids": ["1.2.2", "1.2.1"]})
    assert not EVERYTHING and EVERYTHING.written == "" and selection_of({}) == EVERYTHING
    written = {Selection((), ("1.2",)).written, Selection(("1.2",)).written, Selection(("1.2",), ("1.2",)).written, ""}
    assert len(written) == 4


def test_of_several_studies_the_chosen_remain_and_the_disc_is_a_part() -> None:
    whole = found_of(("A1",), EVERYTHING, study(1), study(2))
    one = found_of(("A1",), Selection(("1.2.2",)), study(1), study(2))
    assert [each.study_instance_uid for each in one.studies] == ["1.2.2"]
    assert (whole.is_part, one.is_part, found_of((), Selection(("1.2.2",)), study(2)).is_part) == (False, True, False)
    assert one.shown == whole.shown == shown_digest([study(1), study(2)])


def test_a_patient_of_what_is_left_out_counts_too() -> None:
    other = study(2, patient_id="HN-2")
    with pytest.raises(PatientMismatch):
        found_of(("A1",), Selection(("1.2.1",)), study(1), other)


@pytest.mark.parametrize(
    "selection",
    [
        Selection(("1.2.9",)),
        Selection((), ("1.2.9.1",)),
        Selection(("1.2.1",), ("1.2.2.1",)),
        Selection((), ("1.2.1.1", "1.2.9.1")),
    ],
)
def test_what_is_not_in_the_studies_found_makes_no_disc(selection: Selection) -> None:
    chosen = (1,) if "1.2.1.1" in selection.series else ()
    with pytest.raises(SelectionNotFound, match="isn't among"):
        found_of(
            ("A1",), selection, study(1, chosen=chosen), study(2, chosen=(1,) if "1.2.2.1" in selection.series else ())
        )


@pytest.mark.parametrize(
    ("absent", "words"),
    [
        ("1", r"study 1\.9\.1 isn't"),
        ("123", r"1\.9\.1, 1\.9\.2, 1\.9\.3 isn't"),
        ("12345", r"1\.9\.3 and 2 more isn't"),
    ],
)
def test_a_few_of_what_is_not_found_are_named(absent: str, words: str) -> None:
    uids = tuple(f"1.9.{each}" for each in absent)
    with pytest.raises(SelectionNotFound, match=words) as caught:
        found_of(("A1",), Selection(("1.2.1", *uids)), study(1))
    assert caught.value.details == {"absent": list(uids[:3])}


def test_what_was_stored_is_kept_for_the_same_studies_whoever_asks() -> None:
    one = found_of(("A1",), EVERYTHING, study(1))
    assert one.content == replace(one, degraded=("patient_api",), accession_numbers=()).content
    two, some = (
        found_of(("A1",), EVERYTHING, study(2)),
        found_of((), Selection((), ("1.2.1.1",)), study(1, chosen=(1,))),
    )
    assert len({one.content, two.content, some.content}) == 3


def test_a_number_of_which_nothing_is_chosen_is_no_name_for_a_disc() -> None:
    with pytest.raises(SelectionNotFound, match="Nothing of accession number A2"):
        found_of(("A1", "A2"), Selection(("1.2.1",)), study(1), study(2, "A2"))


def test_a_disc_of_a_selection_is_never_one_of_the_whole() -> None:
    whole = found_of(("A1",), EVERYTHING, study(1))
    by_uid, of_number = (found_of(numbers, Selection(("1.2.1",)), study(1)) for numbers in ((), ("A1",)))
    some = found_of(("A1",), Selection((), ("1.2.1.1",)), study(1, chosen=(1,)))
    one_more = replace(
        some, studies=(replace(some.studies[0], expected=replace(some.studies[0].expected, of_series=3)),)
    )
    assert len({each.fingerprint for each in (whole, by_uid, of_number, some, one_more)}) == 5


def test_a_disc_that_was_everything_is_not_given_where_it_is_a_part_by_now() -> None:
    chosen = Selection(("1.2.1",))
    before, now = found_of(("A1",), chosen, study(1)), found_of(("A1",), chosen, study(1), study(2))
    assert (before.is_part, now.is_part) == (False, True)
    assert before.fingerprint != now.fingerprint


def test_a_study_under_two_numbers_is_everything_of_both() -> None:
    assert len(found_of(("A1", "A2"), EVERYTHING, study(1), study(1, "A2")).studies) == 1


def complete(numbers: tuple[str, ...], selection: Selection, of: Study, *series: str) -> CompleteStudies:
    uid = of.study_instance_uid
    instances = tuple(
        instance(1, 1, SOPInstanceUID=f"{one}.1", SeriesInstanceUID=other, StudyInstanceUID=uid)
        for one, other in zip(of.expected.series, series, strict=True)
    )
    named = tuple(
        replace(each, arrival=replace(each.arrival, sop_instance_uid=str(each.header.SOPInstanceUID)))
        for each in instances
    )
    return CompleteStudies(Retrieved(found_of(numbers, selection, of), (StudyRetrieved(of, named),)), RULES)


def test_a_chosen_series_is_whole_by_itself() -> None:
    passed = complete(("A1",), Selection((), ("1.2.1.2",)), study(1, chosen=(2,)), "1.2.1.2")
    assert (passed.is_part, len(passed.instances), passed.selection.series) == (True, 1, ("1.2.1.2",))


def test_an_image_of_another_series_than_those_chosen_makes_no_disc() -> None:
    with pytest.raises(InstanceConflict, match="another series"):
        complete(("A1",), Selection((), ("1.2.1.2",)), study(1, chosen=(2,)), "1.2.1.1")


def test_other_series_than_were_found_are_not_what_was_found() -> None:
    of = study(1, chosen=(2,))
    retrieved = Retrieved(
        found_of(("A1",), Selection((), ("1.2.1.2",)), of), (StudyRetrieved(replace(of, chosen=()), ()),)
    )
    with pytest.raises(PatientMismatch, match="isn't what was found"):
        CompleteStudies(retrieved, RULES)


def test_no_volume_of_the_archive_has_less_than_whole_studies(tmp_path: object) -> None:
    passed = complete(("A1",), Selection((), ("1.2.1.2",)), study(1, chosen=(2,)), "1.2.1.2")
    with pytest.raises(ProofFailed, match="less than whole studies"):
        lay_out_volumes([Part.whole(passed)], [("V1", tmp_path)], Settings(), created=CREATED, medium="cd")  # type: ignore[list-item]


def test_a_study_without_a_number_is_named_by_its_uid() -> None:
    assert study(1, "").called == "Study Instance UID 1.2.1" and study(1).called == "accession number A1"
    with pytest.raises(PatientMismatch, match=r"none \(study 1\.2\.1\)"):
        found_of((), Selection(("1.2.1",)), study(1, "", patient_id=""))


def test_the_numbers_of_studies_are_told_once_each() -> None:
    assert numbers_of([study(1, "B"), study(2, "A"), study(3, ""), study(4, "A")]) == ("A", "B")


def test_the_name_of_a_part_says_so_within_sixteen_characters() -> None:
    assert file_set_id("A1", is_part=True) == "A1_SEL"
    assert file_set_id("ABCDEFGHIJKLMNOPQ", Volume(2, 3), is_part=True) == "ABCDEFG_SEL_2OF3"


def test_a_header_without_a_series_is_of_none_that_was_chosen() -> None:
    of = study(1, chosen=(2,))
    bare = instance(1, 1, SOPInstanceUID="1.2.1.2.1")
    del bare.header.SeriesInstanceUID
    named = replace(bare, arrival=replace(bare.arrival, sop_instance_uid="1.2.1.2.1"))
    assert isinstance(named.header, Dataset)
    with pytest.raises(InstanceConflict):
        CompleteStudies(
            Retrieved(found_of(("A1",), Selection((), ("1.2.1.2",)), of), (StudyRetrieved(of, (named,)),)),
            RULES,
        )


def test_a_run_is_named_by_what_it_was_asked_for() -> None:
    """The same in any order, and by UIDs where there are no numbers: their runs all had one name."""
    assert run_name("print", {"accession_numbers": ["B2", "A1"]}) == "Print A1, B2"
    many = [f"A{number}" for number in range(1, 8)]
    assert run_name("download", {"accession_numbers": many}) == "Disc A1, A2, A3, A4, A5 and 2 more"
    asked = Question("download", (), selection=Selection(("1.2.3",)))
    assert asked.run_name == run_name("download", asked.parameters) == "Disc by Study Instance UID 1.2.3"
    chosen = Question("download", ("A1",), selection=Selection((), ("1.2.3.4",)))
    assert chosen.run_name == "Disc A1 (selection)"
