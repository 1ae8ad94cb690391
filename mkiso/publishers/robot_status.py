"""What can be seen of an order at a robot, from the files that the robot leaves; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

RobotState = Literal["absent", "waiting", "running", "paused", "done", "stopped", "refused", "failed"]
STRENGTH: tuple[RobotState, ...] = ("absent", "waiting", "running", "paused", "done", "failed", "refused", "stopped")
ENDS: frozenset[RobotState] = frozenset({"done", "stopped", "refused", "failed"})


@dataclass(frozen=True, slots=True)
class RobotStatus:
    """The state of one order and the robot's words about it. `may_be_made`: it has told of a failure or a stop, and
    elsewhere that the disc is done.
    """

    state: RobotState
    words: str = ""
    may_be_made: bool = False

    @property
    def told(self) -> str:
        """The state and the robot's words, each once: a robot may call its state as we do."""
        told: dict[str, str] = {}
        for word in (self.state, *self.words.split(", ")):
            told.setdefault(word.casefold(), word)
        return ", ".join(filter(None, told.values()))


def strongest(statuses: Iterable[RobotStatus]) -> RobotStatus:
    """Of what several files say the one that promises least: a failure outweighs a success, an end outweighs what came
    before it.

    A stop that was asked for shows as a failure in some files, so it outweighs that.
    """
    ranked = sorted(statuses, key=lambda status: STRENGTH.index(status.state))
    if not ranked:
        return RobotStatus("absent")
    words = next((status.words for status in reversed(ranked) if status.words), "")
    state = ranked[-1].state
    made = any(status.state == "done" or status.may_be_made for status in ranked)
    return RobotStatus(state, words, may_be_made=made and state != "done")


def seen_in_names(names: Iterable[str], order_id: str, states: Mapping[str, RobotState]) -> RobotStatus:
    """The state that the names in the watched folder tell: the robot renames `<order id>.<suffix>`, in any case
    (Windows).
    """
    suffixes = (name[len(order_id) :].upper() for name in names if name.upper().startswith(f"{order_id.upper()}."))
    return strongest(RobotStatus(states[suffix]) for suffix in suffixes if suffix in states)


def sections_of(text: str) -> dict[str, dict[str, str]]:
    """The sections of an INI text as robots write them: `[name]`, `key=value` with or without spaces; anything else is
    passed over.

    A robot may be writing while we read: a cut line is passed over too.
    """
    sections: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("[") and stripped.endswith("]"):
            current = sections.setdefault(stripped[1:-1].strip(), {})
        elif "=" in stripped:
            key, _, value = stripped.partition("=")
            current[key.strip()] = value.strip()
    return sections
