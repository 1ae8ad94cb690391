"""Which days the archive owes and when each was searched, instead of the first and the last date of finished nights."""

from __future__ import annotations

from datetime import date, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

DAY = timedelta(days=1)
RECHECKED_DAYS = 30
"""What is older wasn't compared a second time, and isn't after the fact: that would be the whole PACS in one night."""


def upgrade() -> None:
    days = op.create_table(
        "days",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("searched", sa.Date(), nullable=True),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_days")),
    )
    nights = sa.table(
        "nights",
        sa.column("scheduled", sa.Boolean()),
        sa.column("date_from", sa.Date()),
        sa.column("date_to", sa.Date()),
        sa.column("finished", sa.DateTime(timezone=True)),
    )
    began = sa.select(nights.c.date_from, nights.c.date_to, nights.c.finished).where(nights.c.scheduled)
    rows = op.get_bind().execute(began).all()
    if not rows:
        return
    searched: dict[date, date | None] = {min(row.date_from for row in rows): None}
    for row in rows:
        if row.finished is not None:
            for number in range((row.date_to - row.date_from).days + 1):
                day = row.date_from + number * DAY
                searched[day] = max(row.finished.date(), day + DAY, searched.get(day) or day)
    last = max((when for when in searched.values() if when is not None), default=None)
    op.bulk_insert(
        days,
        [
            {"day": day, "searched": last if when and last and (last - day).days > RECHECKED_DAYS + 1 else when}
            for day, when in searched.items()
        ],
    )


def downgrade() -> None:
    raise NotImplementedError("The way back is the backup.")
