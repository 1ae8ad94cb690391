"""The jobs' reports and who asked for them, as they lie on the disk."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from mkiso.config.storage import Storage
from mkiso.storage.askings import Asking, read_askings
from mkiso.storage.files import find_json, is_uuid, write_whole
from mkiso.storage.report import JobReport, report_in
from mkiso.storage.report_files import ASKED, REPORT, ReportFolder, report_folders
from mkiso.study.question import OfQuestion, what_is_asked


class Kept(NamedTuple):
    """Reports of jobs, and who asked, by the id of the job; a job that waits has no report yet."""

    reports: list[JobReport]
    askings: dict[str, tuple[Asking, ...]]


@dataclass(frozen=True, slots=True)
class Counts:
    """What is counted of jobs: by (kind, status, the error's code), and by (kind, stage) how many came to it and the
    seconds that they spent there.
    """

    jobs: tuple[tuple[tuple[str, str, str], int], ...] = ()
    stages: tuple[tuple[tuple[str, str], int, float], ...] = ()
    received: int = 0
    received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Counted:
    """The counts of a folder while its time is still this one."""

    changed_ns: int
    counts: Counts


_COUNTED = TypeAdapter(dict[str, _Counted])


class KeptReports:
    """The reports that are kept, for everything in this process that looks at many of them: there may be hundreds of
    thousands. A look asks no file of a folder that can't have changed. Safe to use from several threads.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._folders: dict[str, _Folder] = {}
        self._counted: tuple[dict[str, _Counted], Counts] | None = None
        self._sets: dict[str, tuple[int, dict[int, dict[str, str]]]] = {}
        self._lock = threading.Lock()

    def look(self, since: datetime | None = None) -> Kept:
        """All that is kept, or at least what was written since a moment."""
        folders = report_folders(self._storage)
        reports: list[JobReport] = []
        askings: dict[str, tuple[Asking, ...]] = {}
        for folder in folders:
            if since is None or folder.may_tell_of(since.timestamp()):
                found = self._read(folder)
                reports += found.reports
                askings.update(found.askings)
        there = {folder.path for folder in folders}
        with self._lock:
            self._folders = {path: known for path, known in self._folders.items() if path in there}
        return Kept(reports, askings)

    def counts(self) -> Counts:
        """Of all that is kept. What a folder counted is kept beside the folders, also for other processes."""
        before, total = self._counted or _summed(find_json(_counts_file(self._storage), _COUNTED) or {})
        there, others = {}, []
        for folder in report_folders(self._storage):
            name = folder.path.rpartition("/")[2]
            known = before.get(name) if folder.is_settled else None
            if known and known.changed_ns == folder.changed_ns:
                there[name] = known
                continue
            read = self._read(folder, keep=folder.begins is None)
            counts = counts_of(read.reports)
            if folder.begins is not None and read.is_settled(folder):
                there[name] = _Counted(folder.changed_ns, counts)
            else:  # the file of counts changes the folder of those without a day
                others.append(counts)
        if there != before:
            with suppress(OSError):  # a full disk: it is counted again after the next start
                write_whole(_counts_file(self._storage), _COUNTED.dump_json(there))
            before, total = _summed(there)
        self._counted = before, total
        return sum_of((total, *others))

    def sets_told(self, question: OfQuestion) -> dict[str, str]:
        """The sets of discs that jobs have told of for this question, as long as their reports are kept.

        Maps each set's id, which is that of its first disc (mkiso.storage.shelf.Manifest.set_id), to a job that serves
        it. Nobody can have a disc of a set that no job has told of. What was sent to an inbox answers nobody's
        question.
        """
        asked, told = hash(what_is_asked(question)), dict[str, str]()
        for folder in report_folders(self._storage):
            changed_ns, sets = self._sets.get(folder.path, (-1, {}))
            if changed_ns != folder.changed_ns:
                read = self._read(folder, keep=folder.begins is None)
                sets = _sets_of(read.reports)
                if read.is_settled(folder):
                    self._sets[folder.path] = folder.changed_ns, sets
            told |= sets.get(asked, {})
        return told

    def _read(self, folder: ReportFolder, *, keep: bool = True) -> _Folder:
        """What a folder holds; `keep`: remember it even if it is an old one."""
        with self._lock:
            known = self._folders.get(folder.path) or _Folder()
            known.read(folder)
            if keep or not folder.is_settled:
                self._folders[folder.path] = known
            return known


def _sets_of(reports: Iterable[JobReport]) -> dict[int, dict[str, str]]:
    """The sets that these tell of and a job that serves each, by the hash of what is asked."""
    sets: dict[int, dict[str, str]] = {}
    for report in reports:
        if report.disc_ids and not report.inbox:
            sets.setdefault(hash(what_is_asked(report)), {})[report.disc_ids[0]] = report.job_id
    return sets


def _summed(counted: dict[str, _Counted]) -> tuple[dict[str, _Counted], Counts]:
    return counted, sum_of(each.counts for each in counted.values())


def _report_in(file: Path) -> JobReport | None:
    with suppress(FileNotFoundError):  # removed meanwhile
        return report_in(file)
    return None


_SUFFIXES: Mapping[str, Callable[[Path], JobReport | tuple[Asking, ...] | None]] = {
    REPORT[1:]: _report_in,
    ASKED[1:]: read_askings,
}


class _Folder:
    """What stands in the files of one folder, each read again only when it has changed."""

    def __init__(self) -> None:
        self.reports: list[JobReport] = []
        self.askings: dict[str, tuple[Asking, ...]] = {}
        self._known: dict[str, tuple[tuple[int, int, int], JobReport | tuple[Asking, ...] | None]] = {}
        self._settled_ns = -1

    def is_settled(self, folder: ReportFolder) -> bool:
        """Whether all that it holds was read and stays as it is until its time changes."""
        return self._settled_ns == folder.changed_ns

    def read(self, folder: ReportFolder) -> None:
        if self.is_settled(folder):
            return
        before, known = self._known, {}
        reports, askings, are_all_read = [], {}, True
        with suppress(FileNotFoundError), os.scandir(folder.path) as entries:
            for entry in entries:  # a Path of each would take ten times as long
                job_id, _, suffix = entry.name.partition(".")
                if suffix not in _SUFFIXES or not is_uuid(job_id):
                    continue
                try:
                    status = entry.stat()
                except OSError:  # removed meanwhile
                    continue
                # Of two writings within one tick of the kernel's clock the second is another file, or longer.
                changed = status.st_mtime_ns, status.st_ino, status.st_size
                told = before.get(entry.name)
                if told is None or told[0] != changed:
                    told = changed, _SUFFIXES[suffix](Path(entry.path))
                if not told[1]:  # damaged, or it can't be read for the moment
                    are_all_read = False
                    continue
                known[entry.name] = told
                if isinstance(told[1], JobReport):
                    reports.append(told[1])
                else:
                    askings[job_id] = told[1]
        self._known, self.reports, self.askings = known, reports, askings
        self._settled_ns = folder.changed_ns if folder.is_settled and are_all_read else -1


def counts_of(reports: Iterable[JobReport]) -> Counts:
    """What these jobs count."""
    return sum_of(
        Counts(
            (((report.kind, report.status, str(report.error.get("code", ""))), 1),),
            tuple(((report.kind, stage), 1, seconds) for stage, seconds in report.seconds.items()),
            report.received,
            report.received_bytes,
        )
        for report in reports
    )


def sum_of(counts: Iterable[Counts]) -> Counts:
    """All of them together."""
    jobs: Counter[tuple[str, str, str]] = Counter()
    came: Counter[tuple[str, str]] = Counter()
    seconds: dict[tuple[str, str], float] = {}
    received = received_bytes = 0
    for each in counts:
        for outcome, number in each.jobs:
            jobs[outcome] += number
        for stage, number, took in each.stages:
            came[stage] += number
            seconds[stage] = seconds.get(stage, 0.0) + took
        received += each.received
        received_bytes += each.received_bytes
    stages = tuple((stage, number, seconds[stage]) for stage, number in sorted(came.items()))
    return Counts(tuple(sorted(jobs.items())), stages, received, received_bytes)


def _counts_file(storage: Storage) -> Path:
    return storage.reports_dir / "counts.json"
