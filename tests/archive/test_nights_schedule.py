"""Which dates a night owes: every day once, whatever the clocks do and however long the machine was down."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mkiso.archive.schedule import (
    CAUGHT_UP_A_NIGHT,
    CLOSED_A_NIGHT,
    Due,
    Searched,
    due,
    first_day,
    last_fire,
    owed_days,
    was_missed,
)

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


def night(
    searched: Searched,
    now: str,
    days_back: int = 1,
    recheck_days: int = 30,
    schedule: str = "0 2 * * *",
    zone: str = "UTC",
) -> Due:
    return due(schedule, zone, days_back, recheck_days, searched, at(now), at(now).astimezone(ZoneInfo(zone)).date())


def days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def done(first: date, last: date) -> dict[date, date | None]:
    """Each searched on the day after it."""
    return {day: day + timedelta(days=1) for day in days(first, last)}


def test_a_night_is_the_day_before() -> None:
    yesterday = date(2026, 2, 12)
    assert night({}, "2026-02-13 02:00:00.3") == Due(frozenset({yesterday}), yesterday)


def test_the_day_is_that_of_the_hospital() -> None:
    tonight = night({}, "2026-02-12 19:00:05", zone="Asia/Bangkok")  # 02:00:05 on the 13th there
    assert tonight.date_to == date(2026, 2, 12)


def test_a_run_that_starts_late_is_still_its_night() -> None:
    assert night({}, "2026-02-13 11:00:00", schedule="0 22 * * *").date_to == date(2026, 2, 11)


def test_missed_nights_are_caught_up() -> None:
    missed, now = done(date(2026, 1, 1), date(2026, 2, 8)), "2026-02-13 09:00:00"
    tonight = night(missed, now)
    assert tonight.days == {date(2026, 2, day) for day in (9, 10, 11, 12)}
    assert tonight.caught_up == 3
    assert was_missed("0 2 * * *", "UTC", 1, missed, at(now))
    assert not was_missed("0 2 * * *", "UTC", 1, done(date(2026, 1, 1), tonight.date_to), at(now))
    assert not was_missed("0 2 * * *", "UTC", 1, {}, at(now))


def test_a_first_night_that_failed_is_owed() -> None:
    first = {date(2026, 2, 10): None}
    assert night(first, "2026-02-13 02:00:00").days == {date(2026, 2, day) for day in (10, 11, 12)}
    assert was_missed("0 2 * * *", "UTC", 1, first, at("2026-02-11 02:00:00"))
    assert not was_missed("0 2 * * *", "UTC", 1, first, at("2026-02-10 12:00:00"))  # it isn't over


@pytest.mark.parametrize("days_back", [1, 3])
def test_no_night_is_missed_before_the_first_one(days_back: int) -> None:
    """Enabled at noon, and started once more an hour later."""
    noon = at("2026-02-10 12:00:00")
    began: dict[date, date | None] = {first_day("0 2 * * *", "UTC", days_back, noon): None}
    assert not was_missed("0 2 * * *", "UTC", days_back, began, at("2026-02-10 13:00:00"))
    assert was_missed("0 2 * * *", "UTC", days_back, began, at("2026-02-11 03:00:00"))


def test_a_day_that_was_not_searched_wholly_is_owed_alone() -> None:
    searched = {**dict.fromkeys(days(date(2026, 1, 1), date(2026, 2, 11)), date(2026, 2, 12)), date(2026, 1, 3): None}
    tonight = night(searched, "2026-02-13 02:00:00", recheck_days=3)
    assert tonight.days == {date(2026, 1, 3), date(2026, 2, 12)}
    assert tonight.spans()[0] == (date(2026, 1, 3), date(2026, 1, 3))
    assert tonight.spans()[-1] == (date(2026, 2, 9), date(2026, 2, 12))


@pytest.mark.parametrize(
    ("schedule", "now", "first"),
    [
        ("0 2 * * *", "2026-02-13 01:00:00", date(2026, 2, 12)),
        ("0 2 * * *", "2026-02-13 09:00:00", date(2026, 2, 13)),
        ("0 22 * * *", "2026-02-13 09:00:00", date(2026, 2, 12)),
        ("0 2 * * 0", "2026-02-13 09:00:00", date(2026, 2, 14)),
    ],
)
def test_an_archive_owes_from_its_first_night_on(schedule: str, now: str, first: date) -> None:
    assert first_day(schedule, "UTC", 1, at(now)) == first
    fire = last_fire(schedule, "UTC", at(now) + timedelta(days=7))
    assert first in due(schedule, "UTC", 1, 0, {first: None}, fire, fire.date()).days


@pytest.mark.parametrize(
    ("first", "recheck_from"), [(date(2025, 1, 1), date(2026, 1, 13)), (date(2026, 2, 1), date(2026, 2, 1))]
)
def test_older_dates_are_looked_through_again_but_not_from_before_the_archive(first: date, recheck_from: date) -> None:
    assert night(done(first, date(2026, 2, 11)), "2026-02-13 02:00:00").recheck_from == recheck_from


def test_a_day_is_compared_once_more_when_the_recheck_has_passed_it() -> None:
    """And not each night: a night costs two days of instances, and a few more after nights that were missed."""
    searched = done(date(2026, 1, 1), date(2026, 2, 11))
    assert night(searched, "2026-02-01 02:00:00").closing == {date(2026, 1, 1)}
    late = night(searched, "2026-02-13 02:00:00")
    assert late.closing == set(days(date(2026, 1, 1), date(2026, 1, CLOSED_A_NIGHT)))
    closed = {**searched, **dict.fromkeys(days(date(2026, 1, 1), date(2026, 1, 13)), TODAY)}
    assert night(closed, "2026-02-13 02:00:00").closing == set()
    assert night(searched, "2026-02-13 02:00:00", recheck_days=0).closing == set()


def test_after_a_pause_of_months_each_night_brings_a_month() -> None:
    """What the PACS names of all of them at once fits no memory; and days that stay owed keep no others waiting."""
    searched: dict[date, date | None] = done(date(2024, 1, 1), date(2024, 12, 31))
    stuck = set(days(date(2025, 1, 1), date(2025, 2, 28)))  # the PACS has to be corrected
    tonight, seen = at("2026-01-15 02:00:00"), []
    first = night(searched, str(tonight)[:19])
    assert (first.caught_up, first.left) == (CAUGHT_UP_A_NIGHT, 379 - 1 - CAUGHT_UP_A_NIGHT)
    while set(owed_days(searched, tonight.date() - timedelta(days=2), tonight.date())) - stuck:
        due_tonight = night(searched, str(tonight)[:19])
        assert due_tonight.date_to == tonight.date() - timedelta(days=1)
        assert len(due_tonight.days) <= 1 + CAUGHT_UP_A_NIGHT and due_tonight.caught_up <= CAUGHT_UP_A_NIGHT
        seen.append(len(due_tonight.days))
        searched |= dict.fromkeys(due_tonight.days - stuck, tonight.date())
        tonight += timedelta(days=1)
        assert len(seen) < 60
    assert night(searched, str(tonight)[:19]).days & stuck


def test_a_change_of_the_schedule_leaves_no_day_out() -> None:
    """From each night to Sundays, and back on a Thursday."""
    searched: dict[date, date | None] = done(date(2026, 2, 1), date(2026, 2, 5))
    sunday = night(searched, "2026-02-08 02:00:00", schedule="0 2 * * 0")
    assert sunday.days == set(days(date(2026, 2, 6), date(2026, 2, 7)))
    searched |= dict.fromkeys(sunday.days, date(2026, 2, 8))
    assert night(searched, "2026-02-12 02:00:00").days == set(days(date(2026, 2, 8), date(2026, 2, 11)))


def test_what_a_clock_that_was_ahead_searched_is_owed() -> None:
    ahead = dict.fromkeys(days(date(2026, 2, 1), date(2026, 3, 13)), date(2026, 3, 14))
    assert night(ahead, "2026-02-13 02:00:00", recheck_days=2).days == set(days(date(2026, 2, 1), date(2026, 2, 12)))
    early = {date(2026, 2, 1): date(2026, 2, 2), date(2026, 2, 12): date(2026, 2, 12)}  # before the day was over
    assert date(2026, 2, 12) in owed_days(early, date(2026, 2, 13), TODAY)


def test_a_clock_before_the_archives_first_day_owes_nothing_of_it() -> None:
    tonight = night(done(date(2026, 2, 1), date(2026, 2, 11)), "2000-01-01 02:00:00")
    assert (tonight.days, tonight.closing) == (frozenset({date(1999, 12, 31)}), frozenset())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(SCHEDULES),
    st.dates(date(2015, 1, 1), date(2037, 1, 1)),
    st.sets(st.integers(0, 250), max_size=60),
    st.sets(st.integers(0, 250), max_size=60),
    st.integers(1, 4),
    st.integers(0, 12),
)
def test_every_day_is_searched_despite_clock_changes_and_missed_or_failed_nights(
    zone: str, schedule: str, first: date, down: set[int], failed: set[int], days_back: int, recheck_days: int
) -> None:
    """A run wakes every day at noon for three quarters of a year, but for the days when the machine is down;
    some fail.
    """
    searched: dict[date, date | None] = {}
    looked: dict[date, list[date]] = {}
    for number in range(270):
        if number in down:
            continue
        noon = datetime.combine(first + timedelta(days=number), datetime.min.time(), ZoneInfo(zone)) + timedelta(
            hours=12
        )
        fire = last_fire(schedule, zone, noon)
        assert timedelta(0) <= noon.astimezone(UTC) - fire.astimezone(UTC) <= timedelta(hours=26)
        tonight = due(schedule, zone, days_back, recheck_days, searched, noon, noon.date())
        assert tonight.recheck_from <= tonight.date_to < fire.date()
        assert len(tonight.closing) <= CLOSED_A_NIGHT
        searched.setdefault(min(searched, default=tonight.date_from), None)
        if number not in failed:
            searched |= {day: noon.date() for day in tonight.compared if day >= min(searched)}
            for day in tonight.compared:
                looked.setdefault(day, []).append(noon.date())
    assert owed_days(searched, first + timedelta(days=267), first + timedelta(days=270)) == []
    assert searched.keys() == set(days(min(searched), max(searched)))
    for day in days(min(searched), first + timedelta(days=240 - recheck_days)):
        assert looked[day][0] > day
        assert looked[day][-1] - day > timedelta(days=recheck_days)


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
