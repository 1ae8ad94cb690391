"""What is told of a job while it runs: its report on the disk, and whatever else listens to it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from mkiso.config.settings import Server
from mkiso.config.storage import Storage
from mkiso.storage.report import FoundStudy, JobReport, find_report, readable_report, write_report
from mkiso.storage.room import size_words
from mkiso.storage.shelf import Manifest
from mkiso.study.gate import CompleteStudies
from mkiso.study.models import Arrival, Study, images_words, studies_words
from mkiso.study.values import Found

REPORT_SECONDS = 0.25


class Listener(Protocol):
    """Shows operators what a job tells."""

    @property
    def is_progress_due(self) -> bool:
        """Whether progress was shown long enough ago to be shown again."""

    def progress(self, done: int, total: int | None, words: str) -> None:
        """How far the retrieval is; `total` None where it isn't known."""

    def table(self, key: str, rows: Sequence[Mapping[str, object]], description: str) -> None:
        """A table as it is now."""

    def link(self, key: str, address: str, words: str) -> None:
        """A link."""


class JobProgress:
    """`report` is what was told last. Discs that an earlier attempt of the job has told of stay in it, and what is on
    them: they are what its address has promised. Once a later attempt has begun nothing more is told.
    """

    def __init__(self, storage: Storage, report: JobReport, listener: Listener) -> None:
        self.report = _as_told_before(storage, report)
        self._storage = storage
        self._listener = listener
        self._reported = 0.0
        self._moving_since = time.monotonic()
        self._bytes = 0
        self._seconds: dict[str, float] = {}
        self._stage, self._stage_since = "starting", time.monotonic()
        self._studies: tuple[Study, ...] = ()
        """Of this attempt; empty until they are found, and where the discs of an earlier one are given."""
        self._received: Counter[str] = Counter()

    @property
    def is_superseded(self) -> bool:
        """Whether a later attempt has begun: this machine was taken for lost, and another one has the job."""
        told = find_report(self._storage, self.report.job_id)
        return told is not None and told.attempt > self.report.attempt

    def tell(self, stage: str, **facts: object) -> None:
        """Tell which stage the job is in, at once."""
        now = time.monotonic()
        self._seconds[self._stage] = self._seconds.get(self._stage, 0) + now - self._stage_since
        self._stage, self._stage_since = stage.partition(" from ")[0], now
        self.write(replace(self.report, stage=stage, **facts))  # type: ignore[arg-type]

    def tell_seldom(self, stage: str) -> None:
        """Tell of a stage that says something new many times a second."""
        self.report = replace(self.report, stage=stage)
        if time.monotonic() - self._reported >= REPORT_SECONDS:
            self.write(self.report)

    def tell_found(self, found: Found) -> None:
        """Tell which studies were found; from now on each report says how far each of them has come."""
        self._studies = found.studies
        counts = [study.expected.count for study in found.studies]
        expected = None if None in counts else sum(count or 0 for count in counts)
        first = found.studies[0]
        name = (found.patient and found.patient.name) or first.patient_name
        born = (found.patient and found.patient.birth_date) or first.patient_birth_date
        if not self.report.deidentified:
            self.report = replace(self.report, patient_id=first.patient_id, patient_name=name, patient_birth_date=born)
        self.tell(
            "found",
            studies=self._found_studies(),
            degraded=found.degraded,
            expected=expected,
            selection=found.selection,
            is_part=found.is_part,
        )

    def begin_study(self, study: Study) -> None:
        """A study is retrieved, perhaps once more: what is stored of it is counted from the beginning."""
        self._received[study.study_instance_uid] = 0

    def tell_complete(self, complete: CompleteStudies) -> None:
        """Tell that everything is here, as the PACS has it at the end."""
        self._studies = complete.studies
        self._received = Counter(instance.arrival.study_instance_uid for instance in complete.instances)
        if not self.report.deidentified:
            self.report = replace(self.report, patient_name=complete.patient_name)
        count = self._received.total()
        self.tell("complete", expected=count, received=count, degraded=complete.degraded)
        self.show_progress()

    def tell_written(self, instances: int) -> None:
        """Tell that one more disc of the set is mastered, with so many instances."""
        self.tell("mastering", written=self.report.written + instances)

    def count_kept(self, arrival: Arrival) -> None:
        """Count an instance that an earlier attempt has stored."""
        self._received[arrival.study_instance_uid] += 1
        self.report = replace(self.report, received=self._received.total())

    def count_arrival(self, arrival: Arrival) -> None:
        """Count an instance that arrived; told a few times a second at most."""
        self._bytes += arrival.size
        self.count_kept(arrival)
        if time.monotonic() - self._reported >= REPORT_SECONDS:
            self.write(self.report)
        if self._listener.is_progress_due:
            self.show_progress()

    def show_progress(self) -> None:
        """How far the retrieval is, for the operator."""
        expected, received = self.report.expected, self.report.received
        rate = self._bytes / 1e6 / max(time.monotonic() - self._moving_since, 1e-3)
        of_them = "an unknown number of images" if expected is None else images_words(expected)
        words = f"{received} of {of_them}, {rate:.1f} MB/s"
        self._listener.progress(received, expected, words)

    def tell_discs(self, discs: Sequence[Manifest], server: Server) -> None:
        """Tell that the job's discs are on the shelf, and where they are had."""
        images = sum(disc.instances for disc in discs)
        ids, is_part = tuple(disc.disc_id for disc in discs), any(disc.is_part for disc in discs)
        self.report = replace(self.report, disc_ids=ids, expected=images, is_part=is_part)
        self.tell("done", written=images)
        for disc in discs:
            part = f"?part={disc.number}" if disc.total > 1 else ""
            words = f"Disc {disc.number} of {disc.total} ({size_words(disc.size)})"
            self._listener.link("disc", f"{server.address}/api/iso/jobs/{self.report.job_id}/disc{part}", words)

    def tell_end(self, *, is_good: bool) -> None:
        """Show the operator's table, and how far a retrieval came that broke off."""
        if not is_good and 0 < self.report.received != self.report.expected:
            self.show_progress()
        if rows := list(self._rows(is_good=is_good)):
            words = (
                "What the PACS was asked for, what it said to have, what has arrived, and what is on the disc or "
                "with the publisher."
            )
            self._listener.table("studies", rows, words)

    def _rows(self, *, is_good: bool) -> Iterator[dict[str, object]]:
        """For each study what was asked, expected, received and written."""
        for study in self._studies:
            expected: int | str = "unknown" if study.expected.count is None else study.expected.count
            received = self._received[study.study_instance_uid]
            yield {
                "accession number": study.accession_number,
                "expected": expected,
                "received": received,
                "written": (received or expected) if is_good else "unfinished",  # without any: on an earlier disc
                "counted at level": study.expected.source,
                **({"source": study.origin.source} if study.origin.source else {}),
                "study": study.study_instance_uid,
                **({"chosen series": " ".join(study.chosen)} if study.chosen else {}),
                **({"prior": "yes"} if study.is_prior else {}),
            }

    def _found_studies(self) -> tuple[FoundStudy, ...]:
        """As they were found; of a de-identified copy without what says which they are."""
        is_told = not self.report.deidentified
        return tuple(
            FoundStudy(
                accession_number=study.accession_number * is_told,
                study_date=study.study_date * is_told,
                modalities=study.modalities_in_study,
                study_description=study.study_description * is_told,
                expected=study.expected.count,
                received=self._received[study.study_instance_uid],
                source=study.origin.source,
                study_instance_uid=study.study_instance_uid * is_told,
                series=len(study.chosen),
                of_series=study.expected.of_series,
                is_prior=study.is_prior,
            )
            for study in self._studies
        )

    def write(self, report: JobReport) -> None:
        """Tell this, with how far each study has come and how long each stage took. Raises OSError where the job's end
        can't be written down; a job isn't ended because nobody can be told how far it is.
        """
        self.report = replace(report, studies=self._found_studies()) if self._studies else report
        took = {stage: round(seconds, 3) for stage, seconds in self._seconds.items()}
        self.report = replace(self.report, received_bytes=self._bytes, seconds=took)
        self._reported = time.monotonic()
        try:
            if not self.is_superseded:
                write_report(self._storage, self.report)
        except OSError:
            if self.report.status != "running":
                raise


def words_of_discs(discs: Sequence[Manifest], job_id: str) -> str:
    """What came of a job whose discs these are: made by it, or served again."""
    images, studies = sum(disc.instances for disc in discs), len(discs[0].studies)
    if discs[0].job_id == job_id:
        return f"{images_words(images)} of {studies_words(studies)}, proved complete."
    made = discs[0].created[:16].replace("T", " ")
    return f"Served again: the disc of {made} UTC; the PACS has nothing else since."


def _as_told_before(storage: Storage, report: JobReport) -> JobReport:
    """As the next attempt's, with the discs that an earlier one has told of, and what it told of them."""
    earlier = readable_report(storage, report.job_id)
    if not earlier:
        return report
    report = replace(report, attempt=earlier.attempt + 1)
    if not earlier.disc_ids:
        return report
    return replace(
        report,
        disc_ids=earlier.disc_ids,
        studies=earlier.studies,
        degraded=earlier.degraded,
        is_part=earlier.is_part,
        received=earlier.received,
        patient_id=earlier.patient_id,
        patient_name=earlier.patient_name,
        patient_birth_date=earlier.patient_birth_date,
    )
