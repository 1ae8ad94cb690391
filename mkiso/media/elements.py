"""Data elements of directory records, and their bytes in Explicit VR Little Endian (PS3.5 7.1.2).

Text stays text with its character set until a record is known as a whole. Then one set is chosen that holds all of it
(PS3.3 F.5: each record declares its own), and only then it becomes bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from mkiso.study.character_sets import UNICODE
from mkiso.study.text import CHARACTER_SET_VRS, SPECIFIC_CHARACTER_SET, Text

_LONG_VRS = frozenset({"SQ", "UC", "UR", "UT"})


class Element(NamedTuple):
    """One data element: its value is text, a sequence's items, or bytes that no character set changes."""

    tag: int
    vr: str
    value: Text | tuple[Item, ...] | bytes


Item = tuple[Element, ...]


def element(tag: int, vr: str, value: bytes) -> bytes:
    """A data element, padded to even length (PS3.5 6.2, 7.1.2)."""
    if len(value) % 2:
        value += b"\x00" if vr in ("UI", "OB") else b" "
    if vr in _LONG_VRS:
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def item(content: bytes) -> bytes:
    """A sequence item of explicit length (PS3.5 7.5)."""
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content)) + content


def encoded(elements: Iterable[Element], term: bytes) -> bytes:
    """The elements in the order of their tags, every text in this character set, which `common_set` chose for them."""
    return b"".join(
        element(tag, vr, _value(value, term)) for tag, vr, value in sorted(elements, key=lambda found: found.tag)
    )


def declaring(term: bytes) -> list[Element]:
    """(0008,0005), where there is anything to declare."""
    return [Element(SPECIFIC_CHARACTER_SET, "CS", term)] if term else []


def common_set(found: Collection[Text]) -> bytes:
    """The character set that holds all of this text: the one that it is in already, else Unicode; empty for the
    default repertoire.

    Of plain text, which reads the same in each, the one that is named is kept where there is but one.
    """
    sets = {text.set_used for text in found if not text.is_plain}
    if not sets:
        named = {text.set_named for text in found if text}
        return (named.pop() if len(named) == 1 else None) or b""
    return (sets.pop() if len(sets) == 1 else None) or UNICODE


def texts(elements: Iterable[Element]) -> Iterator[Text]:
    """Every text that a character set is for, also in items."""
    for found in elements:
        if isinstance(found.value, tuple):
            for one in found.value:
                yield from texts(one)
        elif isinstance(found.value, Text) and found.vr in CHARACTER_SET_VRS:
            yield found.value


def _value(value: Text | tuple[Item, ...] | bytes, term: bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, Text):
        return value.value if value.is_plain or value.set_used == term else str(value).encode("utf-8")
    return b"".join(item(encoded(one, term)) for one in value)
