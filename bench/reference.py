"""The tables of docs/ that say what the code says: `make docs` writes them anew, a test holds them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mkiso import errors
from mkiso.errors import MkisoError

ROOT = Path(__file__).parents[1]
ERRORS = ROOT / "docs" / "errors.md"
_TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end -->)", re.DOTALL)


def kinds() -> Iterator[type[MkisoError]]:
    """Every kind of error that has a code, in the order of mkiso/errors.py."""
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, MkisoError) and "code" in vars(kind) and kind is not MkisoError:
            yield kind


def error_table() -> str:
    """A row for each kind of error."""
    rows = (
        f"| `{kind.code}` | {kind.http_status} | {'yes' if kind.retriable else ''} | {kind.meaning} | {kind.remedy} |\n"
        for kind in kinds()
    )
    return "| code | HTTP | tried again | what it means | what to do |\n|---|---|---|---|---|\n" + "".join(rows)


def with_table(page: str, table: str) -> str:
    """A page with its table exchanged."""
    return _TABLE.sub(lambda _: table, page)


def main() -> int:
    ERRORS.write_text(with_table(ERRORS.read_text(encoding="utf-8"), error_table()), encoding="utf-8")
    print(f"{ERRORS.relative_to(ROOT)} written.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
