"""Which dates a night owes, by its schedule and by what earlier nights covered. Pure: the time is handed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Covered:
    """The dates that finished scheduled nights have covered so far: the first and the last of them."""

    first: date
    last: date


@dataclass(frozen=True, slots=True)
class Due:
    """The dates of a night, both included; `recheck_from` is where the older dates begin that are looked through for
    late and grown studies.

    `caught_up` says how many of the dates are owed because nights were missed.
    """

    date_from: date
    date_to: date
    recheck_from: date
    caught_up: int = 0


def last_fire(schedule: str, timezone: str, now: datetime) -> datetime:
    """The last moment at or before `now` for which the cron expression `schedule` stands, by the clocks of `timezone`.

    A time that a clock skips stands right after the gap, one that it shows twice stands once (cronsim follows Debian's
    cron).
    """
    second_after = now.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
    return next(CronSim(schedule, second_after.astimezone(ZoneInfo(timezone)), reverse=True))


def due(schedule: str, timezone: str, days_back: int, recheck_days: int, covered: Covered | None, now: datetime) -> Due:
    """The dates of the night that the schedule stands for at `now`: the `days_back` days before it, and every day since
    the last one covered.

    `now` is the run's scheduled start where it has one, since a run may start a little before or hours after it. The
    recheck never reaches before the first day that the archive covered: what is older was never to be archived.
    """
    date_to = last_fire(schedule, timezone, now).date() - DAY
    regular = date_to - (days_back - 1) * DAY
    if covered is None:
        return Due(regular, date_to, regular)
    date_from = min(regular, covered.last + DAY)
    recheck_from = min(date_from, max(covered.first, date_to - recheck_days * DAY))
    return Due(date_from, date_to, recheck_from, (regular - date_from).days)


def was_missed(schedule: str, timezone: str, covered: Covered | None, now: datetime) -> bool:
    """Whether a night that the schedule stood for has covered nothing; before the first night none was missed."""
    return covered is not None and covered.last < last_fire(schedule, timezone, now).date() - DAY
