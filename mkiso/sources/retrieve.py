"""A whole study into a job's folder: what the source brings of it, and the gap again until nothing is missing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from mkiso.config.disc import Identity
from mkiso.receiver.client import Refusal
from mkiso.sources.move_outcome import (
    SUCCESS,
    WARNING,
    Level,
    MoveResult,
    Step,
    after_quiet,
    comment_words,
    is_coarser,
    merged,
    next_step,
)
from mkiso.sources.protocol import UIDS_IN_A_LIST, Retrieval, Source, Target
from mkiso.sources.query import asked_again
from mkiso.sources.sink import Sink
from mkiso.study import completeness
from mkiso.study.models import Arrival, Expected, Study, listed_words

POLL_SECONDS = 0.05  # how late a stop may be noticed while no image comes
LOST_QUIET_SECONDS = 5.0  # after a lost connection or association images either come at once or not at all
LATE_SECONDS = 1.0  # how long one image more than was counted may take after the final response
GROWTH_ROUNDS = 3  # how often a study may grow under our hands
MAX_PIECES = 500  # of one attempt
FIRST_PIECES = 4
NAMED_ALONE = 3  # of what can't be sent even alone, in the words

_COARSER: dict[Level, Level] = {"IMAGE": "SERIES", "SERIES": "STUDY"}


def retrieve(
    source: Source,
    identity: Identity,
    study: Study,
    folder: Path,
    already: Collection[Arrival],
    on_arrival: Callable[[Arrival], None],
    stop: threading.Event | None = None,
) -> Study:
    """Retrieve a study and return it as it stands: complete, with the instances that the PACS added meanwhile in its
    `expected`.

    `already` is what an earlier run stored; only the rest is retrieved. `on_arrival` hears of each new instance in this
    thread, once. `stop` ends it within seconds. The disc must be what the PACS holds, so the study is queried again
    unless the end of the retrieval and its count prove the list (mkiso.sources.move_outcome) and the receiver refused
    nothing that may be of the study; what is new is retrieved too. A PACS that still lists less than it counts or sends
    contradicts itself (docs/decisions/growing-studies.md).

    Raises NoDicomData, CountsUnknown, StudyIncomplete, StudyNotFound, PatientMismatch, PacsRefused, PacsBusy,
    PacsSilent, PacsUnreachable, InstanceConflict, ReceiverUnavailable, StorageFull, JobStopped.
    """
    require_counts = source.settings.require_counts
    completeness.provable(study, require_counts=require_counts)
    arrived = {
        arrival.sop_instance_uid for arrival in already if arrival.study_instance_uid == study.study_instance_uid
    }
    counted = 0
    refusals: list[Refusal] = []
    for _ in range(GROWTH_ROUNDS):
        sink = Sink(study, folder, arrived, on_arrival, stop or threading.Event())
        proved = _Attempts(source, sink).run()
        sink.raise_if_stopped()
        counted = max(counted, sink.counted)
        refusals += sink.refusals
        grew = study.expected.count is not None and counted > study.expected.count
        lacking = [refusal for refusal in refusals if refusal.sop_instance_uid not in arrived]
        fresh = study.expected if proved and not grew and not lacking else asked_again(source, identity, study)
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


class _Attempts:
    """The attempts at one study while what is expected of it stays the same.

    What fails as a whole is asked for in halves down to single instances: one that can't be sent may keep the others
    back (Orthanc ends a C-MOVE at the first that it can't transcode).
    """

    def __init__(self, source: Source, sink: Sink) -> None:
        self._source = source
        self._sink = sink
        self._study = sink.study
        self._before = len(sink.arrived)
        self._coarsest: Level = "SERIES" if sink.study.chosen else "STUDY"
        self._finest: Level = "IMAGE"
        self._most: int | None = None
        """How many instances are asked for at once; None: as many as lie together."""
        self._pieces_came = False
        """Whether a question below STUDY level has brought any."""
        self._unsent: dict[str, MoveResult] = {}
        """How the last question for one instance alone ended that didn't bring it."""

    def run(self) -> bool:
        """Retrieve until everything has arrived; whether the source's own word proves that it was everything. Raises
        what `retrieve` raises."""
        if self._sink.is_complete:
            return True
        rules, sink = self._source.settings, self._sink
        attempt = 1
        with self._source.retrieving(sink) as retrieval:
            while True:
                wanted = self._wanted()
                result, step = self._attempt(retrieval, wanted)
                if step in (Step.DONE, Step.PROVE):
                    return step is Step.DONE
                if step is Step.SPLIT:
                    continue
                if step is Step.COARSER and wanted[-1].level != self._coarsest:
                    self._finest, self._most = _COARSER[wanted[-1].level], None
                    continue
                if step in (Step.COARSER, Step.FAIL) or attempt >= rules.move_attempts:
                    if not self._may_come_alone(result):
                        raise self._failure(result)
                    self._most = 1
                    continue
                if step is Step.BACK_OFF:
                    self._pause(retrieval, rules.back_off_seconds * 2 ** (attempt - 1))
                attempt += 1
                if attempt == rules.move_attempts and wanted[-1].level == "IMAGE":
                    self._most = 1

    @property
    def _came(self) -> int:
        return len(self._sink.arrived) - self._before

    def _wanted(self) -> list[Target]:
        study, missing = self._study, completeness.missing(self._study.expected, self._sink.arrived)
        most = self._most and max(self._most, -(-len(missing) // MAX_PIECES))
        wanted = targets(study.study_instance_uid, study.expected, missing, self._finest, most, study.chosen)
        # Before any came that way, a few show whether they can.
        return wanted[:: -(-len(wanted) // FIRST_PIECES)] if most and not self._pieces_came else wanted

    @property
    def _whole(self) -> list[Target]:
        """What is asked for where nothing has come."""
        study = self._study
        return targets(study.study_instance_uid, study.expected, frozenset(), self._finest, chosen=study.chosen)

    def _attempt(self, retrieval: Retrieval, wanted: list[Target]) -> tuple[MoveResult, Step]:
        """One attempt, settled; what fails as a whole is asked for in smaller pieces the next time."""
        before, level = len(self._sink.arrived), wanted[-1].level
        results = retrieval.retrieve(wanted)
        result = merged(results)
        step = self._settle(retrieval, result, before, level)
        for target, each in zip(wanted, results, strict=False):
            if len(target.instances) == 1:
                self._unsent[target.instances[0]] = each
        came = len(self._sink.arrived) > before
        if level == "STUDY" or wanted == self._whole:
            return result, Step.BACK_OFF if step is Step.SPLIT and not came else step
        if step in (Step.DONE, Step.PROVE, Step.COARSER, Step.FAIL):
            return result, step
        few = not self._pieces_came
        self._pieces_came |= came
        smaller = self._smaller(wanted)
        if came and (smaller or few):  # it goes on, and ends: the pieces get smaller
            step = Step.SPLIT
        if step is Step.SPLIT and not came and smaller is None:
            return result, Step.BACK_OFF if self._pieces_came else Step.COARSER
        self._most = smaller or self._most
        return result, step

    def _smaller(self, wanted: Sequence[Target]) -> int | None:
        """How many instances to ask for at once where as many as `wanted` asks for are too many; None where they can't
        be fewer."""
        series = self._study.expected.series
        if self._finest == "SERIES":
            return 1 if any(len(target.series) > 1 for target in wanted) else None
        largest = max(len(target.instances) or sum(len(series[uid]) for uid in target.series) for target in wanted)
        half = -(-largest // 2) if self._pieces_came else 1
        return half if half < largest else None

    def _may_come_alone(self, result: MoveResult) -> bool:
        """Whether the PACS says that it can't send the whole, and nobody has asked for one image alone yet."""
        told = result.status is not None and (result.status in (SUCCESS, WARNING) or result.status >> 12 == 0xC)
        failed = result.status != SUCCESS or bool(result.failed)
        listed = self._study.expected.source == "image" and len(self._study.expected.instances or ()) > 1
        return told and failed and listed and not self._came and not self._unsent

    def _settle(self, retrieval: Retrieval, result: MoveResult, before: int, level: Level) -> Step:
        """Decide, after waiting for images that may still come."""
        sink, quiet = self._sink, retrieval.quiet_seconds
        retrieval.catch_up()
        if result.status is None or sink.lost_associations:
            quiet = min(quiet, LOST_QUIET_SECONDS)
        sink.wait_anew()
        while (
            step := next_step(
                result, expected=self._study.expected, complete=sink.is_complete_or_unknown,
                arrived=len(sink.arrived) - before, level=level, grew=sink.grew,
                refused=len(self._refused()), came=self._came > 0,
            )
        ) is Step.WAIT and sink.silent_seconds < quiet:  # fmt: skip
            retrieval.take(POLL_SECONDS)
            sink.raise_if_stopped()
        if step in (Step.DONE, Step.PROVE) and sink.only_counted and result.sent != len(sink.arrived):
            while sink.silent_seconds < min(quiet, LATE_SECONDS):
                retrieval.take(POLL_SECONDS)
                sink.raise_if_stopped()
        return after_quiet(result, complete=sink.is_complete_or_unknown) if step is Step.WAIT else step

    def _pause(self, retrieval: Retrieval, seconds: float) -> None:
        """Wait before the next attempt; images may come all the same."""
        deadline = time.monotonic() + seconds
        while not self._sink.is_complete and (left := deadline - time.monotonic()) > 0:
            retrieval.take(min(left, POLL_SECONDS))
            self._sink.raise_if_stopped()

    def _refused(self) -> dict[str, str]:
        """Why images came and aren't here that are to be on the disc, by their UID, as far as the source told which."""
        expected = self._study.expected.instances
        return {
            refusal.sop_instance_uid: refusal.words
            for refusal in self._sink.refusals
            if refusal.sop_instance_uid not in self._sink.arrived
            and (expected is None or refusal.sop_instance_uid in expected)
        }

    def _unsent_words(self) -> str:
        """What didn't come even alone, and how that ended; empty where nothing was asked for alone."""
        unsent = {uid: end for uid, end in self._unsent.items() if uid not in self._sink.arrived}
        if not unsent:
            return ""
        named = [
            f"{uid} (status {end.status:04X}{comment_words(end, self._study)})"
            if end.status is not None
            else f"{uid} (the connection was lost)"
            for uid, end in unsent.items()
        ]
        return f"Asked for alone, the PACS doesn't send {listed_words(named, NAMED_ALONE)}: look at its log."

    def _failure(self, result: MoveResult) -> Exception:
        """In the source's own words, where nothing of it failed here."""
        failed_here = self._refused() or self._sink.lost_associations
        failure = None if failed_here else self._source.failure(result, self._study, self._came)
        return failure or self._incomplete(result)

    def _incomplete(self, result: MoveResult) -> Exception:
        hints = []
        if refused := self._refused():
            hints.append(f"mkiso refused {len(refused)} that came: {next(iter(refused.values())).rstrip('.')}.")
        if lost := self._sink.lost_associations:
            hints.append(f"An association of the PACS with mkiso {lost[-1].rstrip('.')}.")
        if unsent := self._unsent_words():
            hints.append(unsent)
        elif result.status is not None and result.status not in (SUCCESS, WARNING):
            comment = comment_words(result, self._study)
            hints.append(f"The PACS ended with status {result.status:04X}{comment}: look at its log.")
        elif result.status is None and result.comment and not self._sink.arrived:
            hints.append(result.comment)
        if result.warning and not result.failed:
            hints.append(f"The PACS counts {result.warning} as sent with a warning.")
        if not self._sink.arrived and not refused and not lost:
            hints.append(self._source.hint)
        if self._sink.is_complete:
            return completeness.unproved(self._study, " ".join(hints))
        return completeness.incomplete(self._study, self._sink.arrived, " ".join(hints) or completeness.RETRY_HINT)


def targets(
    study_instance_uid: str,
    expected: Expected,
    missing: frozenset[str],
    finest: Level,
    most: int | None = None,
    chosen: Sequence[str] = (),
) -> list[Target]:
    """What brings what is missing and nothing else, at no finer level than `finest`; the one of the finest level is
    last. With `most` each series is asked for by itself, and no more instances than so many at once. Of a study of
    which series are chosen each is asked for by itself: not every PACS takes a list of them.
    """
    if finest == "STUDY" or not missing or (missing == expected.instances and most is None):
        return [Target(study_instance_uid, (series,)) for series in chosen] or [Target(study_instance_uid)]
    lacking = {series: missing & instances for series, instances in expected.series.items() if missing & instances}
    whole = tuple(
        series
        for series, gap in lacking.items()
        if finest == "SERIES" or (gap == expected.series[series] and (most is None or 1 < len(gap) <= most))
    )
    size = min(most or UIDS_IN_A_LIST, UIDS_IN_A_LIST)
    together = [whole] if whole and most is None else [(series,) for series in whole]
    return [Target(study_instance_uid, series) for series in together] + [
        Target(study_instance_uid, (series,), tuple(sorted(gap)[start : start + size]))
        for series, gap in lacking.items()
        if series not in whole
        for start in range(0, len(gap), size)
    ]
