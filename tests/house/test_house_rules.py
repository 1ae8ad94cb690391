"""Rules of the project that no other tool checks."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PRODUCT = [TESTS.parent / room for room in ("mkiso", "mkiso_service", "flows", "tasks")]
LONGEST = 79


def test_names_of_tests_are_under_80_characters() -> None:
    names = [
        name for file in TESTS.rglob("*.py") for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
    ]
    assert len(names) > 500
    assert [name for name in names if len(name) > LONGEST] == []


def test_every_python_that_is_started_leaves_the_working_folder_out() -> None:
    """With -m or -c Python looks for modules in the working folder first, whoever may write there; -P forbids it."""
    starts = [
        (file.name, after)
        for room in PRODUCT
        for file in room.rglob("*.py")
        for after in re.findall(r"[\[(]sys\.executable,([^\])]*)", file.read_text(encoding="utf-8"))
    ]
    assert len(starts) >= 4
    assert [start for start in starts if not start[1].startswith(' "-P", ')] == []
