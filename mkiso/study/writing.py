"""What is written where not every character can be: on a robot's label, in a letter's fonts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from itertools import chain, groupby
from typing import Literal

from anyascii import anyascii

Carries = Callable[[str], bool]
"""Whether a character can be written."""
LABEL_LETTERS = "label_letters"
"""What a job tells as degraded whose label shows something in other letters than it has."""
_LEADING_VOWEL = re.compile("([เแโใไ])([ก-ฮ])")


def normalized(form: Literal["NFC", "NFKD"], text: str) -> str:
    """As unicodedata.normalize has it, which sorts a run of combining marks by insertion: here that finds it sorted, so
    that 64 KB of them take no seconds.
    """
    apart = "".join(unicodedata.normalize("NFD" if form == "NFC" else form, character) for character in text)
    runs = groupby(apart, lambda mark: not unicodedata.combining(mark))
    return unicodedata.normalize(form, "".join(chain(*(sorted(run, key=unicodedata.combining) for _, run in runs))))


def without_accents(text: str) -> str:
    """A text without its combining marks, and with each sign as what it stands for (NFKD)."""
    # Each by itself: a run of combining marks takes quadratic time together, and all of them are dropped.
    apart = (mark for character in text for mark in unicodedata.normalize("NFKD", character))
    return "".join(mark for mark in apart if not unicodedata.combining(mark))


def encodable(encoding: str) -> Carries:
    """What a text encoding carries."""

    def carries(character: str) -> bool:
        try:
            return character.encode(encoding).decode(encoding) == character
        except UnicodeError:
            return False

    return carries


def written(text: str, carries: Carries) -> str:
    """A text with each character that can't be written without its accents, else in Latin letters, else left out.

    Thai writes some vowels before the consonant that they are spoken after; in Latin letters they follow it.
    """
    if all(map(carries, text)):
        return text
    composed = normalized("NFC", text)
    spoken = composed if all(carries(vowel) for vowel in "เแโใไ") else _LEADING_VOWEL.sub(r"\2\1", composed)
    return " ".join("".join(_written(character, carries) for character in spoken).split(" "))


def name_written(person_name: str, carries: Carries) -> str:
    """A person name (PN) by those of its component groups that can be written as they are; where none can, the first
    as `written` has it (PS3.5 6.2.1: alphabetic, ideographic, phonetic).
    """
    groups = [group for group in person_name.split("=") if group.strip("^ ")]
    whole = [group for group in groups if all(carries(character) for character in group)]
    return "=".join(whole) if whole else written(groups[0] if groups else "", carries)


def _written(character: str, carries: Carries) -> str:
    if carries(character):
        return character
    plain = without_accents(character)
    if plain and plain != character and all(map(carries, plain)):
        return plain
    category = unicodedata.category(character)[0]
    latin = anyascii(character) if category in "LMNP" else ""
    if category in "LM" and not any(map(str.isalnum, latin)):  # the soft sign, ayin: apostrophes in a scholar's hand
        return ""
    return latin if all(map(carries, latin)) and latin != "?" else ""
