"""A whole study into a job's folder: C-MOVE, what the receiver stores of it, and the gap again until nothing is
missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from mkiso.config.settings import Settings
from mkiso.errors import JobStopped, PacsSilent
from mkiso.receiver.client import Expectation, Refusal
from mkiso.sources.move import Move, Target, targets
from mkiso.sources.move_outcome import (
    SUCCESS,
    WARNING,
    Level,
    MoveResult,
    Step,
    after_quiet,
    comment_words,
    failure,
    is_coarser,
    merged,
    next_step,
)
from mkiso.sources.pacs import calling_ae_title
from mkiso.sources.query import MAX_TIMEOUTS, asked_again
from mkiso.study import completeness
from mkiso.study.models import Arrival, Study

POLL_SECONDS = 0.05  # how late a final response or a stop may be noticed while no image comes
LOST_QUIET_SECONDS = 5.0  # after a lost connection images either come at once or not at all
SETTLED_SECONDS = 5.0  # how long a final response is waited for when everything that is listed has arrived
LATE_SECONDS = 1.0  # how long one image more than was counted may take after the final response
GROWTH_ROUNDS = 3  # how often a study may grow under our hands

_COARSER: dict[Level, Level] = {"IMAGE": "SERIES", "SERIES": "STUDY"}


def retrieve(
    settings: Settings,
    study: Study,
    folder: Path,
    already: Collection[Arrival],
    on_arrival: Callable[[Arrival], None],
    stop: threading.Event | None = None,
) -> Study:
    """Move a study and return it as it stands: complete, with the instances that the PACS added meanwhile in its
    `expected`.

    `already` is what an earlier run stored; only the rest is moved. `on_arrival` hears of each new instance in this
    thread, once. `stop` ends the C-MOVE (C-CANCEL) within seconds. The disc must be what the PACS holds, so the study
    is queried again unless the C-MOVE's own end and count prove the list (mkiso.sources.move_outcome) and the receiver
    refused nothing that may be of the study; what is new is moved too. A PACS that still lists less than it counts or
    sends contradicts itself (docs/decisions/growing-studies.md).

    Raises NoDicomData, CountsUnknown, StudyIncomplete, StudyNotFound, PatientMismatch, PacsRefused, PacsBusy,
    PacsSilent, PacsUnreachable, InstanceConflict, ReceiverUnavailable, StorageFull, JobStopped.
    """
    require_counts = settings.pacs.require_counts
    completeness.provable(study, require_counts=require_counts)
    arrived = {
        arrival.sop_instance_uid for arrival in already if arrival.study_instance_uid == study.study_instance_uid
    }
    counted = 0
    refusals: list[Refusal] = []
    for _ in range(GROWTH_ROUNDS):
        retrieval = _Retrieval(settings, study, folder, arrived, on_arrival, stop or threading.Event())
        proved = retrieval.run()
        counted = max(counted, retrieval.counted)
        refusals += retrieval.refusals
        grew = study.expected.count is not None and counted > study.expected.count
        lacking = [refusal for refusal in refusals if refusal.sop_instance_uid not in arrived]
        fresh = study.expected if proved and not grew and not lacking else asked_again(settings, study)
        if is_coarser(fresh, study.expected):
            raise completeness.untold(study)
        if fresh == study.expected:
            completeness.complete(study, arrived, require_counts=require_counts, counted=counted)
            # A list says that what it doesn't name is a stranger's, unless the PACS said otherwise when it sent it.
            # A number can't.
            if sent := [refusal.words for refusal in lacking if refusal.moved or fresh.source != "image"]:
                raise completeness.unlisted(study, len(sent), sent[0])
            return study
        study = replace(study, expected=fresh)
    raise completeness.changed(study, len(arrived))


class _Retrieval:
    """The attempts at one study while what is expected of it stays the same; `arrived` is added to."""

    def __init__(
        self,
        settings: Settings,
        study: Study,
        folder: Path,
        arrived: set[str],
        on_arrival: Callable[[Arrival], None],
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._study = study
        self._folder = folder
        self._arrived = arrived
        self._on_arrival = on_arrival
        self._stop = stop
        self._last_arrival = time.monotonic()
        self.counted = 0
        """The most images that the PACS counted of the whole study."""
        self.refusals: list[Refusal] = []
        """What may be of the study and isn't in the folder, as far as the receiver has told."""

    def run(self) -> bool:
        """Move until everything has arrived; whether the PACS's own word proves that it was everything. Raises what
        `retrieve` raises."""
        pacs, study = self._settings.pacs, self._study
        if self._complete():
            return True
        finest: Level = "IMAGE"
        attempt = 1
        with Expectation(
            self._settings.storage.receiver_socket,
            study.study_instance_uid,
            self._folder,
            study.expected.instances,
            calling_ae_title(self._settings),
        ) as expectation:
            self.refusals = expectation.refusals
            while True:
                before = len(self._arrived)
                wanted = targets(
                    study.study_instance_uid,
                    study.expected,
                    completeness.missing(study.expected, self._arrived),
                    finest,
                )
                result = self._move(expectation, wanted)
                level = wanted[-1].level
                step = self._settle(expectation, result, before, level)
                if step in (Step.DONE, Step.PROVE):
                    return step is Step.DONE
                if step is Step.COARSER:
                    finest = _COARSER[level]
                    continue
                if step is Step.FAIL or attempt == pacs.move_attempts:
                    failed = None if self._refused() else failure(result, self._settings, study)
                    raise failed or self._incomplete(result)
                if step is Step.BACK_OFF:
                    self._pause(expectation, pacs.back_off_seconds * 2 ** (attempt - 1))
                attempt += 1

    def _move(self, expectation: Expectation, wanted: list[Target]) -> MoveResult:
        """One attempt: the C-MOVEs of `wanted`, arrivals taken in as they come. Raises PacsSilent."""
        self._last_arrival = time.monotonic()
        with Move(self._settings, wanted) as move:
            result = self._follow(move, expectation)
        if wanted[0].level == "STUDY":  # below it a count may be of what was asked (an asynchronous Orthanc)
            self.counted = max(self.counted, move.counted)
        return result

    def _follow(self, move: Move, expectation: Expectation) -> MoveResult:
        pacs = self._settings.pacs
        # Counts alone don't tell the last image from the one before it: there only silence for the quiet limit does.
        settled = pacs.quiet_timeout_seconds if self._only_counted else SETTLED_SECONDS
        while not move.poll(0):
            if self._complete():
                # Nothing but the final response is missing, so it is waited for at once.
                if move.poll(POLL_SECONDS):
                    break
                self._drain(expectation)
                if self._silent_since(move) > settled:
                    return MoveResult(None)
            else:
                self._take_arrival(expectation, POLL_SECONDS)
            if self._silent_since(move) > pacs.response_timeout_seconds:
                raise self._silent("neither answered nor sent an image", pacs.response_timeout_seconds)
            if time.monotonic() - self._last_arrival > pacs.response_timeout_seconds * MAX_TIMEOUTS:
                raise self._silent("answered and sent no image", pacs.response_timeout_seconds * MAX_TIMEOUTS)
            self._raise_if_stopped()
        return merged(move.results)

    def _settle(self, expectation: Expectation, result: MoveResult, before: int, level: Level) -> Step:
        """Decide, after waiting for images that may still come."""
        quiet = self._settings.pacs.quiet_timeout_seconds
        if result.status is None:
            quiet = min(quiet, LOST_QUIET_SECONDS)
        expectation.catch_up()
        self._drain(expectation)
        self._last_arrival = time.monotonic()
        while (
            step := next_step(
                result, expected=self._study.expected, complete=self._complete_or_unknown(),
                arrived=len(self._arrived) - before, level=level, grew=self._grew,
            )
        ) is Step.WAIT and time.monotonic() - self._last_arrival < quiet:  # fmt: skip
            self._take_arrival(expectation, POLL_SECONDS)
            self._raise_if_stopped()
        if step in (Step.DONE, Step.PROVE) and self._only_counted and result.sent != len(self._arrived):
            while time.monotonic() - self._last_arrival < min(quiet, LATE_SECONDS):
                self._take_arrival(expectation, POLL_SECONDS)
                self._raise_if_stopped()
        return after_quiet(result, complete=self._complete_or_unknown()) if step is Step.WAIT else step

    def _pause(self, expectation: Expectation, seconds: float) -> None:
        """Wait before the next attempt; images may come all the same."""
        deadline = time.monotonic() + seconds
        while not self._complete() and (left := deadline - time.monotonic()) > 0:
            self._take_arrival(expectation, min(left, POLL_SECONDS))
            self._raise_if_stopped()

    def _drain(self, expectation: Expectation) -> None:
        """Take in what has arrived already, also beyond what was counted or against what came before."""
        while self._take_arrival(expectation, 0):
            pass

    def _take_arrival(self, expectation: Expectation, timeout_seconds: float) -> bool:
        arrival = expectation.next_arrival(timeout_seconds)
        if arrival is None:
            return False
        self._last_arrival = time.monotonic()
        if arrival.sop_instance_uid not in self._arrived:
            self._arrived.add(arrival.sop_instance_uid)
            self._on_arrival(arrival)
        return True

    @property
    def _grew(self) -> bool:
        expected = self._study.expected.count
        return expected is not None and self.counted > expected

    @property
    def _only_counted(self) -> bool:
        return self._study.expected.source != "image"

    def _complete(self) -> bool:
        # By count first: a set difference for each of 20,000 arrivals would make the time grow with their square.
        expected = self._study.expected
        return (
            expected.count is not None
            and len(self._arrived) >= expected.count
            and completeness.is_complete(expected, self._arrived)
        )

    def _complete_or_unknown(self) -> bool | None:
        return None if self._study.expected.count is None else self._complete()

    def _silent_since(self, move: Move) -> float:
        return time.monotonic() - max(self._last_arrival, move.last_response)

    def _silent(self, what: str, seconds: float) -> PacsSilent:
        return PacsSilent(
            f"The PACS {self._settings.pacs.ae_title} {what} of accession number {self._study.accession_number} "
            f"for {seconds:g} s. Try again; if it stays, the PACS hangs.",
            accession_number=self._study.accession_number,
        )

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise JobStopped(
                f"The retrieval of accession number {self._study.accession_number} was stopped before its end. It can "
                "be run again."
            )

    def _refused(self) -> list[str]:
        """Why images came and aren't here that are to be on the disc, as far as the PACS told which."""
        expected = self._study.expected.instances
        return [
            refusal.words
            for refusal in self.refusals
            if refusal.sop_instance_uid not in self._arrived
            and (expected is None or refusal.sop_instance_uid in expected)
        ]

    def _incomplete(self, result: MoveResult) -> Exception:
        receiver = self._settings.receiver
        hints = []
        if refused := self._refused():
            hints.append(f"mkiso refused {len(refused)} that came: {refused[0].rstrip('.')}.")
        if result.status is not None and result.status not in (SUCCESS, WARNING):
            comment = comment_words(result, self._study)
            hints.append(f"The PACS ended with status {result.status:04X}{comment}: look at its log.")
        if not self._arrived and not refused:
            hints.append(
                f"Check that the PACS can reach this machine, and which address it has for {receiver.ae_title} (port "
                f"{receiver.port})."
            )
        if self._complete():
            return completeness.unproved(self._study, " ".join(hints))
        return completeness.incomplete(self._study, self._arrived, " ".join(hints) or completeness.RETRY_HINT)
