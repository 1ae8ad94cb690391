"""What a header says in text: together with the character set that it was encoded in, for comparing, for records and
for people alike."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings, encode_string
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName

from mkiso.languages import N_
from mkiso.study.character_sets import UNICODE, character_set, is_utf8

CHARACTER_SET_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""The VRs that (0008,0005) is for (PS3.5 6.1.2.2)."""
SPECIFIC_CHARACTER_SET = 0x00080005
SEXES = MappingProxyType({"F": N_("female"), "M": N_("male"), "O": N_("other")})
"""Patient's Sex (0010,0040) as people say it."""
_SPECIFIC_CHARACTER_SET = BaseTag(SPECIFIC_CHARACTER_SET)
_PADDING = b" \x00"


@dataclass(frozen=True, slots=True)
class Text:
    """A value as it was encoded, without its padding, and the Specific Character Set that holds where it stands
    (`terms`, as it came; empty: none).

    The two never part: a value alone says nothing. False where it is empty.
    """

    value: bytes = b""
    terms: bytes = b""

    def __bool__(self) -> bool:
        return bool(self.value)

    def __str__(self) -> str:
        """The text as people read it; characters that can't be read are U+FFFD."""
        return self._decoded()[0]

    @property
    def is_plain(self) -> bool:
        """Whether it reads the same in every character set."""
        return self.value.isascii() and b"\x1b" not in self.value

    @property
    def is_whole(self) -> bool:
        """Whether every character could be read."""
        return self._decoded()[1]

    @property
    def set_named(self) -> bytes | None:
        """The character set that is named, as the standard spells it: empty for the default repertoire, None where
        the standard has no such value."""
        return character_set(self.terms).term

    @property
    def set_used(self) -> bytes | None:
        """The character set that these bytes are in: `set_named`, but UTF-8 where they plainly are and nothing that
        is known is named."""
        return UNICODE if self._is_undeclared_utf8() else self.set_named

    @property
    def stated(self) -> str:
        """The text for comparing: two that differ are never the same, also where they can't be read (their bytes as
        Latin-1, as pydicom has it)."""
        text, whole = (str(self), True) if self.is_plain else _decoded(self.value, self.terms)
        return text if whole else self.value.decode("latin-1")

    def rewritten(self, text: str) -> Text:
        """Another text in the same character set where that holds it, else in Unicode."""
        if text.isascii():
            return Text(text.encode("ascii"), self.terms)
        encoded = character_set(self.terms).encode(text)
        return Text(text.encode("utf-8"), UNICODE) if encoded is None else Text(encoded, self.terms)

    def _decoded(self) -> tuple[str, bool]:
        if self.is_plain:
            return self.value.decode("ascii"), True
        return _decoded(self.value, UNICODE if self._is_undeclared_utf8() else self.terms)

    def _is_undeclared_utf8(self) -> bool:
        return (
            not self.is_plain
            and b"\x1b" not in self.value
            and character_set(self.terms).codecs[0] in ("ascii", None)
            and is_utf8(self.value)
        )


NO_TEXT = Text()


def text_of(header: Dataset, keyword: str | int, inherited: bytes = b"") -> Text:
    """An attribute's text by its keyword or tag, empty where it is absent. `inherited` holds where an item declares
    none."""
    terms = terms_of(header, inherited)
    return Text(raw_value(header, _tag(keyword), terms), terms)


def text(header: Dataset, keyword: str) -> str:
    """An attribute's text for people."""
    return str(text_of(header, keyword))


def terms_of(header: Dataset, inherited: bytes = b"") -> bytes:
    """The values of (0008,0005) of a data set; of an item without the attribute those that it inherits (PS3.5
    7.5.3)."""
    element = header.get_item(_SPECIFIC_CHARACTER_SET)
    return inherited if element is None else _bytes_in(element)


def raw_value(header: Dataset, tag: int, terms: bytes = b"") -> bytes:
    """The value of a string attribute as it was encoded, without its padding; empty where it is absent. `terms`: of
    text, its character set."""
    element = header.get_item(BaseTag(tag))
    return b"" if element is None else _bytes_in(element, terms)


def stated(header: Dataset, tag: int) -> str:
    """Text.stated of an attribute, for which nearly always the value alone is needed."""
    element = header.get_item(BaseTag(tag))
    if isinstance(element, RawDataElement) and (value := element.value or b"").isascii() and b"\x1b" not in value:
        return value.strip(_PADDING).decode("ascii")
    return text_of(header, tag).stated


def readable_name(person_name: str) -> str:
    """A person name as lists of people have it: prefix and family name, then given and middle name, then the suffix;
    the component groups one after the other (PS3.5 6.2.1).
    """
    groups = []
    for group in person_name.split("="):
        parts = [" ".join(part.split()) for part in group.split("^")]
        family, given, middle, prefix, suffix = [*parts, "", "", "", "", ""][:5]
        written = (" ".join(filter(None, (prefix, family))), " ".join(filter(None, (given, middle))), suffix)
        groups.append(", ".join(part for part in written if part))
    return " / ".join(group for group in groups if group)


def named_in(headers: Iterable[Dataset]) -> Dataset | None:
    """The first of these headers with a PatientName that can be read, else the first with one, else the first."""
    first, found = None, False
    for header in headers:
        name = text_of(header, "PatientName")
        says = bool(str(name).strip(" ^="))
        if says and name.is_whole:
            return header
        if first is None or (says and not found):
            first, found = header, says
    return first


def _bytes_in(element: DataElement | RawDataElement, terms: bytes = b"") -> bytes:
    if isinstance(element, RawDataElement):
        return (element.value or b"").strip(_PADDING)
    return b"" if element.VR == "SQ" else _encode_again(element, terms).strip(_PADDING)


@lru_cache(maxsize=512)
def _tag(keyword: str | int) -> int:
    tag = keyword if isinstance(keyword, int) else tag_for_keyword(keyword)
    assert tag is not None, keyword
    return tag


@lru_cache(maxsize=4096)
def _decoded(value: bytes, terms: bytes) -> tuple[str, bool]:
    return character_set(terms).decode(value)


def _encode_again(element: DataElement, terms: bytes) -> bytes:
    """Somebody read the attribute before us, and pydicom keeps the decoded value only; what it used then turns it
    back."""
    if element.value is None:
        return b""
    values = list(element.value) if isinstance(element.value, MultiValue) else [element.value]
    return b"\\".join(_bytes_of(value, _pydicom_encodings(terms)) for value in values)


@lru_cache(maxsize=64)
def _pydicom_encodings(terms: bytes) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return convert_encodings([term.decode("ascii", "replace") for term in terms.split(b"\\")])


def _bytes_of(value: object, encodings: list[str]) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, PersonName):
        return value.encode(encodings)
    return encode_string(str(getattr(value, "original_string", value)), encodings)
