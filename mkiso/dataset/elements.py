"""Where the elements of an encoded data set lie (PS3.5 7): one walk for the receiver's checks and for reading headers.

Nothing is decoded and nothing is copied but what the caller slices out. The walk is iterative and bounded: hostile data
costs an error and no more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from mmap import mmap
from typing import NamedTuple

from mkiso.errors import DamagedInstance

Encoded = bytes | mmap

UNDEFINED_LENGTH = 0xFFFFFFFF
ITEM, ITEM_DELIMITER, SEQUENCE_DELIMITER = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
"""The VRs whose length has 16 bits; those of LONG_VRS have 32 (PS3.5 7.1.2)."""
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())

MAX_DEPTH = 64  # nested sequences of undefined length; structured reports in practice stay below 20
MAX_ELEMENTS = 2_000_000  # walked one by one: about 2 s; an enhanced object of 10,000 frames has some 500,000


@dataclass(frozen=True, eq=False)
class Encoding:
    """How elements are encoded; the three below are all there are.

    `explicit_head` and `implicit_head` take a tag as one number as it lies there: `key` tells which number that is.
    """

    explicit: bool
    little_endian: bool
    explicit_head: struct.Struct
    implicit_head: struct.Struct
    length: struct.Struct

    def key(self, tag: int) -> int:
        """A tag as the heads unpack it: little endian has the group, which comes first, in the lower half."""
        return (tag & 0xFFFF) << 16 | tag >> 16 if self.little_endian else tag


def _encoding(explicit: bool, order: str) -> Encoding:
    return Encoding(explicit, order == "<", *(struct.Struct(order + form) for form in ("I2sH", "II", "I")))


EXPLICIT_LITTLE = _encoding(True, "<")
EXPLICIT_BIG = _encoding(True, ">")
IMPLICIT_LITTLE = _encoding(False, "<")


class Element(NamedTuple):
    """One element: its VR (None where it is implicit), where its value begins, how long the value is, and how a
    sequence in it is encoded.

    `length` includes the delimiter of a sequence of undefined length; `delimited` says that there is one.
    """

    vr: bytes | None
    offset: int
    length: int
    delimited: bool
    encoding: Encoding


def elements(data: Encoded, offset: int, end: int, encoding: Encoding, wanted: frozenset[int]) -> dict[int, Element]:
    """The wanted elements of the data set between `offset` and `end`, by tag. Raises DamagedInstance unless it is whole
    and ends exactly at `end`.
    """
    try:
        found, last = _elements(data, offset, end, encoding, wanted)
    except struct.error:
        last = end + 1
    if last > end:
        raise DamagedInstance("The data set is cut short inside an element.")
    return found


def elements_so_far(data: bytes, encoding: Encoding, wanted: frozenset[int]) -> tuple[dict[int, Element], int] | None:
    """The wanted elements of a data set of which only the beginning is here, and where its last element here ends,
    perhaps after what is here.

    Where that is the data set's own end, this is what `elements` gives for the whole. None where the beginning alone
    doesn't tell.
    """
    try:
        found, last = _elements(data, 0, len(data), encoding, wanted)
    except (struct.error, DamagedInstance):
        return None
    return None if any(element.offset + element.length > len(data) for element in found.values()) else (found, last)


def elements_up_to(
    data: bytes, offset: int, encoding: Encoding, wanted: frozenset[int], last: frozenset[int]
) -> dict[int, Element]:
    """The wanted elements of a data set from `offset` on up to the first of `last`, which are wanted too, else to the
    end of `data`. That one needn't be here whole; of undefined length it has the length 0.

    Raises DamagedInstance where the data set isn't whole up to there.
    """
    try:
        found, end = _elements(data, offset, len(data), encoding, wanted, last=last)
    except struct.error:
        end = len(data) + 1
    if end > len(data):
        raise DamagedInstance("The data set is cut short inside an element.")
    return found


def value_so_far(data: bytes, encoding: Encoding, wanted: int) -> bytes | None:
    """The value of one element, by the beginning of a data set; None where the beginning doesn't tell, or the data set
    hasn't got it in its place."""
    offset, end, left = 0, len(data), MAX_ELEMENTS
    vr: bytes | None = None
    try:
        while offset < end:
            if encoding.explicit:
                key, vr, length = encoding.explicit_head.unpack_from(data, offset)
            else:
                key, length = encoding.implicit_head.unpack_from(data, offset)
            tag, start = encoding.key(key), offset + 8
            if tag > wanted:  # PS3.5 7.1: they ascend
                return None
            if vr is not None and vr not in SHORT_VRS:
                (length,) = encoding.length.unpack_from(data, start)
                start += 4
            if length == UNDEFINED_LENGTH:
                offset, left = _end_of_undefined(data, start, end, encoding, vr, left)
                continue
            offset = start + length
            if tag == wanted:
                return data[start:offset] if offset <= end else None
    except (struct.error, DamagedInstance):
        pass
    return None


def element_end(data: Encoded, offset: int, end: int, vr: bytes = b"UN") -> int:
    """Where a value of undefined length in little endian ends, its delimiter included: a sequence of VR UN, or
    fragments. Raises DamagedInstance.
    """
    try:
        return _end_of_undefined(data, offset, end, EXPLICIT_LITTLE, vr, MAX_ELEMENTS)[0]
    except struct.error:
        raise DamagedInstance("A sequence is cut short inside an element.") from None


def unpadded(value: bytes) -> str:
    """A value without its padding (PS3.5 6.2). Bytes above 127, which only a Patient ID may hold, keep their
    difference.
    """
    return value.decode("latin-1").strip(" \0")


def items(data: Encoded, sequence: Element, wanted: frozenset[int]) -> list[dict[int, Element]]:
    """The wanted elements of each item of a sequence, by tag. Raises DamagedInstance as `elements` does."""
    return [item for item, _ in each_item(data, sequence, wanted)]


def each_item(data: Encoded, sequence: Element, wanted: frozenset[int]) -> Iterator[tuple[dict[int, Element], int]]:
    """`items` one by one, each with its size in bytes, for whoever doesn't want to the end of a long sequence."""
    offset, end, encoding = sequence.offset, sequence.offset + sequence.length, sequence.encoding
    try:
        while offset < end:
            key, length = encoding.implicit_head.unpack_from(data, offset)
            tag = encoding.key(key)
            offset += 8
            if tag == SEQUENCE_DELIMITER and sequence.delimited:
                break
            if tag != ITEM:
                raise DamagedInstance("A sequence holds something that is no item.")
            delimited = length == UNDEFINED_LENGTH
            item_end = end if delimited else offset + length
            start = offset
            item, offset = _elements(data, start, item_end, encoding, wanted, delimited)
            if offset > min(item_end, end):
                raise DamagedInstance("An item is longer than its sequence, or cut short inside an element.")
            yield item, offset - start
    except struct.error:
        raise DamagedInstance("A sequence is cut short inside an element.") from None


def _elements(
    data: Encoded,
    offset: int,
    end: int,
    encoding: Encoding,
    wanted: frozenset[int],
    delimited: bool = False,
    last: frozenset[int] = frozenset(),
) -> tuple[dict[int, Element], int]:
    """The wanted elements up to `end`, or up to the Item Delimitation Item where `delimited`, and where what follows
    begins: after `end` where the last element is cut short. The first of `last` ends it where its value begins.
    """
    found: dict[int, Element] = {}
    keys, last_keys = _keys(encoding, wanted), _keys(encoding, last)
    explicit_head, implicit_head, explicit = (
        encoding.explicit_head.unpack_from,
        encoding.implicit_head.unpack_from,
        encoding.explicit,
    )
    delimiter = encoding.key(ITEM_DELIMITER)
    vr: bytes | None = None
    if not delimited:
        _check_first(data, offset, end, encoding)
    left = MAX_ELEMENTS  # inside values of undefined length
    # This loop is what a header costs: nothing in it that can be done once, after it or seldom.
    for _ in range(MAX_ELEMENTS):
        if offset >= end:
            break
        if explicit:
            key, vr, length = explicit_head(data, offset)
        else:
            key, length = implicit_head(data, offset)
        start = offset + 8
        if vr not in SHORT_VRS:
            if key == delimiter and delimited:
                return found, start
            if vr is not None:
                require_vr(vr, offset)
                (length,) = encoding.length.unpack_from(data, start)
                start += 4
            if length == UNDEFINED_LENGTH and key not in last_keys:
                offset, left = _end_of_undefined(data, start, end, encoding, vr, left)
            else:
                offset = start + length
        else:
            offset = start + length
        if key in keys:
            tag = keys[key]
            if key in last_keys:
                is_open = length == UNDEFINED_LENGTH
                found[tag] = Element(vr, start, 0 if is_open else length, is_open, encoding)
                return found, start
            if tag in found:  # PS3.5 7.1: once each; which of the two a reader takes would be chance
                raise DamagedInstance(f"The data set has the element {tag >> 16:04X},{tag & 0xFFFF:04X} twice.")
            found[tag] = Element(
                vr, start, offset - start, length == UNDEFINED_LENGTH, IMPLICIT_LITTLE if vr == b"UN" else encoding
            )
    if offset < end:
        raise DamagedInstance("The data set has too many elements.")
    if delimited:
        raise DamagedInstance("An item isn't terminated.")
    return found, offset


@cache
def _keys(encoding: Encoding, wanted: frozenset[int]) -> dict[int, int]:
    return {encoding.key(tag): tag for tag in wanted}


def require_vr(vr: bytes, offset: int) -> None:
    """Whether a VR that is none of SHORT_VRS is one of PS3.5 6.2. After whatever else stands there some readers take 16
    bits for the length and others 32, and then see other elements, such as another patient's.
    """
    if vr not in LONG_VRS:
        raise DamagedInstance(f"The data set has no value representation at byte {offset + 4}.")


def _check_first(data: Encoded, offset: int, end: int, encoding: Encoding) -> None:
    """Elements of a command or of the file's own group before a data set would pass for the file's (PS3.5 7.1, PS3.10
    7.1). And a length that looks like a VR, of 16 KB and more, has some readers take an implicit data set for explicit.
    """
    if offset < end:
        key, _ = encoding.implicit_head.unpack_from(data, offset)
        group = encoding.key(key) >> 16
        if group in (0x0000, 0x0002, 0xFFFE):
            raise DamagedInstance(
                f"The data set begins with an element of group {group:04X}, which doesn't belong there."
            )
        vr = data[offset + 4 : offset + 6]
        if not encoding.explicit and vr.isalpha() and vr.isupper():
            raise DamagedInstance("The data set begins as one with value representations does, and is said to be none.")


def _end_of_undefined(
    data: Encoded, offset: int, end: int, encoding: Encoding, vr: bytes | None, left: int
) -> tuple[int, int]:
    """Where a value of undefined length ends, its delimiter included, and how many elements may still be walked."""
    if vr is None or vr == b"SQ":
        return _end_of_sequence(data, offset, end, encoding, left)
    if vr == b"UN":  # PS3.5 6.2.2: a sequence in Implicit VR Little Endian whatever surrounds it
        return _end_of_sequence(data, offset, end, IMPLICIT_LITTLE, left)
    return _end_of_fragments(data, offset, end, encoding, left)


def _end_of_fragments(data: Encoded, offset: int, end: int, encoding: Encoding, left: int) -> tuple[int, int]:
    """Encapsulated pixel data: fragments of defined length up to the Sequence Delimitation Item (PS3.5 A.4)."""
    while offset < end and left > 0:
        key, length = encoding.implicit_head.unpack_from(data, offset)
        offset += 8
        left -= 1
        tag = encoding.key(key)
        if tag == SEQUENCE_DELIMITER:
            return offset, left
        if tag != ITEM or length == UNDEFINED_LENGTH:
            raise DamagedInstance("The encapsulated pixel data isn't made of fragments.")
        offset += length
    raise DamagedInstance("The encapsulated pixel data isn't terminated.")


def _end_of_sequence(data: Encoded, offset: int, end: int, encoding: Encoding, left: int) -> tuple[int, int]:
    """A sequence of undefined length up to its delimiter (PS3.5 7.5.2); what has a defined length is stepped over."""
    parents: list[Encoding] = []  # of the open sequences around this one
    in_item = False
    while offset < end and left > 0:
        left -= 1
        key, length = encoding.implicit_head.unpack_from(data, offset)
        tag = encoding.key(key)
        if tag >> 16 == 0xFFFE:
            offset += 8
            if tag == ITEM and not in_item:
                in_item = length == UNDEFINED_LENGTH
                offset += 0 if in_item else length
            elif tag == ITEM_DELIMITER and in_item:
                in_item = False
            elif tag == SEQUENCE_DELIMITER and not in_item:
                if not parents:
                    return offset, left
                encoding, in_item = parents.pop(), True
            else:
                raise DamagedInstance("The items of a sequence are malformed.")
            continue
        if not in_item:
            raise DamagedInstance("A sequence holds something that is no item.")
        vr: bytes | None = None
        if encoding.explicit:
            _, vr, length = encoding.explicit_head.unpack_from(data, offset)
            if vr not in SHORT_VRS:
                require_vr(vr, offset)
                (length,) = encoding.length.unpack_from(data, offset + 8)
                offset += 4
        offset += 8
        if length != UNDEFINED_LENGTH:
            offset += length
        elif vr in (None, b"SQ", b"UN"):
            if len(parents) >= MAX_DEPTH:
                raise DamagedInstance(f"Sequences are nested deeper than {MAX_DEPTH}.")
            parents.append(encoding)
            encoding, in_item = IMPLICIT_LITTLE if vr == b"UN" else encoding, False
        else:
            offset, left = _end_of_fragments(data, offset, end, encoding, left)
    raise DamagedInstance("A sequence isn't terminated.")
