"""Which days a night owes, by its schedule and by what earlier nights searched. Pure: the time is handed in.

The archive owes each day from its first one on until a night has searched it after it was over. A day's studies are
compared instance by instance then, and once more when the recheck has passed it: a study may lose images and gain as
many, which a number doesn't tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar
from zoneinfo import ZoneInfo

from cronsim import CronSim

T = TypeVar("T")

DAY = timedelta(days=1)
CAUGHT_UP_A_NIGHT = 31
"""So many days that earlier nights left are searched in one: what the PACS names of them is held in memory, and nothing
is retrieved before the last of them was asked for. After a pause of a year each night brings a month."""
LOST_A_NIGHT = 5_000
"""So many studies of lost volumes are looked for in one night, for the same reasons: a lost store holds years of
them."""
CLOSED_A_NIGHT = 7
"""So many days are compared a second time in one night: one would do, more make up for nights that were missed."""

Searched = Mapping[date, date | None]
"""When each day was last searched, instance by instance; None where only that it is owed is known. The first day is
the archive's first."""


@dataclass(frozen=True, slots=True)
class Due:
    """What a night looks through. Of `days` and of `closing` (older ones, for the second time) every study is compared
    instance by instance; of the days from `recheck_from` to the last one those whose number of instances has changed.

    `caught_up` says how many of `days` an earlier night should have searched, `left` how many such days are left to the
    next nights.
    """

    days: frozenset[date]
    recheck_from: date
    closing: frozenset[date] = frozenset()
    caught_up: int = 0
    left: int = 0

    @property
    def date_from(self) -> date:
        return min(self.days)

    @property
    def date_to(self) -> date:
        return max(self.days)

    @property
    def compared(self) -> frozenset[date]:
        return self.days | self.closing

    def spans(self) -> tuple[tuple[date, date], ...]:
        """The first and the last day of each stretch of days to ask for."""
        spans: list[tuple[date, date]] = []
        for day in sorted(self.compared.union(_days(self.recheck_from, self.date_to))):
            if spans and spans[-1][1] + DAY == day:
                spans[-1] = (spans[-1][0], day)
            else:
                spans.append((day, day))
        return tuple(spans)


def by_hand(date_from: date, date_to: date) -> Due:
    """The days that a person asks for."""
    return Due(frozenset(_days(date_from, date_to)), date_from)


def last_fire(schedule: str, timezone: str, now: datetime) -> datetime:
    """The last moment at or before `now` for which the cron expression `schedule` stands, by the clocks of `timezone`.

    A time that a clock skips stands right after the gap, one that it shows twice stands once (cronsim follows Debian's
    cron).
    """
    # Prefect's moments are of a type of their own, which reckons otherwise across a gap than CronSim takes for granted.
    second_after = datetime.fromtimestamp(int(now.timestamp()) + 1, UTC)
    return next(CronSim(schedule, second_after.astimezone(ZoneInfo(timezone)), reverse=True))


def first_day(schedule: str, timezone: str, days_back: int, now: datetime) -> date:
    """The first day that an archive owes which begins at `now`: that of its first night."""
    fire = next(CronSim(schedule, now.astimezone(ZoneInfo(timezone)).replace(microsecond=0)))
    return fire.date() - days_back * DAY


def due(
    schedule: str, timezone: str, days_back: int, recheck_days: int, searched: Searched, began: datetime, today: date
) -> Due:
    """What the night owes that the schedule stands for at `began`: the `days_back` days before it, and every day that
    isn't done.

    `began` is the run's scheduled start where it has one, since a run may start a little before or hours after it;
    `today` is the day at which the run looks. Nothing before the archive's first day is owed or looked through again.
    """
    date_to = last_fire(schedule, timezone, began).date() - DAY
    regular = frozenset(_days(date_to - (days_back - 1) * DAY, date_to))
    if not searched or date_to < min(searched):
        return Due(regular, min(regular))
    owed = frozenset(owed_days(searched, date_to, today))
    late = share_of_a_night(sorted(owed - regular), CAUGHT_UP_A_NIGHT, today)
    recheck_from = max(min(searched), date_to - recheck_days * DAY)
    closing = [
        day
        for day in _days(min(searched), date_to - recheck_days * DAY)
        if day not in owed and ((searched[day] or today) - day).days <= recheck_days
    ]
    return Due(
        regular | late,
        min(recheck_from, date_to),
        frozenset(closing[:CLOSED_A_NIGHT]) - regular,
        len(late),
        len(owed - regular - late),
    )


def begins_earlier(regular: Due, searched: Searched) -> bool:
    """Whether a night looks at days before the archive's first one, since `days_back` was raised: what it leaves of
    them is for the next nights. A clock that stands before that day makes nothing earlier.
    """
    return regular.date_from < min(searched) <= regular.date_to


def share_of_a_night(owed: Sequence[T], size: int, today: date) -> frozenset[T]:
    """So many of what is owed, others each day: what stays owed until the PACS is corrected keeps nothing waiting."""
    parts = -(-len(owed) // size) or 1
    start = today.toordinal() % parts * size
    return frozenset(owed[start : start + size])


def owed_days(searched: Searched, date_to: date, today: date) -> list[date]:
    """The days up to `date_to` that no night has searched after they were over. A search of a day that hasn't come yet
    is by a clock that was ahead, and counts for nothing.
    """
    if not searched:
        return []
    done = {day for day, when in searched.items() if when is not None and day < when <= today}
    return [day for day in _days(min(searched), date_to) if day not in done]


def was_missed(schedule: str, timezone: str, days_back: int, searched: Searched, now: datetime) -> bool:
    """Whether a day is owed that a night should have searched by now. No night is missed before the archive's first
    one, which looks `days_back` days back.
    """
    fire = last_fire(schedule, timezone, now).date()
    if searched and fire < min(searched) + days_back * DAY:
        return False
    date_to = fire - DAY
    return bool(owed_days(searched, date_to, now.astimezone(ZoneInfo(timezone)).date()))


def _days(first: date, last: date) -> Iterable[date]:
    return (first + number * DAY for number in range((last - first).days + 1))
