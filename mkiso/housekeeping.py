"""What is kept, for how long, and what goes: discs, folders of failed jobs, reports, and whatever a crash left
behind.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from mkiso.config.settings import Settings
from mkiso.config.storage import Storage
from mkiso.errors import DamagedInstance, JobCancelled, StorageUnreadable
from mkiso.publishers.orderbook import forget_old
from mkiso.receiver.pushed import Ask, Clearing, PushedStudy, inboxes_on_disk, studies_in
from mkiso.storage.files import alone_in, seconds_old
from mkiso.storage.job import Job
from mkiso.storage.report import find_report, write_report
from mkiso.storage.report_files import DAY_SECONDS, report_folders
from mkiso.storage.rounds import begin_round, why_resting
from mkiso.storage.shelf import remove_old

log = logging.getLogger("mkiso.housekeeping")

SWEPT = ".swept-"
INCOMING_HOURS = 2
"""No instance takes longer to arrive (receiver.pdu_timeout_seconds ends a stalled one long before)."""


@dataclass(frozen=True, slots=True)
class Swept:
    """How many of each went."""

    discs: int = 0
    job_folders: int = 0
    reports: int = 0
    order_pages: int = 0
    incoming: int = 0
    sent_studies: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in asdict(self).items())


Standing = Literal["active", "failed", "over"]
"""What became of a run: not ended yet; failed or crashed, so that it may be retried; ended well or cancelled."""


def sweep(settings: Settings, standings: Callable[[Collection[str]], Mapping[str, Standing]] | None) -> Swept:
    """Remove what is older than it is kept, and folders of jobs that are over.

    `standings` tells what became of the jobs of these ids; one that it doesn't know counts as failed. Where nobody can
    be asked all folders stay, and all pages of the order book. Nothing goes for a day after the clock has leaped.
    """
    storage = settings.storage
    begin_round(storage)
    if words := why_resting(storage):
        log.warning("%s", words)
        return Swept()
    swept = Swept(
        discs=remove_old(storage, settings.disc.keep_hours),
        job_folders=_remove_jobs(storage, standings) if standings is not None else 0,
        reports=_remove_reports(storage, settings.prefect.keep_runs_days * 24),
        order_pages=forget_old(storage.orders_dir, settings.prefect.keep_runs_days, standings)
        if standings is not None
        else 0,
        incoming=_remove_older(storage.incoming_dir, INCOMING_HOURS),
        sent_studies=_sweep_inboxes(settings, standings),
    )
    log.info("Swept: %s.", swept)
    return swept


def forget_cancelled(job: Job) -> None:
    """Remove what a cancelled job had retrieved, once its process has ended, and say so in its report."""
    job.discard()
    storage = job.settings.storage
    if report := find_report(storage, job.id):  # else it hadn't begun, or its report is damaged
        write_report(storage, report.failed(JobCancelled("The job was cancelled.")))


def _remove_jobs(storage: Storage, standings: Callable[[Collection[str]], Mapping[str, Standing]]) -> int:
    """First the folders are listed and then their runs asked for: a run that begins meanwhile has none of these."""
    folders = [folder for folder in storage.jobs_dir.glob("*") if not folder.name.startswith(SWEPT)]
    told = standings([folder.name for folder in folders])
    removed = 0
    for folder in folders:
        standing = told.get(folder.name, "failed")
        if standing == "failed" and _has_ended_well(storage, folder.name):
            standing = "over"
        with _going_on(folder):
            if may_go(standing, seconds_old(folder) / 3600, storage.keep_failed_hours):
                removed += _take_away(folder)
    for left in storage.jobs_dir.glob(f"{SWEPT}*"):
        shutil.rmtree(left, ignore_errors=True)
    return removed


def may_go(standing: Standing, age_hours: float, keep_failed_hours: float) -> bool:
    """Whether a job's folder is of no use to anybody any more. Pure."""
    return standing == "over" or (standing == "failed" and age_hours >= keep_failed_hours)


def _has_ended_well(storage: Storage, job_id: str) -> bool:
    """A run that was killed between its report and its end is Crashed, and there is nothing to retry."""
    report = find_report(storage, job_id)
    return report is not None and report.status == "done"


def _take_away(folder: Path) -> bool:
    """Remove a job's folder unless a process works there, whatever its run's state: a machine that was cut off, a retry
    that begins just now.
    """
    if not folder.is_dir():
        folder.unlink()
        return True
    with alone_in(folder) as alone:
        if alone:
            gone = folder.rename(folder.with_name(f"{SWEPT}{folder.name}"))
    if alone:
        shutil.rmtree(gone, ignore_errors=True)
    return alone


def _sweep_inboxes(settings: Settings, standings: Callable[[Collection[str]], Mapping[str, Standing]] | None) -> int:
    """Take away what was sent and is done with; how many studies went or were emptied. An inbox that isn't configured
    any more has no watch that would write down how its jobs ended.
    """
    removed, storage = 0, settings.storage
    for name in inboxes_on_disk(storage):
        rules, studies = settings.inboxes.get(name), studies_in(storage, name)
        if rules is None and standings is not None:
            _note_ended(storage, studies, standings)
        keep_hours = storage.keep_failed_hours if rules is None else rules.keep_hours
        for study in studies:
            with _going_on(study.folder):
                may_go = partial(_may_go_of, study, keep_hours, settings.prefect.keep_runs_days, is_left=rules is None)
                removed += study.clear(may_go)
    return removed


def _note_ended(
    storage: Storage, studies: Sequence[PushedStudy], standings: Callable[[Collection[str]], Mapping[str, Standing]]
) -> None:
    unended = [(study, asked) for study in studies if (asked := study.asked) and not asked[-1].ended]
    told = standings([asked[-1].job_id for _, asked in unended]) if unended else {}
    for study, asked in unended:
        last = asked[-1]
        if told.get(last.job_id, "failed") != "active":
            ended: Literal["done", "failed"] = "done" if _has_ended_well(storage, last.job_id) else "failed"
            with _going_on(study.folder):
                study.note_asked((*asked[:-1], replace(last, ended=ended, ended_time=time.time())))


def _may_go_of(study: PushedStudy, keep_hours: float, remember_days: float, *, is_left: bool) -> Clearing:
    asked: tuple[Ask, ...] = ()
    quiet = study.seconds_quiet
    with suppress(DamagedInstance):
        asked = study.read_asked()
    gone = sent_may_go(asked, quiet, keep_hours, remember_days, time.time(), is_left=is_left)
    return gone if gone == "wholly" or quiet is not None else ""


def sent_may_go(
    asked: Sequence[Ask],
    quiet_seconds: float | None,
    keep_hours: float,
    remember_days: float,
    now: float,
    *,
    is_left: bool,
) -> Clearing:
    """What of a study that was sent to an inbox is of no use any more. What never became a job stays while the inbox is
    configured (`is_left`: it isn't, so that no job will come), and so does what one works on; which jobs there were is
    remembered, so that no second disc is made. Pure.
    """
    is_old = quiet_seconds is None or quiet_seconds >= keep_hours * 3600
    if not asked:
        return "wholly" if quiet_seconds is None or (is_left and is_old) else ""
    if not asked[-1].ended:
        return ""
    age_hours = (now - (asked[-1].ended_time or asked[-1].time)) / 3600
    came_since = quiet_seconds is not None and now - quiet_seconds > asked[-1].time
    if age_hours >= max(remember_days * 24, keep_hours) and is_old:
        return "wholly"
    return "instances" if age_hours >= keep_hours and (not came_since or (is_left and is_old)) else ""


def _remove_reports(storage: Storage, hours: float) -> int:
    """Remove what is older, and the folders of days that are over and empty. Younger days are passed over, unless a
    clock was ahead that gave them.
    """
    removed, now = 0, time.time()
    moment = now - hours * 3600
    for folder in report_folders(storage):
        if folder.begins is None:
            removed += _remove_older(storage.reports_dir, hours, named=".")
        elif not moment + DAY_SECONDS < folder.begins <= now + DAY_SECONDS:
            removed += _remove_older(Path(folder.path), hours)
            if folder.begins + DAY_SECONDS < moment:
                with suppress(OSError):  # something is left there
                    Path(folder.path).rmdir()
    return removed


def _remove_older(folder: Path, hours: float, *, named: str = "") -> int:
    """Remove what is older of what has `named` in its name."""
    removed = 0
    for path in _changed_before(folder, time.time() - hours * 3600, named):
        with _going_on(path):
            if seconds_old(path) >= hours * 3600:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                removed += 1
    return removed


def _changed_before(folder: Path, moment: float, named: str) -> list[Path]:
    """What was changed before a moment, or is dated into the future; of hundreds of thousands of reports a Path each
    would take ten times as long.
    """
    found, now = [], time.time()
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # what can't be looked at is told of as it is removed
                if named not in entry.name or moment < entry.stat().st_mtime <= now:
                    continue
            found.append(Path(entry.path))
    return found


@contextmanager
def _going_on(path: Path) -> Iterator[None]:
    """One thing that can't be removed keeps none of the others."""
    try:
        yield
    except FileNotFoundError:  # went meanwhile
        pass
    except OSError as error:
        log.error("%s isn't to be kept and can't be removed: %s", path, error.strerror)
    except StorageUnreadable as error:
        log.error("%s stays: %s", path, error.words)
