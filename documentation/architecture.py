"""The picture of docs/architecture.md: rooms as boxes, the lower the deeper, imports between them as arrows.

    make docs           # writes docs/architecture.svg

Read from the code's own imports (grimp, which import-linter brings). A test holds the picture against the code.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "architecture.svg"
PACKAGES = ("mkiso_service", "flows", "tasks", "mkiso")
WIDTH, ROW, BOX, GAP, MARGIN = 860, 92, 46, 64, 20

Arrows = dict[str, set[str]]


def room_of(module: str) -> str:
    """The room a module lies in: a folder of mkiso or a module beside them, else the package."""
    parts = module.split(".")
    return parts[0] if parts[0] != "mkiso" or len(parts) == 1 else f"mkiso/{parts[1]}"


def arrows_of(packages: Iterable[str] = PACKAGES) -> Arrows:
    """Which rooms each room imports."""
    graph = grimp.build_graph(*packages)
    arrows: Arrows = defaultdict(set)
    for module in graph.modules:
        room = room_of(module)
        arrows[room] |= {room_of(other) for other in graph.find_modules_directly_imported_by(module)} - {room}
    arrows.pop("mkiso", None)  # the package's own empty file is no room
    return {room: targets - {"mkiso"} for room, targets in arrows.items()}


def floors_of(arrows: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """How deep each room lies: 0 for those that import none. Raises ValueError for rooms that import in a circle."""
    floors: dict[str, int] = {}

    def floor(room: str, above: tuple[str, ...] = ()) -> int:
        if room in above:
            raise ValueError(f"These rooms import each other: {' → '.join((*above[above.index(room) :], room))}")
        if room not in floors:
            floors[room] = 1 + max((floor(other, (*above, room)) for other in sorted(arrows[room])), default=-1)
        return floors[room]

    for room in sorted(arrows):
        floor(room)
    return floors


def shown(arrows: Mapping[str, Iterable[str]]) -> Arrows:
    """The arrows without those that another way down says too: if a room imports a second and that a third, an arrow
    from the first to the third tells nothing new.
    """
    below: dict[str, set[str]] = {}

    def all_below(room: str) -> set[str]:
        if room not in below:
            below[room] = set(arrows[room]).union(*(all_below(other) for other in arrows[room]), set())
        return below[room]

    return {
        room: {each for each in targets if not any(each in all_below(other) for other in targets if other != each)}
        for room, targets in ((room, set(targets)) for room, targets in arrows.items())
    }


def picture(arrows: Arrows) -> str:
    """The house as SVG."""
    floors = floors_of(arrows)
    rows = [sorted(room for room in floors if floors[room] == each) for each in range(max(floors.values()), -1, -1)]
    places: dict[str, tuple[float, float, float]] = {}
    for number, row in enumerate(rows):
        widths = [max(96, 9 * len(_name(room)) + 28) for room in row]
        left = (WIDTH - sum(widths) - GAP * (len(row) - 1)) / 2
        for room, width in zip(row, widths, strict=True):
            places[room] = (left, MARGIN + number * ROW, width)
            left += width + GAP
    height = 2 * MARGIN + ROW * (len(rows) - 1) + BOX
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'role="img" aria-label="The rooms of mkiso and what each imports">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#5b6b7a"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for room, targets in sorted(shown(arrows).items()):
        parts += [_arrow(places[room], places[other]) for other in sorted(targets)]
    for room, (x, y, wide) in sorted(places.items()):
        fill = "#e3eefc" if room.startswith("mkiso/") else "#fdf1dc"
        parts.append(
            f'<rect x="{x:.0f}" y="{y}" width="{wide}" height="{BOX}" rx="6" fill="{fill}" stroke="#5b6b7a"/>'
            f'<text x="{x + wide / 2:.0f}" y="{y + 28}" text-anchor="middle" font-size="15">'
            f"{escape(_name(room))}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


def _name(room: str) -> str:
    return room.removeprefix("mkiso/")


def _arrow(start: tuple[float, float, float], end: tuple[float, float, float]) -> str:
    x1, y1 = start[0] + start[2] / 2, start[1] + BOX
    x2, y2 = end[0] + end[2] / 2, end[1] - 2
    bend = (y2 - y1) / 2
    return (
        f'<path d="M{x1:.0f} {y1}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2}" fill="none" '
        'stroke="#8a99a8" marker-end="url(#tip)"/>'
    )


def main() -> int:
    PICTURE.write_text(picture(arrows_of()), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)} written.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
