"""README.md and docs/ in step with the program: every error code is explained, every command is named, every link leads
somewhere.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from documentation import reference
from mkiso.errors import MkisoError, kinds
from mkiso_service.api import CODES, HTTP_ERRORS
from mkiso_service.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("deployments/**/*.md")])


def all_kinds(kind: type[MkisoError]) -> set[type[MkisoError]]:
    return {each for child in kind.__subclasses__() for each in (child, *all_kinds(child))}


@pytest.mark.parametrize("path", reference.PAGES, ids=lambda path: path.stem)
def test_the_tables_say_what_the_code_says(path: Path) -> None:
    """`make docs` writes them anew."""
    page = path.read_text(encoding="utf-8")
    assert page == reference.with_tables(page, reference.PAGES[path])
    assert sorted(reference.tables_of(page)) == sorted(reference.PAGES[path])


def test_every_error_code_is_explained_and_no_other() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    raised = {kind.code for kind in all_kinds(MkisoError) if kind.__module__ == "mkiso.errors" and "code" in vars(kind)}
    raised |= HTTP_ERRORS.keys()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == raised == set(CODES)
    assert all(kind.meaning and kind.remedy for kind in kinds())


def test_every_command_is_named() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert [name for name in cli.commands if not re.search(rf"\b{name}\b", page) and name != "version"] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not link.startswith("http") and not (page.parent / link).exists()] == []
