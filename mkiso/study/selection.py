"""What is chosen: studies by Study Instance UID, alone or out of those of some accession numbers, series of them, and
whether earlier studies of the patient go beside them (mkiso.study.priors).

A study of which no series is named is meant whole. A disc of chosen series is never a disc of the study: the selection
is part of every key that a question or a disc is found by.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mkiso.errors import InvalidRequest, SelectionNotFound
from mkiso.study.models import Study, listed_words

UID_CHARACTERS = 64
UID_PATTERN = r"^[0-9]+(\.[0-9]+)*$"
"""A UID (PS3.5 9.1) of at most UID_CHARACTERS, as JSON Schema wants it (ECMA-262). Components with leading zeros, which
PS3.5 9.1 forbids and some modalities send, pass: they are as safe, and their patients need discs too.
"""
MAX_SERIES = 200
_UID = re.compile(UID_PATTERN.strip("^$"))
_NAMED = 3


def is_uid(text: str) -> bool:
    """Whether a text is a UID and so safe as a file's name (PS3.5 9.1)."""
    return len(text) <= UID_CHARACTERS and _UID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Selection:
    """Study and Series Instance UIDs, each in order and once. False where nothing is chosen: everything is meant.
    `priors`: earlier studies go beside it.
    """

    studies: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    priors: bool = False

    def __post_init__(self) -> None:
        for name in ("studies", "series"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))

    def __bool__(self) -> bool:
        return bool(self.studies or self.series)

    @property
    def written(self) -> str:
        """The same for the same selection and for no other, on one line; empty where nothing is chosen and nothing goes
        beside it.
        """
        chosen = f"studies {' '.join(self.studies)} series {' '.join(self.series)}" if self else ""
        return f"{chosen} with priors".strip() if self.priors else chosen


EVERYTHING = Selection()


def parse_selection(
    studies: Sequence[str], series: Sequence[str], most_studies: int, *, priors: bool = False
) -> Selection:
    """The UIDs in any order, each once. Raises InvalidRequest: what is no UID, or more than `most_studies` or
    MAX_SERIES.
    """
    for what, uids, most in (("study_uid", studies, most_studies), ("series_uid", series, MAX_SERIES)):
        if len(uids) > most:
            raise InvalidRequest(f"At most {most} times {what} may be given: ask for fewer, or for whole studies.")
        if not all(map(is_uid, uids)):
            raise InvalidRequest(
                f"{what} is a UID: numbers with dots between them, of at most {UID_CHARACTERS} characters, such as "
                "1.2.840.113619.2.5."
            )
    return Selection(tuple(studies), tuple(series), priors)


def selection_of(parameters: Mapping[str, Any]) -> Selection:
    """What a run with these parameters, such as its flow takes, is to choose."""
    studies, series = (tuple(parameters.get(name) or ()) for name in ("study_uids", "series_uids"))
    return Selection(studies, series, parameters.get("priors", False))


def chosen_of(
    studies: Sequence[Study], accession_numbers: Sequence[str], selection: Selection, named: Collection[Study]
) -> tuple[Study, ...]:
    """Those of the studies found that are chosen; each says of itself which of its series are (Study.chosen). `named`:
    the same as often as they were found, since one may have a number of its own in each source.

    Raises SelectionNotFound where a chosen study or series isn't among them, or nothing of an accession number is
    chosen.
    """
    if not selection:
        return tuple(studies)
    chosen = tuple(study for study in studies if not selection.studies or study.study_instance_uid in selection.studies)
    _all_found("study", selection.studies, {study.study_instance_uid for study in chosen})
    _all_found("series", selection.series, {uid for study in chosen for uid in study.chosen})
    uids = {study.study_instance_uid for study in chosen}
    numbers = {study.accession_number for study in named if study.study_instance_uid in uids}
    for number in accession_numbers:
        if number not in numbers:
            raise SelectionNotFound(
                f"Nothing of accession number {number} is chosen. Leave the number out, or choose a study of it.",
                accession_number=number,
            )
    return chosen


def numbers_of(studies: Iterable[Study]) -> tuple[str, ...]:
    """The accession numbers that studies have, each once."""
    return tuple(sorted({study.accession_number for study in studies} - {""}))


def _all_found(what: str, wanted: Sequence[str], found: set[str]) -> None:
    absent = [uid for uid in wanted if uid not in found]
    if absent:
        raise SelectionNotFound(
            f"The chosen {what} {listed_words(absent, _NAMED)} isn't among what the PACS has of the studies that are "
            "asked for. Look at the studies once more, and choose again.",
            absent=absent[:_NAMED],
        )
