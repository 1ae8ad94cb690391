"""Directory records as bytes: a header's attributes in Explicit VR Little Endian, in the order of their tags (PS3.5 7.1.2, PS3.10 8.6)."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pydicom import Dataset, Sequence
from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import BaseTag

from mkiso.media.record_keys import KEYS, ORDERED, Key
from mkiso.media.values import CHARACTER_SET_VRS, UNICODE, character_set, is_utf8, raw_value

_NUMBERS: Mapping[str, str] = {"US": "<H", "UL": "<I"}
_CONFORMS: Mapping[str, re.Pattern[bytes]] = {  # PS3.5 6.2
    "CS": re.compile(rb"[A-Z0-9_ ]{1,16}(\\[A-Z0-9_ ]{0,16})*"),
    "DA": re.compile(rb"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"),
    "IS": re.compile(rb" *[+-]?\d{1,11} *"),
    "TM": re.compile(rb"([01]\d|2[0-3])([0-5]\d([0-5]\d|60)?(\.\d{1,6})?)?"),
    "UI": re.compile(rb"(0|[1-9]\d*)(\.(0|[1-9]\d*))*"),
}
_OLD_DATE = re.compile(rb"(\d{4})\.(\d{2})\.(\d{2})")  # PS3.5 6.2 note: what ACR-NEMA wrote
_LONG_VRS = frozenset({"SQ", "UC", "UT"})
_CONTENT_SEQUENCE, _RELATIONSHIP_TYPE = 0x0040A730, 0x0040A010
_VERIFICATION_DATE_TIME, _VERIFICATION_FLAG, _VERIFYING_OBSERVERS = 0x0040A030, 0x0040A493, 0x0040A073
_CONTENT_DATE, _CONTENT_TIME, _CONCEPT_NAME, _MIME_TYPE = 0x00080023, 0x00080033, 0x0040A043, 0x00420012
_TITLES = {  # the least that a title can say, for reports that have none (PS3.16)
    "SR DOCUMENT": (b"121144", b"DCM", b"Document Title"),
    "KEY OBJECT DOC": (b"113000", b"DCM", b"Of Interest"),
}
_MIME_TYPES = {  # PS3.3 C.24.2, by SOP class
    "1.2.840.10008.5.1.4.1.1.104.1": b"application/pdf",
    "1.2.840.10008.5.1.4.1.1.104.2": b"text/XML",
    "1.2.840.10008.5.1.4.1.1.104.3": b"model/stl",
    "1.2.840.10008.5.1.4.1.1.104.4": b"model/obj",
    "1.2.840.10008.5.1.4.1.1.104.5": b"model/mtl",
}


class Element(NamedTuple):
    """One data element, encoded but for its header."""

    tag: int
    vr: str
    value: bytes


def element(tag: int, vr: str, value: bytes) -> bytes:
    """A data element in Explicit VR Little Endian, padded to even length (PS3.5 6.2, 7.1.2)."""
    if len(value) % 2:
        value += b"\x00" if vr in ("UI", "OB") else b" "
    if vr in _LONG_VRS:
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def item(content: bytes) -> bytes:
    """A sequence item of explicit length (PS3.5 7.5)."""
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content)) + content


def record_body(kind: str, header: Dataset, order: int, given: Mapping[int, bytes], filled: Counter[str]) -> bytes:
    """A record's attributes from (0008,0005) upwards.

    `given` are values that are known better than from the header (by tag); `order` is the record's place among its siblings. What an image lacks
    and the record got is counted in `filled` under "record type, keyword".
    """
    terms = character_set(header)
    elements = [found for key in KEYS[kind] if (found := _element_of(kind, key, header, order, given, terms, filled))]
    if kind == "SR DOCUMENT":
        elements += _verification(header, elements)
    if kind in _TITLES:
        elements += _title_modifiers(header, terms)
    if declared := _character_set_of(elements, terms, kind, filled):
        elements.append(Element(0x00080005, "CS", declared))
    return b"".join(element(*found) for found in sorted(elements))


def _element_of(kind: str, key: Key, header: Dataset, order: int, given: Mapping[int, bytes], terms: bytes, filled: Counter[str]) -> Element | None:
    value = given.get(key.tag) or _value_of(key, header, terms)
    if not value and key.type == 3:
        return None
    if not value and key.type == 1:
        value = _instead(kind, key, header, order)
        filled[f"{kind}, {key.keyword}"] += 1
    return Element(key.tag, key.vr, value)


def _value_of(key: Key, header: Dataset, terms: bytes) -> bytes:
    if key.vr == "SQ":
        return b"".join(_items(header, key.tag, terms))
    if key.vr in _NUMBERS:
        return _number(header, key)
    return _conforming(key.vr, raw_value(header, key.tag))


def _conforming(vr: str, value: bytes) -> bytes:
    """The value where its VR allows it, else nothing: a broken date in a record stops readers that would show the image well."""
    allowed = _CONFORMS.get(vr)
    if allowed is None or allowed.fullmatch(value):
        return value
    old = _OLD_DATE.fullmatch(value) if vr == "DA" else None
    return b"".join(old.groups()) if old else b""


def _instead(kind: str, key: Key, header: Dataset, order: int) -> bytes:
    if key.tag == _CONCEPT_NAME:
        return _code(*_TITLES[kind])
    if key.tag == _MIME_TYPE:
        return _MIME_TYPES.get(raw_value(header, 0x00080016).decode("ascii", "replace"), key.fill)
    for tag in key.instead_of:
        if value := _conforming(key.vr, raw_value(header, tag)):
            return value
    if key.tag in ORDERED:
        return str(order).encode()
    return struct.pack(_NUMBERS[key.vr], int(key.fill)) if key.vr in _NUMBERS else key.fill


def _code(value: bytes, scheme: bytes, meaning: bytes) -> bytes:
    return item(element(0x00080100, "SH", value) + element(0x00080102, "SH", scheme) + element(0x00080104, "LO", meaning))


def _number(header: Dataset, key: Key) -> bytes:
    try:
        return struct.pack(_NUMBERS[key.vr], header[BaseTag(key.tag)].value)
    except (KeyError, struct.error, TypeError, ValueError):
        return b""


def _sequence(header: Dataset, tag: int, terms: bytes) -> list[Dataset]:
    """The items of a sequence; none where it is absent or can't be read. A hostile one fails in as many ways as a parser has, hence the wide net."""
    found = header.get_item(BaseTag(tag))
    if found is None:
        return []
    try:
        if isinstance(found, RawDataElement):
            found = convert_raw_data_element(found, encoding=convert_encodings(_names(terms)), ds=header)
        return list(found.value) if isinstance(found.value, Sequence) else []
    except Exception:
        return []


def _items(header: Dataset, tag: int, terms: bytes) -> Iterator[bytes]:
    return _encoded(_sequence(header, tag, terms), terms)


def _encoded(datasets: list[Dataset], terms: bytes) -> Iterator[bytes]:
    """Items encoded anew, since the source may be implicit or big endian."""
    for dataset in datasets:
        buffer = DicomBytesIO()
        buffer.is_implicit_VR, buffer.is_little_endian = False, True
        try:
            write_dataset(buffer, dataset, _names(terms))
        except Exception:  # noqa: S112  as above: an item that can't be encoded is left out, and a required one filled
            continue
        yield item(buffer.getvalue())


def _title_modifiers(header: Dataset, terms: bytes) -> list[Element]:
    """PS3.3 F.5.25 and F.5.26: Content Sequence holds the items that modify the title, where there are any."""
    modifiers = [dataset for dataset in _sequence(header, _CONTENT_SEQUENCE, terms) if dataset.get("RelationshipType") == "HAS CONCEPT MOD"]
    encoded = b"".join(_encoded(modifiers, terms))
    return [Element(_CONTENT_SEQUENCE, "SQ", encoded)] if encoded else []


def _verification(header: Dataset, elements: list[Element]) -> list[Element]:
    """PS3.3 F.5.25: Verification DateTime, the latest, is required of a verified report."""
    by_tag = {found.tag: found.value for found in elements}
    if by_tag[_VERIFICATION_FLAG] != b"VERIFIED":
        return []
    observers = _sequence(header, _VERIFYING_OBSERVERS, b"")
    latest = max((raw_value(observer, _VERIFICATION_DATE_TIME) for observer in observers), default=b"")
    return [Element(_VERIFICATION_DATE_TIME, "DT", latest or by_tag[_CONTENT_DATE] + by_tag[_CONTENT_TIME])]


def _character_set_of(elements: list[Element], terms: bytes, kind: str, filled: Counter[str]) -> bytes:
    """(0008,0005) as the record needs it (PS3.3 F.5: each declares its own). Undeclared UTF-8 is declared; other undeclared text stays as it came."""
    texts = [found.value for found in elements if found.vr in CHARACTER_SET_VRS or found.vr == "SQ"]
    if terms or all(value.isascii() for value in texts):
        return terms if any(texts) else b""
    declared = UNICODE if all(is_utf8(value) for value in texts) else b""
    filled[f"{kind}, SpecificCharacterSet{'' if declared else ' (unknown: the text stays undeclared)'}"] += 1
    return declared


def _names(terms: bytes) -> list[str]:
    return [term.decode("ascii", "replace") for term in terms.split(b"\\")]
