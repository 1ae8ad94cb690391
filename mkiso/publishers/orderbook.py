"""The order book: an order is written down before it is given and its outcome after, so that no crash makes two discs
or hides a half one.

    orders/<question>.json      every order for one question at one publisher, oldest first

The book outlives the job's folder and lies beside the discs: a rerun may come after the folder is gone, or on another
machine.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, with_config

from mkiso.errors import PrintUncertain
from mkiso.storage.files import Unreadable, read_json, seconds_old, write_whole

State = Literal[
    "giving",  # written down; whether the publisher got it is not
    "uncertain",  # the publisher may have it, or a part of it
    "not given",  # known not to have reached the publisher
    "given",  # the publisher has all of it
    "done",  # the publisher reported the disc as made, or will never report more
    "failed",  # the publisher reported that no disc was made
    "settled",  # was uncertain, and somebody has looked
]
Step = Literal["give", "find out", "follow", "rest"]
OPEN: frozenset[State] = frozenset({"giving", "uncertain"})

MAY_BE_MADE = "This print may already have been made: look at the robot, then run with confirm_reprint."


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class Entry:
    """One order of one volume by one job. `time` is in seconds since the epoch; `confirmed`: given under
    confirm_reprint; `words`: the outcome.

    `contents` says what the disc was to hold (mkiso.publishers.protocol.Order.contents).
    """

    job_id: str
    volume: int
    attempt: int
    state: State
    time: float
    instances: int = 0
    words: str = ""
    confirmed: bool = False
    contents: str = ""

    @property
    def order_id(self) -> str:
        """Unique among all orders, and short enough for every robot (Primera: 32 characters)."""
        return f"{hashlib.sha256(self.job_id.encode()).hexdigest()[:20]}-{self.volume}-{self.attempt}"


_ENTRIES = TypeAdapter(list[Entry])


def question_of(publisher: str, accession_numbers: Collection[str]) -> str:
    """What identical questions have in common: the publisher and the accession numbers in any order."""
    return hashlib.sha256("\n".join([publisher, *sorted(set(accession_numbers))]).encode()).hexdigest()[:32]


def latest(entries: Sequence[Entry], job_id: str, volume: int) -> Entry | None:
    """The newest entry of this job and volume."""
    return next((entry for entry in reversed(entries) if (entry.job_id, entry.volume) == (job_id, volume)), None)


def decide(entries: Sequence[Entry], job_id: str, volume: int, confirm_reprint: bool) -> Step:
    """What to do for this job's volume after what the book says.

    `give` it (anew), `find out` whether the order on record reached the publisher, `follow` it to its end, or `rest`,
    for it is done. A confirmation settles what was unclear before the job that brings it; it is spent when that job
    gives, so that a retry of the same run is no licence for another disc. Raises PrintUncertain where somebody has to
    look first.
    """
    mine = latest(entries, job_id, volume)
    if mine is not None:
        if mine.state in OPEN and (mine.confirmed or not confirm_reprint):
            return "find out"
        if mine.state == "given":
            return "follow"
        if mine.state == "done":
            return "rest"
        if mine.state == "settled" and (mine.confirmed or not confirm_reprint):
            raise PrintUncertain(
                "This print ended unclear, and another request has made it anew since: ask anew if one more disc is "
                "wanted."
            )
    others = [entry for entry in entries if entry.job_id != job_id and entry.state in OPEN]
    if others and not confirm_reprint:
        raise PrintUncertain(
            f"An earlier print of this study ended unclear. {MAY_BE_MADE}", earlier_job_id=others[-1].job_id
        )
    return "give"


def begin(entries: Sequence[Entry], entry: Entry) -> list[Entry]:
    """The book with a new order on it; under a confirmation everything that was open before it is settled."""
    if not entry.confirmed:
        return [*entries, entry]
    return [
        *(replace(old, state="settled") if old.state in OPEN and _is_older(old, entry) else old for old in entries),
        entry,
    ]


def _is_older(old: Entry, entry: Entry) -> bool:
    """The other volumes of the same job are part of the same print, not of an older one."""
    return old.job_id != entry.job_id or old.volume == entry.volume


def made_before(entries: Sequence[Entry], job_id: str) -> Entry | None:
    """The newest order of another job that the publisher has taken whole: the answer says how long ago that was."""
    return next(
        (entry for entry in reversed(entries) if entry.job_id != job_id and entry.state in ("given", "done")), None
    )


@dataclass(frozen=True, slots=True)
class OrderBook:
    """The file of one question. Every change has reached the disk when the method returns. Changed only by who holds
    the publisher's turn.
    """

    path: Path

    @classmethod
    def of(cls, orders_dir: Path, question: str) -> OrderBook:
        return cls(orders_dir / f"{question}.json")

    def entries(self) -> list[Entry]:
        """Oldest first; a book that can't be read is an error and never an empty one."""
        try:
            return read_json(self.path, _ENTRIES)
        except FileNotFoundError:
            return []
        except Unreadable as error:
            raise PrintUncertain(f"The order book {self.path.name} can't be read ({error}). {MAY_BE_MADE}") from None

    def open(self, job_id: str, volume: int, *, confirmed: bool, contents: str = "") -> Entry:
        """A new order's entry, not yet written down."""
        attempt = 1 + max(
            (entry.attempt for entry in self.entries() if (entry.job_id, entry.volume) == (job_id, volume)), default=0
        )
        return Entry(job_id, volume, attempt, "giving", time.time(), confirmed=confirmed, contents=contents)

    def begin(self, entry: Entry) -> None:
        """Write an order down before it is given."""
        self._write(begin(self.entries(), entry))

    def settle(self, entry: Entry, state: State, *, instances: int = 0, words: str = "") -> Entry:
        """Write the order's outcome down."""
        outcome = replace(
            entry, state=state, time=time.time(), instances=instances or entry.instances, words=words or entry.words
        )
        key = (entry.job_id, entry.volume, entry.attempt)
        self._write([outcome if (old.job_id, old.volume, old.attempt) == key else old for old in self.entries()])
        return outcome

    def _write(self, entries: Sequence[Entry]) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(
            self.path, json.dumps([asdict(entry) for entry in entries], ensure_ascii=False, indent=1), durable=True
        )


def forget_old(orders_dir: Path, keep_days: float) -> int:
    """Remove what nobody has touched for `keep_days`: books whose every outcome is known, and when which patient was
    sent; how many books went.
    """
    went = 0
    for path in list(orders_dir.iterdir()) if orders_dir.is_dir() else []:
        with suppress(
            OSError, PrintUncertain
        ):  # replaced by another machine meanwhile; a book that can't be read stays
            if path.suffix not in (".json", ".patient", ".new") or seconds_old(path) <= keep_days * 86_400:
                continue
            if path.suffix == ".json" and any(entry.state in OPEN for entry in OrderBook(path).entries()):
                continue
            path.unlink()
            went += path.suffix == ".json"
    return went
