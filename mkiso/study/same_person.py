"""Whether more than a Patient ID says that two are one person: names and birth dates. No prior goes beside others
without, since nobody has chosen it and IDs are given twice; of what was asked for a contradiction is told.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from itertools import product

from pydicom import Dataset

from mkiso.config.disc import Identity
from mkiso.study.identity import significant
from mkiso.study.models import Study
from mkiso.study.text import text
from mkiso.study.writing import normalized

_FIRST_BIRTH = date(1900, 1, 2)  # 1 January 1900 and before stand for an unknown date
_LAST_YEAR = 2100
_ABOVE_AND_BELOW, _ARABIC_VOWELS = range(200, 241), range(27, 36)  # canonical combining classes of marks
_APOSTROPHES = dict.fromkeys(map(ord, "'`\u00b4\u02bc\u2018\u2019"))
_BETWEEN = re.compile(r"[\s,.;/()·_-]+")
_ALIKE = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ð": "d", "ı": "i", "œ": "oe", "æ": "ae"})
_HIRAGANA, _TO_KATAKANA = range(0x3041, 0x3097), 0x60
_ONE_LETTER_SCRIPTS = ("CJK", "HANGUL")  # where a letter may be a name


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_PARTICLES = _listed(
    "van von vom der den de del della des di da do dos das du la le los las el al bin ibn ben bint abu abd of zu zum "
    "zur ter ten op in het thi geb née ép"
)
_SAYS_NOTHING = _listed(
    "dr med prof mag dipl ing mr mrs ms miss herr frau dhr mevr mme mlle madame monsieur sr sra jr นาย นาง นางสาว "
    "unknown unbekannt inconnu inconnue desconocido desconocida anonymous anonym nobody no name noname none null not "
    "given sin nombre lastname firstname patient baby boy girl child infant newborn neugeborenes recién nacido nouveau "
    "né male female man woman test phantom notfall"
)
"""Words of names that are many people's, or nobody's."""


@dataclass(frozen=True, slots=True)
class Person:
    """PatientName and PatientBirthDate as a study or a header has them."""

    name: str = ""
    birth_date: str = ""


def person_of(study: Study) -> Person:
    """As C-FIND has them."""
    return Person(significant(study.patient_name), significant(study.patient_birth_date))


def persons_of(study: Study, headers: Iterable[Dataset]) -> set[Person]:
    """As a study's headers have them, and where they are silent C-FIND."""
    told = person_of(study)
    found = {(text(header, "PatientName"), text(header, "PatientBirthDate")) for header in headers}
    return {Person(name if name.strip(" ^=") else told.name, born or told.birth_date) for name, born in found} or {told}


def are_one(one: Person, other: Person, rules: Identity) -> bool:
    """Whether their names and birth dates say that they are one person.

    With the same birth date a word of the name is enough, since it is spelled and ordered in many ways and changes when
    people marry; or none where one of them says nothing that can be read, or they are in different scripts. Without, it
    takes family name and given name.
    """
    births = [person.birth_date.replace(".", "") for person in (one, other)]
    if "PatientBirthDate" in rules.compare and all(births) and births[0] != births[1]:
        return False
    first, second = _groups(one.name), _groups(other.name)
    if births[0] != births[1] or not _is_birth_date(births[0]):
        return any(_are_alike(*pair) for pair in product(first, second))
    words, other_words = (frozenset[str]().union(*(group.words for group in groups)) for groups in (first, second))
    if not words or not other_words or words & other_words:
        return True
    if {group.joined for group in first} & {group.joined for group in second}:
        return True
    return not _scripts(words) & _scripts(other_words)


def contradict(one: Person, other: Person, rules: Identity) -> bool:
    """Whether they say that they are two persons, by birth dates that both of them have."""
    return bool(one.birth_date and other.birth_date) and not are_one(one, other, rules)


def _is_birth_date(born: str) -> bool:
    try:
        day = date.fromisoformat(born) if len(born) == 8 else date.min
    except ValueError:
        return False
    return day >= _FIRST_BIRTH and day.year < _LAST_YEAR


@dataclass(frozen=True, slots=True)
class _Group:
    """A component group of a name (PS3.5 6.2.1.2): the words of the family name and of given and middle names, or of
    all of it where nothing divides them. `joined`: all letters in their order.
    """

    family: frozenset[str]
    given: frozenset[str]
    is_divided: bool
    joined: str

    @property
    def words(self) -> frozenset[str]:
        return self.family | self.given


def _groups(name: str) -> list[_Group]:
    """A name has three at most."""
    return [_group(group) for group in name.casefold().translate(_APOSTROPHES).split("=")[:3]]


def _group(text_: str) -> _Group:
    family, *others = text_.split("^")[:3]  # prefix and suffix are many people's
    given = " ".join(others)
    joined = "".join(map(letters_of, _BETWEEN.split(f"{family} {given}")))
    return _Group(_words(family), _words(given), bool(others), joined)


def _words(text_: str) -> frozenset[str]:
    """Those that say who somebody is; particles where there is nothing else."""
    words = {word for word in _BETWEEN.split(text_) if word and word not in _SAYS_NOTHING}
    letters = frozenset(map(letters_of, (words - _PARTICLES) or words))
    return frozenset(word for word in letters if len(word) > 1 or (word and _scripts({word}) <= {*_ONE_LETTER_SCRIPTS}))


def letters_of(word: str) -> str:
    """A word as it is compared, whether marks are written, as letters behind (ue), or not at all; empty where it isn't
    of letters alone: text in another character set than it says has other signs.
    """
    whole = normalized("NFC", word)
    if not all(unicodedata.category(sign)[0] in "LM" for sign in whole):
        return ""
    signs = normalized("NFKD", whole)
    kept = "".join(sign for sign in signs if not _is_mark(unicodedata.combining(sign))).casefold().translate(_ALIKE)
    kana = "".join(chr(ord(sign) + _TO_KATAKANA) if ord(sign) in _HIRAGANA else sign for sign in kept)
    return normalized("NFC", re.sub("([aou])e", r"\1", kana))


def _is_mark(combining: int) -> bool:
    return combining in _ABOVE_AND_BELOW or combining in _ARABIC_VOWELS


def _are_alike(one: _Group, other: _Group) -> bool:
    """Whether family name and given name are in both, one perhaps with more; two words where nothing divides them."""
    if one.is_divided and other.is_divided:
        return _holds(one.family, other.family) and _holds(one.given, other.given)
    return _holds(one.words, other.words) and min(len(one.words), len(other.words)) > 1


def _holds(one: frozenset[str], other: frozenset[str]) -> bool:
    return bool(one and other) and (one <= other or other <= one)


def _scripts(words: Iterable[str]) -> set[str]:
    """By the first word of Unicode's names of the letters: LATIN, CYRILLIC, CJK, THAI."""
    return {unicodedata.name(letter, "").partition(" ")[0] for word in words for letter in word if letter.isalpha()}
