"""What is known of the reports is what they say now, also where the file's time doesn't tell."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

from mkiso.config.storage import Storage
from mkiso.storage.askings import asking, write_asking
from mkiso.storage.kept_reports import KeptReports
from mkiso.storage.report import JobReport, write_report


def at_one_time(folder: Path) -> None:
    """As of files that were written within one tick of the kernel's clock."""
    for file in folder.iterdir():
        os.utime(file, ns=(10**18, 10**18))


def test_what_was_written_within_one_tick_of_the_clock_is_read_again(tmp_path: Path) -> None:
    storage = Storage(data_dir=tmp_path)
    kept, job_id = KeptReports(storage), str(uuid4())
    for number, status in enumerate(("running", "done", "failed"), 1):
        write_report(storage, JobReport(job_id, "download", ("A1",), status=status))  # type: ignore[arg-type]
        write_asking(storage, job_id, asking("127.0.0.1", "page", "download", ("A1",), ""))
        at_one_time(storage.reports_dir)
        assert [report.status for report in kept.reports()] == [status]
        assert len(kept.askings()[job_id]) == number
