"""What every disc publisher is to mkiso: an order goes in, a receipt says what is proved by it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from mkiso.config.section import Medium
from mkiso.languages import N_
from mkiso.study.identity import iso_date, one_line
from mkiso.study.models import Arrival, Patient, Study, Volume
from mkiso.study.selection import Selection, numbers_of
from mkiso.study.writing import Carries, name_written, written

Proves = Literal["queued", "done"]
PART_WORDS = N_("not the whole examination")
UNPROVEN_WORDS = N_("not proven to be complete")
_PLACES = ("{accession_number}", "{selection}")


@dataclass(frozen=True, slots=True)
class Order:
    """One disc, or for a DICOM publisher one study, to be made `copies` times.

    `instances` are what the disc holds; a publisher with `needs_image` takes `image` instead and makes that one
    `volume` of a set. `order_id` is unique at the publisher and given by the order book; 1 to 32 characters of A-Z,
    a-z, 0-9 and `-`. `image_sha256` is what was proved of the image. `of_set` are the instances of all discs of a set,
    where there are several. `is_part`: the disc isn't all of its accession numbers or studies; its label says so by
    `part_words`, which are in the language of the disc. `is_unproven`: nobody could say whether it is all; its label
    says so by `unproven_words`, where it has a place. `question`: pages_of, where `accession_numbers` aren't it.
    """

    job_id: str
    patient: Patient
    accession_numbers: tuple[str, ...]
    instances: tuple[Arrival, ...] = ()
    image: Path | None = None
    volume_id: str = ""
    volume: Volume = field(default_factory=Volume)
    study_date: str = ""
    institution: str = ""
    copies: int = 1
    medium: Medium = "cd"
    order_id: str = ""
    image_sha256: str = ""
    of_set: tuple[Arrival, ...] = ()
    question: tuple[str, ...] = ()
    is_part: bool = False
    part_words: str = ""
    is_unproven: bool = False
    unproven_words: str = ""

    @property
    def questions(self) -> tuple[str, ...]:
        """What it stands under in the order book: what pages_of says, else its accession numbers, without any its Study
        Instance UIDs.
        """
        studies = sorted({arrival.study_instance_uid for arrival in self.instances})
        return self.question or self.accession_numbers or tuple(studies)

    @property
    def contents(self) -> str:
        """What the disc and its set hold, as a hash: a retry must not take a disc of other images, or of a set with
        other images, for its own.
        """
        held = sorted(arrival.sop_instance_uid for arrival in self.instances)
        whole = sorted(f"{arrival.sop_instance_uid} {arrival.sha256}" for arrival in self.of_set)
        return hashlib.sha256("\n".join([str(self.volume.total), *held, *whole]).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a publisher has confirmed. `proves`: `queued` (it has everything), `done` (it reported the disc as made).

    `warnings` are in words; `minutes_since_last` is set where the same question was already printed before.
    """

    publisher: str
    order_id: str
    proves: Proves
    instances: int
    words: str
    warnings: tuple[str, ...] = ()
    minutes_since_last: float | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """How a caller follows an order and ends it: `stop` is looked at wherever something is waited for; `progress(words,
    done, total)`. `leaves` is called just before the first byte of a patient's data leaves for the publisher, `sent`
    where it has everything and only its word is waited for.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    progress: Callable[[str, int, int], None] = lambda words, done, total: None
    leaves: Callable[[], None] = lambda: None
    sent: Callable[[], None] = lambda: None


class Publisher(Protocol):
    """One configured publisher. Every method may raise PublisherUnavailable (nothing was given) or PublisherRefused
    (known not to be made).
    """

    name: str
    needs_image: bool
    where: str
    """The address or folder: what two names lead to is one publisher."""

    def check(self) -> str:
        """Whether an order could be given now, in words."""

    def tells_part(self) -> bool:
        """Whether a disc's label says where it isn't a whole study."""

    def rewrites(self, order: Order) -> bool:
        """Whether its label shows something of the order in other letters than it has."""

    def settles_in_seconds(self, order: Order) -> float:
        """How long until it must have closed what it got of this order's patient before; 0: the order may be given."""

    def place(self, order: Order, before_giving: Callable[[], None], watch: Watch) -> Receipt:
        """Give the order. `before_giving` is called just before the first step that can't be taken back.

        Raises PublisherUnavailable before that step, PublisherRefused(accepted=n), PrintUncertain after it.
        """

    def was_given(self, order: Order) -> bool | None:
        """Whether an order of which only the beginning is on record reached the publisher; None where it can't be told.

        One that didn't never will afterwards: it is withdrawn.
        """

    def follow(self, order: Order, receipt: Receipt, watch: Watch) -> Receipt:
        """Wait for the end of a given order as far as the publisher tells; raises PublisherRefused with its words,
        PrintUncertain if it is silent.
        """

    def cancel(self, order: Order) -> bool:
        """Ask the publisher to drop a given order; False where it has no way."""


def pages_of(
    accession_numbers: Collection[str], selection: Selection, studies: Collection[Study] = ()
) -> tuple[str, ...]:
    """What a question has pages of in the order book: its accession numbers and the UIDs of the studies that are
    chosen; once the PACS has named its `studies`, their accession numbers and UIDs too. So whoever asks for the same in
    another way finds it.
    """
    uids = [study.study_instance_uid for study in studies]
    return tuple(dict.fromkeys((*accession_numbers, *numbers_of(studies), *selection.studies, *uids)))


def tells_part(fields: Mapping[str, str]) -> bool:
    """Whether a label of these fields (none: all) has a place for the words that it isn't a whole study."""
    return not fields or any(place in template for template in fields.values() for place in _PLACES)


def label_values(order: Order, fields: Mapping[str, str], carries: Carries = lambda _: True) -> dict[str, str]:
    """The label's fields, filled in: each value is a template such as `{patient_name}`, `{number} of {total}`; control
    characters become spaces, and what the label doesn't carry is in other letters (mkiso.study.writing).

    Without configured fields, all known ones under their own names. Of a part, and of what isn't proven to be all, the
    accession number says so, unless a template names `{selection}`; where the label can't carry these words, in
    English.
    """
    remarks = (
        (order.is_part, order.part_words, PART_WORDS),
        (order.is_unproven, order.unproven_words, UNPROVEN_WORDS),
    )
    selection = ", ".join(words if all(map(carries, words)) else plain for is_so, words, plain in remarks if is_so)
    apart = any("{selection}" in template for template in fields.values())
    numbers = ", ".join(order.accession_numbers)
    beside = "" if apart or not selection else f" ({selection})"
    known = {
        "patient_name": name_on_label(order.patient.name, carries),
        "patient_id": order.patient.patient_id,
        "birth_date": iso_date(order.patient.birth_date),
        "sex": order.patient.sex,
        "accession_number": f"{numbers}{beside}".strip(),
        "study_date": iso_date(order.study_date),
        "institution": order.institution,
        "number": str(order.volume.number),
        "total": str(order.volume.total),
        "selection": selection,
    }
    templates = fields or {name: f"{{{name}}}" for name in known if name != "selection"}
    return {name: written(one_line(_fill(template, known)), carries) for name, template in templates.items()}


def name_on_label(person_name: str, carries: Carries) -> str:
    """A person name (PN) as a label shows it."""
    return one_line(name_written(person_name, carries).replace("^", " ").replace("=", " / "))


def _fill(template: str, known: Mapping[str, str]) -> str:
    # No str.format: a template comes from a file, and `{x.__class__}` has no business there.
    for name, value in known.items():
        template = template.replace(f"{{{name}}}", value.replace("{", "(").replace("}", ")"))
    return template
