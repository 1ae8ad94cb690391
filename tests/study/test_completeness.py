"""Whether everything arrived."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mkiso.config.sources import Origin
from mkiso.errors import CountsUnknown, NoDicomData, StudyIncomplete
from mkiso.study.completeness import (
    RETRY_HINT,
    complete,
    incomplete,
    is_complete,
    missing,
    provable,
    unexpected,
    unlisted,
    unproved,
    untold,
)
from mkiso.study.models import Expected, Study

LISTED = Expected("image", 3, {"1": frozenset({"1.1", "1.2"}), "2": frozenset({"2.1"})})
COUNTED = Expected("series", 3)
UNKNOWN = Expected("none", None)


def study(expected: Expected) -> Study:
    return Study("A1", "1.2.3", "HN-1", "Canary^Name", expected=expected)


def test_what_is_listed_and_what_isnt() -> None:
    assert missing(LISTED, {"1.1", "9"}) == {"1.2", "2.1"}
    assert unexpected(LISTED, {"1.1", "9"}) == {"9"}
    assert missing(COUNTED, {"1.1"}) == frozenset()
    assert unexpected(COUNTED, {"1.1"}) == frozenset()


@pytest.mark.parametrize(
    ("expected", "arrived", "whole"),
    [
        (LISTED, {"1.1", "1.2", "2.1"}, True),
        (LISTED, {"1.1", "1.2", "9"}, False),
        (LISTED, set(), False),
        (COUNTED, {"a", "b", "c"}, True),
        (COUNTED, {"a", "b"}, False),
        (UNKNOWN, {"a", "b"}, False),
    ],
)
def test_nothing_more_is_to_come(expected: Expected, arrived: set[str], whole: bool) -> None:
    assert is_complete(expected, arrived) is whole


@pytest.mark.parametrize(("expected", "arrived"), [(LISTED, {"1.1", "1.2", "2.1"}), (COUNTED, {"a", "b", "c"})])
def test_a_whole_study_passes(expected: Expected, arrived: set[str]) -> None:
    complete(study(expected), arrived, require_counts=True)


def test_what_another_source_lists_is_among_what_came() -> None:
    counted = replace(study(COUNTED), origin=Origin("old"), listed_elsewhere=("a", "d", "e"))
    with pytest.raises(
        StudyIncomplete, match=r"^old sent as many images of accession number A1 .* not 2 that"
    ) as error:
        complete(counted, {"a", "b", "c"}, require_counts=True)
    told = {"accession_number": "A1", "expected": 3, "missing": 2, "missing_sop_instance_uids": ["d", "e"]}
    assert error.value.details == told
    complete(replace(counted, listed_elsewhere=("a", "b")), {"a", "b", "c"}, require_counts=True)


def test_a_missing_instance_is_counted_and_named() -> None:
    with pytest.raises(StudyIncomplete, match="2 of the 3 images of accession number A1") as refused:
        complete(study(LISTED), {"1.1"}, require_counts=True)
    assert refused.value.details["missing_sop_instance_uids"] == ["1.2", "2.1"]


def test_only_a_few_are_named() -> None:
    many = Expected("image", 1000, {"1": frozenset(f"1.{number}" for number in range(1000))})
    with pytest.raises(StudyIncomplete, match="1000 of the 1000") as refused:
        complete(study(many), set(), require_counts=True)
    named = refused.value.details["missing_sop_instance_uids"]
    assert isinstance(named, list) and len(named) == 5


def test_of_a_single_image_no_number_is_said() -> None:
    with pytest.raises(StudyIncomplete, match=r"^The only image of accession number A1 didn't arrive"):
        complete(study(Expected("image", 1, {"1": frozenset({"1.1"})})), set(), require_counts=True)


def test_too_few_by_count() -> None:
    with pytest.raises(StudyIncomplete, match="1 of the 3"):
        complete(study(COUNTED), {"a", "b"}, require_counts=False)


@pytest.mark.parametrize(
    ("expected", "arrived"), [(LISTED, {"1.1", "1.2", "2.1", "9"}), (COUNTED, {"a", "b", "c", "d"})]
)
def test_one_more_than_listed_means_that_the_study_changed(expected: Expected, arrived: set[str]) -> None:
    with pytest.raises(StudyIncomplete, match="changed"):
        complete(study(expected), arrived, require_counts=True)


def test_more_than_counted_passes_where_counts_arent_required() -> None:
    complete(study(COUNTED), {"a", "b", "c", "d"}, require_counts=False)


@pytest.mark.parametrize(("expected", "arrived"), [(LISTED, {"1.1", "1.2", "2.1"}), (COUNTED, {"a", "b", "c"})])
def test_fewer_than_the_pacs_counts_to_send_are_no_disc(expected: Expected, arrived: set[str]) -> None:
    complete(study(expected), arrived, require_counts=True, counted=3)
    for require_counts in (True, False):
        with pytest.raises(
            StudyIncomplete, match="lists 3 images of accession number A1 and counts 4 to send"
        ) as refused:
            complete(study(expected), arrived, require_counts=require_counts, counted=4)
    assert refused.value.details["counted"] == 4
    complete(study(COUNTED), {"a", "b", "c", "d"}, require_counts=False, counted=4)
    with pytest.raises(StudyIncomplete, match="sent 1 images"):
        complete(study(UNKNOWN), {"a"}, require_counts=False, counted=2)


@pytest.mark.parametrize("source", ["image", "series", "study"])
def test_an_empty_study_has_no_dicom_data(source: str) -> None:
    with pytest.raises(NoDicomData, match="no DICOM data"):
        provable(study(Expected(source, 0)), require_counts=False)  # type: ignore[arg-type]


def test_nothing_known_is_refused_unless_allowed() -> None:
    with pytest.raises(CountsUnknown, match=r"pacs\.require_counts"):
        provable(study(UNKNOWN), require_counts=True)
    with pytest.raises(CountsUnknown):
        complete(study(UNKNOWN), {"a"}, require_counts=True)
    complete(study(UNKNOWN), {"a"}, require_counts=False)
    with pytest.raises(NoDicomData):
        complete(study(UNKNOWN), set(), require_counts=False)


def test_a_stranger_among_the_listed_is_named_whatever_is_required() -> None:
    with pytest.raises(StudyIncomplete, match="changed") as refused:
        complete(study(LISTED), {"1.1", "1.2", "2.1", "9"}, require_counts=False)
    assert refused.value.details["unexpected_sop_instance_uids"] == ["9"]


def test_a_stranger_doesnt_stand_in_for_a_missing_instance() -> None:
    with pytest.raises(StudyIncomplete, match=r"^1 of the 3") as refused:
        complete(study(LISTED), {"1.1", "1.2", "9"}, require_counts=True)
    assert refused.value.details["missing"] == 1


def test_what_nobody_counted_isnt_counted_in_words() -> None:
    assert incomplete(study(UNKNOWN), set()).words.startswith("Images of accession number A1 didn't arrive")


def test_why_images_that_came_prove_nothing_is_said_with_what_to_do() -> None:
    told_less, failed, asked = untold(study(LISTED)), unproved(study(COUNTED)), unproved(study(COUNTED), "Ask X.")
    assert "no longer tells" in told_less.words and told_less.words.endswith(RETRY_HINT)
    assert failed.words.startswith("3 images of accession number A1 arrived") and failed.words.endswith(RETRY_HINT)
    assert asked.words.endswith("No disc was made. Ask X.")
    for count, named in ((1, "1 image more"), (2, "2 images more")):
        refused = unlisted(study(LISTED), count, "No room.")
        assert refused.words.startswith(f"{named} of accession number A1 came") and "(No room)" in refused.words
        assert (refused.details["expected"], refused.details["unlisted"]) == (3, count)
