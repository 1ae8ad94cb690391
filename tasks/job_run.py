"""A flow run as a job: its folder, what is told of it while it runs, and the state and words it ends in."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from traceback import format_exception
from types import TracebackType
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, get_run_context
from prefect.states import Completed, Failed

from mkiso.config.in_force import in_force
from mkiso.config.section import Medium
from mkiso.config.settings import Settings
from mkiso.errors import JobNotFound, JobStopped, MkisoError, PatientMismatch, Unforeseen
from mkiso.housekeeping import require_room
from mkiso.media.layout import Layout
from mkiso.media.rendering import Renderer
from mkiso.publishers import Publisher, publisher_of
from mkiso.storage.files import hold
from mkiso.storage.job import Job, JobKind
from mkiso.storage.report import FoundStudy, JobReport, after_a_break, read_report, write_report
from mkiso.storage.shelf import Manifest
from mkiso.study.accession import parse_accession_numbers
from mkiso.study.gate import CompleteStudies
from mkiso.study.models import Arrival, Study
from mkiso.study.values import Found
from tasks.artifacts import Artifacts

REPORT_SECONDS = 0.25
PROGRESS_SECONDS = 1.0
STOPPED = "The job was stopped before its end: it was cancelled, or mkiso was shut down."
UNFORESEEN = (
    "Something went wrong that nobody foresaw; fault.txt in the job's folder says what. Retry the run, and "
    "tell who maintains mkiso."
)


class JobRun:
    """Context manager around a flow's steps: opens the job, tells of it, and turns its end into a state.

    An exception ends the `with` quietly and makes `state` a Failed one whose message is the error's words; Prefect
    would write the text of an unforeseen one into its database. What stops the process is raised on.
    """

    def __init__(self, kind: JobKind, accession_numbers: list[str], publisher: str = "") -> None:
        context = get_run_context()
        assert isinstance(context, FlowRunContext) and context.flow_run is not None
        self.log = get_run_logger()
        self.job = Job(str(context.flow_run.id), kind, in_force())
        name = publisher or (self.settings.print.publisher if kind == "print" else "")
        asked, made = tuple(accession_numbers), self._made_before()
        self.report = JobReport(self.job.id, kind, asked, publisher=name, disc_ids=made)
        self.words = ""
        self.state: State = Failed(message=self._stopped)
        self.renderer: Renderer | None = None
        self._held = ExitStack()
        self._reported = 0.0
        self._artifacts = Artifacts(self.log, "retrieval", PROGRESS_SECONDS)
        self._moving_since = time.monotonic()
        self._bytes = 0
        self._seconds: dict[str, float] = {}
        self._stage, self._stage_since = "starting", time.monotonic()
        self._studies: tuple[Study, ...] = ()
        self._received: Counter[str] = Counter()

    def __enter__(self) -> JobRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        with self._held:
            if self.renderer:
                self.renderer.close()
            return self._end(error)

    def _end(self, error: BaseException | None) -> bool:
        if error is None:
            self._write(
                replace(self.report, status="done", stage="done")
            )  # first: whoever waits for the disc has it from now on
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

    def question(self) -> tuple[str, ...]:
        """The accession numbers, each once. Raises InvalidRequest."""
        accession_numbers = parse_accession_numbers(
            list(self.report.accession_numbers), self.settings.server.max_accessions
        )
        self.report = replace(self.report, accession_numbers=accession_numbers)
        return accession_numbers

    def is_retry(self) -> bool:
        """Whether this run has begun or ended before, by all of its states that Prefect has."""
        with get_client(sync_client=True) as client:
            states = client.read_flow_run_states(UUID(self.job.id))
        return any(state.is_final() for state in states) or sum(state.is_running() for state in states) > 1

    def start(self) -> tuple[str, ...]:
        """Check the question and the room on the disk, and open the job's folder; the accession numbers, each once.

        Raises InvalidRequest, StorageFull.
        """
        accession_numbers = self.question()
        require_room(self.settings.storage)
        self._held.callback(os.close, hold(self.job.folder))
        self.job.open()
        self.job.note(kind=self.job.kind, accession_numbers=accession_numbers)
        self.tell("starting")
        return accession_numbers

    def _made_before(self) -> tuple[str, ...]:
        """The discs that an earlier attempt of this job has told of; they stay what its address has promised."""
        try:
            return read_report(self.settings.storage, self.job.id).disc_ids
        except JobNotFound:
            return ()

    @property
    def settings(self) -> Settings:
        return self.job.settings

    @property
    def medium(self) -> Medium:
        """What the disc is for: the publisher's medium, else the configured one."""
        return (
            self.settings.publishers[self.report.publisher].medium
            if self.report.publisher
            else self.settings.disc.medium
        )

    @property
    def _stopped(self) -> str:
        return f"{STOPPED} {after_a_break(self.job.kind, 'Ask again, or retry the run.')}"

    @property
    def publisher(self) -> Publisher:
        """The publisher of a print. Raises ConfigurationError where there is none of this name."""
        return publisher_of(self.report.publisher, self.settings)

    def finish(self, discs: Sequence[Manifest]) -> None:
        """The job's discs are on the shelf; nothing is left to do."""
        images, studies = sum(disc.instances for disc in discs), len(discs[0].studies)
        if discs[0].job_id == self.job.id:
            self.words = f"{images} images of {studies} {'study' if studies == 1 else 'studies'}, proved complete."
        else:
            self.words = (
                f"Served again: the disc of {discs[0].created[:16].replace('T', ' ')} UTC; the PACS has "
                "nothing else since."
            )
        self.report = replace(self.report, disc_ids=tuple(disc.disc_id for disc in discs), expected=images)
        self.tell("done", written=images)
        for disc in discs:
            self._link(disc)

    def begin_pictures(self) -> None:
        """From now on what arrives is turned into pictures beside everything else, where a disc is to show all."""
        if self.settings.disc.pictures != "none":
            self.renderer = Renderer(self.job.pictures_dir)

    def tell(self, stage: str, **facts: object) -> None:
        """Tell which stage the job is in, at once."""
        now = time.monotonic()
        self._seconds[self._stage] = self._seconds.get(self._stage, 0) + now - self._stage_since
        self._stage, self._stage_since = stage.partition(" from ")[0], now
        self._write(replace(self.report, stage=stage, **facts))  # type: ignore[arg-type]

    def tell_seldom(self, stage: str) -> None:
        """Tell of a stage that says something new many times a second."""
        self.report = replace(self.report, stage=stage)
        if time.monotonic() - self._reported >= REPORT_SECONDS:
            self._write(self.report)

    def tell_found(self, found: Found) -> None:
        """Tell which studies were found; from now on each report says how far each of them has come."""
        self._studies = found.studies
        counts = [study.expected.count for study in found.studies]
        expected = None if None in counts else sum(count or 0 for count in counts)
        self.tell("found", studies=self._found_studies(), degraded=found.degraded, expected=expected)

    def begin_study(self, study: Study) -> None:
        """A study is retrieved, perhaps once more: what is stored of it is counted from the beginning."""
        self._received[study.study_instance_uid] = 0

    def tell_complete(self, complete: CompleteStudies) -> None:
        """Tell that everything is here, as the PACS has it at the end."""
        self._studies = complete.studies
        self._received = Counter(instance.arrival.study_instance_uid for instance in complete.instances)
        self.tell("complete", expected=self._received.total(), received=self._received.total())
        self.show_progress()

    def tell_written(self, layout: Layout) -> None:
        """Tell that one more disc of the set is mastered."""
        self.tell("mastering", written=self.report.written + layout.instances)

    def count_kept(self, arrival: Arrival) -> None:
        """Count an instance that an earlier attempt has stored."""
        self._received[arrival.study_instance_uid] += 1
        self.report = replace(self.report, received=self._received.total())
        if self.renderer and self.settings.disc.pictures == "all":
            self.renderer.begin(arrival)

    def count_arrival(self, arrival: Arrival) -> None:
        """Count an instance that arrived; told a few times a second at most."""
        self._bytes += arrival.size
        self.count_kept(arrival)
        if time.monotonic() - self._reported >= REPORT_SECONDS:
            self._write(self.report)
        if self._artifacts.is_progress_due:
            self.show_progress()

    def show_progress(self) -> None:
        """How far the retrieval is, for the operator."""
        expected, received = self.report.expected, self.report.received
        rate = self._bytes / 1e6 / max(time.monotonic() - self._moving_since, 1e-3)
        words = f"{received} of {expected if expected is not None else 'an unknown number of'} images, {rate:.1f} MB/s"
        self._artifacts.progress(received, expected, words)

    def _link(self, disc: Manifest) -> None:
        server = self.settings.server
        address = server.public_url.rstrip("/") or f"http://{server.host}:{server.port}"
        part = f"?part={disc.number}" if disc.total > 1 else ""
        words = f"Disc {disc.number} of {disc.total} ({disc.size / 1e6:.1f} MB)"
        self._artifacts.link("disc", f"{address}/api/iso/jobs/{self.job.id}/disc{part}", words)

    def _show_end(self, *, is_good: bool) -> None:
        """The operator's table: for each study what was asked, expected, received and written; and how far a retrieval
        came that broke off.
        """
        if not is_good and 0 < self.report.received != self.report.expected:
            self.show_progress()
        rows = []
        for study in self._studies:
            expected: int | str = "unknown" if study.expected.count is None else study.expected.count
            received = self._received[study.study_instance_uid]
            rows.append(
                {
                    "accession number": study.accession_number,
                    "expected": expected,
                    "received": received,
                    "written": (received or expected) if is_good else "unfinished",  # without any: on an earlier disc
                    "counted at level": study.expected.source,
                    "study": study.study_instance_uid,
                }
            )
        if rows:
            words = (
                "What the PACS was asked for, what it said to have, what has arrived, and what is on the disc or "
                "with the publisher."
            )
            self._artifacts.table("studies", rows, words)

    def _end_badly(self, error: MkisoError) -> None:
        self.log.error("%s [%s]", error.words, error.code)
        self.state = Failed(message=error.words)
        self._write(self.report.failed(error))
        if self.settings.storage.keep_failed_hours == 0 or isinstance(error, PatientMismatch):
            self.job.discard()

    def _found_studies(self) -> tuple[FoundStudy, ...]:
        return tuple(
            FoundStudy(
                accession_number=study.accession_number,
                study_date=study.study_date,
                modalities=study.modalities_in_study,
                study_description=study.study_description,
                expected=study.expected.count,
                received=self._received[study.study_instance_uid],
            )
            for study in self._studies
        )

    def _write(self, report: JobReport) -> None:
        self.report = replace(report, studies=self._found_studies()) if report.studies else report
        took = {stage: round(seconds, 3) for stage, seconds in self._seconds.items()}
        self.report = replace(self.report, received_bytes=self._bytes, seconds=took)
        self._reported = time.monotonic()
        write_report(self.settings.storage, self.report)
