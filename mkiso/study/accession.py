"""Accession numbers as people type them: what can be looked up safely, and in words why the rest can't.

An accession number is VR SH: at most 16 characters, no backslash and no control character (PS3.5 6.2). A C-FIND matches
`*` and `?` as wildcards and `\\` as a list (PS3.4 C.2.2.2), so these would ask for other people's studies and are
refused before the PACS hears of them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from mkiso.errors import InvalidAccessionNumber, TooManyAccessionNumbers

SH_MAX_CHARACTERS = 16

_REFUSED = {
    "*": "a PACS takes * for a wildcard",
    "?": "a PACS takes ? for a wildcard",
    "\\": "a PACS takes \\ for a list of several",
    "%": "a percent sign is left after decoding, so the address was encoded twice",
    ",": "a comma separates several accession numbers",
}
_SIGNS = "".join(
    f"\\{sign}" if sign in "[]^-" else sign
    for sign in map(chr, range(0x20, 0x7F))
    if not sign.isalnum() and sign not in _REFUSED
)
PATTERN = f"^[{_SIGNS}]*[A-Za-z0-9][A-Za-z0-9{_SIGNS}]*$"
"""What parse_accession_number takes of at most SH_MAX_CHARACTERS, as JSON Schema wants it (ECMA-262)."""


def parse_accession_number(text: str) -> str:
    """One accession number without the spaces around it; raises InvalidAccessionNumber whose words say what to
    change.
    """
    accession_number = text.strip(" ")
    if not accession_number.strip():
        raise InvalidAccessionNumber("The accession number is empty. Give the number that stands on the examination.")
    for character in accession_number:
        # NFKC makes ＊ into * and ﹖ into ?: look-alikes are refused for what they look like.
        if reason := next(
            (_REFUSED[plain] for plain in unicodedata.normalize("NFKC", character) if plain in _REFUSED), None
        ):
            raise _invalid(
                accession_number, f"contains {_shown(character)}: {reason}. Type the whole number without it."
            )
        if unicodedata.category(character) in ("Cc", "Cf"):
            raise _invalid(
                accession_number,
                f"contains the invisible character {_shown(character)}. Type it by hand instead of pasting it.",
            )
        if not character.isascii():
            raise _invalid(
                accession_number,
                f"contains {_shown(character)}, which is no plain letter, digit or sign. Use an English keyboard.",
            )
    if len(accession_number) > SH_MAX_CHARACTERS:
        raise _invalid(
            accession_number,
            f"has {len(accession_number)} characters, and at most {SH_MAX_CHARACTERS} are possible. Check the number.",
        )
    if not any(character.isalnum() for character in accession_number):
        raise _invalid(
            accession_number, "has neither a letter nor a digit. Give the number that stands on the examination."
        )
    return accession_number


def parse_accession_numbers(text: str | Sequence[str], limit: int) -> tuple[str, ...]:
    """Accession numbers from a text with commas or a list, in the order asked, each once.

    An empty place is refused rather than skipped: it may stand for a study that somebody wanted on the disc.
    Raises InvalidAccessionNumber, TooManyAccessionNumbers (more than `limit` different ones).
    """
    parts = text.split(",") if isinstance(text, str) else text
    if len(parts) > 1 and not all(part.strip() for part in parts):
        raise InvalidAccessionNumber(
            "The list has an empty place between its commas. Give a number there or remove the comma."
        )
    if not parts:
        raise InvalidAccessionNumber("No accession number is given. Give at least one.")
    accession_numbers = tuple(dict.fromkeys(map(parse_accession_number, parts)))
    if len(accession_numbers) > limit:
        raise TooManyAccessionNumbers(
            f"{len(accession_numbers)} accession numbers are asked for, and at most {limit} fit one request. Ask in "
            "several requests.",
            limit=limit,
        )
    return accession_numbers


def _invalid(accession_number: str, what: str) -> InvalidAccessionNumber:
    most = 2 * SH_MAX_CHARACTERS
    printable = "".join(character if character.isprintable() else "�" for character in accession_number[:most])
    rest = "…" if len(accession_number) > most else ""
    return InvalidAccessionNumber(f"The accession number '{printable}{rest}' {what}")


def _shown(character: str) -> str:
    code = f"U+{ord(character):04X}"
    return (
        f"'{character}' ({code})"
        if character.isprintable() and not character.isascii()
        else f"'{character}'"
        if character.isprintable()
        else code
    )
