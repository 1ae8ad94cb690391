"""Reading the attributes of objects as they are met: what is absent, empty, malformed or not finite is None, never an
exception.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, Sequence
from pydicom.multival import MultiValue


def value_of(dataset: Dataset, keyword: str) -> Any:
    """A value as pydicom gives it; None where there is none or it can't be read."""
    try:
        return dataset.get(keyword)
    except Exception:  # what pydicom raises for a malformed value is any exception at all
        return None


def text(dataset: Dataset, keyword: str) -> str:
    """The first value as text."""
    return next(iter(texts(dataset, keyword)), "")


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    return tuple(str(value).strip() for value in _values(dataset, keyword))


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first value as a finite number."""
    return next(iter(numbers(dataset, keyword)), None)


def numbers(dataset: Dataset, keyword: str, count: int | None = None) -> tuple[float, ...]:
    """All values as finite numbers; none where one of them isn't, or where there are not `count`."""
    try:
        found = tuple(float(value) for value in _values(dataset, keyword))
    except (TypeError, ValueError, OverflowError):
        return ()
    return found if all(map(math.isfinite, found)) and count in (None, len(found)) else ()


def integer(dataset: Dataset, keyword: str) -> int | None:
    """The first value as a whole number."""
    found = number(dataset, keyword)
    return int(found) if found is not None and found == int(found) else None


def items(dataset: Dataset, keyword: str) -> Sequence:
    """The items of a sequence."""
    found = value_of(dataset, keyword)
    return found if isinstance(found, Sequence) else Sequence()


def first_item(dataset: Dataset, keyword: str) -> Dataset | None:
    return next(iter(items(dataset, keyword)), None)


def functional_group(dataset: Dataset, frame: int, keyword: str) -> Dataset:
    """The item of a functional group macro for a frame, from 0; else the data set itself, whose modules have the same
    attributes (PS3.3 C.7.6.16).
    """
    per_frame = items(dataset, "PerFrameFunctionalGroupsSequence")
    for group in (*per_frame[frame : frame + 1], *items(dataset, "SharedFunctionalGroupsSequence")[:1]):
        if (found := first_item(group, keyword)) is not None:
            return found
    return dataset


def words(dataset: Dataset, keyword: str, little_endian: bool) -> NDArray[np.uint16] | None:
    """The 16-bit words of a look-up table, whether its VR is US, SS or OW."""
    found = value_of(dataset, keyword)
    try:
        if isinstance(found, bytes):
            return np.frombuffer(found[: len(found) & ~1], "<u2" if little_endian else ">u2").astype(np.uint16)
        if found is not None:
            return np.array([int(value) & 0xFFFF for value in _values(dataset, keyword)], np.uint16)
    except (TypeError, ValueError):
        pass
    return None


def _values(dataset: Dataset, keyword: str) -> Iterable[Any]:
    found = value_of(dataset, keyword)
    if found is None or found == "":
        return ()
    return found if isinstance(found, MultiValue | list | tuple) else (found,)
