"""README.md in step with the program: every error code is explained, every command is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mkiso.errors import MkisoError
from mkiso_service.cli import cli

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def kinds_of(kind: type[MkisoError]) -> Iterator[type[MkisoError]]:
    for child in kind.__subclasses__():
        yield child
        yield from kinds_of(child)


def test_every_error_code_is_explained_and_no_other() -> None:
    table = README.split("| code |")[1].split("\n\n")[0]
    explained = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    raised = {kind.code for kind in kinds_of(MkisoError) if kind.__module__ == "mkiso.errors" and "code" in vars(kind)}
    assert sorted(explained) == sorted(raised)


def test_every_command_is_named() -> None:
    assert [name for name in cli.commands if not re.search(rf"\b{name}\b", README) and name != "version"] == []


def test_every_link_leads_somewhere() -> None:
    root = Path(__file__).parents[2]
    assert [
        link
        for link in re.findall(r"\]\(([^)#]+)\)", README)
        if not link.startswith("http") and not (root / link).exists()
    ] == []
