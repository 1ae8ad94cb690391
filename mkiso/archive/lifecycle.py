"""The life of an archive volume, as tables: what follows what, what a run does with what it finds, what a person may
say of it.

    planned ── mastered ─┬───────────────────────── done        archive.output: store
                         └─ ordering ── ordered ── done        archive.output: a publisher

    from anywhere ── gone        its image or disc is lost or bad: what lay on it is owed until another volume has it

A transition is committed after what it tells has reached the disk, so that a volume is at least as far as the ledger
says. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, get_args

State = Literal["planned", "mastered", "ordering", "ordered", "done", "gone"]
STATES: tuple[State, ...] = get_args(State)

FOLLOWING: dict[State, frozenset[State]] = {
    "planned": frozenset({"mastered"}),
    "mastered": frozenset({"ordering", "done", "gone"}),  # gone where its image is
    "ordering": frozenset({"ordered", "mastered"}),  # back where the publisher certainly has nothing
    "ordered": frozenset({"done", "mastered"}),  # back where the robot failed and made no disc
    "done": frozenset(),
    "gone": frozenset(),
}
"""What a run may do; a person may more (`settled`)."""


class Stored(Enum):
    """What lies under a volume's label in the store that this machine uses."""

    WHOLE = "its image"
    OTHER = "something that isn't its image"
    ABSENT = "nothing"
    UNSEEN = "can't be told: the volume isn't of this store, or the store isn't there"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What can be seen of a volume from here. `here`: the ledger says that its files lie in this data directory;
    `image`: one lies in it that is whole by its SHA-256.
    """

    here: bool
    for_store: bool
    image: bool
    stored: Stored


class Remedy(Enum):
    """What to do with a volume whose run is gone."""

    DISCARD = "nothing of it is certain: its folder and its rows go, and its studies are planned again"
    DELIVER = "the image is whole: store it or order it"
    ASK = "the publisher may have the order: ask it, else a person looks at the robot"
    AWAIT = "the publisher has the order: ask how far it is"
    CLOSE = "it lies in the store, whole by its SHA-256: it is done"
    LOSE = "its image is lost and nobody has it: what lay on it is owed again"
    LOOK = "what became of it can't be told from here: a person says"


def remedy(state: State, seen: Evidence) -> Remedy | None:
    """What a volume needs that no living run holds; None where it needs nothing.

    Only what is proved is done. An image that was lost before anybody got it takes nothing along: its instances are
    owed again. Once an order may be out, the rows stay.
    """
    if state in ("done", "gone"):
        return (
            Remedy.LOOK if state == "done" and seen.stored in (Stored.OTHER, Stored.ABSENT) and seen.for_store else None
        )
    if state == "planned":
        # Of another place: nothing lies on it yet, and its own place clears it away.
        return Remedy.DISCARD if seen.here else None
    if state in ("ordering", "ordered"):
        return Remedy.LOOK if not seen.here else Remedy.ASK if state == "ordering" else Remedy.AWAIT
    if seen.for_store and seen.stored is Stored.WHOLE:
        return Remedy.CLOSE
    if not seen.here:
        return Remedy.LOOK
    if seen.image:
        return Remedy.LOOK if seen.for_store and seen.stored is Stored.OTHER else Remedy.DELIVER
    return Remedy.LOOK if seen.for_store and seen.stored is Stored.UNSEEN else Remedy.LOSE


class Claim(Enum):
    """What a person says of a volume; the values are the options of `mkiso archive settle`."""

    MADE = "made"
    AGAIN = "again"
    STORED = "stored"
    HERE = "here"
    LOST = "lost"
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class Settled:
    """What a volume becomes; `here`: its files are this place's from now on."""

    state: State
    here: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a claim isn't taken, as the end of a sentence that begins with the volume's label."""

    words: str


def settled(claim: Claim, state: State, seen: Evidence) -> Settled | Refused:
    """What becomes of a volume that a person says something of. What can be proved is, and nothing is given up that
    lies somewhere whole. Of a lost volume the ledger may have only a part by now: what was archived again, or given up,
    isn't written there any more.
    """
    if state == "gone" and claim in (Claim.STORED, Claim.HERE):
        return Refused("was held for lost: `mkiso archive import` its image to record it again.")
    match claim:
        case Claim.MADE:
            return _made(state, seen)
        case Claim.AGAIN:
            return (
                Settled("mastered")
                if state in ("ordering", "ordered")
                else Refused(f"is {state}: no order of it is uncertain.")
            )
        case Claim.STORED:
            if state == "planned":
                return Refused("isn't mastered: nothing lies on it yet.")
            return (
                Settled("done")
                if seen.stored is Stored.WHOLE
                else Refused(f"can't be proved: in the store lies {seen.stored.value}.")
            )
        case Claim.HERE:
            return _here(state, seen)
        case Claim.LOST:
            return _lost(state, seen)
        case Claim.FORGET:
            return (
                Settled("gone")
                if state == "gone"
                else Refused(f"is {state}: only what was on a lost volume can be given up.")
            )


def _made(state: State, seen: Evidence) -> Settled | Refused:
    if seen.for_store:
        return Refused("goes to the store and not to a robot: --stored proves it there.")
    if state in ("ordering", "ordered"):
        return Settled("done")
    if state == "mastered" and not seen.here:  # an older copy of the ledger doesn't know of the order
        return Settled("done")
    return Refused(f"is {state}: no order of it is uncertain.")


def _here(state: State, seen: Evidence) -> Settled | Refused:
    if state == "planned":
        return Refused("is planned: there is nothing to deliver.")
    if not seen.image:
        return Refused("doesn't lie whole in this data directory: copy its folder into `volumes` here first.")
    if state == "done":
        return Refused("lies in the store, whole.") if seen.stored is Stored.WHOLE else Settled("mastered", here=True)
    return Refused("lies here already: the next run goes on with it.") if seen.here else Settled(state, here=True)


def _lost(state: State, seen: Evidence) -> Settled | Refused:
    if state == "gone":
        return Refused("is lost already.")
    if seen.stored is Stored.WHOLE:
        return Refused(
            "isn't lost: it lies in the store, whole. --stored takes it as delivered; burn a bad disc of it again."
        )
    if state == "planned":
        return (
            Refused("is planned: the next run clears it away, and its studies are owed.")
            if seen.here
            else Settled("gone")
        )
    if seen.image:
        waits = seen.here and state == "mastered"
        way = (
            "The next run delivers it."
            if waits
            else "--again orders it again."
            if seen.here and state != "done"
            else "--here delivers it from here."
        )
        return Refused(f"isn't lost: its image lies here, whole. {way}")
    return Settled("gone")
