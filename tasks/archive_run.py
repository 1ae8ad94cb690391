"""A run of the archive as a flow run of Prefect: the state and words it ends in."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, date, datetime

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, get_run_context
from prefect.states import Completed, Failed

from mkiso.archive.job import ArchiveJob
from mkiso.archive.night_outcome import words
from mkiso.config.in_force import in_force
from mkiso.errors import MkisoError
from mkiso.storage.job import Job
from mkiso.storage.report import failure_of
from tasks.artifacts import Artifacts

PROGRESS_SECONDS = 2.0
NICENESS = 15
"""Of the archive's process: clerks' jobs have the processor and the disk first (the kernel derives the one from the
other, ioprio_set(2)).
"""


class ArchiveRun(ArchiveJob):
    """Context manager around the steps of a night; its end becomes `state`. An exception ends the `with` quietly; the
    traceback of an unexpected one is kept in the job's folder. What stops the process is raised again.
    """

    def __init__(self, date_from: date | None, date_to: date | None, *, dry_run: bool) -> None:
        context = get_run_context()
        assert isinstance(context, FlowRunContext) and context.flow_run is not None
        log = get_run_logger()
        self._artifacts = Artifacts(log, "night", PROGRESS_SECONDS)
        job = Job(str(context.flow_run.id), "archive", in_force())
        began = context.flow_run.expected_start_time or datetime.now(UTC)
        super().__init__(job, (date_from, date_to), began, log, self._artifacts, dry_run=dry_run)
        goes_on = "the next night goes on from there" if self.scheduled else "start it again, and it goes on from there"
        self.state: State = Failed(message=f"The archive was stopped before its end; {goes_on}.")

    def __enter__(self) -> ArchiveRun:
        os.nice(NICENESS)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        try:
            self.opened.close()
        except MkisoError as unclosed:  # a full disk lets nobody give up a lease either; it ends by itself
            error = error or unclosed
        if error is not None and not isinstance(error, Exception):
            self._artifacts.close(at_once=True)
            return False
        if error is not None:
            failure = failure_of(error, self.job.kind)
            if failure is not error:
                self.job.keep_fault(error)
            self.log.error("%s: %s", failure.code, failure.words)
            self.outcome = replace(self.outcome, stopped=failure.words)
        self.show_end()
        self._artifacts.close()
        if self.outcome.is_good:
            self.job.discard()
            self.state = Completed(message=self.words or words(self.outcome))
        else:
            self.state = Failed(message=words(self.outcome))
        return True
