"""Which dates a night owes: every day once, whatever the clocks do and however long the machine was down."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mkiso.archive.schedule import Covered, Due, due, last_fire, was_missed

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Asia/Bangkok",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Pacific/Auckland",
]
SCHEDULES = ["0 2 * * *", "30 2 * * *", "0 0 * * *", "30 23 * * *", "15 3 * * *", "30 1 * * *"]
TODAY = date(2026, 2, 13)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_night_is_the_day_before() -> None:
    assert due("0 2 * * *", "UTC", 1, 30, None, at("2026-02-13 02:00:00.3")) == Due(
        date(2026, 2, 12), date(2026, 2, 12), date(2026, 2, 12)
    )


def test_the_day_is_that_of_the_hospital() -> None:
    night = due("0 2 * * *", "Asia/Bangkok", 1, 0, None, at("2026-02-12 19:00:05"))  # 02:00:05 on the 13th there
    assert night.date_to == date(2026, 2, 12)


def test_a_run_that_starts_late_is_still_its_night() -> None:
    assert due("0 22 * * *", "UTC", 1, 0, None, at("2026-02-13 11:00:00")).date_to == date(2026, 2, 11)


def test_missed_nights_are_caught_up() -> None:
    missed = Covered(date(2026, 1, 1), date(2026, 2, 8))
    now = at("2026-02-13 09:00:00")
    night = due("0 2 * * *", "UTC", 1, 30, missed, now)
    assert (night.date_from, night.date_to, night.caught_up) == (date(2026, 2, 9), date(2026, 2, 12), 3)
    assert was_missed("0 2 * * *", "UTC", missed, now)
    assert not was_missed("0 2 * * *", "UTC", Covered(missed.first, night.date_to), now)
    assert not was_missed("0 2 * * *", "UTC", None, now)


@pytest.mark.parametrize(
    ("first", "recheck_from"), [(date(2025, 1, 1), date(2026, 1, 13)), (date(2026, 2, 1), date(2026, 2, 1))]
)
def test_older_dates_are_looked_through_again_but_not_from_before_the_archive(first: date, recheck_from: date) -> None:
    assert (
        due("0 2 * * *", "UTC", 1, 30, Covered(first, date(2026, 2, 11)), at("2026-02-13 02:00:00")).recheck_from
        == recheck_from
    )


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(SCHEDULES),
    st.dates(date(2015, 1, 1), date(2037, 1, 1)),
    st.sets(st.integers(1, 250), max_size=60),
    st.integers(1, 4),
)
def test_every_day_is_covered_once_across_clock_changes_and_missed_nights(
    zone: str, schedule: str, first: date, down: set[int], days_back: int
) -> None:
    """A run wakes every day at noon for three quarters of a year, but for the days when the machine is down."""
    covered: Covered | None = None
    days: list[date] = []
    for number in range(270):
        if number in down:
            continue
        noon = datetime.combine(first + timedelta(days=number), datetime.min.time(), ZoneInfo(zone)) + timedelta(
            hours=12
        )
        fire = last_fire(schedule, zone, noon)
        assert timedelta(0) <= noon.astimezone(UTC) - fire.astimezone(UTC) <= timedelta(hours=26)
        night = due(schedule, zone, days_back, 30, covered, noon)
        assert night.recheck_from <= night.date_from <= night.date_to < fire.date()
        begin = night.date_from if covered is None else covered.last + timedelta(days=1)
        assert night.date_from <= begin
        days += [begin + timedelta(days=more) for more in range((night.date_to - begin).days + 1)]
        covered = Covered(covered.first if covered else night.date_from, night.date_to)
    assert days == [days[0] + timedelta(days=number) for number in range(len(days))]
    assert covered is not None
    assert covered.last >= first + timedelta(days=267)


@given(
    st.sampled_from(ZONES),
    st.sampled_from(SCHEDULES),
    st.datetimes(datetime(2015, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC)),
)
@example("Australia/Lord_Howe", "30 1 * * *", datetime(2019, 4, 6, 15, 0, tzinfo=UTC))
def test_the_last_fire_is_the_last(zone: str, schedule: str, now: datetime) -> None:
    fire = last_fire(schedule, zone, now).astimezone(UTC)
    assert fire <= now.replace(microsecond=0)
    # In UTC: a time that clocks show twice is never equal to one of another zone (PEP 495).
    assert last_fire(schedule, zone, fire).astimezone(UTC) == fire
