"""Rules of the project that no other tool checks."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
LONGEST = 79


def test_names_of_tests_are_under_80_characters() -> None:
    names = [
        name for file in TESTS.rglob("*.py") for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
    ]
    assert len(names) > 500
    assert [name for name in names if len(name) > LONGEST] == []
