"""The days that the archive owes: from its first one on, until each was searched wholly."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TextIO
from uuid import uuid4

import pytest
from sqlalchemy import text

from mkiso.archive.days import owe, searched
from mkiso.archive.job import ArchiveJob
from mkiso.archive.ledger import Ledger, note_owed_from
from mkiso.archive.nights import Night, NightRange
from mkiso.archive.schedule import Due, begins_earlier, due, first_day, owed_days
from mkiso.config.settings import Settings
from mkiso.errors import ClaimLost
from mkiso.storage.job import Job
from mkiso_service.worker.missed_night import catch_up
from peers.patience import LONG
from peers.ports import free_port
from tests.archive.discs import RANGE, Nobody, archive

FIRST, TODAY = date(2026, 2, 10), date(2026, 2, 13)
DAY = timedelta(days=1)


def tonight(ledger: Ledger, today: date = TODAY) -> list[date]:
    began = datetime(today.year, today.month, today.day, 2, tzinfo=UTC)
    return sorted(due("0 2 * * *", "UTC", 1, 30, searched(ledger), began, today).days)


def test_a_first_night_that_fails_leaves_its_day_owed(ledger: Ledger) -> None:
    assert owe(ledger, FIRST, FIRST + DAY) is None
    with Night.begin(ledger, "first", NightRange(FIRST, FIRST)):
        pass  # it fails before it has found anything
    owe(ledger, FIRST + DAY, FIRST + 2 * DAY)
    assert tonight(ledger) == [FIRST, FIRST + DAY, FIRST + 2 * DAY]
    with Night.begin(ledger, "next", NightRange(FIRST, FIRST + 2 * DAY)) as night:
        night.searched([FIRST, FIRST + 2 * DAY], TODAY)
    assert tonight(ledger) == [FIRST + DAY, FIRST + 2 * DAY]  # one was doubtful; yesterday is looked at by each run
    with Night.begin(ledger, "again", NightRange(FIRST, FIRST + 2 * DAY)) as night:
        night.searched([FIRST, FIRST + DAY], TODAY + DAY)
    assert searched(ledger) == {FIRST: TODAY + DAY, FIRST + DAY: TODAY + DAY, FIRST + 2 * DAY: TODAY}


def test_what_is_before_the_first_day_is_nobodys(ledger: Ledger) -> None:
    """A clock that stands at 2000 leaves no quarter of a century owed."""
    owe(ledger, FIRST, TODAY)
    with Night.begin(ledger, "early", RANGE) as night:
        night.searched([date(1999, 12, 31), FIRST], TODAY)
    assert searched(ledger) == {FIRST: TODAY}
    assert owe(ledger, date(1999, 12, 31), date(2000, 1, 1)) == TODAY  # which hasn't come yet: it is said
    assert searched(ledger) == {FIRST: TODAY}


def test_what_a_clock_that_was_ahead_has_searched_is_owed_again(ledger: Ledger) -> None:
    owe(ledger, FIRST, TODAY)
    ahead = date(2036, 2, 13)
    with Night.begin(ledger, "ahead", RANGE) as night:
        night.searched([FIRST, TODAY - DAY, TODAY, ahead - DAY], ahead)
    assert owe(ledger, FIRST, TODAY) == ahead
    assert owe(ledger, FIRST, TODAY) is None
    assert set(searched(ledger).values()) == {None}
    assert owed_days(searched(ledger), ahead, date(2036, 2, 14))[0] == FIRST  # also where the machine is off until then


def test_days_back_that_is_raised_later_makes_the_archive_begin_earlier(settings: Settings) -> None:
    """Of a night that failed then, the earliest day was never looked at again."""

    def night(days_back: int) -> ArchiveJob:
        raised = settings.archive.model_copy(update={"days_back": days_back})
        job = Job(str(uuid4()), "archive", settings.model_copy(update={"archive": raised}))
        run = ArchiveJob(job, (None, None), datetime.now(UTC), logging.getLogger("test"), Nobody(), dry_run=False)
        with run.opened:  # which fails before it has found anything
            run.start()
        return run

    first, raised, lowered = night(1), night(10), night(1)
    earlier = first.dates.date_from - 9 * DAY
    assert raised.dates.date_from == lowered.dates.date_from == earlier
    with Ledger.open(settings) as ledger:
        assert len(owed_days(searched(ledger), first.dates.date_to, first.began_on)) == 10
        assert searched(ledger)[earlier] is None


def test_a_clock_before_the_first_day_makes_the_archive_no_older() -> None:
    known = {FIRST: None}
    for last, earlier in ((FIRST - DAY, False), (FIRST, True), (FIRST + 9 * DAY, False)):
        regular = Due(frozenset({last - 9 * DAY, last}), last)
        assert begins_earlier(regular, known) is earlier


def test_a_run_that_was_taken_over_marks_no_day(ledger: Ledger) -> None:
    owe(ledger, FIRST, TODAY)
    with Night.begin(ledger, "run", RANGE) as night, Night.begin(ledger, "run", RANGE), pytest.raises(ClaimLost):
        night.searched([FIRST], TODAY)
    assert searched(ledger) == {FIRST: None}


def test_the_first_day_is_noted_while_the_ledger_cant_be_had(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """The machine starts, PostgreSQL doesn't: the nights until it does are owed."""
    away = f"postgresql://mkiso@127.0.0.1:{free_port()}/ledger"
    unreachable = settings.model_copy(
        update={
            "archive": settings.archive.model_copy(
                update={"ledger_url": type(settings.archive.ledger_url)(away), "enabled": True}
            )
        }
    )
    asyncio.run(catch_up(unreachable))
    assert "Whether a night of the archive was missed can't be told" in caplog.text
    noted = first_day(settings.archive.schedule, settings.archive.timezone, 1, datetime.now(UTC))
    with Ledger.open(settings) as ledger:
        later = noted + 3 * DAY
        owe(ledger, later, later + DAY)
        assert searched(ledger) == {noted: None}


@pytest.mark.parametrize("name", ["ledger.sqlite", "ledger.lock"])
def test_a_start_of_the_worker_goes_on_without_a_ledger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """The worker ended at each start, so that no clerk got a disc."""
    (tmp_path / name).mkdir()
    settings = Settings.model_validate({"storage": {"data_dir": tmp_path}, "archive": {"enabled": True}})
    asyncio.run(catch_up(settings))
    assert "Whether a night of the archive was missed can't be told: The archive's ledger can't be used" in caplog.text


def test_a_ledger_that_is_waited_for_keeps_no_job_waiting(settings: Settings) -> None:
    """Looked for a missed night, the worker stood, with all clerks' jobs, until who had the ledger left it."""
    settings.storage.data_dir.mkdir(parents=True, exist_ok=True)

    async def scenario() -> None:
        with (settings.storage.data_dir / "ledger.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            looking = asyncio.create_task(catch_up(settings))
            async with asyncio.timeout(LONG):
                while not waits_for(lock):
                    await asyncio.sleep(0.01)
            assert not looking.done()
            fcntl.flock(lock, fcntl.LOCK_UN)
            await looking

    asyncio.run(scenario())


def waits_for(lock: TextIO) -> bool:
    """Whether somebody waits for this file's lock, as the kernel lists it."""
    inode = f":{os.fstat(lock.fileno()).st_ino} "
    return any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines())


def test_a_start_of_the_worker_owes_from_the_first_night_to_come(settings: Settings) -> None:
    enabled = settings.model_copy(update={"archive": settings.archive.model_copy(update={"enabled": True})})
    asyncio.run(catch_up(enabled))
    first = first_day(settings.archive.schedule, settings.archive.timezone, 1, datetime.now(UTC))
    with Ledger.open(settings) as ledger:
        assert searched(ledger) == {first: None}


def test_a_new_ledger_beside_old_data_owes_no_past(settings: Settings, tmp_path: Path) -> None:
    """What lies on volumes is taken up; that all of it were archived anew would burn years of discs."""
    note_owed_from(settings.storage, FIRST)
    with Ledger.open(settings) as ledger:
        owe(ledger, FIRST, TODAY)
        with Night.begin(ledger, "run", RANGE) as night:
            archive(night, {"1.2": ["1.2.1"]})
        assert ledger.owed_from is None
    note_owed_from(settings.storage, FIRST - DAY)
    with Ledger.open(settings) as ledger:
        assert ledger.owed_from is None


def test_a_ledger_of_before_knows_which_days_are_done(settings: Settings) -> None:
    """Its first night failed, one in the middle too; the others finished."""
    with Ledger.open(settings) as ledger:
        with ledger.writing() as connection:
            connection.execute(text("DROP TABLE days"))
            connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))
        for number in range(50):
            day = FIRST + number * DAY
            scheduled = NightRange(day - DAY if number == 21 else day, day)
            with Night.begin(ledger, f"night {number}", scheduled) as night:
                if number not in (0, 20):
                    night.finish(0)
        with Night.begin(ledger, "by hand", NightRange(date(2020, 1, 1), date(2020, 12, 31), scheduled=False)) as night:
            night.finish(0)
        with ledger.writing() as connection:
            finished = datetime(2026, 4, 1, 1, tzinfo=UTC)
            connection.execute(text("UPDATE nights SET finished = :at WHERE finished IS NOT NULL"), {"at": finished})
    with Ledger.open(settings) as ledger:
        known = searched(ledger)
        assert known[FIRST] is None and min(known) == FIRST
        assert known.keys() == {FIRST + number * DAY for number in range(50)}
        assert all(when is not None and when > day for day, when in known.items() if day != FIRST)
        assert tonight(ledger, date(2026, 4, 2)) == [FIRST, date(2026, 4, 1)]
        began = datetime(2026, 4, 2, 2, tzinfo=UTC)
        assert due("0 2 * * *", "UTC", 1, 30, known, began, began.date()).closing == {
            date(2026, 3, 2)
        }  # and not the years before


def test_a_ledger_without_nights_is_brought_up_to_date(settings: Settings) -> None:
    with Ledger.open(settings) as ledger, ledger.writing() as connection:
        connection.execute(text("DROP TABLE days"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))
    with Ledger.open(settings) as ledger:
        assert searched(ledger) == {}
