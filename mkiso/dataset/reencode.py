"""A data set in another uncompressed transfer syntax (PS3.5 A.1 to A.3), value by value: only the frames of elements
change, the order of bytes where it was big endian, and what the caller puts in the place of compressed pixels.

Group lengths are left out: they would be wrong, and nobody needs them (PS3.5 7.2).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from pydicom.datadict import dictionary_VR

from mkiso.dataset.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_DELIMITER,
    MAX_DEPTH,
    SEQUENCE_DELIMITER,
    SHORT_VRS,
    UNDEFINED_LENGTH,
    Encoded,
    Encoding,
    element_end,
    elements,
    require_vr,
)
from mkiso.errors import DamagedInstance

ENCODINGS = {
    "1.2.840.10008.1.2": IMPLICIT_LITTLE,
    "1.2.840.10008.1.2.1": EXPLICIT_LITTLE,
    "1.2.840.10008.1.2.2": EXPLICIT_BIG,
}
PIECE_BYTES = 1024 * 1024
WORD_BYTES: Mapping[bytes, int] = {
    **dict.fromkeys((b"US", b"SS", b"OW", b"AT"), 2),
    **dict.fromkeys((b"UL", b"SL", b"FL", b"OF", b"OL"), 4),
    **dict.fromkeys((b"FD", b"OD", b"OV", b"SV", b"UV"), 8),
}
_ITEM = struct.Struct("<HHI")
_PIXEL_REPRESENTATION = 0x00280103
_MAX_SHORT = 0xFFFE  # the longest value whose length has 16 bits


class Value(NamedTuple):
    """What stands in the place of an element's value, in little endian; a Path: the content of that file."""

    vr: bytes
    content: bytes | Path


class Output(Protocol):
    """What the data set goes into."""

    def write(self, data: bytes, /) -> object: ...


Changes = Mapping[int, Value | None]


@dataclass(frozen=True, slots=True)
class _Target:
    out: Output
    explicit: bool


def reencode(
    data: Encoded,
    offset: int,
    encoding: Encoding,
    out: Output,
    *,
    explicit: bool,
    changes: Changes = {},  # noqa: B006  never changed
) -> None:
    """Write the data set from `offset` to the end in little endian, explicit or implicit. `changes`: by tag, what
    elements of the data set itself become; None: they go.

    A value of which nothing says its VR is UN in Explicit VR (PS3.5 6.2.2). Raises DamagedInstance, also where big
    endian values have no VR that says how long their words are, and where something is compressed that isn't changed.
    """
    try:
        signed = False
        if not encoding.explicit:
            found = elements(data, offset, len(data), encoding, frozenset({_PIXEL_REPRESENTATION}))
            signed = _is_signed(data, *(found[_PIXEL_REPRESENTATION][1:3] if found else (0, 0)))
        left = dict(sorted(changes.items()))
        _elements(data, offset, len(data), encoding, _Target(out, explicit), left, 0, False, signed)
        _write_changes(left, 1 << 32, _Target(out, explicit))
    except struct.error:
        raise DamagedInstance("The data set is cut short inside an element.") from None


def _elements(
    data: Encoded,
    offset: int,
    end: int,
    encoding: Encoding,
    target: _Target,
    changes: dict[int, Value | None],
    depth: int,
    delimited: bool,
    signed: bool,
) -> int:
    """The elements up to `end`, or up to the Item Delimitation Item; where what follows begins. `signed`: what Pixel
    Representation says of the values around.
    """
    if depth > MAX_DEPTH:
        raise DamagedInstance(f"Sequences are nested deeper than {MAX_DEPTH}.")
    while offset < end:
        key, length = encoding.implicit_head.unpack_from(data, offset)
        tag, begun = encoding.key(key), offset
        offset += 8
        if tag == ITEM_DELIMITER and delimited:
            return offset
        if not encoding.explicit:
            vr = _implied_vr(tag, signed)
            if tag == _PIXEL_REPRESENTATION:
                signed = _is_signed(data, offset, length)
        else:
            vr = bytes(data[begun + 4 : begun + 6])
            if vr in SHORT_VRS:
                (length,) = struct.unpack_from("<H" if encoding.little_endian else ">H", data, begun + 6)
            else:
                require_vr(vr, begun)
                (length,) = encoding.length.unpack_from(data, offset)
                offset += 4
        if length != UNDEFINED_LENGTH and length > end - offset:
            raise DamagedInstance("The data set is cut short inside an element.")
        _write_changes(changes, tag, target)
        if tag in changes:
            offset = element_end(data, offset, end, vr) if length == UNDEFINED_LENGTH else offset + length
        elif vr == b"SQ":
            _head(target, tag, vr, UNDEFINED_LENGTH)
            offset = _sequence(data, offset, end, length, encoding, target, depth, signed)
        elif length == UNDEFINED_LENGTH:
            if vr != b"UN":
                raise DamagedInstance("The data set is compressed.")
            _head(target, tag, vr, length)
            offset, begun = element_end(data, offset, end), offset
            _write(target.out, data, begun, offset)  # Implicit VR Little Endian whatever surrounds it (PS3.5 6.2.2)
        else:
            if tag & 0xFFFF:
                _head(target, tag, vr, length)
                _value(target.out, data, offset, length, vr, encoding)
            offset += length
    if delimited:
        raise DamagedInstance("An item isn't terminated.")
    return offset


def _sequence(
    data: Encoded, offset: int, end: int, length: int, encoding: Encoding, target: _Target, depth: int, signed: bool
) -> int:
    delimited = length == UNDEFINED_LENGTH
    last = end if delimited else offset + length
    if last > end:
        raise DamagedInstance("A sequence is longer than what it is in.")
    while offset < last:
        key, size = encoding.implicit_head.unpack_from(data, offset)
        tag = encoding.key(key)
        offset += 8
        if tag == SEQUENCE_DELIMITER and delimited:
            break
        if tag != ITEM:
            raise DamagedInstance("A sequence holds something that is no item.")
        target.out.write(_ITEM.pack(ITEM >> 16, ITEM & 0xFFFF, UNDEFINED_LENGTH))
        open_ended = size == UNDEFINED_LENGTH
        item_end = last if open_ended else offset + size
        if item_end > last:
            raise DamagedInstance("An item is longer than its sequence.")
        offset = _elements(data, offset, item_end, encoding, target, {}, depth + 1, open_ended, signed)
        target.out.write(_ITEM.pack(ITEM_DELIMITER >> 16, ITEM_DELIMITER & 0xFFFF, 0))
    else:
        if delimited:
            raise DamagedInstance("A sequence isn't terminated.")
    target.out.write(_ITEM.pack(SEQUENCE_DELIMITER >> 16, SEQUENCE_DELIMITER & 0xFFFF, 0))
    return offset


@lru_cache(maxsize=4096)  # a peer chooses the tags
def _implied_vr(tag: int, signed: bool) -> bytes:
    """What an element of Implicit VR is (PS3.5 A.1, PS3.6), UN where nobody knows it."""
    if tag >> 16 & 1:
        return b"LO" if 0x10 <= tag & 0xFFFF <= 0xFF else b"UN"  # private creators: PS3.5 7.8.1
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return b"UN"
    if "OW" in vr:
        return b"OW"
    if " or " in vr:  # US or SS
        return b"SS" if signed else b"US"
    return vr.encode() if len(vr) == 2 else b"UN"


def _is_signed(data: Encoded, offset: int, length: int) -> bool:
    return data[offset : offset + min(length, 2)] == b"\x01\x00"


def _write_changes(changes: dict[int, Value | None], before: int, target: _Target) -> None:
    """Those that stand before a tag; one of that tag itself is left to be written in its place by the next call. What
    is written stays among them as None: in a data set that isn't in order the old value may still come.
    """
    for tag in [tag for tag, change in changes.items() if tag < before and change]:
        if change := changes[tag]:
            changes[tag] = None
            size = change.content.stat().st_size if isinstance(change.content, Path) else len(change.content)
            _head(target, tag, change.vr, size + size % 2)
            if isinstance(change.content, Path):
                _copy(change.content, target.out)
            else:
                target.out.write(change.content)
            target.out.write((b" " if change.vr in (b"CS", b"DS") else b"\0") * (size % 2))


def _copy(source: Path, out: Output) -> None:
    with source.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while piece := file.read(PIECE_BYTES):
            out.write(piece)


def _head(target: _Target, tag: int, vr: bytes, length: int) -> None:
    target.out.write(struct.pack("<HH", tag >> 16, tag & 0xFFFF))
    if target.explicit and vr in SHORT_VRS and length > _MAX_SHORT:
        vr = b"UN"  # PS3.5 6.2.2
    if not target.explicit:
        target.out.write(struct.pack("<I", length))
    elif vr in SHORT_VRS:
        target.out.write(vr + struct.pack("<H", length))
    else:
        target.out.write(vr + bytes(2) + struct.pack("<I", length))


def _value(out: Output, data: Encoded, offset: int, length: int, vr: bytes, encoding: Encoding) -> None:
    size = WORD_BYTES.get(vr, 1)
    if encoding.little_endian or size == 1:
        if not encoding.little_endian and vr == b"UN" and length:
            raise DamagedInstance("A big endian value of unknown representation can't be turned round.")
        _write(out, data, offset, offset + length)
        return
    if length % size:
        raise DamagedInstance("A value is no whole number of words.")
    for start in range(offset, offset + length, PIECE_BYTES):
        piece = data[start : min(start + PIECE_BYTES, offset + length)]
        out.write(np.frombuffer(piece, f"u{size}").byteswap().tobytes())


def _write(out: Output, data: Encoded, start: int, end: int) -> None:
    for begun in range(start, end, PIECE_BYTES):
        out.write(data[begun : min(begun + PIECE_BYTES, end)])
