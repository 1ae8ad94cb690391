"""An uncompressed data set in another uncompressed transfer syntax (PS3.5 A.1 to A.3), value by value: only the frames
of elements change, and the order of bytes where it was big endian.

Group lengths are left out: they would be wrong, and nobody needs them (PS3.5 7.2).
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np

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
)
from mkiso.errors import DamagedInstance

ENCODINGS = {
    "1.2.840.10008.1.2": IMPLICIT_LITTLE,
    "1.2.840.10008.1.2.1": EXPLICIT_LITTLE,
    "1.2.840.10008.1.2.2": EXPLICIT_BIG,
}
PIECE_BYTES = 1024 * 1024
_WORD_BYTES = {
    **dict.fromkeys((b"US", b"SS", b"OW", b"AT"), 2),
    **dict.fromkeys((b"UL", b"SL", b"FL", b"OF", b"OL"), 4),
    **dict.fromkeys((b"FD", b"OD", b"OV", b"SV", b"UV"), 8),
}
_ITEM = struct.Struct("<HHI")


def reencode(data: Encoded, offset: int, encoding: Encoding, out: BinaryIO, *, explicit: bool) -> None:
    """Write the explicit data set from `offset` to the end in little endian, explicit or implicit. Raises
    DamagedInstance, also where big endian values have no VR that says how long their words are.
    """
    try:
        _elements(data, offset, len(data), encoding, out, explicit, depth=0, delimited=False)
    except struct.error:
        raise DamagedInstance("The data set is cut short inside an element.") from None


def _elements(
    data: Encoded, offset: int, end: int, encoding: Encoding, out: BinaryIO, explicit: bool, depth: int, delimited: bool
) -> int:
    """The elements up to `end`, or up to the Item Delimitation Item; where what follows begins."""
    if depth > MAX_DEPTH:
        raise DamagedInstance(f"Sequences are nested deeper than {MAX_DEPTH}.")
    while offset < end:
        key, vr, _ = encoding.explicit_head.unpack_from(data, offset)
        tag = encoding.key(key)
        if tag == ITEM_DELIMITER and delimited:
            return offset + 8
        if not vr.isalpha():
            raise DamagedInstance(f"The data set has no value representation at byte {offset + 4}.")
        if vr in SHORT_VRS:
            (length,) = struct.unpack_from("<H" if encoding.little_endian else ">H", data, offset + 6)
            offset += 8
        else:
            (length,) = encoding.length.unpack_from(data, offset + 8)
            offset += 12
        if vr == b"SQ":
            _head(out, tag, vr, UNDEFINED_LENGTH, explicit)
            offset = _sequence(data, offset, end, length, encoding, out, explicit, depth)
        elif length == UNDEFINED_LENGTH:
            if vr != b"UN":
                raise DamagedInstance("The data set is compressed.")
            _head(out, tag, vr, length, explicit)
            offset, begun = element_end(data, offset, end), offset
            _write(out, data, begun, offset)  # Implicit VR Little Endian whatever surrounds it (PS3.5 6.2.2)
        else:
            if length > end - offset:
                raise DamagedInstance("The data set is cut short inside an element.")
            if tag & 0xFFFF:
                _head(out, tag, vr, length, explicit)
                _value(out, data, offset, length, vr, encoding)
            offset += length
    if delimited:
        raise DamagedInstance("An item isn't terminated.")
    return offset


def _sequence(
    data: Encoded, offset: int, end: int, length: int, encoding: Encoding, out: BinaryIO, explicit: bool, depth: int
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
        out.write(_ITEM.pack(ITEM >> 16, ITEM & 0xFFFF, UNDEFINED_LENGTH))
        open_ended = size == UNDEFINED_LENGTH
        item_end = last if open_ended else offset + size
        if item_end > last:
            raise DamagedInstance("An item is longer than its sequence.")
        offset = _elements(data, offset, item_end, encoding, out, explicit, depth + 1, open_ended)
        out.write(_ITEM.pack(ITEM_DELIMITER >> 16, ITEM_DELIMITER & 0xFFFF, 0))
    else:
        if delimited:
            raise DamagedInstance("A sequence isn't terminated.")
    out.write(_ITEM.pack(SEQUENCE_DELIMITER >> 16, SEQUENCE_DELIMITER & 0xFFFF, 0))
    return offset


def _head(out: BinaryIO, tag: int, vr: bytes, length: int, explicit: bool) -> None:
    out.write(struct.pack("<HH", tag >> 16, tag & 0xFFFF))
    if not explicit:
        out.write(struct.pack("<I", length))
    elif vr in SHORT_VRS:
        out.write(vr + struct.pack("<H", length))
    else:
        out.write(vr + bytes(2) + struct.pack("<I", length))


def _value(out: BinaryIO, data: Encoded, offset: int, length: int, vr: bytes, encoding: Encoding) -> None:
    size = _WORD_BYTES.get(vr, 1)
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


def _write(out: BinaryIO, data: Encoded, start: int, end: int) -> None:
    for begun in range(start, end, PIECE_BYTES):
        out.write(data[begun : min(begun + PIECE_BYTES, end)])
