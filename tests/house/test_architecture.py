"""The drawn house: imports lead downwards, in no circle, and docs/architecture.svg shows the code as it is."""

from __future__ import annotations

import re
from pathlib import Path

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


def test_each_class_that_somebody_is_to_build_upon_is_there() -> None:
    root = Path(__file__).parents[2]
    part = (root / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## How to add")[2]
    named = set(re.findall(r"`([A-Z][a-z]\w+)`", part.partition("\n## ")[0]))
    files = [file for room in ("mkiso", "mkiso_service") for file in (root / room).rglob("*.py")]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    defined = set(re.findall(r"^(?:class )?([A-Z]\w+)", code, re.MULTILINE))
    assert len(named) > 5 and named <= defined, named - defined
