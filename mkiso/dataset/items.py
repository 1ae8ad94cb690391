"""A data set read item by item, as deep as somebody asks: for documents, whose content lies in sequences of any depth.

Nothing is read that isn't asked for, and nothing follows the nesting by itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
from pydicom.datadict import dictionary_VR, tag_for_keyword

from mkiso.dataset.elements import Element, Encoded, each_item, elements
from mkiso.dataset.header import encoded_data_set
from mkiso.study.text import CHARACTER_SET_VRS, SPECIFIC_CHARACTER_SET, Text

MAX_TEXT_BYTES = 256 * 1024
"""Of one value as text; what is longer is cut, and `is_cut` says so."""
MAX_NUMBERS = 65_536
_NUMBER = {"US": "u2", "SS": "i2", "UL": "u4", "SL": "i4", "UV": "u8", "SV": "i8", "FL": "f4", "FD": "f8", "OF": "f4"}
_TEXTS = CHARACTER_SET_VRS | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"}
_VRS = _TEXTS | _NUMBER.keys() | {"OB", "OW", "SQ"}
_DECIMAL = re.compile(rb"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?")
_PADDING = b" \0"


class Item:
    """A data set or an item of a sequence: values by keyword. What is absent is empty; what is malformed is empty too
    where it is a number. `size` is how many bytes it takes.
    """

    __slots__ = ("_data", "_found", "_terms", "_wanted", "size")

    def __init__(
        self, data: Encoded, found: dict[int, Element], wanted: frozenset[int], inherited: bytes, size: int
    ) -> None:
        self._data, self._found, self._wanted, self.size = data, found, wanted, size
        declared = found.get(SPECIFIC_CHARACTER_SET)
        self._terms = inherited if declared is None else self._bytes(declared)

    def __contains__(self, keyword: str) -> bool:
        return tag_of(keyword) in self._found

    def text(self, keyword: str) -> str:
        """A value as people read it, without its padding; the values of several stay apart by a backslash. Empty where
        it isn't text.
        """
        element = self._found.get(tag_of(keyword))
        if element is None or element.delimited or (vr := _vr(keyword, element)) not in _TEXTS:
            return ""
        value = self._bytes(element).strip(_PADDING)
        if value.isascii() and b"\x1b" not in value:  # as nearly all is, and several times as fast
            return value.decode("ascii")
        return str(Text(value, self._terms if vr in CHARACTER_SET_VRS else b""))

    def line(self, keyword: str) -> str:
        """`text` on one line."""
        return " ".join(self.text(keyword).split())

    def is_cut(self, keyword: str) -> bool:
        """Whether `text` isn't all of it."""
        element = self._found.get(tag_of(keyword))
        return element is not None and element.length > MAX_TEXT_BYTES

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """All values as finite numbers, at most MAX_NUMBERS; none where one of them isn't."""
        element = self._found.get(tag_of(keyword))
        if element is None or element.delimited:
            return ()
        vr = _vr(keyword, element)
        if kind := _NUMBER.get(vr):
            order, size = "<" if element.encoding.little_endian else ">", int(kind[1])
            value = self._data[element.offset : element.offset + min(element.length, MAX_NUMBERS * size)]
            if kind[0] == "u" and len(value) == size:  # as most are, and several times as fast
                return (float(int.from_bytes(value, "little" if order == "<" else "big")),)
            found = tuple(map(float, np.frombuffer(value[: len(value) // size * size], order + kind).tolist()))
        elif vr in _TEXTS:
            parts = [part.strip() for part in self._bytes(element).strip(_PADDING).split(b"\\")]
            if not all(map(_DECIMAL.fullmatch, parts)):
                return ()
            found = tuple(map(float, parts[:MAX_NUMBERS]))
        else:
            return ()
        return found if all(map(math.isfinite, found)) else ()

    def number(self, keyword: str) -> float | None:
        """The first value as a finite number."""
        return next(iter(self.numbers(keyword)), None)

    def integer(self, keyword: str) -> int | None:
        """The first value as a whole number."""
        found = self.number(keyword)
        return int(found) if found is not None and found == int(found) else None

    def place(self, keyword: str) -> tuple[int, int] | None:
        """Where a value of defined length begins in the encoded data set, and its length in bytes."""
        element = self._found.get(tag_of(keyword))
        return None if element is None or element.delimited else (element.offset, element.length)

    def value(self, offset: int, length: int) -> bytes:
        """Bytes of the encoded data set."""
        return self._data[offset : offset + length]

    @property
    def little_endian(self) -> bool:
        return all(element.encoding.little_endian for element in self._found.values())

    def items(self, keyword: str) -> Iterator[Self]:
        """The items of a sequence, one by one. Raises DamagedInstance where one is malformed."""
        element = self._found.get(tag_of(keyword))
        if element is None or _vr(keyword, element) != "SQ":
            return
        for found, size in each_item(self._data, element, self._wanted):
            yield type(self)(self._data, found, self._wanted, self._terms, size)

    def first(self, keyword: str) -> Self | None:
        """The first item of a sequence."""
        return next(self.items(keyword), None)

    def _bytes(self, element: Element) -> bytes:
        return self._data[element.offset : element.offset + min(element.length, MAX_TEXT_BYTES)]


@contextmanager
def opened(path: Path, keywords: frozenset[str]) -> Iterator[Item]:
    """A Part 10 file's data set, of which these keywords can be asked at any depth. Raises DamagedInstance."""
    wanted = frozenset({*map(tag_of, keywords), SPECIFIC_CHARACTER_SET})
    with encoded_data_set(path) as (data, start, encoding):
        found = elements(data, start, len(data), encoding, wanted)
        yield Item(data, found, wanted, b"", len(data) - start)


def keywords(listed: str) -> frozenset[str]:
    """Keywords that stand in a text with spaces between."""
    return frozenset(listed.split())


@cache
def tag_of(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return tag


@cache
def _dictionary_vr(keyword: str) -> str:
    return dictionary_VR(tag_of(keyword)).partition(" ")[0]


def _vr(keyword: str, element: Element) -> str:
    """What it was sent with where that is a VR of a value, else the dictionary's."""
    sent = (element.vr or b"").decode("latin-1")
    return sent if sent in _VRS else _dictionary_vr(keyword)
