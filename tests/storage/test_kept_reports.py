"""What is known of the reports is what they say now, also where the file's time doesn't tell."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from mkiso.config.disc import Disc
from mkiso.config.storage import Storage
from mkiso.storage import kept_reports as module
from mkiso.storage.askings import asking, write_asking
from mkiso.storage.kept_reports import KeptReports
from mkiso.storage.report import JobReport, write_report
from mkiso.study.question import Question


def at_one_time(folder: Path) -> None:
    """As of files that were written within one tick of the kernel's clock."""
    for file in folder.iterdir():
        os.utime(file, ns=(10**18, 10**18))


def test_what_was_written_within_one_tick_of_the_clock_is_read_again(tmp_path: Path) -> None:
    storage = Storage(data_dir=tmp_path)
    kept, job_id = KeptReports(storage), str(uuid4())
    for number, status in enumerate(("running", "done", "failed"), 1):
        write_report(storage, JobReport(job_id, "download", ("A1",), status=status))  # type: ignore[arg-type]
        write_asking(storage, job_id, asking("127.0.0.1", "page", Question("download", ("A1",)), Disc()))
        at_one_time(storage.reports_dir)
        assert [report.status for report in kept.look().reports] == [status]
        assert len(kept.look().askings[job_id]) == number


def test_only_files_of_jobs_count_and_no_folder_is_no_report(tmp_path: Path) -> None:
    storage = Storage(data_dir=tmp_path)
    kept, job_id = KeptReports(storage), str(uuid4())
    assert kept.look() == ([], {})
    asked = asking("127.0.0.1", "page", Question("download", ("A1",)), Disc())
    write_asking(storage, job_id, asked)
    (storage.reports_dir / "notes.asked").write_bytes((storage.reports_dir / f"{job_id}.asked").read_bytes())
    assert kept.look().askings == {job_id: (asked,)}
    (storage.reports_dir / f"{job_id}.asked").unlink()
    assert kept.look().askings == {}


def test_of_many_reports_each_is_read_once_for_the_sets_that_they_tell_of(tmp_path: Path) -> None:
    """Each question with `part` read 200,000 reports, half a minute of the webhook's own time."""
    storage, asked = Storage(data_dir=tmp_path), Question("download", ("A1",), transfer_syntax="as-archived")
    kept, jobs = KeptReports(storage), [str(UUID(int=day * 86_400_000 << 80 | 7 << 76 | 2 << 62)) for day in (1, 400)]
    for job_id in jobs:
        write_report(storage, JobReport(job_id, "download", ("A1",), status="done", disc_ids=(job_id, "2")))
    of_days = [folder for folder in storage.reports_dir.iterdir() if folder.is_dir()]
    for folder in of_days:
        os.utime(folder, ns=(10**18, 10**18))
    assert kept.sets_told(asked) == {job_id: job_id for job_id in jobs}
    for file in storage.reports_dir.rglob("*.json"):
        os.truncate(file, 0)  # which leaves its folder's time as it is
    assert kept.sets_told(asked) == {job_id: job_id for job_id in jobs}
    os.utime(of_days[0])
    assert len(kept.sets_told(asked)) == 1


def test_a_look_at_many_reports_makes_no_path_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page looked at 20,000 reports for 1.5 s each time."""
    storage, made = Storage(data_dir=tmp_path), 5
    for _ in range(made):
        write_report(storage, JobReport(str(uuid4()), "download", ("A1",), status="done"))
    kept = KeptReports(storage)
    assert len(kept.look().reports) == made
    monkeypatch.setattr(module, "Path", None)
    assert len(kept.look().reports) == made
