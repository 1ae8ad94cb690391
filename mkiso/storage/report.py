"""What is told of a job while it runs and at its end: stage, counts, outcome. A small file beside the discs, so that a
webhook anywhere reads it.

Whose discs they are, and what a study is called (StudyDescription), stands here and not in Prefect; a job's own address
doesn't tell the patient, the list of this site's discs does.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from traceback import extract_tb
from typing import Annotated, Any, Literal

from pydantic import TypeAdapter, WithJsonSchema

from mkiso.config.section import TransferSyntax
from mkiso.config.storage import Storage
from mkiso.errors import JobNotFound, JobStopped, MkisoError, StorageFull, StorageUnreadable, Unforeseen
from mkiso.storage.files import Unreadable, read_json
from mkiso.storage.report_files import REPORT, file_of, write_file
from mkiso.storage.room import NO_ROOM, UNUSABLE
from mkiso.study.selection import EVERYTHING, Selection

Status = Literal["running", "done", "failed"]
Uuid = Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"})]
LOOK_FIRST = (
    "The order may already be with the publisher: look there before asking again; Retry of this run doesn't "
    "order twice."
)


_PROGRESS: Mapping[str, tuple[float, float]] = {
    "waiting": (0.0, 0.0),
    "starting": (0.01, 0.01),
    "found": (0.03, 0.03),
    "retrieving": (0.03, 0.65),
    "complete": (0.65, 0.65),
    "converting images": (0.65, 0.66),
    "de-identifying": (0.65, 0.66),
    "making pictures": (0.66, 0.8),
    "laying out": (0.8, 0.8),
    "mastering": (0.82, 0.9),
    "reading back": (0.9, 0.9),
    "ordering": (0.94, 0.94),
    "done": (1.0, 1.0),
}
"""Where each stage begins and ends."""
_AT_THE_PUBLISHER = (0.95, 0.99)
_COUNTED = re.compile(r"\((\d{1,9}) of (\d{1,9})\)$")


def after_a_break(kind: str, otherwise: str) -> str:
    """What to do about a job that broke off; of a print nobody can say that no disc is made of it, and an unknown job
    (of kind "") may have been one.
    """
    if kind == "print":
        return LOOK_FIRST
    return otherwise if kind else f"If it was a print: {LOOK_FIRST[0].lower()}{LOOK_FIRST[1:]}"


def failure_of(error: BaseException, kind: str) -> MkisoError:
    """What is told of a job that ended with this: its own words where it has any. Of another exception its type and
    place are told, and never its text, which may quote a patient's data.
    """
    if isinstance(error, MkisoError):
        return error
    if not isinstance(error, Exception):
        return stopped(kind)
    # A night that ends has made what it says.
    advice = after_a_break(kind, "" if kind == "archive" else "No disc was made.")
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return StorageFull(f"The disk of mkiso is full. Make room there, then retry the run. {advice}".rstrip())
    if isinstance(error, OSError) and error.errno in UNUSABLE:
        why = os.strerror(error.errno)  # the system's own words, and never the name of a file
        return StorageUnreadable(
            f"mkiso can't read or write the job's files: {why}. Have the administrator run `mkiso doctor` and look at "
            f"the disk, then retry the run. {advice}".rstrip()
        )
    what = type(error).__name__
    if isinstance(error, OSError) and error.errno:
        what += f" ({os.strerror(error.errno)})"
    where = "".join(f" at {frame.name}, line {frame.lineno}" for frame in extract_tb(error.__traceback__)[-1:])
    return Unforeseen(
        f"An unexpected fault in mkiso: {what}{where}. fault.txt in the job's folder says more. "
        f"Retry the run, and tell who maintains mkiso. {advice}".rstrip()
    )


def stopped(kind: str) -> JobStopped:
    """The end of a job whose process was ended."""
    return JobStopped(
        "The job was stopped before its end: it was cancelled, or mkiso was shut down. "
        f"{after_a_break(kind, 'Ask again, or retry the run.')}"
    )


@dataclass(frozen=True, slots=True)
class FoundStudy:
    """A study as C-FIND described it, and how far it has come. `study_date` is YYYYMMDD (VR DA); `expected` is None
    where the PACS tells no count. `source`: which of several it is taken from. `series`: how many of its `of_series`
    series are chosen, of which alone the images are counted; 0: all are meant, or nobody knows of how many. `is_prior`:
    an earlier study that goes beside those that were asked for.
    """

    accession_number: str
    study_date: str
    modalities: tuple[str, ...]
    study_description: str
    expected: int | None
    received: int
    source: str = ""
    study_instance_uid: str = ""
    series: int = 0
    of_series: int = 0
    is_prior: bool = False


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What is told of a job to everybody. `stage` is in words an operator reads; `studies` is empty until the PACS has
    answered and all of it is of one patient; `proves` is of a print: queued or done. `format` is of a download's discs,
    `language` that of their pages, `transfer_syntax` what their images are stored as. `selection`: what was chosen;
    `is_part`: the disc lacks something of the studies or accession numbers that stand on it, and says so.
    `deidentified`: the disc is a copy that doesn't say whose it is, nor do the facts but for the numbers that were
    asked for.
    """

    job_id: Uuid
    kind: str
    accession_numbers: tuple[str, ...]
    stage: str = "waiting"
    expected: int | None = None
    received: int = 0
    written: int = 0
    studies: tuple[FoundStudy, ...] = ()
    degraded: tuple[str, ...] = ()
    publisher: str = ""
    proves: str = ""
    format: str = "iso"
    language: str = ""
    transfer_syntax: TransferSyntax = "as-archived"
    selection: Selection = EVERYTHING
    is_part: bool = False
    updated: str = ""
    deidentified: bool = False


@dataclass(frozen=True, slots=True)
class JobReport(JobFacts):
    """The state of one job. `disc_ids` has one id a volume; `error` is set where `status` is failed.

    `error` holds `error` (words), `code`, `http_status` and the details of the MkisoError. `seconds` is how long each
    stage took in this attempt. `inbox` is the AE title that the study was sent to, empty where it wasn't. `attempt`
    counts the processes of the job: the last one alone tells of it.
    """

    status: Status = "running"
    disc_ids: tuple[str, ...] = ()
    error: dict[str, Any] = field(default_factory=dict)
    received_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    inbox: str = ""
    attempt: int = 1

    @property
    def progress(self) -> float:
        """How far it is, from 0 to 1 and never back: by its stage, and by what is counted within one."""
        if self.status == "done":
            return 1.0
        stage = self.stage.partition(" from ")[0].partition(" (")[0]
        begin, end = _PROGRESS.get(stage, _AT_THE_PUBLISHER)
        done, total = 0, 0
        if stage == "retrieving":
            done, total = self.received, self.expected or 0
        elif stage == "mastering":
            done, total = self.written, self.received
        elif counted := _COUNTED.search(self.stage):
            done, total = int(counted[1]), int(counted[2])
        return round(begin + (end - begin) * min(done / total, 1.0) if total else begin, 3)

    @property
    def is_on_the_shelf(self) -> bool:
        """Whether the discs of a download can be had; its run ends a little later."""
        return self.status == "done" and self.kind == "download"

    def failed(self, error: MkisoError) -> JobReport:
        """The report of a job that ended with this error."""
        told = {"error": error.words, "code": error.code, "http_status": error.http_status, **error.details}
        return replace(self, status="failed", error=told)


_REPORT = TypeAdapter(JobReport)


def numbers_on(report: JobFacts) -> tuple[str, ...]:
    """The accession numbers that were asked for, else those of the studies that were found by UID."""
    asked = (study.accession_number for study in report.studies if not study.is_prior)
    found = dict.fromkeys(filter(None, asked))
    return report.accession_numbers or tuple(found)


def write_report(storage: Storage, report: JobReport) -> None:
    """Replace the job's report in one step; what it says of the job's end has reached the disk before anybody hears of
    it.
    """
    stamped = replace(report, updated=datetime.now(UTC).isoformat(timespec="milliseconds"))
    write_file(storage, report.job_id, REPORT, json.dumps(asdict(stamped)), durable=report.status != "running")


def read_report(storage: Storage, job_id: str) -> JobReport:
    """The job's report. Raises JobNotFound where there is none (yet, or any more), it is damaged, or `job_id` is no
    UUID; StorageUnreadable.
    """
    try:
        return read_json(file_of(storage, job_id, REPORT), _REPORT)
    except FileNotFoundError:
        pass
    except Unreadable as error:
        error.refuse_if_there(f"The report of job {job_id}")
    raise JobNotFound(f"There is no job {job_id} here; jobs are forgotten some time after they end.")


def report_in(file: Path) -> JobReport | None:
    """The report in a file, None where it is damaged or can't be read. Raises FileNotFoundError."""
    try:
        return read_json(file, _REPORT)
    except Unreadable:
        return None


def find_report(storage: Storage, job_id: str) -> JobReport | None:
    """As read_report; None where that finds none, or can't read it just now."""
    with suppress(StorageUnreadable):
        return readable_report(storage, job_id)
    return None


def readable_report(storage: Storage, job_id: str) -> JobReport | None:
    """As read_report; None where that finds none. Raises StorageUnreadable."""
    with suppress(JobNotFound):
        return read_report(storage, job_id)
    return None
