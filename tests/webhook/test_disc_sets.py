"""Which disc of a set a question leads to, and whom it refuses: pure decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mkiso.errors import JobNotFound, OtherSet, SeveralDiscs
from mkiso.formats.reuse import ToldSet
from mkiso.storage.shelf import Manifest
from mkiso_service.webhook.discs.disc_bytes import is_rest
from mkiso_service.webhook.discs.disc_sets import chosen, led_to, of_named_set, refuse_rest, set_entry

DISC = Manifest("d", "j", "2026-01-01T00:00:00+00:00", "V", "x.iso", ("A",), "f", 1000, "abc", 3, "cd")


def set_of(name: str, total: int) -> list[Manifest]:
    ids = [name, *(f"{name}-{number}" for number in range(2, total + 1))]
    return [
        replace(DISC, disc_id=disc_id, first_disc=name, number=number, total=total, sha256=f"{name}{number}")
        for number, disc_id in enumerate(ids, start=1)
    ]


def test_chosen() -> None:
    discs = set_of("s", 3)
    assert chosen([DISC], None, "j") is DISC
    assert chosen([DISC], 1, "j") is DISC
    assert chosen(discs, 3, "j") is discs[2]
    with pytest.raises(SeveralDiscs) as several:
        chosen(discs, None, "job")
    assert several.value.details == set_entry(discs, "job")
    for none, part in ((discs, 4), ([], None), ([], 1), ([DISC], 2)):
        with pytest.raises(JobNotFound):
            chosen(none, part, "j")


def test_a_set_as_it_is_told_of() -> None:
    told = set_entry(set_of("s", 2), "job")
    assert (told["set"], told["created"], told["total"], told["job_id"]) == ("s", DISC.created, 2, "job")
    assert told["job"] == "/api/iso/jobs/job" and told["accession_numbers"] == list(DISC.accession_numbers)
    assert told["parts"] == [
        {"part": 1, "size": 1000, "sha256": "s1", "href": "/api/iso/jobs/job/disc?part=1"},
        {"part": 2, "size": 1000, "sha256": "s2", "href": "/api/iso/jobs/job/disc?part=2"},
    ]


@pytest.mark.parametrize(
    ("total", "part", "known", "leads"),
    [
        (2, 1, set(), True),  # made just now, and begun
        (2, 2, set(), False),  # made just now: the first disc that the asker has is of another set
        (2, 1, {"new"}, True),
        (2, 2, {"new"}, True),  # the only set that there ever was
        (3, 3, {"new"}, True),
        (2, 1, {"new", "old"}, False),  # the asker may have a disc of the old one
        (2, 2, {"new", "old"}, False),
        (2, 1, {"old"}, False),
        (2, 2, {"old"}, False),
        (1, 2, {"old"}, False),  # the study has shrunk
        (1, 2, set(), False),
    ],
)
def test_a_question_leads_on_only_where_no_other_set_can_be_meant(
    total: int, part: int, known: set[str], leads: bool
) -> None:
    discs = set_of("new", total)
    if leads:
        assert led_to(discs, part, known) is discs[part - 1]
        return
    with pytest.raises(OtherSet, match="take every disc of one set"):
        led_to(discs, part, known)


def test_a_disc_that_no_set_has() -> None:
    with pytest.raises(JobNotFound):
        led_to(set_of("new", 2), 3, {"new"})
    with pytest.raises(JobNotFound):
        led_to(set_of("new", 1), 2, {"new"})


@pytest.mark.parametrize(
    ("headers", "rest"),
    [
        ({}, False),
        ({"range": "bytes=0-"}, False),
        ({"range": "bytes=0-9"}, False),
        ({"range": "bytes=1-9"}, True),
        ({"range": "bytes=-1"}, True),
        ({"range": "bytes=-1000"}, False),
        ({"range": "bytes=1000-"}, True),
        ({"range": "lines=1-"}, False),
        ({"range": "bytes=1-", "if-range": '"x"'}, False),
    ],
)
def test_the_rest_of_a_disc_needs_to_say_of_which(headers: dict[str, str], rest: bool) -> None:
    assert is_rest(headers, 1000) is rest
    if rest:
        with pytest.raises(OtherSet, match="If-Range"):
            refuse_rest(headers, set_of("new", 1)[0])
    else:
        refuse_rest(headers, set_of("new", 1)[0])


def test_who_names_a_set_gets_it_or_is_told() -> None:
    new, old = set_of("new", 2), set_of("old", 3)
    shelf: list[ToldSet] = [(new, "job of new"), (old, "job of old")]
    assert of_named_set(shelf, "new", None) == of_named_set(shelf, "new", 2) == (new, "job of new")
    assert of_named_set(shelf, "old", None) == (old, "job of old")
    with pytest.raises(OtherSet, match="newer set"):
        of_named_set(shelf, "old", 1)
    assert of_named_set(shelf[1:], "old", 1) == (old, "job of old")
    for part in (None, 1):
        with pytest.raises(OtherSet, match="isn't kept"):
            of_named_set(shelf, "gone", part)
        with pytest.raises(OtherSet, match="isn't kept"):
            of_named_set([], "new", part)
