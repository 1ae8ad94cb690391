"""Where the instances of one study go while it is retrieved, and what has arrived of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mkiso.config.settings import Receiver
from mkiso.config.storage import Storage
from mkiso.errors import JobStopped
from mkiso.receiver.client import Refusal, arrival_of
from mkiso.receiver.expectations import Expected
from mkiso.receiver.spool import Spool
from mkiso.study import completeness
from mkiso.study.models import Arrival, Study


class Sink:
    """`folder` takes the files; `arrived` (SOP Instance UIDs) is added to, and `on_arrival` hears of each new instance
    once, in the thread that takes it.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        arrived: set[str],
        on_arrival: Callable[[Arrival], None],
        stop: threading.Event,
    ) -> None:
        self.study = study
        self.folder = folder
        self.arrived = arrived
        self._on_arrival = on_arrival
        self._stop = stop
        self.last_arrival = time.monotonic()
        self.counted = 0
        """The most images that the source counted of the whole study."""
        self.refusals: list[Refusal] = []
        """What may be of the study and isn't in the folder, as far as that is known."""
        self.lost_associations: list[str] = []
        """Why we refused or aborted associations of the source."""

    def take(self, arrival: Arrival) -> None:
        """An instance lies in the folder, whole."""
        self.last_arrival = time.monotonic()
        if arrival.sop_instance_uid not in self.arrived:
            self.arrived.add(arrival.sop_instance_uid)
            self._on_arrival(arrival)

    def wait_anew(self) -> None:
        """From now on it is counted how long nothing came."""
        self.last_arrival = time.monotonic()

    @property
    def silent_seconds(self) -> float:
        return time.monotonic() - self.last_arrival

    @property
    def grew(self) -> bool:
        """Whether the source has counted more of the study than it listed."""
        expected = self.study.expected.count
        return expected is not None and self.counted > expected

    @property
    def only_counted(self) -> bool:
        """Whether nobody can tell which instances belong to the study."""
        return self.study.expected.source != "image"

    @property
    def is_complete(self) -> bool:
        """Whether everything that is listed has arrived."""
        # By count first: a set difference for each of 20,000 arrivals would make the time grow with their square.
        expected = self.study.expected
        return (
            expected.count is not None
            and len(self.arrived) >= expected.count
            and completeness.is_complete(expected, self.arrived)
        )

    @property
    def is_complete_or_unknown(self) -> bool | None:
        return None if self.study.expected.count is None else self.is_complete

    def raise_if_stopped(self) -> None:
        """Raises JobStopped where somebody wants the end of it."""
        if self._stop.is_set():
            raise JobStopped(f"The retrieval of {self.study.called} was stopped before its end. It can be run again.")


class AnsweredRetrieval:
    """A retrieval (mkiso.sources.protocol) whose images come as the answer to its own requests, through the receiver's
    checks into the sink's folder: when one has ended, nothing more comes.
    """

    quiet_seconds = 0.0

    def __init__(self, sink: Sink, storage: Storage, receiver: Receiver, calling_ae_title: str = "") -> None:
        study = sink.study
        self._sink = sink
        self._expected = Expected(
            study.study_instance_uid,
            sink.folder,
            study.expected.instances,
            calling_ae_title,
            series=frozenset(study.chosen),
        )
        self._spool = Spool.of_one(storage, receiver.max_instance_gib, self._expected)

    def take(self, timeout_seconds: float) -> bool:
        return False

    def catch_up(self) -> None:
        """Take in what was stored by now, and why something wasn't. Raises InstanceConflict, StorageFull."""
        while not self._expected.told.empty():
            message = self._expected.told.get() or {}
            if "refusal" in message:  # the source itself says that it is part of what was asked for
                self._sink.refusals.append(replace(Refusal(**message["refusal"]), moved=True))
            else:
                self._sink.take(arrival_of(message))
