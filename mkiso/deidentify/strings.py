"""What would give a patient away wherever it stood: names, numbers, UIDs and days of the images as they came."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache

from babel.dates import get_month_names
from pydicom import Dataset
from pydicom._uid_dict import UID_dictionary
from pydicom.multival import MultiValue

from mkiso.languages import languages
from mkiso.study.models import Patient, Study
from mkiso.study.same_person import letters_of
from mkiso.study.writing import normalized, without_accents

_IDENTIFIERS = frozenset(
    {0x00100020, 0x00101000, 0x00101001, 0x00080050, 0x00380010, 0x00101090, 0x00402016, 0x00402017}
)
"""Patient ID, Other Patient IDs and Names, Accession Number, Admission ID, Medical Record Locator, order numbers."""
_BIRTH_DATE = 0x00100030
_WORD = re.compile(rb"[0-9A-Za-z\x80-\xff]+")
_LETTERS = re.compile(r"\w+")
_HAS_LETTER = re.compile(r"[^\W\d_]")
_ONLY_LETTERS = re.compile(r"[^\W\d_]+")
_UID = re.compile(rb"[0-9]+(?:\.[0-9]+){3,}")
_LEAST_BYTES, _LEAST_DIGITS = 3, 6
_LONG_BYTES = 5
"""A name of so many isn't in a longer word by chance, such as JSmithe1970."""
_SPELLED_DAY = re.compile(r"(?<!\d)(\d{1,4})[./\- ](\d{1,2})[./\- ](\d{1,4})(?!\d)")
_DIGITS = re.compile(r"\d+")
_NEAR = 24
"""Characters between a month's name and the numbers of its day and year, with these: de, พุทธศักราช."""
_BUDDHIST_ERA = 543  # years that Thailand counts more
_TITLES = 3  # of a name's components: prefix and suffix, such as MR, are everybody's


@dataclass(slots=True)
class Strings:
    """Gathered from whole data sets before they are cleaned. Words are compared whole and without regard to case.
    `numbers` and `short` names would be found by chance among bytes, so they are looked for in the values of attributes
    alone. `glued` are long identifiers without leading zeros and what stands between their letters and digits: they
    aren't in a longer word by chance. `letters` are names that aren't ASCII, which differ from set to set as bytes, and
    have no spaces around them in some languages. `spelled` are names as they are compared in any spelling: Müller,
    MUELLER.
    """

    words: set[bytes] = field(default_factory=set)
    phrases: set[bytes] = field(default_factory=set)
    glued: set[bytes] = field(default_factory=set)
    numbers: set[str] = field(default_factory=set)
    short: set[bytes] = field(default_factory=set)
    letters: set[str] = field(default_factory=set)
    spelled: set[str] = field(default_factory=set)
    uids: set[bytes] = field(default_factory=set)

    def gather(self, item: Dataset) -> None:
        """Take what stands in an item and in all below it."""
        for element in item:
            if element.VR == "SQ":
                for each in element.value:
                    self.gather(each)
            elif element.VR == "PN":
                for value in _values(element.value):
                    self.name(str(value))
            elif element.VR == "UI":
                self.uids |= {str(uid).encode() for uid in _values(element.value) if uid not in UID_dictionary}
            elif element.tag in _IDENTIFIERS or element.tag == _BIRTH_DATE:
                for value in _values(element.value):
                    self.identifier(str(value))

    def of_study(self, study: Study, known: Patient | None) -> None:
        """Take what the PACS and the patient API say."""
        for name, *identifiers in (
            (study.patient_name, study.patient_id, study.accession_number, study.patient_birth_date),
            (known.name, known.patient_id, known.birth_date) if known else ("",),
        ):
            self.name(name)
            for identifier in identifiers:
                self.identifier(identifier)
        self.uids.add(study.study_instance_uid.encode())

    def name(self, name: str) -> None:
        """A person's."""
        for group in name.casefold().split("="):
            for part in group.split("^")[:_TITLES]:
                words = set(_WORD.findall(part.encode()))
                self.words |= {word for word in words if len(word) >= _LEAST_BYTES}
                self.short |= {word for word in words if len(word) == _LEAST_BYTES - 1}
                self.letters |= {word for word in _LETTERS.findall(part) if not word.isascii()}
                self.spelled |= _spelled(part, _LEAST_BYTES)

    def identifier(self, text: str) -> None:
        """A number or the like."""
        if text.isascii() and text.isdigit() and len(text) < _LEAST_DIGITS:
            self.numbers.add(text)
        elif len(text) >= _LEAST_BYTES:
            self.phrases.add(text.strip().lower().encode())
            glued = _glued(text)
            self.glued |= {glued} if len(glued) >= _LEAST_DIGITS else set()

    def found_in(self, head: bytes) -> bool:
        """Whether any of it stands in these bytes. Linear in their length."""
        lower = head.lower()
        words = set(_WORD.findall(lower))
        return bool(words & self.words) or any(uid in self.uids for uid in _UID.findall(head)) or self._phrase_in(lower)

    def is_in_text(self, value: str) -> bool:
        """Whether any of it stands in the decoded value of an attribute. Among the bytes of a file a word may be
        missed: what follows a value without padding looks like more of it, such as the tag of the next item.
        """
        text = value.casefold()
        encoded = text.encode("utf-8", "surrogatepass")
        words, glued = set(_WORD.findall(encoded)), _glued(value)
        return (
            value in self.numbers
            or any(name in encoded for name in self.words if len(name) >= _LONG_BYTES)
            or any(day.encode() in self.phrases for day in days_in(text))
            or any(name in text for name in self.letters)
            or any(self._is_spelled(word) for word in _spelled(value))
            or self.found_in(encoded)
            or self._phrase_in(value.lower().encode("utf-8", "surrogatepass"))
            or any(each in glued for each in self.glued)
            or bool(words & self.short)
            or (_HAS_LETTER.search(text) is not None and any(number.encode() in words for number in self.numbers))
        )

    def _is_spelled(self, word: str) -> bool:
        return word in self.spelled or any(name in word for name in self.spelled if len(name) >= _LONG_BYTES)

    def _phrase_in(self, lower: bytes) -> bool:
        return any(_whole(lower, phrase) for phrase in self.phrases)


def days_in(text: str) -> set[str]:
    """The days that a text spells in whatever order, as DICOM writes them: in figures, or with a month's name in any
    language of mkiso's; the year also in two figures, or as Thailand counts.
    """
    told = [tuple(map(int, spelled)) for spelled in _SPELLED_DAY.findall(text)]
    orders = [order for one, two, three in told for order in ((one, two, three), (three, two, one), (three, one, two))]
    return {
        f"{each:04}{month:02}{day:02}"
        for year, month, day in (*orders, *_with_names(text))
        if 1 <= month <= 12 and 1 <= day <= 31
        for each in _years(year)
    }


def _with_names(text: str) -> Iterator[tuple[int, int, int]]:
    """Years, months and days of what may be dates: 3 May 1950, May 3 1950, 1950 May 3."""
    plain, (pattern, months) = without_accents(text.casefold()), _months()  # which are left out often
    for found in pattern.finditer(plain):
        begin, end = found.span()
        before = [int(number) for number in _DIGITS.findall(plain[max(0, begin - _NEAR) : begin])[-1:]]
        behind = [int(number) for number in _DIGITS.findall(plain[end : end + _NEAR])[:2]]
        pairs = [*zip(before, behind, strict=False), tuple(behind)]
        for one, two in (pair for pair in pairs if len(pair) == 2):
            for month in months[found.group()]:
                yield one, month, two
                yield two, month, one


@cache
def _months() -> tuple[re.Pattern[str], Mapping[str, frozenset[int]]]:
    """What finds the names of months, and which months each may be."""
    named: dict[str, set[int]] = {}
    for code in languages():
        for width in ("wide", "abbreviated"):
            for number, name in get_month_names(width, locale=code).items():
                plain = without_accents(name.casefold())
                for written in (plain.rstrip("."), plain.replace(".", "")):  # Thai's have one within
                    named.setdefault(written, set()).add(number)
    longest_first = sorted(named, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))), {name: frozenset(each) for name, each in named.items()}


def _years(year: int) -> Iterable[int]:
    """Which years it may be."""
    if year >= 100:
        return (year, year - _BUDDHIST_ERA)
    return tuple(century + year for century in (1900, 2000, 2400 - _BUDDHIST_ERA, 2500 - _BUDDHIST_ERA))


def _spelled(text: str, least_bytes: int = 1) -> set[str]:
    """Its words of so many bytes, however they are spelled, which may be shorter: Zoë, ZOE."""
    words = _ONLY_LETTERS.findall(normalized("NFC", text))
    return {_folded(word) for word in words if len(word.encode("utf-8", "surrogatepass")) >= least_bytes} - {""}


_folded = lru_cache(4096)(letters_of)


def _glued(text: str) -> bytes:
    return b"".join(_WORD.findall(text.lower().encode("utf-8", "surrogatepass"))).lstrip(b"0")


def _whole(text: bytes, phrase: bytes) -> bool:
    """Whether a phrase stands in a text and isn't a piece of a longer word."""
    at = text.find(phrase)
    while at >= 0:
        before, behind = text[at - 1 : at], text[at + len(phrase) : at + len(phrase) + 1]
        if not before.isalnum() and not behind.isalnum():
            return True
        at = text.find(phrase, at + 1)
    return False


def _values(value: object) -> Iterable[object]:
    if value is None or value == "":
        return ()
    return value if isinstance(value, list | MultiValue) else (value,)
