"""The days that the archive owes, as the ledger has them: the first one, and when each was last searched."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import cast

from sqlalchemy import Connection, func, insert, or_, select, update

from mkiso.archive.ledger import Ledger
from mkiso.archive.tables import days


def searched(ledger: Ledger) -> dict[date, date | None]:
    """When each day was last searched; empty before the archive's first day is known."""
    with ledger.reading() as connection:
        return dict(connection.execute(select(days.c.day, days.c.searched)).tuples().all())


def owe(ledger: Ledger, first: date, today: date) -> date | None:
    """Owe every day from `first` on, if none is owed yet; where this data directory has noted an earlier one while the
    ledger couldn't be had, from that on.

    What a clock that was ahead has searched is owed again. Returns the day at which the ledger was last searched where
    that hasn't come yet: then a clock is, or was, wrong.
    """
    with ledger.writing() as connection:
        known = connection.scalar(select(func.min(days.c.day)))
        if known is None:
            connection.execute(insert(days).values(day=min(filter(None, (first, ledger.owed_from)))))
            return None
        ahead = cast("date | None", connection.scalar(select(func.max(days.c.searched)).where(days.c.searched > today)))
        if today > known:
            too_early = or_(days.c.searched > today, days.c.day >= today)
            connection.execute(update(days).where(too_early).values(searched=None))
        return ahead


def owe_earlier(ledger: Ledger, first: date) -> None:
    """Let the archive begin earlier than it did: every day from `first` on is owed."""
    with ledger.writing() as connection:
        if connection.execute(select(days).where(days.c.day <= first)).first() is None:
            connection.execute(insert(days).values(day=first))


def write_searched(connection: Connection, some: Collection[date], today: date) -> None:
    """Write down that days were searched wholly `today`; what is before the archive's first day was never owed."""
    first = connection.scalar(select(func.min(days.c.day)))
    known = set(connection.scalars(select(days.c.day).where(days.c.day.in_(some))))
    if known:
        connection.execute(update(days).where(days.c.day.in_(known)).values(searched=today))
    if new := [
        {"day": day, "searched": today} for day in sorted(set(some) - known) if first is not None and day > first
    ]:
        connection.execute(insert(days), new)
