"""What a disc holds, counted and in words: "2 images and 1 report", never "3 images" where one is a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from mkiso.languages import Language

_KINDS = {  # by directory record type (PS3.3 F.5)
    "IMAGE": "image",
    "SR DOCUMENT": "report",
    "ENCAP DOC": "report",
    "KEY OBJECT DOC": "selection",
    "WAVEFORM": "recording",
    **dict.fromkeys(("RT PLAN", "RT DOSE", "RT STRUCTURE SET", "RT TREAT RECORD", "RADIOTHERAPY"), "radiotherapy"),
}
RECORDED = frozenset({"image", "recording", "radiotherapy"})
"""What devices record or plan; the other kinds are about it."""


def contents_of(record_types: Iterable[str]) -> Counter[str]:
    """How many there are of each kind: image, report, recording, selection, radiotherapy, other."""
    return Counter(_KINDS.get(record_type, "other") for record_type in record_types)


def in_words(contents: Mapping[str, int], spoken: Language) -> str:
    """Such counts as people say them."""
    words: dict[str, Callable[[int], str]] = {
        "image": lambda number: spoken.ngettext("%(number)s image", "%(number)s images", number),
        "report": lambda number: spoken.ngettext("%(number)s report", "%(number)s reports", number),
        "recording": lambda number: spoken.ngettext("%(number)s recording", "%(number)s recordings", number),
        "selection": lambda number: spoken.ngettext(
            "%(number)s list of selected images", "%(number)s lists of selected images", number
        ),
        "radiotherapy": lambda number: spoken.ngettext(
            "%(number)s object of radiotherapy", "%(number)s objects of radiotherapy", number
        ),
        "other": lambda number: spoken.ngettext("%(number)s other object", "%(number)s other objects", number),
    }
    if contents.keys() == {"other"}:
        return spoken.ngettext("%(number)s object", "%(number)s objects", contents["other"])
    return spoken.listed([in_kind(contents[kind]) for kind, in_kind in words.items() if contents.get(kind)])
