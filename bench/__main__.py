"""`python -m bench [--rows KEY …] [--runs N] [--full]`: measures, and writes docs/performance.md when every row was
measured.

A key is a row's (`storescu-ct`) or a group's (`storescu`, `move`, `window`, `sources`, `disc`, `disc-dx`, `formats`,
`formats-large`, `pictures`, `media`, `start`, `scaling`, `jobs`, `limit`, `small-jobs`, `memory`,
`history`, `reports`, `group`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.discs import (
    disc_rows,
    formats_rows,
    jobs_rows,
    memory_rows,
    pictures_rows,
    scaling_rows,
    small_rows,
    start_rows,
)
from bench.group import group_rows
from bench.history import history_rows, reports_rows
from bench.laboratory import Laboratory
from bench.limit import limit_rows, small_jobs_rows
from bench.media import large_rows, media_rows
from bench.page import table, write
from bench.receiving import move_rows, storescu_rows, window_rows
from bench.samples import Row
from bench.sources import sources_rows

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"

GROUPS: dict[str, Callable[[Laboratory], Iterator[Row]]] = {
    "storescu": storescu_rows,
    "move": move_rows,
    "window": window_rows,
    "sources": sources_rows,
    "disc": disc_rows,
    "disc-dx": small_rows,
    "formats": formats_rows,
    "formats-large": large_rows,
    "pictures": pictures_rows,
    "media": media_rows,
    "start": start_rows,
    "scaling": scaling_rows,
    "jobs": jobs_rows,
    "limit": limit_rows,
    "small-jobs": small_jobs_rows,
    "memory": memory_rows,
    "history": history_rows,
    "reports": reports_rows,
    "group": group_rows,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure mkiso beside dcmtk, genisoimage and dicomweb-client."
    )
    parser.add_argument("--rows", nargs="+", choices=GROUPS, metavar="GROUP", help=f"only these: {', '.join(GROUPS)}")
    parser.add_argument("--runs", type=int, default=5, help="how often each thing is measured (5)")
    parser.add_argument(
        "--full", action="store_true", help="storescp as it comes gets whole studies too; takes half an hour"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write, where every row is measured")
    arguments = parser.parse_args()
    began = time.monotonic()

    def say(words: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {words}", file=sys.stderr, flush=True)

    rows: list[Row] = []
    with Laboratory(arguments.runs, full=arguments.full, say=say) as laboratory:
        for name in arguments.rows or GROUPS:
            say(f"measuring {name}")
            for row in GROUPS[name](laboratory):
                rows.append(row)
                against = f" against {row.reference.median:.2f}" if row.reference else ""
                say(
                    f"{row.key}: {row.ours.median:.2f} {row.unit}{against}, {row.ratio:.2f} ({row.goal or 'no goal'}) "
                    f"{row.verdict}"
                )
    print(table(rows))
    if not arguments.rows:
        write(arguments.page, rows, arguments.runs, scaled=not arguments.full)
    return 0


if __name__ == "__main__":
    sys.exit(main())
