"""The jobs' reports and who asked for them, as they lie on the disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from mkiso.config.storage import Storage
from mkiso.storage.askings import SUFFIX, Asking, read_askings
from mkiso.storage.files import is_uuid
from mkiso.storage.report import JobReport, find_report

T = TypeVar("T")


class KeptReports:
    """The reports that are kept, for everything in this process that looks at all of them: there may be hundreds of
    thousands. Safe to use from several threads.
    """

    def __init__(self, storage: Storage) -> None:
        self._reports = _Files(storage.reports_dir, ".json", lambda file: find_report(storage, file.stem))
        self._askings = _Files(
            storage.reports_dir, SUFFIX, lambda file: read_askings(file) if is_uuid(file.stem) else ()
        )

    def reports(self) -> list[JobReport]:
        return [report for report in self._reports.read().values() if report is not None]

    def askings(self) -> dict[str, tuple[Asking, ...]]:
        """Who asked, by the id of the job."""
        return {job_id: told for job_id, told in self._askings.read().items() if told}


class _Files(Generic[T]):
    """What stands in the files of one kind, each read again only when it has changed."""

    def __init__(self, folder: Path, suffix: str, read: Callable[[Path], T]) -> None:
        self._folder = folder
        self._suffix = suffix
        self._read = read
        self._known: dict[str, tuple[tuple[int, int, int], T]] = {}
        self._lock = threading.Lock()

    def read(self) -> dict[str, T]:
        """By the files' names without the suffix."""
        with self._lock:
            before, self._known = self._known, {}
            for entry in self._entries():  # a Path of each would take ten times as long
                try:
                    status = entry.stat()
                except OSError:  # removed meanwhile
                    continue
                # Of two writings within one tick of the kernel's clock the second is another file, or longer.
                changed = status.st_mtime_ns, status.st_ino, status.st_size
                known = before.get(entry.name)
                if known is None or known[0] != changed:
                    known = changed, self._read(Path(entry.path))
                self._known[entry.name] = known
            return {name.removesuffix(self._suffix): read for name, (_, read) in self._known.items()}

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self._folder) as entries:
                yield from (entry for entry in entries if entry.name.endswith(self._suffix))
        except FileNotFoundError:  # nobody has asked yet
            return
