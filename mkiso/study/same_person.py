"""Whether more than a Patient ID says that two are one person: names and birth dates. Of priors alone, which nobody has
chosen: IDs are given twice.
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

_COMPONENTS = 3  # of a name: family, given and middle name (PS3.5 6.2.1.1); prefix and suffix are many people's
_FIRST_BIRTH = date(1900, 1, 2)  # 1 January 1900 and before stand for an unknown date
_LAST_YEAR = 2100
_MARKS = re.compile("[\u0300-\u036f]")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "'": "", "\u2019": ""})
_NO_UMLAUTS = str.maketrans({"'": "", "\u2019": ""})
_PARTICLES = "van von der den de del della di da do dos das du la le el al bin ibn ben bint abu of zu zum zur ter ten"
_TITLES = "dr prof mr mrs ms miss herr frau mme mlle sr sra jr"
_UNKNOWN = "unknown unbekannt inconnu inconnue desconocido desconocida anonymous anonym nobody noname none null patient"
_NEWBORN = "baby boy girl child male female man woman mann test"
_SAYS_NOTHING = frozenset(" ".join((_PARTICLES, _TITLES, _UNKNOWN, _NEWBORN)).split())
"""Words of names that are many people's, or nobody's."""
_SCRIPTS = {"HIRAGANA": "KATAKANA"}  # one sound, two writings

_Name = dict[str, frozenset[str]]
"""The words of one component group, each with the ways in which it may be written."""


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
    return {Person(name if _is_stated(name) else told.name, born or told.birth_date) for name, born in found} or {told}


def are_one(one: Person, other: Person, rules: Identity, *, unread: bool = False) -> bool:
    """Whether their names and birth dates say that they are one person.

    With the same birth date a part of the name is enough, since it is spelled and ordered in many ways and changes when
    people marry, or nothing of it where one has none or they are in different scripts; without, it takes two parts in
    one script. `unread`: a name that can't be read, as C-FIND's may be, counts as none.
    """
    births = [person.birth_date.replace(".", "") for person in (one, other)]
    if "PatientBirthDate" in rules.compare and all(births) and births[0] != births[1]:
        return False
    names = [_names(person.name) for person in (one, other)]
    alike = max((_alike(first, second) for first, second in product(*names)), default=0)
    if births[0] != births[1] or not _is_birth_date(births[0]):
        return alike > 1
    if not all(names):
        return unread or not (_is_stated(one.name) and _is_stated(other.name))
    same = any(first.keys() == second.keys() for first, second in product(*names))
    return alike > 0 or same or not _scripts(names[0]) & _scripts(names[1])


def _is_stated(name: str) -> bool:
    return bool(name.strip(" ^="))


def _is_birth_date(born: str) -> bool:
    try:
        day = date.fromisoformat(born) if len(born) == 8 else date.min
    except ValueError:
        return False
    return day >= _FIRST_BIRTH and day.year < _LAST_YEAR


def _names(name: str) -> list[_Name]:
    """Of each component group (PS3.5 6.2.1.2) that can be read."""
    groups = unicodedata.normalize("NFKC", name).casefold().split("=")
    found = (_words(group) for group in groups if "?" not in group and "\ufffd" not in group)
    return [words for words in found if words]


def _words(group: str) -> _Name:
    named = " ".join(group.split("^")[:_COMPONENTS])
    words = set(re.split(r"[\s,.;/()-]+", named)) - _SAYS_NOTHING
    return {word: _writings(word) for word in words if any(map(str.isalpha, word))}


def _writings(word: str) -> frozenset[str]:
    ways = (word.translate(table) for table in (_UMLAUTS, _NO_UMLAUTS))
    return frozenset(_MARKS.sub("", unicodedata.normalize("NFKD", way)) for way in ways)


def _alike(first: _Name, second: _Name) -> int:
    """How many words of each are in the other; initials are none."""

    def shared(one: _Name, other: _Name) -> int:
        ways = frozenset[str]().union(*other.values())
        return sum(bool(each & ways) for word, each in one.items() if len(word) > 1 or not word.isascii())

    return min(shared(first, second), shared(second, first))


def _scripts(names: list[_Name]) -> set[str]:
    """By the first word of Unicode's names of the letters: LATIN, CYRILLIC, CJK, THAI."""
    letters = {letter for words in names for word in words for letter in word if letter.isalpha()}
    found = {unicodedata.name(letter, "").partition(" ")[0] for letter in letters}
    return {_SCRIPTS.get(script, script) for script in found}
