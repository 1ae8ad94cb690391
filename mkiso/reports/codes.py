"""Reading coded concepts."""

from __future__ import annotations

from mkiso.dataset.items import Item
from mkiso.reports.values import Code, Quantity

CODES = frozenset({"CodeValue", "LongCodeValue", "URNCodeValue", "CodingSchemeDesignator", "CodeMeaning"})
QUANTITIES = CODES | {"NumericValue", "MeasurementUnitsCodeSequence"}

_CHARACTERS = 1024  # of each part: the standard has 64 for most


def code_in(item: Item, keyword: str) -> Code | None:
    """The first code of a sequence."""
    first = item.first(keyword)
    return code_of(first) if first else None


def code_of(item: Item) -> Code:
    value = item.line("CodeValue") or item.line("LongCodeValue") or item.line("URNCodeValue")
    meaning, scheme = item.line("CodeMeaning"), item.line("CodingSchemeDesignator")
    return Code(meaning[:_CHARACTERS], value[:_CHARACTERS], scheme[:_CHARACTERS])


def quantity_of(item: Item) -> Quantity:
    """The value of a Measured Value Sequence's item, or of an annotation."""
    return Quantity(item.line("NumericValue")[:_CHARACTERS], code_in(item, "MeasurementUnitsCodeSequence"))
