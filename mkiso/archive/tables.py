"""The ledger's tables. Written in SQLAlchemy Core: a million instances are rows, never objects.

    nights ─┬─ volumes ─┬─ instances ─ studies        what lies where, and what was on a volume that is gone
            ├─ claims   └─ other_files
            └─ failures
    days                                               which of them are done
    archive, places, stores                            whose ledger it is, and what belongs to it

Of a patient the ledger knows accession numbers and UIDs, which is what a disc is looked for by; no name, birth date or
Patient ID.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Uid = String(64)  # VR UI (PS3.5 6.2)
Sha256 = String(64)


class Instant(TypeDecorator[datetime]):
    """A moment in UTC. SQLite forgets the zone of a datetime; it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)  # type: ignore[no-any-return]


archive = Table(
    "archive",
    metadata,
    Column("id", String(32), primary_key=True),  # one row: the ledger's own id (mkiso.archive.belonging)
    Column("made", Instant, nullable=False),
)

places = Table(
    "places",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("host", Text, nullable=False),
    Column("directory", Text, nullable=False),
    Column(
        "planned", Integer, nullable=False
    ),  # how many volumes it has planned; its own count tells an older copy of the ledger
    Column("restored", Instant),  # when the ledger was last found to be an older copy of itself
)

stores = Table(
    "stores",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("directory", Text, primary_key=True),  # the names that it had
    Column("made", Instant, nullable=False),
)

nights = Table(
    "nights",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", String(64), nullable=False, unique=True),
    Column("scheduled", Boolean, nullable=False),
    Column("date_from", Date, nullable=False),
    Column("date_to", Date, nullable=False),
    Column("started", Instant, nullable=False),
    Column("finished", Instant),
    Column("found", Integer, nullable=False),
    Column("token", String(32), nullable=False),  # of the process that holds the night; a later holder has another
    Column("process", Text, nullable=False),
    Column("lease_until", Float, nullable=False),  # seconds since the epoch by the ledger's clock
)

days = Table(
    "days",
    metadata,
    Column("day", Date, primary_key=True),  # the first row is the archive's first day; those that are absent are owed
    Column("searched", Date),  # when the PACS was last asked for every instance of the day, and all was taken care of
)

volumes = Table(
    "volumes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("label", String(16), nullable=False, unique=True),  # the ISO 9660 volume identifier
    Column("state", String(8), nullable=False),
    Column("night_id", ForeignKey("nights.id"), nullable=False, index=True),
    Column("holder_id", ForeignKey("nights.id"), index=True),  # the night that works on it now; none once it is done
    Column("place", String(32), nullable=False),  # the data directory that its files lie in
    Column("medium", String(8), nullable=False),
    Column("output", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("instances", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", Sha256, nullable=False),
    Column("location", Text, nullable=False),  # where the image lies, or what the publisher calls the order
    Column("store", String(32)),  # the store that it lies in
    Column("changed", Instant, nullable=False),
    Column("read_back", Instant),
    Column("read_back_good", Boolean),
    Index(None, "state"),
)

studies = Table(
    "studies",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_instance_uid", Uid, nullable=False, unique=True),
    Column("accession_number", Text, nullable=False, index=True),
    Column("study_date", String(8), nullable=False),
)

instances = Table(
    "instances",
    metadata,
    # The key holds that an instance of a study is archived once.
    Column("study_id", ForeignKey("studies.id"), primary_key=True),
    Column("sop_instance_uid", Uid, primary_key=True, index=True),
    Column("volume_id", ForeignKey("volumes.id"), nullable=False, index=True),
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", Sha256, nullable=False),
    sqlite_with_rowid=False,
)

other_files = Table(
    "other_files",
    metadata,
    Column("volume_id", ForeignKey("volumes.id"), primary_key=True),
    Column("path", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("sha256", Sha256, nullable=False),
)

failures = Table(
    "failures",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("night_id", ForeignKey("nights.id"), nullable=False, index=True),
    Column("study_instance_uid", Uid, nullable=False),
    Column("accession_number", Text, nullable=False),
    Column("study_date", String(8), nullable=False),
    Column("code", Text, nullable=False),
    Column("words", Text, nullable=False),
    Column("counted", Boolean, nullable=False),  # against archive.max_attempts
    Column("resolved", Boolean, nullable=False),  # archived since
    Column("happened", Instant, nullable=False),
    Index(None, "resolved", "study_instance_uid"),
)

claims = Table(
    "claims",
    metadata,
    Column("study_instance_uid", Uid, primary_key=True),
    Column("night_id", ForeignKey("nights.id"), nullable=False, index=True),
)
