"""The Basic Application Level Confidentiality Profile and those of its options that are offered (PS3.15 E.2, E.3)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from mkiso.config.disc import Deidentified, DeidentifiedOption
from mkiso.errors import InvalidRequest, NotAllowed
from mkiso.study.selection import Selection

BASIC = ("113100", "Basic Application Confidentiality Profile")
CLEAN_PIXELS = ("113101", "Clean Pixel Data Option")
OPTIONS: Mapping[DeidentifiedOption, tuple[str, str]] = MappingProxyType(
    {
        "modified-dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
        "patient-characteristics": ("113108", "Retain Patient Characteristics Option"),
    }
)
"""Code Value and Code Meaning, CID 7050 (PS3.16)."""


def codes_of(options: Collection[DeidentifiedOption], *, is_blackened: bool) -> list[tuple[str, str]]:
    """What a copy says was done to it."""
    return [BASIC, *([CLEAN_PIXELS] if is_blackened else []), *(OPTIONS[option] for option in options)]


def require_copies(wanted: Deidentified, selection: Selection) -> None:
    """Raise NotAllowed where a site makes no de-identified copies, and InvalidRequest where earlier studies are wanted
    beside one: nobody has looked at what they are.
    """
    if not wanted.is_offered:
        raise NotAllowed(
            "This site makes no de-identified copies: its administrator would set deidentified.secret_file."
        )
    if selection.priors:
        raise InvalidRequest("De-identified copies have no earlier studies beside them: ask without priors.")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of Table E.1-1: the action of the Basic Profile, such as X/D, and whether the options keep (K) or clean (C)
    the attribute.
    """

    action: str
    characteristics: str
    dates: str


@cache
def table() -> Mapping[str, Row]:
    """Table E.1-1 by tag, as eight hexadecimal digits of upper case, with x for any digit."""
    rows = {}
    for line in (files("mkiso.deidentify") / "profile.txt").read_text("ascii").splitlines():
        if not line.startswith("#"):
            tag, action, characteristics, dates, _ = line.split("\t")
            rows[tag] = Row(action, characteristics.strip("-"), dates.strip("-"))
    return MappingProxyType(rows)


def row_of(tag: int) -> Row | None:
    """The row of an attribute; None where the table has none."""
    name = f"{tag:08X}"
    masked = ("50xxxxxx",) if name.startswith("50") else (f"60xx{name[4:]}",) if name.startswith("60") else ()
    return next((table()[each] for each in (name, *masked) if each in table()), None)
