"""What a PACS answered, counted as it was sent: cut, repeated, unusable and damaged answers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence

from mkiso.errors import DamagedInstance
from mkiso.network import dimse
from mkiso.sources.answers import (
    MAX_VALUE_BYTES,
    Answers,
    count_of,
    distinct,
    equal_accession,
    expected_from,
    found_by_date,
    level_of,
    read,
    series_counts_of,
    study_of,
)
from mkiso.study.models import Expected, Study
from peers.growth import check_growth

SERIES, IMAGE = 0x0020000E, 0x00080018


def answer(**attributes: object) -> dimse.Response:
    identifier = Dataset()
    for keyword, value in attributes.items():
        setattr(identifier, keyword, value)
    return dimse.Response(1, 0xFF00, identifier=dimse.encode_data_set(identifier))


def raw(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def hostile(identifier: bytes) -> dimse.Response:
    return dimse.Response(1, 0xFF00, identifier=identifier)


def images(*uids: str) -> list[dimse.Response]:
    return [answer(SOPInstanceUID=uid) for uid in uids]


def test_what_came_twice_is_counted_twice() -> None:
    """100 answers, one of them twice, and a limit of 100: one was cut off."""
    uids = [f"1.{number}" for number in range(99)]
    answers = Answers(images(*uids, uids[0]), 0, 100)
    assert (answers.sent, answers.at_limit) == (100, True)
    level = level_of(answers, IMAGE)
    assert level is not None and len(level.by_uid) == 99 and not level.sure
    assert not Answers(images(*uids), 0, 100).at_limit
    assert not Answers(images(*uids), 0, 0).at_limit
    assert Answers(images(*uids), 0, 50).at_limit


@pytest.mark.parametrize(
    ("uids", "status", "limit", "sure"),
    [
        (["1.1", "1.2"], 0, 0, True),
        (["1.1", "1.2"], 0, 3, True),
        (["1.1", "1.2"], 0, 2, False),
        (["1.1", "1.1"], 0, 0, False),
        ([], 0, 1, True),
    ],
)
def test_what_is_sure(uids: list[str], status: int, limit: int, sure: bool) -> None:
    level = level_of(Answers(images(*uids), status, limit), IMAGE)
    assert level is not None and (set(level.by_uid), level.sure) == (set(uids), sure)


@pytest.mark.parametrize(
    "answers",
    [
        Answers(images("1.1"), 0xA900),
        Answers([*images("1.1"), answer(SeriesInstanceUID="1.2")], 0),
        Answers([*images("1.1"), hostile(b"\x08\0")], 0),
    ],
)
def test_a_level_that_is_refused_or_names_no_uid_is_none(answers: Answers) -> None:
    assert level_of(answers, IMAGE) is None


def test_of_two_numbers_for_a_series_the_larger_counts() -> None:
    told = [("1.1", 3), ("1.2", None), ("1.1", 5), ("1.2", 2), ("1.1", None), ("1.3", None)]
    responses = [answer(SeriesInstanceUID=uid, NumberOfSeriesRelatedInstances=count) for uid, count in told]
    assert series_counts_of(Answers(responses, 0), SERIES) == {"1.1": 5, "1.2": 2, "1.3": None}


def listed(*uids: str) -> frozenset[str]:
    return frozenset(uids)


ONE_SERIES = {"1": listed("1.1", "1.2")}


@pytest.mark.parametrize(
    ("study_count", "series_counts", "sure", "unsure", "expected"),
    [
        (None, {"1": 2}, True, [], Expected("image", 2, ONE_SERIES)),
        (None, {"1": 2}, True, ["1"], Expected("image", 2, ONE_SERIES)),  # the series counts them
        (None, {"1": None}, True, [], Expected("image", 2, ONE_SERIES)),
        (None, {"1": None}, True, ["1"], Expected("none", None)),  # cut or repeated, and nobody counts
        (2, {"1": None}, True, ["1"], Expected("image", 2, ONE_SERIES)),  # the study counts them
        (3, {"1": None}, True, ["1"], Expected("study", 3)),
        (None, {"1": 3}, True, ["1"], Expected("series", 3)),
        (None, {"1": 2}, False, [], Expected("none", None)),  # another series may have been cut off
        (2, {"1": 2}, False, [], Expected("image", 2, ONE_SERIES)),
        (3, {"1": 2}, False, [], Expected("study", 3)),
        (3, {"1": 3}, False, [], Expected("series", 3)),
    ],
)
def test_what_may_have_been_cut_is_believed_only_where_the_level_above_counts_it(
    study_count: int | None, series_counts: dict[str, int | None], sure: bool, unsure: list[str], expected: Expected
) -> None:
    assert expected_from(study_count, series_counts, ONE_SERIES, sure=sure, unsure=unsure) == expected


def study(uid: str = "1.2.3", count: int | None = None, **attributes: str) -> Study:
    expected = Expected("none", None) if count is None else Expected("study", count)
    told: dict[str, Any] = {"accession_number": "A1", "study_instance_uid": uid, "patient_id": "P1", **attributes}
    return Study(**told, expected=expected)


def test_what_came_twice_is_one_and_the_largest_number_counts() -> None:
    assert distinct([study(count=3), study(), study(count=5), study(count=4)]) == [study(count=5)]
    assert distinct([study(), study()]) == [study()]
    assert distinct([study(count=3), study(count=0, patient_id="P2")]) == [
        study(count=3),
        study(count=3, patient_id="P2"),
    ]


def test_two_issuers_under_one_uid_stay_two() -> None:
    two = [study(issuer_of_patient_id="A"), study(issuer_of_patient_id="B"), study(issuer_of_patient_id="A")]
    assert equal_accession(two, "A1") == two[:2]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_by_date_every_answer_is_counted_and_none_is_passed_over() -> None:
    good, bad = (
        answer(StudyInstanceUID="1.2.3", AccessionNumber="A1"),
        answer(StudyInstanceUID="../x", AccessionNumber="A2"),
    )
    found = found_by_date(Answers([good, good, bad, hostile(b"\x08\0")], 0xA700))
    assert [each.accession_number for each in found.studies] == ["A1"]
    assert [each.accession_number for each in found.unusable] == ["A2", ""]
    assert (found.sent, found.status, found.cut) == (4, 0xA700, True)


@pytest.mark.parametrize(
    "text",
    ["", "-1", "1.5", "1e3", "abc", "1\\2", "9" * 13, "9" * 5000, "٣", "²", "0x10", "1_000"],
    ids=lambda text: text[:8].encode().hex(),
)
def test_what_is_no_count_counts_nothing(text: str) -> None:
    assert count_of(text) is None
    identifier = raw(0x0020000D, b"1.2.3\0") + raw(0x00201208, text.encode())
    assert study_of(read(hostile(identifier))).expected == Expected("none", None)


def test_counts() -> None:
    assert [count_of(text) for text in ("0", " 12 ", "9" * 12, 7, None)] == [0, 12, 999_999_999_999, 7, None]


NESTED = struct.pack("<HHI", 0x0008, 0x1110, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
DAMAGED = {
    "cut": b"\x08\0", "longer than it is": struct.pack("<HHI", 8, 5, 99_999) + b"x",
    "nested without end": NESTED * 100_000,
    "twice": raw(0x0020000D, b"1.2.3\0") * 2, "no alphabet": raw(0x00080005, b"hex ") + raw(0x00100010, b"A^B "),
    "a NUL": raw(0x00080005, b"ISO_IR\x00166 ") + raw(0x00100010, b"A^B "),
    "a name of megabytes": raw(0x00100010, b"^" * (MAX_VALUE_BYTES + 2)),
    "a sequence as a name": struct.pack("<HHI", 0x0010, 0x0010, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
}  # fmt: skip


@pytest.mark.parametrize("identifier", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_answer_is_damaged_and_nothing_else(identifier: bytes) -> None:
    with pytest.raises(DamagedInstance):
        read(hostile(identifier))
    assert hostile(identifier).uid(0x0020000D) == ""
    [nothing] = found_by_date(Answers([hostile(identifier)], 0)).unusable
    assert nothing.study_instance_uid == ""


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_else(identifier: bytes) -> None:
    for response in (hostile(identifier), hostile(raw(0x00080005, b"ISO_IR 166") + identifier)):
        response.uid(IMAGE)
        try:
            study_of(read(response))
        except DamagedInstance:
            continue


@pytest.mark.parametrize("undefined_length", [False, True])
def test_sequences_are_stepped_over(undefined_length: bool) -> None:
    identifier, item = Dataset(), Dataset()
    item.StudyInstanceUID = "9.9"
    identifier.StudyInstanceUID, identifier.ReferencedStudySequence = "1.2.3", Sequence([item])
    identifier["ReferencedStudySequence"].is_undefined_length = undefined_length
    response = hostile(dimse.encode_data_set(identifier))
    assert study_of(read(response)).study_instance_uid == response.uid(0x0020000D) == "1.2.3"


@pytest.mark.parametrize(
    "make",
    [
        lambda size: raw(0x00091001, b"x") * (size // 9),
        lambda size: NESTED * (size // 16),
        lambda size: raw(0x00100010, b"^" * size),
        lambda size: raw(0x00080061, b"\\" * size),
        lambda size: b"\0" * size,
    ],
)
def test_no_answer_costs_more_than_its_length(make: Callable[[int], bytes]) -> None:
    def read(response: dimse.Response) -> None:
        response.uid(IMAGE)
        found_by_date(Answers([response], 0))

    check_growth(read, 2_000_000, lambda size: hostile(make(size)))
