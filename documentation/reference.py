"""The tables of docs/ that say what the code says: `make docs` writes them anew, a test holds them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from documentation import conformance
from mkiso.errors import kinds
from mkiso_service.api import HTTP_ERRORS

ROOT = Path(__file__).parents[1]
_TABLE = re.compile(r"(?<=<!-- table )(\w+) -->\n.*?(?=<!-- end -->)", re.DOTALL)


def error_table() -> str:
    """A row for each code."""
    of_kinds = (
        (each.code, each.http_status, "yes" if each.retriable else "", each.meaning, each.remedy) for each in kinds()
    )
    of_http = ((code, each.http_status, "", each.meaning, each.remedy) for code, each in HTTP_ERRORS.items())
    rows = (
        f"| `{code}` | {status} | {passes} | {meaning} | {remedy} |\n"
        for code, status, passes, meaning, remedy in (*of_kinds, *of_http)
    )
    return "| code | HTTP | may pass | what it means | what to do |\n|---|---|---|---|---|\n" + "".join(rows)


Tables = Mapping[str, Callable[[], str]]
PAGES: Mapping[Path, Tables] = {
    ROOT / "docs" / "errors.md": {"errors": error_table},
    ROOT / "docs" / "conformance.md": conformance.TABLES,
}
"""The pages that have such tables, each between `<!-- table NAME -->` and `<!-- end -->`."""


def with_tables(page: str, tables: Tables) -> str:
    """A page with each of its tables written anew. Raises KeyError for a table that nobody makes."""
    return _TABLE.sub(lambda found: f"{found[1]} -->\n{tables[found[1]]()}", page)


def tables_of(page: str) -> list[str]:
    """The names of a page's tables in their order."""
    return _TABLE.findall(page)


def main() -> int:
    for path, tables in PAGES.items():
        path.write_text(with_tables(path.read_text(encoding="utf-8"), tables), encoding="utf-8")
        print(f"{path.relative_to(ROOT)} written.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
