"""docs/operating.md in step with the program: every error code has a line that says what to do, every key that it names
exists.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkiso.config.settings import Settings
from mkiso.errors import kinds

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "operating.md").read_text(encoding="utf-8")


def test_every_error_code_has_one_line() -> None:
    table = GUIDE.split("| codes |")[1].split("\n\n")[0]
    told = [
        code
        for row in table.splitlines()
        if row.startswith("| `")
        for code in re.findall(r"`(\w+)`", row.split("|")[1])
    ]
    assert sorted(told) == sorted(kind.code for kind in kinds())


def test_every_key_that_it_names_exists() -> None:
    sections = Settings.model_fields
    named = [(section, key) for section, key in re.findall(r"`(\w+)\.(\w+)\b", GUIDE) if section in sections]
    assert len(named) > 10
    assert [
        pair for pair in named if pair[1] not in type(getattr(Settings(), pair[0])).model_fields and pair[1] != "conf"
    ] == []


def test_links_and_files_are_there() -> None:
    for page in ("operating.md", "changeover.md"):
        text = (DOCS / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert (DOCS / link).exists(), link
        for file in re.findall(r"`(deployments/[\w./-]+)`", text):
            assert (DOCS.parent / file).exists(), file
