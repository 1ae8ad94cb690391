"""Where the small files of a job lie: its report, who asked for it, and a password that waits for who asked.

A folder for each day has those of the jobs that were asked for on that day. Which day it is stands in the job's id, so
that every machine knows the place, whatever its clock and time zone. Those of an id that says no day lie beside these
folders: jobs of older versions of mkiso, and of a Prefect server that isn't mkiso's (docs/decisions/reports-by-day.md).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from mkiso.config.storage import Storage
from mkiso.errors import JobNotFound
from mkiso.storage.files import make_beside_discs, sync_folder, write_whole

REPORT, ASKED, SEALED = ".json", ".asked", ".sealed"
DAY_SECONDS = 86_400
SETTLED_SECONDS = 3600
"""Clocks of machines that share the files differ by less. What a folder held this long after its last change it holds
until its time changes again."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ReportFolder(NamedTuple):
    """A folder of such files, as it was when its time was looked at. `begins`: when its day does, in s since 1970;
    None for the folder of those that have no day. `changed_ns` is its time: of its last new, replaced or removed file,
    and of the last who asked for one of its jobs.
    """

    path: str
    begins: float | None
    changed_ns: int
    is_settled: bool

    def may_tell_of(self, since: float) -> bool:
        """Whether something in it may have been written since then, in seconds since 1970."""
        if self.begins is None:
            return True
        return max(self.begins + DAY_SECONDS, self.changed_ns / 1e9) >= since - SETTLED_SECONDS


def file_of(storage: Storage, job_id: str, suffix: str) -> Path:
    """A job's file of this kind. Raises JobNotFound where `job_id` is no UUID."""
    try:
        job = UUID(job_id)
    except ValueError:
        raise JobNotFound("A job's id looks like 123e4567-e89b-12d3-a456-426614174000.") from None
    return storage.reports_dir / _day_of(job) / f"{job}{suffix}"


def write_file(storage: Storage, job_id: str, suffix: str, content: str, *, durable: bool) -> None:
    """Replace a job's file in one step; `durable`: it has reached the disk when this returns. Raises JobNotFound."""
    file = file_of(storage, job_id, suffix)
    while True:
        make_folder(storage, file)
        try:
            write_whole(file, content, durable=durable)
            break
        except FileNotFoundError:  # housekeeping has just removed the empty folder
            continue
    if durable:
        sync_folder(storage.reports_dir)


def make_folder(storage: Storage, file: Path) -> None:
    """The folder of a job's file."""
    make_beside_discs(storage.reports_dir)
    file.parent.mkdir(mode=0o700, exist_ok=True)


def report_folders(storage: Storage) -> list[ReportFolder]:
    """All of them, that of files without a day first, then by day."""
    days = []
    try:
        without_day = _folder(os.fspath(storage.reports_dir), None, storage.reports_dir.stat())
        with os.scandir(storage.reports_dir) as entries:
            for entry in entries:
                begins = _begin_of(entry.name)
                with suppress(FileNotFoundError):  # removed meanwhile
                    if begins is not None and entry.is_dir():
                        days.append(_folder(entry.path, begins, entry.stat()))
    except FileNotFoundError:  # nobody has asked yet
        return []
    return [without_day, *sorted(days, key=lambda each: each.path)]


def _folder(path: str, begins: float | None, status: os.stat_result) -> ReportFolder:
    is_settled = abs(time.time() - status.st_mtime) > SETTLED_SECONDS
    return ReportFolder(path, begins, status.st_mtime_ns, is_settled)


def _day_of(job: UUID) -> str:
    """The day of a UUIDv7 (RFC 9562 5.7) in UTC; empty for another id."""
    if job.version != 7:
        return ""
    try:
        return (_EPOCH + timedelta(milliseconds=job.int >> 80)).date().isoformat()
    except OverflowError:  # after the year 9999
        return ""


def _begin_of(name: str) -> float | None:
    try:
        day = date.fromisoformat(name)
    except ValueError:
        return None
    return (day - _EPOCH.date()).total_seconds() if day.isoformat() == name else None
