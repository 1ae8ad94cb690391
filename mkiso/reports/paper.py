"""Curves on millimetre paper as SVG: 25 mm a second, a thin line each mm, a thick one each 5 mm. Strips of 10 s stand
one below the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

MM_PER_SECOND = 25
STRIP_SECONDS = 10.0
_UNIT = 100  # of the drawing are one mm
_PULSE_MM, _MARGIN_MM, _RIGHT_MM = 13, 3, 9
_LETTER_MM, _LONGEST_LABEL_MM = 2.2, 40
_LOWEST_MM, _HIGHEST_MM = 12, 70  # of a channel's band
_GAP_MM = 8  # between strips, for the seconds


@dataclass(frozen=True, slots=True)
class Trace:
    """A curve: heights in mm, upwards, `hertz` of them a second, NaN where there is none. `is_calibrated`: it is drawn
    at 10 mm/mV, and the pulse of 1 mV stands before it.
    """

    label: str
    heights: NDArray[np.float64]
    hertz: float
    is_calibrated: bool


def draw(traces: Sequence[Trace], seconds: float) -> bytes:
    """The drawing of so many seconds."""
    strips = max(1, int(np.ceil(seconds / STRIP_SECONDS - 1e-6)))
    bands = [_band(trace) for trace in traces]
    strip_mm = sum(above + below for above, below in bands) + _GAP_MM
    labels_mm = min(_LONGEST_LABEL_MM, int(np.ceil(max(len(trace.label) for trace in traces) * _LETTER_MM)) + 2)
    left = labels_mm + _PULSE_MM
    width = left + int(np.ceil(min(seconds, STRIP_SECONDS) * MM_PER_SECOND)) + _RIGHT_MM
    height = strips * strip_mm
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}mm" height="{height}mm" '
        f'viewBox="0 0 {width * _UNIT} {height * _UNIT}">',
        _PAPER,
        '<rect width="100%" height="100%" fill="#fffdfb"/>',
        '<rect width="100%" height="100%" fill="url(#mm)"/><rect width="100%" height="100%" fill="url(#cm)"/>',
        '<g fill="none" stroke="#101418" stroke-width="28" stroke-linejoin="round">',
    ]
    texts = []
    for strip in range(strips):
        at = strip * strip_mm
        for trace, (above, below) in zip(traces, bands, strict=True):
            base = at + above
            if trace.is_calibrated:
                parts.append(f'<path d="M{labels_mm * _UNIT} {base * _UNIT}h200v-1000h500v1000h200"/>')
            parts += _curve(trace, strip, left, base)
            texts.append(_text(1, base, trace.label, bold=True))
            at += above + below
        for second in range(int(min(STRIP_SECONDS, seconds - strip * STRIP_SECONDS)) + 1):
            here = strip * int(STRIP_SECONDS) + second
            texts.append(_text(left + second * MM_PER_SECOND, at + 5, f"{here} s"))
    parts += [
        "</g>",
        '<g font-family="Helvetica,Arial,sans-serif" font-size="340" fill="#101418">',
        *texts,
        "</g></svg>",
    ]
    return "".join(parts).encode()


_PAPER = (
    '<defs><pattern id="mm" width="100" height="100" patternUnits="userSpaceOnUse">'
    '<path d="M0 0H100M0 0V100" stroke="#f3b8b8" stroke-width="10"/></pattern>'
    '<pattern id="cm" width="500" height="500" patternUnits="userSpaceOnUse">'
    '<path d="M0 0H500M0 0V500" stroke="#e08f8f" stroke-width="22"/></pattern></defs>'
)


def _band(trace: Trace) -> tuple[int, int]:
    """How many mm a curve takes above and below its zero."""
    known = trace.heights[np.isfinite(trace.heights)]
    highest, lowest = (float(known.max()), float(known.min())) if known.size else (0.0, 0.0)
    above = int(np.clip(np.ceil(max(highest, 10.0 if trace.is_calibrated else 0.0)), 5, _HIGHEST_MM))
    below = int(np.clip(np.ceil(-lowest), 2, _HIGHEST_MM))
    return max(above + _MARGIN_MM, _LOWEST_MM - below), below


def _curve(trace: Trace, strip: int, left_mm: int, base_mm: int) -> Iterator[str]:
    """A path for each run of values, in whole units and by differences, which don't add up errors."""
    first, last = (round(part * STRIP_SECONDS * trace.hertz) for part in (strip, strip + 1))
    heights = trace.heights[first : last + 1]
    x = np.rint((left_mm + np.arange(len(heights)) / trace.hertz * MM_PER_SECOND) * _UNIT)
    y = np.rint((base_mm - np.clip(heights, -_HIGHEST_MM, _HIGHEST_MM)) * _UNIT)
    known = np.flatnonzero(np.isfinite(y))
    for run in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
        if run.size > 1:
            points = np.column_stack((x[run], y[run])).astype(np.int64)
            steps = np.diff(points, axis=0).ravel().tolist()
            yield f'<path d="M{points[0, 0]} {points[0, 1]}l{" ".join(map(str, steps))}"/>'


def _text(x_mm: float, y_mm: float, text: str, *, bold: bool = False) -> str:
    """Text without what XML can't hold."""
    kept = escape("".join(character for character in text if character.isprintable()))
    weight = ' font-weight="700"' if bold else ""
    return f'<text x="{x_mm * _UNIT:.0f}" y="{y_mm * _UNIT:.0f}"{weight}>{kept}</text>'
