"""The jobs' reports and who asked for them, as they lie on the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from mkiso.config.storage import Storage
from mkiso.storage.askings import SUFFIX, Asking, read_askings
from mkiso.storage.files import is_uuid
from mkiso.storage.report import JobReport, find_report

T = TypeVar("T")


class KeptReports:
    """The reports that are kept, for everything in this process that looks at all of them: there may be tens of
    thousands. Safe to use from several threads.
    """

    def __init__(self, storage: Storage) -> None:
        self._reports = _Files(storage.reports_dir, ".json", lambda file: find_report(storage, file.stem))
        self._askings = _Files(storage.reports_dir, SUFFIX, read_askings)

    def reports(self) -> list[JobReport]:
        return [report for report in self._reports.read().values() if report is not None]

    def askings(self) -> dict[str, tuple[Asking, ...]]:
        """Who asked, by the id of the job."""
        return {file.stem: told for file, told in self._askings.read().items() if told and is_uuid(file.stem)}


class _Files(Generic[T]):
    """What stands in the files of one kind, each read again only when it has changed."""

    def __init__(self, folder: Path, suffix: str, read: Callable[[Path], T]) -> None:
        self._folder = folder
        self._suffix = suffix
        self._read = read
        self._known: dict[Path, tuple[tuple[int, int, int], T]] = {}
        self._lock = threading.Lock()

    def read(self) -> dict[Path, T]:
        with self._lock:
            before, self._known = self._known, {}
            for file in self._folder.glob(f"*{self._suffix}"):
                try:
                    status = file.stat()
                except OSError:  # removed meanwhile
                    continue
                # Of two writings within one tick of the kernel's clock the second is another file, or longer.
                changed = status.st_mtime_ns, status.st_ino, status.st_size
                known = before.get(file)
                self._known[file] = known if known and known[0] == changed else (changed, self._read(file))
            return {file: read for file, (_, read) in self._known.items()}
