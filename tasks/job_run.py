"""A flow run as a job: its folder, what is told of it while it runs, and the state and words it ends in."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from traceback import format_exception
from types import TracebackType

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, get_run_context
from prefect.states import Completed, Failed

from mkiso import config_file
from mkiso.accession import parse_accession_numbers
from mkiso.errors import JobStopped, MkisoError, PatientMismatch, Unforeseen
from mkiso.job import Job, JobKind
from mkiso.media.layout import Layout
from mkiso.media.verify import ImageProof
from mkiso.models import Arrival
from mkiso.publishers import Publisher, publisher_of
from mkiso.report import FoundStudy, JobReport, after_a_break, write_report
from mkiso.retention import require_room
from mkiso.store import Manifest
from tasks.artifacts import Artifacts

REPORT_SECONDS = 0.25
PROGRESS_SECONDS = 1.0
STOPPED = "The job was stopped before its end: it was cancelled, or mkiso was shut down."
UNFORESEEN = "Something went wrong that nobody foresaw; fault.txt in the job's folder says what. Retry the run, and tell who maintains mkiso."


class JobRun:
    """Context manager around a flow's steps: opens the job, tells of it, and turns its end into a state.

    An exception ends the `with` quietly and makes `state` a Failed one whose message is the error's words; Prefect would write the text of an
    unforeseen one into its database. What stops the process is raised on.
    """

    def __init__(self, kind: JobKind, accession_numbers: list[str], publisher: str = "") -> None:
        context = get_run_context()
        assert isinstance(context, FlowRunContext) and context.flow_run is not None
        self.log = get_run_logger()
        self.job = Job(str(context.flow_run.id), kind, config_file.load(), tuple(accession_numbers))
        name = publisher or (self.job.settings.print.publisher if kind == "print" else "")
        self.report = JobReport(self.job.id, kind, self.job.accession_numbers, publisher=name)
        self.words = ""
        self.finished = False
        self.layouts: list[Layout] = []
        self.proofs: list[ImageProof] = []
        self.state: State = Failed(message=self._stopped)
        self._reported = 0.0
        self._artifacts = Artifacts(self.log, "retrieval", PROGRESS_SECONDS)
        self._moving_since = time.monotonic()
        self._bytes = 0
        self._seconds: dict[str, float] = {}
        self._stage, self._stage_since = "starting", time.monotonic()
        self._received: Counter[str] = Counter()

    def __enter__(self) -> JobRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> bool:
        if error is None:
            self._write(replace(self.report, status="done", stage="done"))  # first: whoever waits for the disc has it from now on
        stopped = error is not None and not isinstance(error, Exception)
        if not stopped:
            self._show_end(is_good=error is None)
        self._artifacts.close(at_once=stopped)
        if error is None:
            self.state = Completed(message=self.words)
            self.job.discard()
            return True
        if isinstance(error, MkisoError):
            self._end_badly(error)
            return True
        if isinstance(error, Exception):
            self.job.keep_fault("".join(format_exception(error)))
            self._end_badly(Unforeseen(f"{UNFORESEEN} {after_a_break(self.job.kind, 'No disc was made.')}"))
            return True
        self._end_badly(JobStopped(self._stopped))
        return False

    def start(self) -> None:
        """Check the question and the room on the disk, and open the job's folder. Raises InvalidRequest, StorageFull."""
        settings = self.job.settings
        self.job.accession_numbers = parse_accession_numbers(list(self.job.accession_numbers), settings.server.max_accessions)
        self.report = replace(self.report, accession_numbers=self.job.accession_numbers)
        require_room(settings.storage)
        self.job.open()
        self.job.note(kind=self.job.kind, accession_numbers=self.job.accession_numbers)
        self.tell("starting")

    @property
    def _stopped(self) -> str:
        return f"{STOPPED} {after_a_break(self.job.kind, 'Ask again, or retry the run.')}"

    @property
    def publisher(self) -> Publisher:
        """The publisher of a print. Raises ConfigurationError where there is none of this name."""
        return publisher_of(self.report.publisher, self.job.settings)

    def finish(self, discs: list[Manifest], words: str) -> None:
        """The job's discs are on the shelf; nothing is left to do."""
        self.finished = True
        self.words = words
        self.report = replace(self.report, disc_ids=tuple(disc.disc_id for disc in discs), expected=sum(disc.instances for disc in discs))
        self.tell("done", written=sum(disc.instances for disc in discs))
        for disc in discs:
            self._link(disc)

    def tell(self, stage: str, **facts: object) -> None:
        """Tell which stage the job is in, at once."""
        now = time.monotonic()
        self._seconds[self._stage] = self._seconds.get(self._stage, 0) + now - self._stage_since
        self._stage, self._stage_since = stage.partition(" from ")[0], now
        self._write(replace(self.report, stage=stage, degraded=tuple(self.job.degraded), **facts))  # type: ignore[arg-type]

    def tell_seldom(self, stage: str) -> None:
        """Tell of a stage that says something new many times a second."""
        self.report = replace(self.report, stage=stage)
        if time.monotonic() - self._reported >= REPORT_SECONDS:
            self._write(self.report)

    def tell_found(self) -> None:
        """Tell which studies were found; from now on each report says how far each of them has come."""
        counts = [study.expected.count for study in self.job.studies]
        self.tell("found", studies=self._studies(), expected=None if None in counts else sum(count or 0 for count in counts))

    def recount(self) -> None:
        """Count by study what lies in the job's folder."""
        self._received = Counter(each.arrival.study_instance_uid for each in self.job.instances.values())

    def count_arrival(self, arrival: Arrival) -> None:
        """Count an instance that arrived; told a few times a second at most."""
        self._bytes += arrival.size
        self._received[arrival.study_instance_uid] += 1
        self.report = replace(self.report, received=len(self.job.instances))
        if time.monotonic() - self._reported >= REPORT_SECONDS:
            self._write(self.report)
        if self._artifacts.is_progress_due:
            self.show_progress()

    def show_progress(self) -> None:
        """How far the retrieval is, for the operator."""
        expected, received = self.report.expected, len(self.job.instances)
        rate = self._bytes / 1e6 / max(time.monotonic() - self._moving_since, 1e-3)
        words = f"{received} of {expected if expected is not None else 'an unknown number of'} images, {rate:.1f} MB/s"
        self._artifacts.progress(received, expected, words)

    def _link(self, disc: Manifest) -> None:
        server = self.job.settings.server
        address = server.public_url.rstrip("/") or f"http://{server.host}:{server.port}"
        part = f"?part={disc.number}" if disc.total > 1 else ""
        words = f"Disc {disc.number} of {disc.total} ({disc.size / 1e6:.1f} MB)"
        self._artifacts.link("disc", f"{address}/api/iso/jobs/{self.job.id}/disc{part}", words)

    def _show_end(self, *, is_good: bool) -> None:
        """The operator's table: for each study what was asked, expected, received and written; and how far a retrieval came that broke off."""
        if not is_good and 0 < self.report.received != self.report.expected:
            self.show_progress()
        rows = []
        for study in self.job.studies:
            expected: int | str = "unknown" if study.expected.count is None else study.expected.count
            received = self._received[study.study_instance_uid]
            rows.append(
                {
                    "accession number": study.accession_number,
                    "expected": expected,
                    "received": received,
                    "written": (received if self.job.instances else expected) if is_good else "unfinished",  # without any: on an earlier disc
                    "counted at level": study.expected.source,
                    "study": study.study_instance_uid,
                }
            )
        if rows:
            words = "What the PACS was asked for, what it said to have, what has arrived, and what is on the disc or with the publisher."
            self._artifacts.table("studies", rows, words)

    def _end_badly(self, error: MkisoError) -> None:
        self.log.error("%s [%s]", error.words, error.code)
        self.state = Failed(message=error.words)
        self._write(replace(self.report, degraded=tuple(self.job.degraded)).failed(error))
        if self.job.settings.storage.keep_failed_hours == 0 or isinstance(error, PatientMismatch):
            self.job.discard()

    def _studies(self) -> tuple[FoundStudy, ...]:
        return tuple(
            FoundStudy(
                accession_number=study.accession_number,
                study_date=study.study_date,
                modalities=list(study.modalities_in_study),
                study_description=study.study_description,
                expected=study.expected.count,
                received=self._received[study.study_instance_uid],
            )
            for study in self.job.studies
        )

    def _write(self, report: JobReport) -> None:
        self.report = replace(report, studies=self._studies()) if report.studies else report
        took = {stage: round(seconds, 3) for stage, seconds in self._seconds.items()}
        self.report = replace(self.report, received_bytes=self._bytes, seconds=took)
        self._reported = time.monotonic()
        write_report(self.job.settings.storage, self.report)
