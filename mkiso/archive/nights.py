"""One run of the archive as the ledger knows it: what it claims, makes, fails at and finishes.

A run holds a lease that a thread renews. When its process dies, its claims and volumes are free: at once where the
death can be seen from here, else when the lease ends. Every write proves in its own transaction that the run still
holds the night, and what it writes about.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from mkiso.archive.days import write_searched
from mkiso.archive.holder import certainly_dead, this_process
from mkiso.archive.ledger import Ledger, clock
from mkiso.archive.lifecycle import FOLLOWING, State
from mkiso.archive.tables import claims, failures, nights, places, volumes
from mkiso.archive.volumes import (
    ArchiveVolume,
    MasteredVolume,
    in_portions,
    labels_in,
    next_labels,
    planned_row,
    volume_of,
    write_contents,
)
from mkiso.errors import ClaimLost, MkisoError, VolumeNotFound
from mkiso.storage.files import sync_folder
from mkiso.study.models import Study

LEASE_SECONDS = 60.0
"""How long a run may be silent before another takes over what it held; renewed three times in that time."""
LONGEST_LEASE_SECONDS = 600.0
"""A lease that ends later than this from now was given by a clock that was ahead: whoever lives renews it within
seconds.
"""

HELD = select(volumes, nights.c.lease_until, nights.c.process).outerjoin(nights, volumes.c.holder_id == nights.c.id)
"""Volumes, each with what `is_alive` asks of the night that holds it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NightRange:
    """What a run covers: the dates of its studies, both included, and whether its schedule started it (a run by hand
    covers no night).
    """

    date_from: date
    date_to: date
    scheduled: bool = True


class Night:
    """A run that holds its night. Use it as a context; leaving it without `finish` gives its claims back and counts the
    night as not done.
    """

    def __init__(self, ledger: Ledger, night_id: int, token: str, lease_seconds: float) -> None:
        self.id = night_id
        self._ledger = ledger
        self._token = token
        self._lease_seconds = lease_seconds
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="archive lease", daemon=True)

    @classmethod
    def begin(cls, ledger: Ledger, run_id: str, covers: NightRange, *, lease_seconds: float = LEASE_SECONDS) -> Night:
        """Begin the night of a flow run, or take it up again: a run's retry holds what the run held, and whoever held
        it before no longer does.
        """
        token = uuid4().hex
        with ledger.writing() as connection:
            held = {
                "token": token,
                "process": this_process(),
                "lease_until": clock(connection) + lease_seconds,
                "finished": None,
            }
            night_id = connection.scalar(select(nights.c.id).where(nights.c.run_id == run_id))
            if night_id is None:
                dates = {"date_from": covers.date_from, "date_to": covers.date_to, "scheduled": covers.scheduled}
                new = insert(nights).values(run_id=run_id, started=datetime.now(UTC), found=0, **dates, **held)
                night_id = cast(int, connection.scalar(new.returning(nights.c.id)))
            else:
                connection.execute(update(nights).where(nights.c.id == night_id).values(**held))
        return cls(ledger, night_id, token, lease_seconds)

    def __enter__(self) -> Night:
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._heart.join()
        with self._ledger.writing() as connection:
            mine = connection.scalar(select(nights.c.token).where(nights.c.id == self.id)) == self._token
            if mine:
                connection.execute(delete(claims).where(claims.c.night_id == self.id))
                connection.execute(update(nights).where(nights.c.id == self.id).values(lease_until=0.0))

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction of the ledger that ends in ClaimLost where another process holds this night by now; it renews
        the lease.
        """
        with self._ledger.writing() as connection:
            lease = {"lease_until": clock(connection) + self._lease_seconds}
            held = connection.execute(
                update(nights).where(nights.c.id == self.id, nights.c.token == self._token).values(**lease)
            )
            if held.rowcount != 1:
                raise ClaimLost("Another process has taken over this archive run; this one stops.")
            yield connection

    def claim(self, study_instance_uids: Collection[str]) -> frozenset[str]:
        """Claim studies for this run; those of them that it now holds. The others are worked on by a run that
        is alive.
        """
        with self.writing() as connection:
            others = connection.execute(
                select(nights).where(nights.c.id != self.id, nights.c.id.in_(select(claims.c.night_id)))
            ).all()
            dead = [night.id for night in others if not is_alive(connection, night)]
            connection.execute(delete(claims).where(claims.c.night_id.in_(dead)))
            taken = {
                uid: night_id
                for some in in_portions(study_instance_uids)
                for uid, night_id in connection.execute(_claims_of(some))
            }
            free = sorted(set(study_instance_uids) - taken.keys())
            if free:
                connection.execute(insert(claims), [{"study_instance_uid": uid, "night_id": self.id} for uid in free])
        return frozenset(free).union(uid for uid, night_id in taken.items() if night_id == self.id)

    def release(self, study_instance_uids: Collection[str]) -> None:
        """Give claims back before the night ends."""
        with self.writing() as connection:
            for some in in_portions(study_instance_uids):
                connection.execute(
                    delete(claims).where(claims.c.night_id == self.id, claims.c.study_instance_uid.in_(some))
                )

    def plan(self, medium: str, output: str, day: date, total: int = 1) -> tuple[ArchiveVolume, ...]:
        """Begin the `total` volumes of a set: their labels, in order, and an empty folder for each. `day` is the one
        that the labels name.

        A label is never used again, also where the ledger is an older copy that knows nothing of it: those in the store
        and in the data directory count.
        """
        ledger = self._ledger
        lying = labels_in(ledger.store_directory) | labels_in(ledger.storage.volumes_dir) | {ledger.last_label}
        with self.writing() as connection:
            labels = next_labels(lying.union(_labels_of(connection, day)), day, total)
            rows = [
                planned_row(label, self.id, ledger.place, medium, output, number, total) | {"holder_id": self.id}
                for number, label in enumerate(labels, start=1)
            ]
            connection.execute(insert(volumes), rows)
            here = places.c.id == ledger.place
            connection.execute(update(places).where(here).values(planned=places.c.planned + total))
            count = cast(int, connection.scalar(select(places.c.planned).where(here)))
            planned = tuple(self._volume(connection, str(row["label"])) for row in rows)
        ledger.note_planned(count, planned[-1].label)
        for volume in planned:
            volume.folder.mkdir(mode=0o700, parents=True)
        return planned

    def mastered(self, finished: Sequence[MasteredVolume]) -> None:
        """Write down finished images and all that lies on them, a set of them in one step: from here on they count as
        archived.

        Returns when the images have reached the disk and the ledger has. Raises ClaimLost where a study of them isn't
        claimed by this run.
        """
        sizes = [_reach_the_disk(disc.volume.image) for disc in finished]
        uids = {study.study_instance_uid for disc in finished for study in disc.studies}
        with self.writing() as connection:
            held = {
                uid
                for some in in_portions(uids)
                for uid, night_id in connection.execute(_claims_of(some))
                if night_id == self.id
            }
            if held != uids:
                raise ClaimLost(
                    f"{len(uids - held)} of {len(uids)} studies are no longer claimed by this archive run: its "
                    "volumes are not kept."
                )
            for disc, size in zip(finished, sizes, strict=True):
                row = self._row(connection, disc.volume.label)
                count = write_contents(connection, row.id, disc)
                self._move(connection, row, "mastered", {"sha256": disc.sha256, "size": size, "instances": count})
            _resolve(connection, uids)

    def advance(self, label: str, state: State, location: str | None = None, store: str | None = None) -> None:
        """Move a volume on, after what the new state tells has become true. `location`: the stored folder, the
        publisher's order.
        """
        with self.writing() as connection:
            facts: dict[str, Any] = {
                name: value for name, value in (("location", location), ("store", store)) if value is not None
            }
            self._move(connection, self._row(connection, label), state, facts)

    def redirect(self, label: str, output: str) -> ArchiveVolume:
        """Send a mastered volume, of which certainly nobody has a disc, where the archive's volumes go now."""
        with self.writing() as connection:
            row = self._row(connection, label)
            if row.state != "mastered":
                raise ValueError(f"volume {label} is {row.state} and can't be redirected")
            connection.execute(
                update(volumes).where(volumes.c.id == row.id).values(output=output, changed=datetime.now(UTC))
            )
            return self._volume(connection, label)

    def failed(self, study: Study, error: MkisoError, *, counted: bool = True) -> None:
        """Write down why a study isn't archived tonight; `counted` against archive.max_attempts
        (planning.says_something_of_the_study).
        """
        with self.writing() as connection:
            connection.execute(
                insert(failures).values(
                    night_id=self.id,
                    study_instance_uid=study.study_instance_uid,
                    accession_number=study.accession_number,
                    study_date=study.study_date,
                    code=error.code,
                    words=error.words,
                    counted=counted,
                    resolved=False,
                    happened=datetime.now(UTC),
                )
            )

    def complete(self, study_instance_uids: Collection[str]) -> None:
        """All that the PACS has of these studies lies on volumes: what failed of them is owed no more."""
        with self.writing() as connection:
            _resolve(connection, study_instance_uids)

    def searched(self, some: Collection[date], today: date) -> None:
        """Days are done: all that was found of them is archived, or written down as failed."""
        with self.writing() as connection:
            write_searched(connection, some, today)

    def finish(self, found: int) -> None:
        """The night is done: all that it found (`found` studies) is archived, or written down as failed."""
        with self.writing() as connection:
            connection.execute(
                update(nights).where(nights.c.id == self.id).values(finished=datetime.now(UTC), found=found)
            )

    def abandoned(self) -> tuple[ArchiveVolume, ...]:
        """Volumes that aren't done and whose run is gone, or is this one, in the order of their labels.

        Those of this data directory are held by this run from here on; those of other places stay theirs.
        """
        with self.writing() as connection:
            unfinished = HELD.where(volumes.c.state.not_in(("done", "gone"))).order_by(volumes.c.label)
            rows = connection.execute(unfinished).all()
            free = [row for row in rows if row.holder_id in (None, self.id) or not is_alive(connection, row)]
            ours = [row.id for row in free if row.place == self._ledger.place]
            for some in in_portions(ours):
                connection.execute(update(volumes).where(volumes.c.id.in_(some)).values(holder_id=self.id))
            return tuple(volume_of(row, self._ledger.storage.volumes_dir) for row in free)

    def take(self, label: str) -> None:
        """Hold a volume of another place, whose run is gone. Raises ClaimLost where another one works on it by now."""
        with self.writing() as connection:
            row = connection.execute(HELD.where(volumes.c.label == label)).one()
            if row.holder_id not in (None, self.id) and is_alive(connection, row):
                raise ClaimLost(f"Volume {label} is held by another archive run.")
            connection.execute(update(volumes).where(volumes.c.label == label).values(holder_id=self.id))

    def _volume(self, connection: Connection, label: str) -> ArchiveVolume:
        return volume_of(self._row(connection, label), self._ledger.storage.volumes_dir)

    def _row(self, connection: Connection, label: str) -> Row[Any]:
        row = connection.execute(select(volumes).where(volumes.c.label == label)).one_or_none()
        if row is None:
            raise VolumeNotFound(f"The ledger has no volume {label} any more.")
        if row.holder_id != self.id:
            raise ClaimLost(f"Volume {label} is held by another archive run.")
        return row

    def _move(self, connection: Connection, row: Row[Any], state: State, facts: Mapping[str, Any]) -> None:
        if state not in FOLLOWING[row.state]:
            raise ValueError(f"volume {row.label} is {row.state} and can't become {state}")
        holder = {"holder_id": None} if state in ("done", "gone") else {}
        connection.execute(
            update(volumes)
            .where(volumes.c.id == row.id)
            .values(state=state, changed=datetime.now(UTC), **holder, **facts)
        )

    def _beat(self) -> None:
        while not self._ended.wait(self._lease_seconds / 3):
            try:
                with self.writing():
                    pass
            except (MkisoError, SQLAlchemyError) as error:  # the next write of the run itself says so
                log.warning("The lease of an archive run couldn't be renewed: %s", type(error).__name__)


def _resolve(connection: Connection, study_instance_uids: Collection[str]) -> None:
    for some in in_portions(study_instance_uids):
        of_studies = ~failures.c.resolved & failures.c.study_instance_uid.in_(some)
        connection.execute(update(failures).where(of_studies).values(resolved=True))


def _labels_of(connection: Connection, day: date) -> frozenset[str]:
    return frozenset(
        connection.scalars(
            select(volumes.c.label).where(volumes.c.label.startswith(f"A{day:%Y%m%d}_", autoescape=True))
        )
    )


def _claims_of(uids: Sequence[str]) -> Any:
    return select(claims.c.study_instance_uid, claims.c.night_id).where(claims.c.study_instance_uid.in_(uids))


def is_alive(connection: Connection, night: Row[Any]) -> bool:
    """Whether the run that holds a night still does; `night` has the columns lease_until and process."""
    return 0 < night.lease_until - clock(connection) <= LONGEST_LEASE_SECONDS and not certainly_dead(night.process)


def _reach_the_disk(image: Path) -> int:
    with image.open("rb") as file:
        os.fsync(file.fileno())
        size = os.fstat(file.fileno()).st_size
    sync_folder(image.parent)
    sync_folder(image.parent.parent)
    return size
