"""Rules of the project that no other tool checks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
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


def literals(file: Path) -> Iterator[str]:
    """The text in a module that isn't a docstring."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_words_count_in_singular_and_plural_and_sizes_in_gigabytes() -> None:
    """`count_words` says 1 file and 2 files, `size_words` 5.4 GB."""
    words = [text for room in PRODUCT for file in room.rglob("*.py") for text in literals(file)]
    assert any("The image is not used" in text for text in words)
    assert [text for text in words if re.search(r"[a-z]\(s\)|\b[KMG]iB\b", text)] == []
