"""What is kept of a job lies in the folder of the day that its id says, and a look asks no file of a day that can't
have changed; what has no day is read beside these folders.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect._internal.uuid7 import uuid7

from mkiso.config.disc import Disc
from mkiso.config.settings import Prefect, Settings
from mkiso.config.storage import Storage
from mkiso.errors import JobNotFound, PasswordGone, StorageUnreadable
from mkiso.housekeeping import sweep
from mkiso.storage import kept_reports, report_files
from mkiso.storage.askings import asking, askings_of, write_asking
from mkiso.storage.handover import claimed, hand_over, new_claim, seal_of, taken
from mkiso.storage.kept_reports import KeptReports
from mkiso.storage.report import JobReport, Status, find_report, read_report, write_report
from mkiso.storage.report_files import ASKED, REPORT, SEALED, file_of, report_folders
from mkiso.study.question import Question
from peers.lines import at_each_line
from peers.small_disk import failing

DAY = 86_400
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(data_dir=tmp_path / "data", shared_dir=tmp_path)


@pytest.fixture
def settings(storage: Storage) -> Settings:
    return Settings(storage=storage, prefect=Prefect(keep_runs_days=10))


def id_of(moment: float) -> str:
    """As Prefect gives an id at this moment."""
    return str(uuid7(ms=int(moment * 1000)))


def asked_by(who: str) -> Any:
    return asking(who, "page", Question("download", ("A1",)), Disc())


def report_of(job_id: str, status: Status = "done", **facts: Any) -> JobReport:
    return JobReport(job_id, "download", ("A1",), status=status, seconds={"starting": 0.5}, received=4, **facts)


def job_of(storage: Storage, days_ago: float, status: Status = "done") -> str:
    """A job of then, whose files and folder have been left alone since."""
    moment = time.time() - days_ago * DAY
    job_id = id_of(moment)
    write_report(storage, report_of(job_id, status))
    write_asking(storage, job_id, asked_by("10.0.0.1"))
    left_alone(storage, job_id, moment)
    return job_id


def left_alone(storage: Storage, job_id: str, moment: float) -> None:
    folder = file_of(storage, job_id, REPORT).parent
    for path in (*folder.iterdir(), folder):
        os.utime(path, (moment, moment))


def ids(kept: kept_reports.Kept) -> set[str]:
    return {report.job_id for report in kept.reports}


def asked_files(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The folders that are looked through from now on, but for that of all days."""
    looked: set[str] = set()
    scandir = os.scandir

    def noted(path: Any) -> Any:
        looked.add(os.fspath(path).rpartition("/")[2])
        return scandir(path)

    monkeypatch.setattr(os, "scandir", noted)
    return looked


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        ("2026-11-28T23:59:59.999+00:00", "2026-11-28"),
        ("2026-11-29T00:00:00+00:00", "2026-11-29"),
        ("2026-11-28T23:30:00-05:00", "2026-11-29"),
        ("2028-02-29T12:00:00+14:00", "2028-02-28"),
    ],
)
def test_the_day_is_the_ids_own_in_utc_whatever_the_zone(storage: Storage, moment: str, day: str) -> None:
    job_id = id_of(datetime.fromisoformat(moment).timestamp())
    code = (
        "import sys; from pathlib import Path; from mkiso.config.storage import Storage;"
        "from mkiso.storage.report import JobReport, write_report;"
        "write_report(Storage(data_dir=Path(sys.argv[1])), JobReport(sys.argv[2], 'download', ('A1',)))"
    )
    there = {*os.environ.items(), ("TZ", "Pacific/Kiritimati")}
    subprocess.run([sys.executable, "-c", code, storage.discs_dir.parent, job_id], env=dict(there), check=True)
    assert [file.parent.name for file in storage.reports_dir.rglob("*.json")] == [day]
    assert read_report(storage, job_id).job_id == job_id


@pytest.mark.parametrize(
    "job_id",
    [
        "5ae5c80f-2527-4339-868b-040d812e9dc0",
        "123e4567-e89b-12d3-a456-426614174000",
        "ffffffff-ffff-7000-8000-000000000000",
    ],
)
def test_what_has_no_day_lies_beside_the_folders(storage: Storage, job_id: str) -> None:
    write_report(storage, report_of(job_id))
    write_asking(storage, job_id, asked_by("10.0.0.1"))
    assert {file.parent for file in storage.reports_dir.rglob("*.*")} == {storage.reports_dir}
    assert ids(KeptReports(storage).look(datetime.now(UTC))) == {job_id}
    assert len(askings_of(storage, job_id)) == 1
    for made_up in ("x", "../x", "2026-11-28"):
        assert (find_report(storage, made_up), askings_of(storage, made_up)) == (None, ())
        with pytest.raises(JobNotFound):
            file_of(storage, made_up, REPORT)


def test_a_look_asks_nothing_of_days_before_the_list_s(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    young, old = [job_of(storage, days) for days in (0, 0.5)], [job_of(storage, days) for days in (10, 20, 300)]
    looked, kept = asked_files(monkeypatch), KeptReports(storage)
    found = kept.look(datetime.now(UTC) - timedelta(days=1))
    assert ids(found) == {*young} == {*found.askings}
    assert not looked & {file_of(storage, job_id, REPORT).parent.name for job_id in old}
    assert ids(kept.look()) == {*young, *old}
    looked.clear()
    assert ids(kept.look()) == {*young, *old}
    assert not looked & {file_of(storage, job_id, REPORT).parent.name for job_id in old}, "they were read once"


def test_an_old_job_that_is_asked_for_again_is_on_the_list(storage: Storage) -> None:
    """Its disc is still right; and one of long ago that is retried."""
    asked, retried, _ = (job_of(storage, days) for days in (10, 20, 30))
    kept, yesterday = KeptReports(storage), datetime.now(UTC) - timedelta(days=1)
    assert (ids(kept.look(yesterday)), len(kept.look().reports)) == (set(), 3)
    write_asking(storage, asked, asked_by("10.0.0.2"))
    write_report(storage, report_of(retried, "running"))
    for found in (kept.look(yesterday), KeptReports(storage).look(yesterday)):
        assert ids(found) == {asked, retried}
        assert [each.who for each in found.askings[asked]] == ["10.0.0.1", "10.0.0.2"]
        assert [each.status for each in found.reports if each.job_id == retried] == ["running"]


def test_a_clock_that_is_off_by_minutes_at_midnight_hides_nothing(storage: Storage) -> None:
    """The worker's clock is behind the webhook's, the share's behind both, and the id of just before midnight."""
    midnight = datetime(2026, 11, 28, tzinfo=UTC)
    job_id = id_of(midnight.timestamp() - 1)
    write_report(storage, report_of(job_id))
    write_asking(storage, job_id, asked_by("10.0.0.1"))
    left_alone(storage, job_id, midnight.timestamp() - 50 * 60)
    assert ids(KeptReports(storage).look(midnight + timedelta(minutes=5))) == {job_id}


@pytest.mark.parametrize("since", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_no_moment_is_too_early_or_too_late_to_look_from(storage: Storage, since: datetime) -> None:
    job_id = job_of(storage, 3)
    assert ids(KeptReports(storage).look(since)) == ({job_id} if since.year == 1 else set())


def test_what_an_old_folder_counted_is_kept_until_it_changes(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    old, young = job_of(storage, 9), job_of(storage, 0)
    job_of(storage, 5, "failed")
    first = KeptReports(storage).counts()
    assert first.jobs == ((("download", "done", ""), 2), (("download", "failed", ""), 1))
    assert (first.stages, first.received) == (((("download", "starting"), 3, 1.5),), 12)
    looked = asked_files(monkeypatch)
    other = KeptReports(storage)  # another process, or the next one
    assert other.counts() == first
    assert looked == {storage.reports_dir.name, file_of(storage, young, REPORT).parent.name}
    write_report(storage, report_of(old, "failed"))
    left_alone(storage, old, time.time() - 8 * DAY)
    for each in (other, KeptReports(storage)):
        assert each.counts().jobs == ((("download", "done", ""), 1), (("download", "failed", ""), 2))
    file_of(storage, old, REPORT).unlink()
    assert other.counts().received == 8


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"2026-11-19": {"changed_ns": 1}}'])
def test_counts_that_are_damaged_are_counted_again(storage: Storage, content: bytes) -> None:
    job_of(storage, 9)
    first = KeptReports(storage).counts()
    [file] = storage.reports_dir.glob("*.json")
    file.write_bytes(content)
    assert KeptReports(storage).counts() == first
    assert KeptReports(storage).look().reports[0].received == 4


def test_a_report_of_an_old_folder_that_can_t_be_read_isn_t_counted(storage: Storage) -> None:
    damaged, whole = job_of(storage, 9), job_of(storage, 9)
    report = file_of(storage, damaged, REPORT)
    content = report.read_bytes()
    moment = time.time() - 9 * DAY
    report.unlink()
    report.mkdir()  # as what can't be read for the moment
    left_alone(storage, damaged, moment)
    kept = KeptReports(storage)
    assert (kept.counts().received, ids(kept.look()), find_report(storage, damaged)) == (4, {whole}, None)
    report.rmdir()
    report.write_bytes(content)
    left_alone(storage, damaged, moment)
    for each in (kept, KeptReports(storage)):
        assert (each.counts().received, ids(each.look())) == (8, {whole, damaged}), "what wasn't read is asked again"


def test_sets_are_told_of_wherever_their_reports_lie(storage: Storage) -> None:
    jobs = (id_of(time.time()), id_of(time.time() - 9 * DAY), str(uuid4()))
    for job_id in jobs:
        write_report(storage, report_of(job_id, disc_ids=(f"set of {job_id}",)))
    asked = Question("download", ("A1",), transfer_syntax="as-archived")
    assert KeptReports(storage).sets_told(asked) == {f"set of {job_id}": job_id for job_id in jobs}


def test_a_password_waits_in_the_folder_of_its_day_and_is_told_once(storage: Storage) -> None:
    job_id, claim = id_of(time.time() - 9 * DAY), new_claim()
    hand_over(storage, job_id, seal_of(claim), "secret")
    assert [file.parent for file in storage.reports_dir.rglob("*.sealed")] == [file_of(storage, job_id, ASKED).parent]
    assert claimed(storage, job_id, claim) == "secret"
    taken(storage, job_id)
    assert not [*storage.reports_dir.rglob("*.sealed")]
    with pytest.raises(PasswordGone):
        claimed(storage, job_id, claim)
    with pytest.raises(PasswordGone):
        taken(storage, job_id)


def test_what_cannot_be_read_just_now_is_not_told_as_gone(storage: Storage) -> None:
    job_id, claim = id_of(time.time()), new_claim()
    hand_over(storage, job_id, seal_of(claim), "secret")
    write_report(storage, report_of(job_id))
    with (
        failing(file_of(storage, job_id, SEALED)),
        pytest.raises(StorageUnreadable, match="The password can't"),
    ):
        claimed(storage, job_id, claim)
    with failing(file_of(storage, job_id, REPORT)), pytest.raises(StorageUnreadable):
        read_report(storage, job_id)
    assert claimed(storage, job_id, claim) == "secret" and read_report(storage, job_id).job_id == job_id


def before_line(number: int, happens: Callable[[], object], work: Callable[[], object]) -> int:
    """Do `work`, with `happens` before its line of this number in the module that writes; how many lines there were."""
    return at_each_line(work, lambda line: happens() if line == number else None, [report_files.__file__])


def test_days_that_are_over_go_and_younger_ones_are_passed_over(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = settings.storage
    keep = settings.prefect.keep_runs_days
    gone, retried, young, ahead = (job_of(storage, days) for days in (keep + 3, keep + 9, 1, -900))
    write_report(storage, report_of(retried, "running"))
    write_report(storage, report_of(ahead))
    left_alone(storage, ahead, time.time() - (keep + 1) * DAY)
    looked = asked_files(monkeypatch)
    assert sweep(settings, None).reports == 2 + 1 + 2, "who asked for the retried job was as old"
    monkeypatch.undo()
    assert file_of(storage, young, REPORT).parent.name not in looked
    days = [folder.path.rpartition("/")[2] for folder in report_folders(storage)][1:]
    assert days == sorted(file_of(storage, job_id, REPORT).parent.name for job_id in (retried, young, ahead))
    assert (find_report(storage, gone), find_report(storage, ahead)) == (None, None)
    assert read_report(storage, retried).status == "running"


def test_who_writes_while_an_empty_day_is_removed_writes_all_the_same(storage: Storage) -> None:
    job_id = id_of(time.time() - 99 * DAY)
    folder = file_of(storage, job_id, REPORT).parent

    def remove() -> None:
        if folder.exists() and not [*folder.iterdir()]:
            folder.rmdir()

    lines = before_line(0, remove, lambda: write_report(storage, report_of(job_id)))
    for number in range(1, lines + 1):
        for file in folder.iterdir():
            file.unlink()
        before_line(number, remove, lambda: write_report(storage, report_of(job_id)))
        assert read_report(storage, job_id).status == "done"
