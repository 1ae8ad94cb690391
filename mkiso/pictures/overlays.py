"""Overlays that an image carries: bitmaps in groups 6000 to 601E, or in unused bits of its pixels (PS3.3 C.9.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mkiso.pictures.attributes import OVERLAY_GROUPS, Attributes, integer

_ROWS, _COLUMNS, _FRAMES, _ORIGIN, _FIRST_FRAME = 0x0010, 0x0011, 0x0015, 0x0050, 0x0051
_BITS_ALLOCATED, _BIT_POSITION, _LAYER, _DATA = 0x0100, 0x0102, 0x1001, 0x3000
_ORIGIN_BYTES = 4  # row and column, signed
_MAX_DIGITS = 12  # of an IS (PS3.5 6.2)

Mask = NDArray[np.bool_]


def overlay_mask(dataset: Attributes, frame: int, words: NDArray[Any]) -> Mask | None:
    """Where the overlays of a frame, from 0, are drawn: of the shape of its words, rows × columns. None where it has
    none.
    """
    groups = [group for group in OVERLAY_GROUPS if dataset.raw(group << 16 | _ROWS)]
    if not groups:
        return None
    shutter = integer(dataset, "ShutterOverlayGroup")  # drawn by mkiso.pictures.shutter
    return _of_groups(dataset, [group for group in groups if group != shutter], frame, words)


def activated_mask(state: Attributes, frame: int, words: NDArray[Any]) -> Mask | None:
    """Where overlays are drawn that a presentation state carries and activates (PS3.3 C.11.7), likewise."""
    active = [group for group in OVERLAY_GROUPS if state.raw(group << 16 | _DATA) and state.raw(group << 16 | _LAYER)]
    return _of_groups(state, active, frame, words)


def _of_groups(dataset: Attributes, groups: Iterable[int], frame: int, words: NDArray[Any]) -> Mask | None:
    masks = [mask for group in groups if (mask := overlay_of(dataset, group, frame, words)) is not None]
    return np.any(masks, axis=0) if masks else None


def overlay_of(dataset: Attributes, group: int, frame: int, words: NDArray[Any]) -> Mask | None:
    """Where one of them is."""
    rows, columns = _number(dataset, group, _ROWS), _number(dataset, group, _COLUMNS)
    if rows is None or columns is None:
        return None
    if (found := dataset.raw(group << 16 | _DATA)) is None:
        return _embedded(_number(dataset, group, _BITS_ALLOCATED), _number(dataset, group, _BIT_POSITION), words)
    within = frame - ((_number(dataset, group, _FIRST_FRAME) or 1) - 1)
    if not 0 <= within < (_number(dataset, group, _FRAMES) or 1):
        return None
    data, _ = found
    first = within * rows * columns
    bits = np.unpackbits(
        np.frombuffer(data[first // 8 : -(-(first + rows * columns) // 8)], np.uint8), bitorder="little"
    )[first % 8 :]
    if bits.size < rows * columns:
        return None
    return _placed(bits[: rows * columns].reshape(rows, columns).astype(bool), _origin(dataset, group), words.shape)


def _embedded(bits_allocated: int | None, position: int | None, words: NDArray[Any]) -> Mask | None:
    """Retired, and still met: the overlay's bit within the pixel's word."""
    if (
        words.dtype.kind != "u"
        or bits_allocated != words.dtype.itemsize * 8
        or position is None
        or not 0 < position < bits_allocated
    ):
        return None
    mask: Mask = (words & words.dtype.type(1 << position)) != 0
    return mask


def _placed(bitmap: Mask, origin: tuple[int, int], shape: tuple[int, ...]) -> Mask:
    """The bitmap at its origin, which counts from 1 and may lie outside the image."""
    top, left = (value - 1 for value in origin)
    mask = np.zeros(shape[:2], bool)
    bottom, right = min(shape[0], top + bitmap.shape[0]), min(shape[1], left + bitmap.shape[1])
    if bottom > max(top, 0) and right > max(left, 0):
        mask[max(top, 0) : bottom, max(left, 0) : right] = bitmap[
            max(-top, 0) : bottom - top, max(-left, 0) : right - left
        ]
    return mask


def _number(dataset: Attributes, group: int, element: int) -> int | None:
    found = dataset.raw(group << 16 | element)
    if not found or not found[0]:
        return None
    value, little_endian = found
    if element == _FRAMES:
        digits = value.strip(b" \0")
        return int(digits) if digits.isdigit() and len(digits) <= _MAX_DIGITS else None
    return int.from_bytes(value[:2], "little" if little_endian else "big")


def _origin(dataset: Attributes, group: int) -> tuple[int, int]:
    value, little_endian = dataset.raw(group << 16 | _ORIGIN) or (b"", True)
    if len(value) != _ORIGIN_BYTES:
        return 1, 1
    row, column = struct.unpack("<hh" if little_endian else ">hh", value)
    return row, column
