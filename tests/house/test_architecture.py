"""The drawn house: imports lead downwards, in no circle, and docs/architecture.svg shows the code as it is."""

from __future__ import annotations

import pytest

from documentation.architecture import PICTURE, arrows_of, floors_of, picture, shown


def test_the_picture_is_of_the_code_as_it_is() -> None:
    """`make docs` draws it anew."""
    assert PICTURE.read_text(encoding="utf-8") == picture(arrows_of())


def test_no_room_imports_one_above_it() -> None:
    arrows = arrows_of()
    floors = floors_of(arrows)
    assert all(floors[room] > floors[other] for room, others in arrows.items() for other in others)


def test_rooms_that_import_each_other_are_named() -> None:
    with pytest.raises(ValueError, match="b → c → b"):
        floors_of({"a": {"b"}, "b": {"c"}, "c": {"b"}})


def test_an_arrow_that_another_way_tells_is_left_out() -> None:
    assert shown({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}
