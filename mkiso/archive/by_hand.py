"""What only a person can decide: what became of an uncertain order, and that a disc is no longer any good."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import func, select, update

from mkiso.archive.ledger import Ledger
from mkiso.archive.nights import is_alive
from mkiso.archive.tables import instances, nights, studies, volumes
from mkiso.archive.volumes import forget
from mkiso.errors import ClaimLost, VolumeNotFound


def settle(ledger: Ledger, label: str, *, made: bool) -> None:
    """A person looked at the robot: the disc of a volume that is being ordered, or was, has been made; or it is to be ordered anew.

    Raises VolumeNotFound, and ClaimLost where a run works on it at this moment.
    """
    with ledger.writing() as connection:
        held = select(nights.c.lease_until, nights.c.process).join(nights, volumes.c.holder_id == nights.c.id)
        row = connection.execute(held.where(volumes.c.label == label, volumes.c.state.in_(("ordering", "ordered")))).first()
        if row is None:
            raise VolumeNotFound(f"The ledger has no volume {label} whose order is uncertain; `mkiso archive find` says how a volume is.")
        if is_alive(connection, row):
            raise ClaimLost(f"An archive run works on volume {label} at this moment: wait for its end.")
        outcome = {"state": "done", "holder_id": None} if made else {"state": "mastered"}
        connection.execute(update(volumes).where(volumes.c.label == label).values(changed=datetime.now(UTC), **outcome))


def withdraw(ledger: Ledger, label: str) -> tuple[str, str]:
    """Take the volume of a disc that is lost or bad out of the ledger, so that a run archives its instances anew.

    Returns the first and the last StudyDate (DA) on it. Raises VolumeNotFound, also for a volume that isn't done.
    """
    with ledger.writing() as connection:
        volume_id = connection.scalar(select(volumes.c.id).where(volumes.c.label == label, volumes.c.state == "done"))
        if volume_id is None:
            raise VolumeNotFound(f"The ledger has no finished volume {label}.")
        dates = select(func.min(studies.c.study_date), func.max(studies.c.study_date)).join_from(studies, instances)
        first, last = connection.execute(dates.where(instances.c.volume_id == volume_id)).one()
        forget(connection, volume_id)
    return first, last
