"""What a header says, as bytes for records and as text for people; a value that can't be read counts as absent."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName

CHARACTER_SET_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})  # PS3.5 6.1.2.2: the VRs that (0008,0005) is for
UNICODE = b"ISO_IR 192"
_PADDING = b" \x00"
_DELIMITERS = {0x0A, 0x0C, 0x0D, 0x09, 0x5C, 0x5E, 0x3D}  # PS3.5 6.1.2.5.3: back to the first character set after these
_TERM = re.compile(rb"(?i)\s*ISO[ _-]?(2022)?[ _-]?IR[ _-]?(\d{1,3})\s*")


def raw_value(header: Dataset, tag: int) -> bytes:
    """The value of a string attribute as it was encoded, without its padding; empty where it is absent."""
    element = header.get_item(BaseTag(tag))
    if element is None or element.VR == "SQ":
        return b""
    if isinstance(element, RawDataElement):
        return (element.value or b"").strip(_PADDING)
    return _encode_again(element, header).strip(_PADDING)


def character_set(header: Dataset) -> bytes:
    """(0008,0005) in the spelling of PS3.3 C.12.1.1.2; several values stay several."""
    return _defined_terms(raw_value(header, 0x00080005))


def text(header: Dataset, keyword: str) -> str:
    """The value of an attribute as readable text; empty where it is absent."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return decoded(raw_value(header, tag), character_set(header))


def decoded(value: bytes, terms: bytes) -> str:
    """Text of these bytes in these character sets; what can't be decoded is replaced. Undeclared UTF-8 is taken for what it plainly is."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return decode_bytes(value, _encodings(terms or (UNICODE if is_utf8(value) else b"")), _DELIMITERS)


def is_utf8(value: bytes) -> bool:
    """Whether the bytes are well-formed UTF-8, which text in another 8-bit character set hardly ever is."""
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _encode_again(element: DataElement, header: Dataset) -> bytes:
    """Somebody read the attribute before us, and pydicom keeps the decoded value only."""
    if element.value is None:
        return b""
    values = list(element.value) if isinstance(element.value, MultiValue) else [element.value]
    encodings = _encodings(b"" if element.tag == 0x00080005 else character_set(header))
    return b"\\".join(_bytes_of(value, encodings) for value in values)


def _bytes_of(value: object, encodings: list[str]) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, PersonName):
        return value.encode(encodings)
    return encode_string(str(getattr(value, "original_string", value)), encodings)


def _encodings(terms: bytes) -> list[str]:
    return convert_encodings([term.decode("ascii", "replace") for term in terms.split(b"\\")])


@lru_cache(maxsize=64)
def _defined_terms(values: bytes) -> bytes:
    return b"\\".join(map(_defined_term, values.split(b"\\")))


def _defined_term(value: bytes) -> bytes:
    value = value.strip(_PADDING)
    if value.upper() in (b"UTF8", b"UTF-8", b"UTF_8"):
        return UNICODE
    spelled = _TERM.fullmatch(value)
    if spelled is None:
        return value
    extension, number = spelled.groups()
    return (b"ISO 2022 IR " if extension else b"ISO_IR ") + number
