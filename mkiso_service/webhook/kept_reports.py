"""The jobs' reports and who asked for them, as they lie on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from mkiso.config.settings import Storage
from mkiso.errors import JobNotFound
from mkiso.storage.askings import SUFFIX, Asking, read_askings
from mkiso.storage.report import JobReport, read_report


class KeptReports:
    """The reports that are kept, each read again only when it has changed: there may be tens of thousands."""

    def __init__(self) -> None:
        self._reports: dict[Path, tuple[int, JobReport | None]] = {}
        self._askings: dict[Path, tuple[int, tuple[Asking, ...]]] = {}

    def read(self, storage: Storage) -> list[JobReport]:
        before, self._reports = self._reports, {}
        for file, changed in _files(storage, ".json"):
            known = before.get(file)
            self._reports[file] = known if known and known[0] == changed else (changed, _read(storage, file.stem))
        return [report for _, report in self._reports.values() if report is not None]

    def askings(self, storage: Storage) -> dict[str, tuple[Asking, ...]]:
        """Who asked, by the id of the job."""
        before, self._askings = self._askings, {}
        for file, changed in _files(storage, SUFFIX):
            known = before.get(file)
            self._askings[file] = known if known and known[0] == changed else (changed, read_askings(file))
        return {file.stem: told for file, (_, told) in self._askings.items() if told and _is_id(file.stem)}


def _files(storage: Storage, suffix: str) -> Iterator[tuple[Path, int]]:
    for file in storage.reports_dir.glob(f"*{suffix}"):
        try:
            yield file, file.stat().st_mtime_ns
        except OSError:  # removed meanwhile
            continue


def _read(storage: Storage, job_id: str) -> JobReport | None:
    try:
        return read_report(storage, job_id)
    except JobNotFound:  # a damaged one
        return None


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
