"""A question for a disc: what is asked, the key under which identical questions join one job, and what its runs are
given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mkiso.study.models import listed_words
from mkiso.study.selection import EVERYTHING, Selection, selection_of

Kind = Literal["download", "print"]
KINDS: Mapping[Kind, str] = {"download": "Disc", "print": "Print"}
"""As operators know them."""
SHOWN = 5
"""So many accession numbers, or UIDs, stand in a run's name."""
TAG = "question:"
ISO = "iso"
"""The name of the format where nothing is said (mkiso.formats.registry)."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question: its kind, its accession numbers and, for print, the publisher's name and whether somebody has
    looked at an unclear print. `shown`: who was shown and confirmed (mkiso.study.identity.shown_digest), empty where
    nobody was. `language`, `transfer_syntax`: of the disc, empty where it is the site's. `format`: the name of the
    disc's. `seal`: of who is told the password of an encrypted disc (mkiso.storage.handover); no two askers have the
    same. `selection`: what is chosen; a study may be asked for by its UID there alone, without any accession number.
    `deidentified`: a copy is wanted that doesn't say whose it is. `orders_told`: of how many earlier orders of the same
    disc somebody was told who wants one more, negative: nobody was told.
    """

    kind: Kind
    accession_numbers: tuple[str, ...]
    publisher: str = ""
    confirm_reprint: bool = False
    shown: str = ""
    language: str = ""
    format: str = ISO
    seal: str = ""
    selection: Selection = EVERYTHING
    transfer_syntax: str = ""
    deidentified: bool = False
    orders_told: int = -1

    @property
    def key(self) -> str:
        """Equal for identical questions; the order of the accession numbers doesn't matter. 32 hexadecimal digits.

        A confirmed print is another question: it must not join the one that it is to replace. So is one of a confirmed
        patient: it must not join a job that makes a disc of whoever it is. And so is one of a language, of
        another format, or of a selection: a disc of some series must never be given to who wants the whole, nor one
        with earlier studies to who wants none. One of an encrypted disc is nobody else's, and a de-identified copy is
        no patient's disc. How many earlier orders somebody was told of isn't part of it: they join all the same.
        """
        kind = f"{self.kind} anew" if self.confirm_reprint else self.kind
        told = {
            "of": self.shown,
            "in": self.language,
            "as": self._other_format,
            "stored": self.transfer_syntax,
            "for": self.seal,
            "only": self.selection.written,
        }
        kind += "".join(f" {word} {value}" for word, value in told.items() if value)
        if self.deidentified:
            kind += " de-identified"
        return question(kind, self.accession_numbers, self.publisher)

    @property
    def tag(self) -> str:
        """The tag of its runs, by which an identical question finds the run to join."""
        return f"{TAG}{self.key}"

    @property
    def parameters(self) -> dict[str, Any]:
        """What its runs are given."""
        given = {
            "shown": self.shown,
            "language": self.language,
            "format": self._other_format,
            "transfer_syntax": self.transfer_syntax,
            "seal": self.seal,
            "study_uids": list(self.selection.studies),
            "series_uids": list(self.selection.series),
            "priors": self.selection.priors,
            "deidentified": self.deidentified,
        }
        numbers = {"accession_numbers": list(self.accession_numbers)}
        parameters: dict[str, Any] = numbers | {name: value for name, value in given.items() if value}
        if self.kind == "print":
            told = {"orders_told": self.orders_told} if self.orders_told >= 0 else {}
            return {**parameters, "publisher": self.publisher, "confirm_reprint": self.confirm_reprint, **told}
        return parameters

    @property
    def _other_format(self) -> str:
        return "" if self.format == ISO else self.format

    @classmethod
    def of_run(cls, kind: Kind, parameters: Mapping[str, Any]) -> Question:
        """The question that a run with these parameters answers. They are such as its flow takes."""
        publisher, confirmed = parameters.get("publisher", ""), parameters.get("confirm_reprint", False)
        shown, spoken = parameters.get("shown", ""), parameters.get("language", "")
        form, seal = parameters.get("format", ISO), parameters.get("seal", "")
        numbers, chosen = tuple(parameters["accession_numbers"]), selection_of(parameters)
        stored, copied = parameters.get("transfer_syntax", ""), parameters.get("deidentified", False)
        told = parameters.get("orders_told", -1)
        return cls(kind, numbers, publisher, confirmed, shown, spoken, form, seal, chosen, stored, copied, told)

    @property
    def run_name(self) -> str:
        """What its runs are called."""
        return run_name(self.kind, self.parameters)


def run_name(kind: Kind, parameters: Mapping[str, Any]) -> str:
    """What a run with these parameters is called: `Disc A123, A124`, `Disc A123 (selection)`. The same for identical
    questions, and nearly always for them alone: by its name Prefect finds a run without looking at all others.
    """
    numbers = sorted(map(str, parameters.get("accession_numbers") or ()))
    chosen = [str(uid) for name in ("study_uids", "series_uids") for uid in parameters.get(name) or ()]
    named = numbers or chosen
    how = "" if numbers else "by Study Instance UID "
    return f"{KINDS[kind]} {how}{listed_words(named, SHOWN)}{' (selection)' * bool(chosen and numbers)}"


def question(kind: str, accession_numbers: Iterable[str], publisher: str = "") -> str:
    """What makes two requests the same: 32 hexadecimal digits of the kind, the accession numbers in any order, and for
    print the publisher.
    """
    # A line break can't stand in an accession number, so no two questions are written alike.
    written = "\n".join((kind, *sorted(accession_numbers), publisher))
    return hashlib.sha256(written.encode()).hexdigest()[:32]


class OfQuestion(Protocol):
    """What says of which question it is: a job's report, a disc's manifest, a question with its transfer syntax."""

    @property
    def accession_numbers(self) -> tuple[str, ...]: ...
    @property
    def selection(self) -> Selection: ...
    @property
    def format(self) -> str: ...
    @property
    def transfer_syntax(self) -> str: ...
    @property
    def deidentified(self) -> bool: ...


def what_is_asked(one: OfQuestion) -> tuple[object, ...]:
    """What a disc is asked for as: equal where the discs of one answer the other. The patient, the language and who
    asks are no part of it.
    """
    return frozenset(one.accession_numbers), one.selection, one.format, one.transfer_syntax, one.deidentified
