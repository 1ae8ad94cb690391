"""The life of an archive volume, as a table, and what a run does with a volume that an earlier one left.

    planned ── mastered ─┬───────────────────────── done        archive.output: store
                         └─ ordering ── ordered ── done        archive.output: a publisher

A transition is committed after what it tells has reached the disk, so that a volume is at least as far as the ledger says.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal, get_args

State = Literal["planned", "mastered", "ordering", "ordered", "done"]
STATES: tuple[State, ...] = get_args(State)

FOLLOWING: dict[State, frozenset[State]] = {
    "planned": frozenset({"mastered"}),
    "mastered": frozenset({"ordering", "done"}),
    "ordering": frozenset({"ordered", "mastered"}),  # back where the publisher certainly has nothing
    "ordered": frozenset({"done", "mastered"}),  # back where the robot failed and made no disc
    "done": frozenset(),
}


class Remedy(Enum):
    """What to do with a volume whose run is gone."""

    DISCARD = "nothing of it is certain: its folder and its rows go, and its studies are planned anew"
    DELIVER = "the image is whole: store it or order it"
    ASK = "the publisher may have the order: ask it, else a person looks at the robot"
    AWAIT = "the publisher has the order: ask how far it is"


def remedy(state: State, image_is_whole: bool) -> Remedy | None:
    """What a volume needs that its run left in `state`; None where it is done.

    An image that was lost before anybody got it takes its rows along: the instances are archived anew. Once an order may be out, the rows stay.
    """
    if state == "planned" or (state == "mastered" and not image_is_whole):
        return Remedy.DISCARD
    return {"mastered": Remedy.DELIVER, "ordering": Remedy.ASK, "ordered": Remedy.AWAIT}.get(state)
