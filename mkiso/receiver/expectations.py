"""What jobs expect, and who is told of what comes. It is said over a Unix socket: `expectation_server`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from mkiso.receiver.hashing import Digest
from mkiso.study.selection import is_uid

NOT_EXPECTED = "no job expects it"
NOBODY: frozenset[str] = frozenset()
MAX_REASONS = 8  # why associations were refused, told to one job
MAX_REFUSALS = 10_000  # told to one job by their UIDs; further ones are told as one without


@dataclass(eq=False, slots=True)
class Expected:
    """What one job expects of one study; `instances` None: any of the study. `calling_ae_title`: what the job calls
    itself when it asks for a C-MOVE; `senders`: the AE titles and addresses that the instances come from; `strangers`:
    those of other sources, whose instances aren't for this job even where they are of the study; `series`: of the study
    these alone, empty: any. What another job has asked of the same study is then none of this one's.

    `arrived` maps the SOP Instance UIDs of the files in `folder` to their hashes; the job is told of each as soon as
    its hash is known.
    """

    study_instance_uid: str
    folder: Path
    instances: frozenset[str] | None
    calling_ae_title: str = ""
    senders: frozenset[str] = frozenset()
    strangers: frozenset[str] = frozenset()
    series: frozenset[str] = frozenset()
    arrived: dict[str, Digest] = field(default_factory=dict)
    told: SimpleQueue[dict[str, Any] | None] = field(default_factory=SimpleQueue)
    in_haste: threading.Event = field(default_factory=threading.Event)
    being_given: int = 0
    _refused: set[tuple[str, bool]] = field(default_factory=set)
    _lost: set[str] = field(default_factory=set)

    def wants(self, sop_instance_uid: str) -> bool:
        return self.instances is None or sop_instance_uid in self.instances

    def takes_from(self, sender: frozenset[str]) -> bool:
        """Whether what comes from this sender (AE title and address) may be for this job."""
        return not self.strangers & sender

    def lists(self, sop_instance_uid: str) -> bool:
        return self.instances is not None and sop_instance_uid in self.instances

    def may_take(self, series_instance_uid: str) -> bool:
        """Whether an instance of this series may be meant; empty: its series isn't known."""
        return not self.series or not series_instance_uid or series_instance_uid in self.series

    def tell_arrival(
        self, sop_instance_uid: str, sop_class_uid: str, transfer_syntax_uid: str, size: int, sha256: str
    ) -> None:
        """Tell the job of an instance that is in its folder now."""
        self.told.put({"arrival": {
            "sop_instance_uid": sop_instance_uid, "sop_class_uid": sop_class_uid,
            "transfer_syntax_uid": transfer_syntax_uid, "study_instance_uid": self.study_instance_uid,
            "path": f"{self.folder}/{sop_instance_uid}", "size": size, "sha256": sha256,
        }})  # fmt: skip

    def tell_conflict(self, sop_instance_uid: str) -> None:
        self.told.put({"conflict": {"sop_instance_uid": sop_instance_uid}})

    def tell_no_room(self, sop_instance_uid: str) -> None:
        self.told.put({"no_room": {"sop_instance_uid": sop_instance_uid}})

    def tell_refusal(self, sop_instance_uid: str, words: str, move_originator: str) -> None:
        """Tell the job of an instance that came and isn't in its folder, each once: whoever sends such by the million
        fills no memory."""
        moved = move_originator != "" and move_originator == self.calling_ae_title
        uid = sop_instance_uid if is_uid(sop_instance_uid) and len(self._refused) < MAX_REFUSALS else ""
        if (sop_instance_uid, moved) in self._refused or (uid, moved) in self._refused:
            return
        self._refused.add((uid, moved))
        self.told.put({"refusal": {"sop_instance_uid": uid, "words": words, "moved": moved}})

    def tell_association(self, words: str) -> None:
        """Tell the job why a sender's association was refused or aborted, each reason once."""
        if words not in self._lost and len(self._lost) < MAX_REASONS:
            self._lost.add(words)
            self.told.put({"association": {"words": words}})

    def catch_up(self) -> None:
        """Say so when all that was told before has gone out, and let that go out at once."""
        self.told.put({"caught_up": True})
        self.in_haste.set()


class Expectations:
    """Everything that is expected now.

    The lock inside is held for a look and a mark and never while anything is read, hashed, linked or waited for, so
    that nobody waits for another's instance. What an instance needs to itself is its own SOP Instance UID and that the
    jobs it is given to stay: `giving`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._all: set[Expected] = set()
        self._under_way: set[str] = set()

    def __len__(self) -> int:
        return len(self._all)

    def add(self, expected: Expected) -> None:
        with self._changed:
            self._all.add(expected)

    def remove(self, expected: Expected) -> None:
        """Nothing is given to it any more when this returns."""
        with self._changed:
            self._all.discard(expected)
            self._changed.wait_for(lambda: not expected.being_given)

    def may_want(self, sop_instance_uid: str) -> bool:
        """Whether anybody may expect this instance, before its study is known."""
        with self._changed:
            return any(expected.wants(sop_instance_uid) for expected in self._all)

    @contextmanager
    def giving(
        self,
        study_instance_uid: str,
        sop_instance_uid: str,
        sender: frozenset[str],
        series_instance_uid: str,
    ) -> Iterator[list[Expected]]:
        """Who expects this instance from this sender. Until the `with` ends none of them is gone, and nobody else gives
        an instance of this UID."""
        with self._changed:
            self._changed.wait_for(lambda: sop_instance_uid not in self._under_way)
            self._under_way.add(sop_instance_uid)
            jobs = [
                one
                for one in self._all
                if one.study_instance_uid == study_instance_uid
                and one.wants(sop_instance_uid)
                and one.takes_from(sender)
                and (not one.series or series_instance_uid in one.series)
            ]
            for job in jobs:
                job.being_given += 1
        try:
            yield jobs
        finally:
            with self._changed:
                self._under_way.discard(sop_instance_uid)
                for job in jobs:
                    job.being_given -= 1
                self._changed.notify_all()

    def tell_no_room(self, sop_instance_uid: str) -> None:
        """Tell whoever may expect this instance that there is no room for it."""
        for expected in self._now():
            if expected.wants(sop_instance_uid):
                expected.tell_no_room(sop_instance_uid)

    def tell_association(self, calling_ae_title: str, address: str, words: str) -> None:
        """Tell the jobs that expect something of this sender why its association was refused or aborted."""
        for expected in self._now():
            if expected.senders & {calling_ae_title, address}:
                expected.tell_association(words)

    def tell_refusal(
        self,
        study_instance_uid: str,
        sop_instance_uid: str,
        words: str,
        move_originator: str,
        sender: frozenset[str] = NOBODY,
        series_instance_uid: str = "",
    ) -> None:
        """Tell the jobs that expect something of its study or list it, from this sender. Where neither is known,
        because it can't be read, it may be anybody's; of a series that isn't known it may be of each."""
        everybody = [one for one in self._now() if one.takes_from(sender)]
        concerned = [
            one
            for one in everybody
            if one.lists(sop_instance_uid)
            or (one.study_instance_uid == study_instance_uid and one.may_take(series_instance_uid))
        ]
        for expected in concerned if concerned or study_instance_uid else everybody:
            expected.tell_refusal(sop_instance_uid, words, move_originator)

    def tell_others(
        self,
        study_instance_uid: str,
        sop_instance_uid: str,
        move_originator: str,
        sender: frozenset[str],
        series_instance_uid: str,
    ) -> None:
        """Tell the jobs that expect something of the study from this sender and not this instance, which was given to
        others."""
        if len(self._all) > 1:
            for expected in self._now():
                is_of_study = expected.study_instance_uid == study_instance_uid and expected.takes_from(sender)
                if is_of_study and expected.may_take(series_instance_uid) and not expected.wants(sop_instance_uid):
                    expected.tell_refusal(sop_instance_uid, NOT_EXPECTED, move_originator)

    def _now(self) -> list[Expected]:
        with self._changed:
            return list(self._all)
