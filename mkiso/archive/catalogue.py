"""What the ledger can be asked: what is archived, what failed, where a study is, how the nights went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, case, func, or_, select, true

from mkiso.archive.ledger import Ledger
from mkiso.archive.lifecycle import State
from mkiso.archive.tables import failures, instances, nights, studies, volumes
from mkiso.archive.volumes import in_portions

FORGOTTEN = "forgotten"
"""The code of the last failure of a study that a person gave up."""
THERE = volumes.c.state != "gone"
ARCHIVED = (
    select(studies.c.study_instance_uid, instances.c.sop_instance_uid)
    .join_from(studies, instances)
    .join(volumes)
    .where(THERE)
)
"""The UIDs of what lies on volumes, delivered or on their way."""


@dataclass(frozen=True, slots=True)
class FailedStudy:
    """A study that isn't archived since it failed: how often, when last and why."""

    study_instance_uid: str
    accession_number: str
    study_date: str
    attempts: int
    code: str
    words: str
    happened: datetime

    @property
    def name(self) -> str:
        """What an operator knows it by."""
        return self.accession_number or self.study_instance_uid

    @property
    def forgotten(self) -> bool:
        """Whether a person gave it up, and nobody has tried it since."""
        return self.code == FORGOTTEN


@dataclass(frozen=True, slots=True)
class Holding:
    """A volume and how much of a study lies there; `path` where one instance was asked for. `read_back` is when the
    disc was last read, if ever.
    """

    label: str
    state: State
    medium: str
    output: str
    number: int
    total: int
    location: str
    instances: int
    read_back: datetime | None
    read_back_good: bool | None
    path: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A study in the ledger, and the volumes that together hold it."""

    study_instance_uid: str
    accession_number: str
    study_date: str
    holdings: tuple[Holding, ...]


@dataclass(frozen=True, slots=True)
class NightReport:
    """A night at a glance. `finished` is None where the run was interrupted or still goes; `undelivered` volumes are
    whole and not yet done.
    """

    run_id: str
    date_from: date
    date_to: date
    scheduled: bool
    started: datetime
    finished: datetime | None
    found: int
    failed: int
    volumes: int
    undelivered: int
    instances: int
    size: int


def archived(ledger: Ledger, study_instance_uids: Iterable[str]) -> dict[str, frozenset[str]]:
    """The SOP Instance UIDs on volumes, delivered or on their way, by StudyInstanceUID; studies of which there are
    none are left out.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    with ledger.reading() as connection:
        for some in in_portions(study_instance_uids):
            of_studies = ARCHIVED.where(studies.c.study_instance_uid.in_(some))
            for study_instance_uid, sop_instance_uid in connection.execute(of_studies):
                found[study_instance_uid].add(sop_instance_uid)
    return {uid: frozenset(uids) for uid, uids in found.items()}


def archived_counts(ledger: Ledger, study_instance_uids: Iterable[str]) -> dict[str, int]:
    """How many instances of each study lie on volumes; studies that the ledger doesn't know are left out."""
    counts: dict[str, int] = {}
    with ledger.reading() as connection:
        for some in in_portions(study_instance_uids):
            of_study = (
                select(studies.c.study_instance_uid, func.count())
                .join_from(studies, instances)
                .join(volumes)
                .where(THERE)
            )
            grouped = of_study.where(studies.c.study_instance_uid.in_(some)).group_by(studies.c.study_instance_uid)
            counts |= dict(connection.execute(grouped).tuples().all())
    return counts


@dataclass(frozen=True, slots=True)
class LostStudy:
    """A study of which instances lay on a volume that is gone and lie on no other."""

    study_instance_uid: str
    accession_number: str
    study_date: str


def lost_studies(ledger: Ledger) -> tuple[LostStudy, ...]:
    """Studies that are owed again, however old their dates are, because their volume is lost or bad."""
    columns = studies.c.study_instance_uid, studies.c.accession_number, studies.c.study_date
    with ledger.reading() as connection:
        gone = select(*columns).distinct().join_from(volumes, instances).join(studies).where(volumes.c.state == "gone")
        return tuple(LostStudy(*row) for row in connection.execute(gone.order_by(studies.c.study_instance_uid)))


def failed_studies(ledger: Ledger) -> tuple[FailedStudy, ...]:
    """Every study that failed and isn't archived since: a night tries those below archive.max_attempts again, however
    old their dates are.
    """
    with ledger.reading() as connection:
        rows = connection.execute(select(failures).where(~failures.c.resolved).order_by(failures.c.id)).all()
    by_study: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        by_study[row.study_instance_uid].append(row)
    return tuple(_failed(rows) for rows in by_study.values())


def _failed(rows: list[Row[Any]]) -> FailedStudy:
    last, attempts = rows[-1], sum(row.counted for row in rows)
    return FailedStudy(
        last.study_instance_uid, last.accession_number, last.study_date, attempts, last.code, last.words, last.happened
    )


def find(ledger: Ledger, asked: str) -> tuple[Finding, ...]:
    """The studies of an accession number, a StudyInstanceUID or a SOP Instance UID, and where they are."""
    with ledger.reading() as connection:
        by_study = select(studies).where(
            or_(studies.c.accession_number == asked, studies.c.study_instance_uid == asked)
        )
        found = connection.execute(by_study.order_by(studies.c.study_date, studies.c.id)).all()
        which: ColumnElement[bool] = true()
        path = func.min("")
        if not found:
            which, path = instances.c.sop_instance_uid == asked, func.min(instances.c.path)
            found = connection.execute(select(studies).join_from(studies, instances).where(which)).all()
        findings = []
        for study in found:
            here = select(instances.c.volume_id, func.count().label("held"), path.label("path")).where(
                instances.c.study_id == study.id, which
            )
            held = here.group_by(instances.c.volume_id).subquery()
            rows = connection.execute(
                select(volumes, held)
                .join_from(volumes, held, volumes.c.id == held.c.volume_id)
                .order_by(volumes.c.label)
            )
            holdings = tuple(_holding(row) for row in rows)
            findings.append(Finding(study.study_instance_uid, study.accession_number, study.study_date, holdings))
    return tuple(findings)


def _holding(row: Row[Any]) -> Holding:
    return Holding(
        label=row.label,
        state=row.state,
        medium=row.medium,
        output=row.output,
        number=row.number,
        total=row.total,
        location=row.location,
        instances=row.held,
        read_back=row.read_back,
        read_back_good=row.read_back_good,
        path=row.path,
    )


def report(ledger: Ledger, limit: int = 30) -> tuple[NightReport, ...]:
    """The last nights, the newest first."""
    made = (
        select(
            volumes.c.night_id,
            func.count().label("volumes"),
            func.sum(case((volumes.c.state != "done", 1), else_=0)).label("undelivered"),
            func.sum(volumes.c.instances).label("instances"),
            func.sum(volumes.c.size).label("size"),
        )
        .where(volumes.c.state.not_in(("planned", "gone")))
        .group_by(volumes.c.night_id)
        .subquery()
    )
    failed = (
        select(failures.c.night_id, func.count(failures.c.study_instance_uid.distinct()).label("failed"))
        .group_by(failures.c.night_id)
        .subquery()
    )
    latest = (
        select(nights, made, failed.c.failed)
        .outerjoin(made, made.c.night_id == nights.c.id)
        .outerjoin(failed, failed.c.night_id == nights.c.id)
        .order_by(nights.c.id.desc())
        .limit(limit)
    )
    with ledger.reading() as connection:
        return tuple(
            NightReport(
                run_id=row.run_id,
                date_from=row.date_from,
                date_to=row.date_to,
                scheduled=row.scheduled,
                started=row.started,
                finished=row.finished,
                found=row.found,
                failed=row.failed or 0,
                volumes=row.volumes or 0,
                undelivered=int(row.undelivered or 0),
                instances=int(row.instances or 0),
                size=int(row.size or 0),
            )
            for row in connection.execute(latest)
        )
