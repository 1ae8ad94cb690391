"""What is kept and what goes."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from mkiso.config import Prefect, Settings, Storage
from mkiso.errors import StorageFull
from mkiso.publishers.orderbook import OrderBook
from mkiso.report import JobReport, write_report
from mkiso.retention import require_room, sweep

HOUR = 3600


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    storage = Storage(data_dir=tmp_path / "own", shared_dir=tmp_path / "shared", min_free_gib=0)
    for folder in (storage.jobs_dir, storage.incoming_dir, storage.discs_dir):
        folder.mkdir(parents=True)
    return Settings(storage=storage, prefect=Prefect(keep_runs_days=10))


def aged(path: Path, hours: float) -> Path:
    os.utime(path, (time.time() - hours * HOUR,) * 2)
    return path


def job(settings: Settings, name: str, hours: float) -> Path:
    folder = settings.storage.jobs_dir / name
    folder.mkdir()
    (folder / "job.json").write_text("{}")
    return aged(folder, hours)


def test_job_folders_go_when_they_are_old_and_nobody_works_or_waits_there(settings: Settings) -> None:
    young, old, waiting = job(settings, "young", 23), job(settings, "old", 25), job(settings, "waiting", 999)
    assert sweep(settings, active_jobs={"waiting"}).job_folders == 1
    assert (young.exists(), old.exists(), waiting.exists()) == (True, False, True)


def test_where_nobody_knows_which_jobs_are_active_every_folder_stays(settings: Settings) -> None:
    """At start, before Prefect can be asked: a run that waits for its retry may be older than failed ones are kept."""
    assert job(settings, "old", 999).exists()
    assert sweep(settings, active_jobs=None).job_folders == 0
    assert (settings.storage.jobs_dir / "old").exists()


def test_reports_settled_order_books_and_unfinished_instances_go(settings: Settings) -> None:
    storage = settings.storage
    for number, days in ((1, 9), (2, 11)):
        job_id = f"123e4567-e89b-12d3-a456-42661417400{number}"
        write_report(storage, JobReport(job_id, "print", ("A1",)))
        aged(storage.reports_dir / f"{job_id}.json", days * 24)
    for name, state in (("settled", "done"), ("open", "giving")):
        book = OrderBook.of(storage.orders_dir, name)
        entry = book.open("a job", 1, confirmed=False)
        book.begin(entry)
        book.settle(entry, state)  # type: ignore[arg-type]
        aged(book.path, 11 * 24)
    (storage.incoming_dir / "half").touch()
    aged(storage.incoming_dir / "half", 3)
    swept = sweep(settings, active_jobs=())
    assert (swept.reports, swept.order_books, swept.incoming) == (1, 1, 1)
    assert [path.name for path in storage.orders_dir.glob("*.json")] == ["open.json"]
    assert str(swept) == "0 discs, 0 job folders, 1 reports, 1 order books, 1 incoming"


@pytest.mark.parametrize("kind", ["job folder", "report", "incoming"])
def test_what_a_clock_that_was_ahead_has_dated_goes_in_its_time(settings: Settings, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    match kind:
        case "job folder":
            path = job(settings, "early", -1000)
        case "report":
            write_report(settings.storage, JobReport("123e4567-e89b-12d3-a456-426614174001", "print", ("A1",)))
            [path] = settings.storage.reports_dir.glob("*.json")
        case _:
            path = settings.storage.incoming_dir / "half"
            path.touch()
    aged(path, -1000)
    sweep(settings, active_jobs=())
    assert path.exists()
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 11 * 24 * HOUR)
    sweep(settings, active_jobs=())
    assert not path.exists()


def test_a_book_of_a_clock_that_was_ahead_is_forgotten_in_its_time(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    book = OrderBook.of(settings.storage.orders_dir, "settled")
    entry = book.open("a job", 1, confirmed=False)
    book.begin(entry)
    book.settle(entry, "done")
    aged(book.path, -1000)
    assert sweep(settings, active_jobs=()).order_books == 0
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 11 * 24 * HOUR)
    assert sweep(settings, active_jobs=()).order_books == 1


def test_one_thing_that_can_not_be_removed_keeps_none_of_the_others(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, old = job(settings, "stuck", 30), job(settings, "old", 30)
    remove = shutil.rmtree

    def sometimes(path: Path, **options: bool) -> None:
        if path == stuck:
            raise PermissionError(13, "Permission denied")
        remove(path, **options)

    monkeypatch.setattr("mkiso.retention.shutil.rmtree", sometimes)
    assert sweep(settings, active_jobs=()).job_folders == 1
    assert (stuck.exists(), old.exists()) == (True, False)


def test_a_low_disk_refuses_new_work(settings: Settings) -> None:
    require_room(settings.storage)
    with pytest.raises(StorageFull, match="min_free_gib is 1e"):
        require_room(settings.storage.model_copy(update={"min_free_gib": 1e9}))
