"""From stored values to grey values of 0 to 255: Modality LUT, VOI LUT, polarity (PS3.4 N.2).

What has at most 16 bits goes through a table of its words, which is made once for all frames that are alike; where that
is a straight line from black to white, by one multiplication, in a third of the time. Everything else is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mkiso.pictures.values import Function, Window

Values = NDArray[np.float64]

_WORD_BITS = 16
_ROWS_AT_ONCE, _PIXELS_AT_ONCE = 256, 1 << 16  # of what is computed: bounds its memory
_SAMPLED = 50_000  # values of a frame that percentiles are taken of


@dataclass(frozen=True, slots=True)
class Stored:
    """How a word holds a stored value (PS3.5 8.1.1); a float is itself."""

    bits: int
    high_bit: int
    signed: bool

    def values(self, words: NDArray[Any]) -> Values:
        """The stored values of unsigned words or of floats."""
        if words.dtype.kind == "f":
            return words.astype(np.float64)
        wide = words.astype(np.uint64) >> np.uint64(self.high_bit + 1 - self.bits)
        if self.bits < 64:
            wide &= np.uint64((1 << self.bits) - 1)
        if self.signed:
            sign = np.uint64(1 << (self.bits - 1))
            return (
                (wide ^ sign).astype(np.int64) - np.int64(1 << (self.bits - 1))
                if self.bits < 64
                else wide.view(np.int64)
            ).astype(np.float64)
        return wide.astype(np.float64)


@dataclass(frozen=True, slots=True)
class Lut:
    """A look-up table: `table` holds 16-bit words of `bits` bits, the first of which belongs to the value `first`
    (PS3.3 C.11.1.1).
    """

    first: int
    bits: int
    table: bytes

    def values(self, values: Values) -> Values:
        words = np.frombuffer(self.table, np.uint16)
        return words[np.clip(np.nan_to_num(values) - self.first, 0, words.size - 1).astype(np.int64)].astype(np.float64)

    def parts(self, values: Values) -> Values:
        """The same, of 0 … 1."""
        return self.values(values) / ((1 << self.bits) - 1)


@dataclass(frozen=True, slots=True)
class Modality:
    """Modality LUT: a table, or a line (PS3.3 C.11.1)."""

    slope: float = 1.0
    intercept: float = 0.0
    lut: Lut | None = None

    def values(self, values: Values) -> Values:
        return self.lut.values(values) if self.lut else values * self.slope + self.intercept


@dataclass(frozen=True, slots=True)
class Padding:
    """Stored values from `first` to `last` are no image (PS3.3 C.7.5.1.1.2): black."""

    first: float
    last: float

    def covers(self, stored: Values) -> NDArray[np.bool_]:
        return (stored >= self.first) & (stored <= self.last)


@dataclass(frozen=True, slots=True)
class Greys:
    """The whole way from a word to a grey value. `voi` is a window or a table; `presentation` a Presentation LUT."""

    stored: Stored
    modality: Modality
    voi: Window | Lut
    inverse: bool = False
    padding: Padding | None = None
    presentation: Lut | None = None

    def __call__(self, words: NDArray[Any]) -> NDArray[np.uint8]:
        """Grey values of unsigned words or floats, of the same shape."""
        if words.dtype == np.uint16 and (line := _line(self)):
            return line(words)
        if words.dtype in (np.uint8, np.uint16):
            return np.take(self.of_words(words.dtype.itemsize), words)  # twice as fast as an index
        grey = np.empty(words.shape, np.uint8)
        for row in range(0, len(words), _ROWS_AT_ONCE):
            grey[row : row + _ROWS_AT_ONCE] = self.computed(words[row : row + _ROWS_AT_ONCE])
        return grey

    def of_words(self, word_bytes: int) -> NDArray[np.uint8]:
        """The grey value of every word of 8 or 16 bits."""
        return _table(self, word_bytes)

    def computed(self, words: NDArray[Any]) -> NDArray[np.uint8]:
        """The same without a table."""
        stored = self.stored.values(words)
        values = self.modality.values(stored)
        part = np.clip(
            np.nan_to_num(windowed(values, self.voi) if isinstance(self.voi, Window) else self.voi.parts(values)), 0, 1
        )
        if self.presentation:
            entries = len(self.presentation.table) // 2
            part = self.presentation.parts(np.rint(part * (entries - 1)))
        grey = np.rint((1 - part if self.inverse else part) * 255)
        if self.padding:
            grey[self.padding.covers(stored)] = 0
        return grey.astype(np.uint8)


@lru_cache(maxsize=32)
def _table(greys: Greys, word_bytes: int) -> NDArray[np.uint8]:
    return greys.computed(np.arange(1 << 8 * word_bytes, dtype=np.uint16 if word_bytes == 2 else np.uint8))


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """The table of a linear window as a line: `factor` and `offset` of stored values, counted from the lowest. Values
    beyond `ends` are clipped before the line is computed, which is faster; without `ends`, grey levels are afterwards.
    """

    stored: Stored
    factor: np.float32
    offset: np.float32
    ends: tuple[np.uint16, np.uint16] | None = None

    def __call__(self, words: NDArray[np.uint16]) -> NDArray[np.uint8]:
        grey = np.empty(words.shape, np.uint8)
        rows = max(1, _PIXELS_AT_ONCE // words.shape[1])
        for row in range(0, len(words), rows):
            grey[row : row + rows] = self._of(words[row : row + rows])
        return grey

    def _of(self, words: NDArray[np.uint16]) -> NDArray[np.float32]:
        stored, shift = self.stored, self.stored.high_bit + 1 - self.stored.bits
        if shift:
            words = words >> np.uint16(shift)
        if stored.bits < _WORD_BITS:
            words = words & np.uint16((1 << stored.bits) - 1)
        if stored.signed:
            words = words ^ np.uint16(1 << (stored.bits - 1))
        if self.ends:
            words = words.clip(*self.ends)
        line = words.astype(np.float32)
        line *= self.factor
        line += self.offset
        return line if self.ends else np.clip(line, 0, 255, out=line)


@lru_cache(maxsize=32)
def _line(greys: Greys) -> _Line | None:
    """None unless it gives for each word of 16 bits just what the table has."""
    stored, window = greys.stored, greys.voi
    if not isinstance(window, Window):
        return None
    lowest = -(1 << (stored.bits - 1)) if stored.signed else 0
    highest = lowest + (1 << stored.bits) - 1
    first, last = windowed(greys.modality.values(np.array([lowest, highest], np.float64)), window) * 255
    factor, half = (last - first) / (highest - lowest), 0.5  # cut off after it, not rounded
    if greys.inverse:
        factor, first = -factor, 255 - first
    line = _Line(stored, np.float32(factor), np.float32(first + half))
    every = np.arange(1 << _WORD_BITS, dtype=np.uint16)
    lines = (replace(line, ends=_ends(line)), line) if 0 < abs(line.factor) < 1 else (line,)  # a byte holds its ends
    return next((each for each in lines if np.array_equal(each(every[None])[0], greys.of_words(2))), None)


def _ends(line: _Line) -> tuple[np.uint16, np.uint16]:
    """The values that are black and white, or the next ones beyond."""
    first, last = sorted((end - line.offset) / line.factor for end in (0, 255))
    first, last = np.clip((np.floor(first), np.ceil(last)), 0, (1 << _WORD_BITS) - 1).astype(np.uint16)
    return first, last


def windowed(values: Values, window: Window) -> Values:
    """Values through a window, to 0 … 1 and beyond for the caller to clip (PS3.3 C.11.2.1.2, C.11.2.1.3).

    LINEAR is defined from a width of 1 on; below, which is met with values that are small fractions, it is taken as
    LINEAR_EXACT.
    """
    return _FUNCTIONS[window.function](values, window.centre, window.width)


def _linear(values: Values, centre: float, width: float) -> Values:
    if width < 1:
        return _linear_exact(values, centre, width)
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return (values - (centre - 0.5)) / (width - 1) + 0.5


def _linear_exact(values: Values, centre: float, width: float) -> Values:
    return (values - centre) / width + 0.5


def _sigmoid(values: Values, centre: float, width: float) -> Values:
    return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -500, 500)))


_FUNCTIONS: dict[Function, Callable[[Values, float, float], Values]] = {
    Function.LINEAR: _linear,
    Function.LINEAR_EXACT: _linear_exact,
    Function.SIGMOID: _sigmoid,
}


def sampled(words: NDArray[Any], stored: Stored, modality: Modality, padding: Padding | None) -> Values:
    """Values after the Modality LUT of about 50,000 words spread over those of a frame, or of what is seen of it,
    without padding and what isn't finite.
    """
    spread = words.reshape(-1)[:: max(1, words.size // _SAMPLED)]
    values = stored.values(spread)
    kept = values if padding is None else values[~padding.covers(values)]
    found = modality.values(kept)
    return found[np.isfinite(found)]


def percentile_window(values: Values) -> Window:
    """A window from the 1st to the 99th percentile.

    Of what isn't the lowest value, where more than a fifth is: air and masks say nothing of what is to be seen.
    """
    if not values.size:
        return Window(0.5, 1, Function.LINEAR_EXACT)
    above = values[values > values.min()]
    low, high = np.percentile(above if 0 < above.size < 0.8 * values.size else values, (1, 99))
    return Window(float(low + high) / 2, float(high - low) or 1.0, Function.LINEAR_EXACT)


def full_range(stored: Stored, modality: Modality) -> Window:
    """A window of everything that the bits, at most 16, can hold, after the Modality LUT."""
    first = -(1 << (stored.bits - 1)) if stored.signed else 0
    values = modality.values(np.arange(first, first + (1 << stored.bits), dtype=np.float64))
    low, high = float(values.min()), float(values.max())
    return Window((low + high) / 2, high - low or 1.0, Function.LINEAR_EXACT)
