"""What is kept and what goes."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest

from mkiso import housekeeping
from mkiso.config.settings import Prefect, Settings
from mkiso.config.storage import Storage
from mkiso.errors import StorageFull
from mkiso.housekeeping import SWEPT, Standing, may_go, sent_may_go, sweep
from mkiso.publishers.orderbook import OrderBook
from mkiso.receiver.pushed import Ask, PushedStudy
from mkiso.storage import rounds
from mkiso.storage.files import alone_in, hold
from mkiso.storage.report import JobReport, write_report
from mkiso.storage.report_files import REPORT, file_of
from mkiso.storage.room import is_short_of, require_room
from mkiso.storage.rounds import NOT_KNOWN, Awake, Rounds, after, why_resting
from peers.patience import LONG

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


def pass_days(days: int, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a round of housekeeping on each of them, of failed runs alone: the clock doesn't leap."""
    begun = time.time()
    monkeypatch.setattr(rounds, "_awake", lambda: NOT_KNOWN)
    for day in range(1, days + 1):
        monkeypatch.setattr("time.time", partial(lambda day: begun + day * 24 * HOUR, day))
        sweep(settings, of_failed_jobs)


def job(settings: Settings, name: str, hours: float) -> Path:
    folder = settings.storage.jobs_dir / name
    folder.mkdir()
    (folder / "job.json").write_text("{}")
    return aged(folder, hours)


def test_job_folders_go_when_they_are_old_and_nobody_works_or_waits_there(settings: Settings) -> None:
    young, old, waiting = job(settings, "young", 23), job(settings, "old", 25), job(settings, "waiting", 999)
    assert sweep(settings, lambda _: {"waiting": "active"}).job_folders == 1
    assert (young.exists(), old.exists(), waiting.exists()) == (True, False, True)


def of_failed_jobs(job_ids: Collection[str]) -> dict[str, Standing]:
    return dict.fromkeys(job_ids, "failed")


@pytest.mark.parametrize(
    ("standing", "hours", "keep", "goes"),
    [
        ("active", 999, 24, False),
        ("active", 999, 0, False),
        ("over", 0, 24, True),
        ("over", 0, 0, True),
        ("failed", 23, 24, False),
        ("failed", 24, 24, True),
        ("failed", 0, 0, True),
        ("failed", 0.4, 0.5, False),
    ],
)
def test_what_becomes_of_a_job_s_folder(standing: Standing, hours: float, keep: float, goes: bool) -> None:
    assert may_go(standing, hours, keep) is goes


def test_no_folder_stays_of_a_job_that_is_over_nor_of_a_failed_one_if_not_kept(
    settings: Settings,
) -> None:
    """A moment after everything was killed: the folders are new."""
    for name in ("ended", "crashed", "unknown", "works"):
        job(settings, name, 0)
    told: dict[str, Standing] = {"ended": "over", "crashed": "failed", "works": "active"}
    assert sweep(settings, lambda _: told).job_folders == 1
    assert sorted(each.name for each in settings.storage.jobs_dir.iterdir()) == ["crashed", "unknown", "works"]
    at_once = settings.model_copy(update={"storage": settings.storage.model_copy(update={"keep_failed_hours": 0})})
    assert sweep(at_once, lambda _: told).job_folders == 2
    assert [each.name for each in settings.storage.jobs_dir.iterdir()] == ["works"]


def test_a_job_that_was_killed_after_its_disc_was_shelved_leaves_nothing_to_retry(settings: Settings) -> None:
    for number, status in ((1, "done"), (2, "running")):
        job_id = f"123e4567-e89b-12d3-a456-42661417400{number}"
        job(settings, job_id, 0)
        write_report(settings.storage, JobReport(job_id, "download", ("A1",), status=status))  # type: ignore[arg-type]
    assert sweep(settings, of_failed_jobs).job_folders == 1
    assert [each.name[-1] for each in settings.storage.jobs_dir.iterdir()] == ["2"]


def test_the_runs_are_asked_for_after_the_folders_are_listed(settings: Settings) -> None:
    """The folder of a run that begins meanwhile is none of those that go, although nobody was asked about it."""
    job(settings, "old", 30)

    def ask(job_ids: Collection[str]) -> dict[str, Standing]:
        assert list(job_ids) == ["old"]
        job(settings, "new", 30)
        return {}

    assert sweep(settings, ask).job_folders == 1
    assert [each.name for each in settings.storage.jobs_dir.iterdir()] == ["new"]


def test_a_folder_in_which_a_process_works_stays_whatever_its_run_s_state(settings: Settings) -> None:
    """As that of a machine that was cut off, or of a retry that began a moment ago."""
    folder = job(settings, "held", 30)
    held = hold(folder)
    other = hold(folder)  # an attempt that is on its way out, and the next
    try:
        assert sweep(settings, lambda _: {"held": "over"}).job_folders == 0
        os.close(other)
        assert sweep(settings, lambda _: {"held": "over"}).job_folders == 0
    finally:
        os.close(held)
    assert sweep(settings, lambda _: {"held": "over"}).job_folders == 1


def test_who_comes_while_a_folder_is_taken_away_gets_a_new_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = job(settings, "retried", 30)
    came, has_opened, flock = [], threading.Event(), fcntl.flock

    def told(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_SH:
            has_opened.set()
        flock(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", told)
    with alone_in(folder) as alone:
        assert alone
        waiting = threading.Thread(target=lambda: came.append(hold(folder)))
        waiting.start()
        assert has_opened.wait(LONG)
        folder.rename(folder.with_name("gone"))
    waiting.join(LONG)
    [held] = came
    try:
        assert os.path.samestat(os.fstat(held), folder.stat())
        assert list(folder.iterdir()) == []
    finally:
        os.close(held)


def test_what_a_sweep_that_was_killed_left_goes_with_the_next(settings: Settings) -> None:
    folder = job(settings, "old", 30)
    folder.rename(folder.with_name(f"{SWEPT}old"))
    sweep(settings, lambda _: {})
    assert list(settings.storage.jobs_dir.iterdir()) == []


def test_where_nobody_knows_which_jobs_are_active_every_folder_stays(settings: Settings) -> None:
    """At start, before Prefect can be asked: a run that waits for its retry may be older than failed ones are kept."""
    assert job(settings, "old", 999).exists()
    assert sweep(settings, None).job_folders == 0
    assert (settings.storage.jobs_dir / "old").exists()


def test_reports_settled_order_books_and_unfinished_instances_go(settings: Settings) -> None:
    storage = settings.storage
    for number, days in ((1, 9), (2, 11)):
        job_id = f"123e4567-e89b-12d3-a456-42661417400{number}"
        write_report(storage, JobReport(job_id, "print", ("A1",)))
        aged(storage.reports_dir / f"{job_id}.json", days * 24)
    for name, state in (("settled", "done"), ("open", "giving")):
        book = OrderBook.of(storage.orders_dir, [name])
        book.ask("a job")
        entry = book.open("a job", 1, "rimage")
        book.begin(entry)
        book.settle(entry, state)  # type: ignore[arg-type]
        aged(book.paths[0], 11 * 24)
    (storage.incoming_dir / "half").touch()
    aged(storage.incoming_dir / "half", 3)
    swept = sweep(settings, lambda _: {})
    assert (swept.reports, swept.order_pages, swept.incoming) == (1, 1, 1)
    assert tuple(storage.orders_dir.glob("*.json")) == OrderBook.of(storage.orders_dir, ["open"]).paths
    assert str(swept) == "0 discs, 0 job folders, 1 reports, 1 order pages, 1 incoming, 0 sent studies"


@pytest.mark.parametrize("kind", ["job folder", "report", "incoming"])
def test_what_a_clock_that_was_ahead_has_dated_goes_in_its_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
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
    sweep(settings, of_failed_jobs)
    assert path.exists()
    pass_days(11, settings, monkeypatch)
    assert not path.exists()


def test_a_book_of_a_clock_that_was_ahead_is_forgotten_in_its_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = OrderBook.of(settings.storage.orders_dir, ["settled"])
    book.ask("a job")
    aged(book.paths[0], -1000)
    assert sweep(settings, lambda _: {}).order_pages == 0
    pass_days(11, settings, monkeypatch)
    assert sweep(settings, None).order_pages == 0  # Prefect can't be asked whether its job can be retried
    assert sweep(settings, lambda _: {"a job": "failed"}).order_pages == 0
    assert sweep(settings, lambda _: {}).order_pages == 1


def test_one_thing_that_can_not_be_removed_keeps_none_of_the_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stuck", "old"):
        job(settings, name, 30)
        (settings.storage.incoming_dir / name).touch()
        aged(settings.storage.incoming_dir / name, 30)
    rename, unlink = Path.rename, Path.unlink

    def taken(path: Path) -> Path:
        if path.name == "stuck":
            raise PermissionError(13, "Permission denied")
        return path

    monkeypatch.setattr(Path, "rename", lambda path, target: rename(taken(path), target))
    monkeypatch.setattr(Path, "unlink", lambda path, **options: unlink(taken(path), **options))
    swept = sweep(settings, of_failed_jobs)
    assert (swept.job_folders, swept.incoming) == (1, 1)
    assert [
        path.name for folder in (settings.storage.jobs_dir, settings.storage.incoming_dir) for path in folder.iterdir()
    ] == ["stuck"] * 2


def test_a_low_disk_refuses_new_work(settings: Settings) -> None:
    require_room(settings.storage)
    with pytest.raises(StorageFull, match="min_free_gib: 1e"):
        require_room(settings.storage.model_copy(update={"min_free_gib": 1e9}))


def test_a_volume_needs_room_beside_what_must_stay_free(settings: Settings) -> None:
    nothing_kept = settings.storage.model_copy(update={"min_free_gib": 0})
    free = shutil.disk_usage(settings.storage.data_dir).free
    assert not is_short_of(nothing_kept, free // 2)
    assert is_short_of(nothing_kept, 2 * free)
    assert is_short_of(settings.storage.model_copy(update={"min_free_gib": 1e9}), 0)


DONE = Ask("j1", "f1", 3, 0.0, "done")


@pytest.mark.parametrize(
    ("asked", "quiet_hours", "now_hours", "gone"),
    [
        ((), 100, 100, ""),  # no worker was there: nothing was made of it yet
        ((), None, 100, "wholly"),
        ((DONE,), 23, 22, ""),
        ((DONE,), 26, 25, "instances"),
        ((replace(DONE, ended=""),), 1000, 999, ""),
        ((replace(DONE, ended="failed"),), 26, 25, "instances"),
        ((DONE,), 2, 25, ""),  # more came after the job began
        ((DONE,), 25, 30 * 24 + 30, "wholly"),
        ((DONE,), None, 30 * 24 - 1, "instances"),
        ((DONE,), None, 30 * 24 + 1, "wholly"),
    ],
    ids=str,
)
def test_what_was_sent_is_kept_until_it_is_of_no_use(
    asked: tuple[Ask, ...], quiet_hours: float | None, now_hours: float, gone: str
) -> None:
    quiet = None if quiet_hours is None else quiet_hours * HOUR
    assert sent_may_go(asked, quiet, 24, 30, now_hours * HOUR, is_left=False) == gone


def test_what_was_sent_is_kept_from_the_end_of_its_job_and_not_from_its_beginning() -> None:
    asked = Ask("job", "f", 1, 0.0, "done", ended_time=20 * HOUR)
    kept = [sent_may_go([asked], 50 * HOUR, 24, 30, hours * HOUR, is_left=False) for hours in (25, 43, 45)]
    assert kept == ["", "", "instances"]


@pytest.mark.parametrize(
    ("asked", "quiet_hours", "now_hours", "gone"),
    [
        ((), 23, 100, ""),
        ((), 25, 100, "wholly"),
        ((DONE,), 23, 25, ""),  # more came after the job began
        ((DONE,), 25, 26, "instances"),
        ((DONE,), 25, 60, "instances"),
        ((replace(DONE, ended=""),), 1000, 999, ""),
    ],
    ids=str,
)
def test_what_no_job_will_take_is_kept_as_long_as_a_failed_jobs_images(
    asked: tuple[Ask, ...], quiet_hours: float, now_hours: float, gone: str
) -> None:
    assert sent_may_go(asked, quiet_hours * HOUR, 24, 30, now_hours * HOUR, is_left=True) == gone


@pytest.mark.parametrize(
    ("standing", "goes"), [("active", False), ("over", True), ("failed", True), (None, True), ("unheard", False)]
)
def test_an_inbox_that_is_taken_out_keeps_nothing_for_ever(
    settings: Settings, standing: Standing | Literal["unheard"] | None, goes: bool
) -> None:
    """Its job ran, or had begun to be created, when nobody watched any more."""
    study = PushedStudy(settings.storage, "GONE", "1.2.3")
    study.instances_dir.mkdir(parents=True)
    (study.instances_dir / "1.2.3.4").touch()
    study.note_asked([Ask("job", "f", 1, time.time() - 50 * HOUR)])
    aged(study.instances_dir, 60)
    told = None if standing == "unheard" else lambda ids: {one: standing for one in ids if standing}
    kept = settings.model_copy(update={"storage": settings.storage.model_copy(update={"keep_failed_hours": 0})})
    sweep(kept, told)
    assert (study.instances_dir.exists(), [each.ended for each in study.asked]) == (
        not goes,
        ["failed" if goes else ""],
    )


def test_no_path_is_made_of_reports_that_stay(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each hour, in the process that starts jobs: of 400,000 files it took many seconds."""
    storage, young, old = settings.storage, str(uuid4()), str(uuid4())
    for job_id in (young, old):
        write_report(storage, JobReport(job_id, "download", ("A1",), status="done"))
    aged(storage.reports_dir / f"{old}.json", 241)
    made: list[str] = []

    def noted(path: str) -> Path:
        made.append(path)
        return Path(path)

    monkeypatch.setattr(housekeeping, "Path", noted)
    assert sweep(settings, None).reports == 1
    assert made == [str(storage.reports_dir / f"{old}.json")]
    assert (storage.reports_dir / f"{young}.json").exists()


def test_after_the_clock_has_leaped_nothing_goes_for_a_day(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage, begun = settings.storage, time.time()
    OrderBook.of(storage.orders_dir, ["A1"]).ask("a job")
    report = file_of(storage, str(uuid4()), REPORT)
    write_report(storage, JobReport(report.stem, "print", ("A1",), status="done"))

    monkeypatch.setattr(rounds, "_awake", lambda: NOT_KNOWN)

    def swept_after(days: float) -> tuple[int, int]:
        monkeypatch.setattr("time.time", lambda: begun + days * 24 * HOUR)
        swept = sweep(settings, lambda _: {})
        return swept.reports, swept.order_pages

    assert swept_after(0) == swept_after(400) == swept_after(400.9) == (0, 0)
    assert "removes nothing until" in why_resting(storage) and "removes nothing until" in caplog.text
    assert swept_after(0.1) == (0, 0)
    assert why_resting(storage) == ""  # the clock was set right
    assert swept_after(400) == (0, 0)
    assert swept_after(401.1) == (1, 1)  # it was right: the machine was off
    assert not report.exists() and not why_resting(storage)


def test_the_machine_may_be_off_for_some_days() -> None:
    day = 24.0 * HOUR
    assert not after(Rounds(0), 6.9 * day).rests(6.9 * day)
    leaped = after(Rounds(0), 8 * day)
    assert leaped.rests(8 * day) and leaped.rests(8.9 * day) and not leaped.rests(9 * day) and not leaped.rests(day)
    assert after(leaped, 8.5 * day).rests(8.5 * day)
    assert after(leaped, 16 * day).rests(16 * day), "it leaped again"
    assert not after(None, 8 * day).rests(8 * day)


def test_a_clock_that_leaps_by_days_while_the_machine_runs_has_nothing_removed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gone = time.time(), job(settings, "old", 1)
    sweep(settings, of_failed_jobs)
    monkeypatch.setattr("time.time", lambda: begun + 72 * HOUR)
    sweep(settings, of_failed_jobs)
    assert gone.exists() and "removes nothing until" in why_resting(settings.storage)
    monkeypatch.setattr("time.time", lambda: begun + HOUR)
    sweep(settings, of_failed_jobs)
    assert gone.exists() and why_resting(settings.storage) == ""


def test_a_machine_that_ran_or_was_started_anew_has_not_leaped() -> None:
    day = 24.0 * HOUR
    for awake, rests in ((Awake(3 * day, "A"), False), (Awake(60, "B"), False), (Awake(60, "A"), True)):
        assert after(Rounds(0, awake=Awake(0, "A")), 3 * day, awake).rests(3 * day) is rests


def test_a_machine_that_is_paused_each_night_is_swept_all_the_same() -> None:
    """A hypervisor's pause doesn't count as running."""
    rounds = Rounds(0, awake=Awake(0, "A"))
    for night in range(1, 4):
        rounds = after(rounds, night * 24 * HOUR, Awake(night * 20 * HOUR, "A"))
        assert not rounds.rests(night * 24 * HOUR + HOUR)


def test_a_full_disk_or_a_damaged_file_keeps_housekeeping_from_nothing(settings: Settings) -> None:
    storage = settings.storage
    for spoil in (lambda: storage.rounds_file.write_text("{"), lambda: storage.rounds_file.unlink()):
        gone = job(settings, "old", 25)
        sweep(settings, of_failed_jobs)
        assert not gone.exists() and storage.rounds_file.exists()
        spoil()
    storage.rounds_file.mkdir()
    gone = job(settings, "old", 25)
    sweep(settings, of_failed_jobs)
    assert not gone.exists()
