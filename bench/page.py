"""The results as people read them: a table and a plot between markers of docs/performance.md."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from math import log
from pathlib import Path

from bench.samples import Row, Sample

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
PLOT = "performance.svg"
HEAD = ("case", "mkiso", "reference", "goal", "result", "peak memory (mkiso / reference)", "")


def write(page: Path, rows: Sequence[Row], runs: int, *, scaled: bool) -> None:
    """Replace what stands between the markers, and the plot beside the page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    (page.parent / PLOT).write_text(plot(rows), encoding="utf-8")
    middle = "\n\n".join(
        [BEGIN, machine(runs, scaled=scaled), table(rows), f"![mkiso beside the references]({PLOT})", END]
    )
    page.write_text(before + middle + after, encoding="utf-8")


def table(rows: Sequence[Row]) -> str:
    """Medians, and the least and the most in brackets."""
    lines = [HEAD, tuple("---" for _ in HEAD), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(runs: int, *, scaled: bool) -> str:
    """Where and how it was measured."""
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "?",
    )
    versions = ", ".join(f"{name} {version(name)}" for name in ("prefect", "pydicom", "pynetdicom", "pycdlib"))
    tools = ", ".join(_first_line([name, "--version"]) for name in ("storescu", "genisoimage", "Orthanc"))
    words = (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores ({processor}), Python "
        f"{platform.python_version()}, {versions}; {tools}. "
        "Everything over loopback, files in the page cache of one disk, mkiso and reference in turn; medians of "
        f"{runs} runs, "
        "in brackets the least and the most."
    )
    return words + (
        " Where a reference would take minutes it got a part of the study, and its time is multiplied as the row says."
        if scaled
        else ""
    )


def plot(rows: Sequence[Row]) -> str:
    """Two bars a row on a logarithmic scale, with whiskers from the least to the most."""
    compared = [row for row in rows if row.reference]
    if not compared:
        return '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>\n'
    left, width, height, top = 700, 1300, 46, 40
    values = [value for row in compared for sample in (row.ours, row.reference) if sample for value in sample.values]
    low, high = min(values) / 1.5, max(values) * 1.5

    def across(value: float) -> float:
        return left + (width - left - 90) * log(value / low) / log(high / low)

    bottom = top + height * len(compared)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{bottom + 30}" font-family="sans-serif" '
        'font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="10" y="20" font-size="14">Seconds on a logarithmic scale: mkiso dark, the reference light; red from '
        "the least to the most</text>",
    ]
    for tick in [mantissa * 10.0**power for power in range(-2, 4) for mantissa in (1, 2, 5)]:
        if low <= tick <= high:
            x = across(tick)
            parts.append(f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{top - 6}" y2="{bottom}" stroke="#ddd"/>')
            parts.append(f'<text x="{x:.0f}" y="{bottom + 16}" text-anchor="middle" fill="#555">{tick:g}</text>')
    for number, row in enumerate(compared):
        y = top + height * number
        assert row.reference is not None
        parts.append(f'<text x="{left - 10}" y="{y + 22}" text-anchor="end">{escape(row.case)}</text>')
        parts += _bar(row.ours, y + 4, across, left, "#1f4e79") + _bar(row.reference, y + 20, across, left, "#a9c4de")
        parts.append(f'<text x="{width - 10}" y="{y + 22}" text-anchor="end">{row.ratio:.1f}×</text>')
    return "\n".join([*parts, "</svg>", ""])


def _bar(sample: Sample, y: int, across: Callable[[float], float], left: int, colour: str) -> list[str]:
    end, (least, most) = across(sample.median), map(across, sample.spread)
    return [
        f'<rect x="{left}" y="{y}" width="{end - left:.0f}" height="14" fill="{colour}"/>',
        f'<line x1="{least:.0f}" x2="{most:.0f}" y1="{y + 7}" y2="{y + 7}" stroke="#c33" stroke-width="2"/>',
    ]


def _cells(row: Row) -> tuple[str, ...]:
    memory = (
        f"{row.ours.peak_mb:.0f} MB" + (f" / {row.reference.peak_mb:.0f} MB" if row.reference else "")
        if row.ours.peak_mb
        else ""
    )
    in_seconds = row.unit == "s" and row.ratio in (row.ours.median, max(row.ours.values))  # and no ratio
    result = f"**{row.ratio:.2f}{' s' * in_seconds}**"
    case = f"{row.case} ({row.remark})" if row.remark else row.case
    reference = _number(row.reference, row.unit) if row.reference else ""
    return (
        case,
        _number(row.ours, row.unit),
        reference,
        row.goal,
        result,
        memory,
        row.verdict if row.is_met else f"**{row.verdict}**",
    )


def _number(sample: Sample, unit: str) -> str:
    least, most = sample.spread
    return (
        f"{sample.median:.2f} {unit} ({least:.2f}-{most:.2f})"
        if len(sample.values) > 1
        else f"{sample.median:.2f} {unit}"
    )


def _first_line(command: Sequence[str]) -> str:
    """What a program says of its version."""
    answer = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return next((line.strip(" $") for line in (answer.stdout + answer.stderr).splitlines() if line.strip()), command[0])
