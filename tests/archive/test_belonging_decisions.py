"""Which ledger may be used with which data directory and store: every case that both can be in."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from mkiso.archive.belonging import Known, Mark, Meeting, Shelf, StoreMark, meet, meet_store, read_mark, write_mark
from mkiso.errors import ArchiveUnusable

OLD = frozenset({"P1"})


@pytest.mark.parametrize(
    ("mark", "has_volumes", "ledger", "meeting"),
    [
        (Mark(), False, Known("", True, frozenset()), Meeting.FOUND),
        (Mark(), False, Known("", False, OLD), Meeting.FOUND),  # a ledger of an earlier version, a new machine
        (Mark("P1"), True, Known("", False, OLD), Meeting.FOUND),  # an upgrade
        (Mark("P2"), False, Known("", False, OLD), Meeting.FOUND),  # of a machine that made no volume yet
        (Mark("P1", "A"), True, Known("A", False, OLD), Meeting.SAME),
        (Mark("P2", "A"), True, Known("A", False, OLD), Meeting.SAME),
        (Mark(), False, Known("A", False, OLD), Meeting.JOIN),  # restored onto a new machine, or one more machine
        (Mark(), True, Known("A", False, OLD), Meeting.JOIN),  # and volumes were copied here first: none is removed
        (Mark("P1"), True, Known("A", False, OLD), Meeting.JOIN),
        (Mark("P2"), False, Known("A", False, OLD), Meeting.JOIN),
        (Mark("P1", "A"), True, Known("", False, OLD), Meeting.RETURN),  # a backup from before the upgrade
        (Mark("P1", "A"), True, Known("B", False, OLD), None),
        (Mark("P1", "A"), False, Known("B", False, OLD), None),
        (Mark("P1", "A"), False, Known("", True, frozenset()), None),  # the ledger was lost, or its URL changed
        (Mark("P2", "A"), False, Known("", False, OLD), None),
        (Mark("P1"), False, Known("", True, frozenset()), None),
        (Mark(), True, Known("", True, frozenset()), None),
        (Mark("P2"), True, Known("", False, OLD), None),
        (Mark("P2"), True, Known("A", False, OLD), None),
    ],
)
def test_a_ledger_and_a_data_directory(mark: Mark, has_volumes: bool, ledger: Known, meeting: Meeting | None) -> None:
    if meeting is None:
        with pytest.raises(ArchiveUnusable, match="Nothing was touched"):
            meet(mark, has_volumes, ledger)
    else:
        assert meet(mark, has_volumes, ledger) is meeting


def test_an_empty_ledger_never_meets_what_was_used_and_two_names_never_meet() -> None:
    for place, archive, has_volumes, id_, is_new, knows in product(
        ("", "P1"), ("", "A"), (True, False), ("", "A", "B"), (True, False), (True, False)
    ):
        if (archive and not place) or (is_new and (id_ or knows)):
            continue  # can't be
        try:
            meeting = meet(Mark(place, archive), has_volumes, Known(id_, is_new, OLD if knows else frozenset()))
        except ArchiveUnusable:
            continue
        assert not (archive and id_ and archive != id_)
        assert not (is_new and (archive or place or has_volumes))
        assert meeting is not Meeting.SAME or archive == id_
        assert not (archive and not id_) or knows


@pytest.mark.parametrize(
    ("mark", "shelf", "meeting"),
    [
        (StoreMark("S", "A"), Shelf(frozenset("12"), frozenset("1"), used=True), Meeting.SAME),
        (
            StoreMark("S", "A"),
            Shelf(frozenset(), frozenset("1"), used=True),
            Meeting.SAME,
        ),  # what is missing is said of each volume
        (StoreMark("S", "B"), Shelf(frozenset(), frozenset(), used=False), None),
        (StoreMark("S", "B"), Shelf(frozenset("1"), frozenset("1"), used=True), None),
        (None, Shelf(frozenset(), frozenset(), used=False), Meeting.JOIN),
        (None, Shelf(frozenset("12"), frozenset("1"), used=False), Meeting.RETURN),  # an upgrade
        (None, Shelf(frozenset(), frozenset("1"), used=False), None),  # an empty mount point
        (None, Shelf(frozenset(), frozenset(), used=True), None),
        (None, Shelf(frozenset("2"), frozenset("1"), used=True), None),
        (None, Shelf(frozenset("1"), frozenset(), used=False), None),  # another archive's, or another folder
    ],
)
def test_an_archive_and_its_store(mark: StoreMark | None, shelf: Shelf, meeting: Meeting | None) -> None:
    if meeting is None:
        with pytest.raises(ArchiveUnusable):
            meet_store(mark, "A", shelf)
    else:
        assert meet_store(mark, "A", shelf) is meeting


def test_a_mark_is_read_as_it_was_written_and_those_of_earlier_versions_too(tmp_path: Path) -> None:
    file = tmp_path / ".place"
    assert read_mark(file) == Mark()
    file.write_text("0123456789abcdef0123456789abcdef")
    assert read_mark(file) == Mark("0123456789abcdef0123456789abcdef")
    mark = Mark("P1", "A", 7, "A20260213_0007")
    write_mark(file, mark)
    assert read_mark(file) == mark
    file.write_text("")
    assert read_mark(file) == Mark()
    for damaged in ("{", '{"place": "P1", "else": 1}'):
        file.write_text(damaged)
        with pytest.raises(ArchiveUnusable, match="damaged"):
            read_mark(file)
