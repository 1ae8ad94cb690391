"""A value as its VR allows it in a directory record (PS3.5 6.2): the one way by which an image's text and codes get
there.

What differs from it in writing alone is put right, text that is too long or has characters that it may not have is
shortened and cleaned, and what means nothing becomes empty. Identifiers are never changed, for half an identifier is
another one: such a value becomes empty.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from datetime import date
from functools import lru_cache
from math import isfinite
from typing import NamedTuple

from pydicom.valuerep import format_number_as_ds

from mkiso.media.record_keys import Key
from mkiso.study.character_sets import REPLACEMENT, TRAILING_DELIMITERS, UNICODE, character_set
from mkiso.study.text import CHARACTER_SET_VRS, NO_TEXT, Text

# What was done to a value: the notes of the DICOMDIR, with the number of records.
PUT_RIGHT = "written as its VR wants it in {} of the DICOMDIR, not in the images"
LEFT_OUT = "left out of {} of the DICOMDIR, since it has no value that it may have"
SHORTENED = "shortened in {} of the DICOMDIR, not in the images"
CLEANED = "cleaned of characters that it may not have in {} of the DICOMDIR, not in the images"
UNREADABLE = "not readable in its character set, marked so in {} of the DICOMDIR"

_MOST_CHARACTERS: Mapping[str, int] = {"LO": 64, "SH": 16, "ST": 1024, "LT": 10240, "UC": 2**32 - 2, "UT": 2**32 - 2}
_MOST_BYTES = 65_534  # a length of 16 bits (PS3.5 7.1.2)
_GROUP_CHARACTERS, _GROUPS, _COMPONENTS = 64, 3, 5  # PN: of each component group, at most
_NUMBERS: Mapping[str, str] = {"US": "<H", "UL": "<I"}
NUMBER_BYTES: Mapping[str, int] = {vr: struct.calcsize(form) for vr, form in _NUMBERS.items()}
_LINES = frozenset({"LT", "ST", "UT"})  # those that may have line ends, and backslashes as themselves
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]+")
_CONTROLS_BUT_LINES = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff]+")
_CS = re.compile(rb"[A-Z0-9_ ]{1,16}")
_DATE = re.compile(rb"(\d{4})([.\-/]?)(\d\d)\2(\d\d)")
_TIME = re.compile(rb"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(?:\.(\d{1,6})\d*)?)?)?")
_DATE_TIME = re.compile(
    rb"(\d{8})(?:([01]\d|2[0-3])(?:([0-5]\d)(?:([0-5]\d|60)(\.\d{1,6})?)?)?)?([+-](0\d|1[0-4])[0-5]\d)?"
)
_INTEGER = re.compile(rb"([+-]?\d{1,11})(\.0*)?")
_DECIMAL, _DECIMAL_CHARACTERS = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"), 16
_URI = re.compile(rb"[\x21-\x5b\x5d-\x7e]+")
_UID = re.compile(rb"(0|[1-9]\d*)(\.(0|[1-9]\d*))*")


class Conforming(NamedTuple):
    """A value that its VR allows, perhaps empty, and what had to be done for it; empty words where nothing had."""

    value: Text
    change: str = ""


def conforming(key: Key, found: Text) -> Conforming:
    """A value of a string attribute as its VR and the key allow it."""
    if not found:
        return Conforming(NO_TEXT)
    if key.vr in CHARACTER_SET_VRS:
        return _text(key, found)
    value = found.value
    if key.several or key.values or (right := _RULES[key.vr](value)) != value:
        right = _codes("label" if key.meaning == "label" else key.vr, value, key.values, key.several, key.count)
    return Conforming(found) if right == value else Conforming(Text(right), PUT_RIGHT if right else LEFT_OUT)


@lru_cache(maxsize=1024)
def _codes(rule: str, value: bytes, allowed: tuple[frozenset[bytes], ...], several: bool, count: int) -> bytes:
    """What no character set changes: all values as they must be, or none; where there may be one, the first that is
    as it must be."""
    parts = [part.strip(b" \x00") for part in value.split(b"\\")]
    right = [_RULES[rule](part) for part in parts]
    if not several:
        return next((one for one in right if one and (not allowed or one in allowed[0])), b"")
    complete = (
        len(value) <= _MOST_BYTES
        and (len(right) == count if count else len(right) >= len(allowed))
        and all(map(bool.__eq__, map(bool, parts), map(bool, right)))
    )
    return (
        b"\\".join(right) if complete and all(one in these for one, these in zip(right, allowed, strict=False)) else b""
    )


def number(vr: str, *values: object) -> bytes:
    """Numbers as the binary VR has them, empty where it has no room for one."""
    try:
        return b"".join(struct.pack(_NUMBERS[vr], value) for value in values)
    except struct.error:
        return b""


def is_valid_uid(value: bytes) -> bool:
    """PS3.5 9.1: at most 64 characters, no component with a leading zero."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def _text(key: Key, found: Text) -> Conforming:
    text = str(found)
    cleaned = _cleaned(key.vr, text, key.several)
    short = (
        "\\".join(map(_short_name, cleaned.split("\\")))
        if key.vr == "PN"
        else _shortened(cleaned, _MOST_CHARACTERS[key.vr])
    )
    if short == text and found.is_whole:
        return Conforming(found if _is_safe(key, found, text) else Text(text.encode(), UNICODE))
    if key.meaning == "identifier" or not short:
        return Conforming(NO_TEXT, LEFT_OUT)
    return Conforming(
        found.rewritten(short), UNREADABLE if REPLACEMENT in short else SHORTENED if short != cleaned else CLEANED
    )


def _is_safe(key: Key, found: Text, text: str) -> bool:
    """Whether every reader reads these bytes as they were meant: half a character of GB 18030 may look like a
    delimiter, an escape sequence may lead to a set that isn't named, and the first group of a name may have none
    (PS3.5 6.1.2.5.4, 6.2.1.2).
    """
    if b"\x1b" in found.value:
        return character_set(found.terms).names_sets_of(found.value) and not (
            key.vr == "PN" and b"\x1b" in found.value.partition(b"=")[0]
        )
    return found.set_used not in TRAILING_DELIMITERS or all(
        found.value.count(byte) == text.count(chr(byte)) for byte in b"\\^="
    )


def _cleaned(vr: str, text: str, several: bool) -> str:
    """Without control characters; several values of which there may be one become one, of a name the first."""
    if vr in _LINES:
        cleaned = _CONTROLS_BUT_LINES.sub(" ", text).strip(" ")
        return cleaned if cleaned.strip() else ""
    parts = [part.strip(" ") for part in _CONTROLS.sub(" ", text).split("\\")]
    if several:
        return "\\".join(parts) if any(parts) else ""
    return next(filter(None, parts), "") if vr == "PN" else "/".join(filter(None, parts))


def _short_name(name: str) -> str:
    groups = []
    for group in name.split("=")[:_GROUPS]:
        components = group.split("^")
        if len(components) > _COMPONENTS and any(components[_COMPONENTS:]):
            components = [*components[: _COMPONENTS - 1], " ".join(filter(None, components[_COMPONENTS - 1 :]))]
        groups.append(_shortened("^".join(components[:_COMPONENTS]), _GROUP_CHARACTERS))
    return "=".join(groups)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3].rstrip() + "..."


def _code_string(part: bytes) -> bytes:
    return part.upper() if _CS.fullmatch(part.upper()) else b""


def _label(part: bytes) -> bytes:
    return re.sub(rb"[^A-Z0-9_ ]+", b"_", part.upper())[:16].strip(b" _")


def _date(part: bytes) -> bytes:
    found = _DATE.fullmatch(part)
    try:
        return b"%04d%02d%02d" % date(*map(int, found.group(1, 3, 4))).timetuple()[:3] if found else b""
    except ValueError:
        return b""


def _time(part: bytes) -> bytes:
    found = _TIME.fullmatch(part)
    hours, minutes, seconds, fraction = found.groups(b"") if found else (b"",) * 4
    return hours + minutes + seconds + (b"." + fraction if fraction else b"")


def _date_time(part: bytes) -> bytes:
    found = _DATE_TIME.fullmatch(part)
    return part if found and _date(found.group(1)) else b""


def _integer(part: bytes) -> bytes:
    found = _INTEGER.fullmatch(part)
    return found.group(1) if found and -(2**31) <= int(found.group(1)) < 2**31 else b""


def _decimal(part: bytes) -> bytes:
    """Of more than 16 characters as many digits as these have room for."""
    if not _DECIMAL.fullmatch(part):
        return b""
    if len(part) <= _DECIMAL_CHARACTERS:
        return part
    number = float(part)
    return format_number_as_ds(number).encode("ascii") if isfinite(number) else b""


def _uid(part: bytes) -> bytes:
    return part if is_valid_uid(part) else b""


def _uri(part: bytes) -> bytes:
    return part if _URI.fullmatch(part) else b""


_RULES: Mapping[str, Callable[[bytes], bytes]] = {
    "CS": _code_string, "label": _label, "DA": _date, "DS": _decimal, "DT": _date_time, "IS": _integer, "TM": _time,
    "UI": _uid, "UR": _uri,
}  # fmt: skip
