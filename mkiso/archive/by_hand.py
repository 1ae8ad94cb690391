"""What only a person can decide: what became of a volume, that a disc is no longer any good, that a disc is the
archive's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from mkiso.archive.catalogue import FORGOTTEN, failed_studies
from mkiso.archive.evidence import seen
from mkiso.archive.ledger import Ledger
from mkiso.archive.lifecycle import Claim, Refused, settled
from mkiso.archive.nights import HELD, is_alive
from mkiso.archive.store import Store
from mkiso.archive.tables import failures, instances, studies, volumes
from mkiso.archive.volumes import volume_of
from mkiso.errors import ClaimLost, VolumeNotFound


def settle(ledger: Ledger, label: str, claim: Claim, store: Store | None = None) -> str:
    """A person says what became of a volume; the state that it has now. What can be proved is: an image by its SHA-256.

    Raises VolumeNotFound, also where the claim doesn't fit what is seen, and ClaimLost where a run works on it at this
    moment.
    """
    with ledger.reading() as connection:
        row = _free(connection, label)
    # It may take minutes.
    evidence = seen(volume_of(row, ledger.storage.volumes_dir), ledger.place, store, thorough=True)
    outcome = settled(claim, row.state, evidence)
    if isinstance(outcome, Refused):
        raise VolumeNotFound(f"{label} {outcome.words}")
    values: dict[str, Any] = {"state": outcome.state, "changed": datetime.now(UTC)}
    if outcome.state in ("done", "gone"):
        values["holder_id"] = None
    if outcome.here:
        values["place"] = ledger.place
    if claim is Claim.STORED and store is not None:
        values |= {
            "location": str(store.image(label).parent),
            "store": store.id,
            "read_back": datetime.now(UTC),
            "read_back_good": True,
        }
    with ledger.writing() as connection:
        if _free(connection, label).state != row.state:
            raise ClaimLost(f"Volume {label} was changed at this moment: ask again.")
        connection.execute(update(volumes).where(volumes.c.id == row.id).values(**values))
        if claim is Claim.FORGET:
            connection.execute(delete(instances).where(instances.c.volume_id == row.id))
    return outcome.state


def forget_study(ledger: Ledger, asked: str, max_attempts: int) -> None:
    """A person gives up the studies of an accession number, or of a StudyInstanceUID, that failed `max_attempts` times:
    they aren't archived, and no night says so any more.

    Raises VolumeNotFound where none was given up so far by the nights.
    """
    found = [study for study in failed_studies(ledger) if asked in (study.accession_number, study.study_instance_uid)]
    if not any(study.attempts >= max_attempts for study in found):
        why = "the nights still try it" if found else "the ledger has neither volume nor failed study of this name"
        raise VolumeNotFound(f"{asked} can't be given up: {why}.")
    with ledger.writing() as connection:
        for study in found:
            of_study = failures.c.study_instance_uid == study.study_instance_uid
            last = connection.execute(
                select(failures).where(of_study, ~failures.c.resolved).order_by(failures.c.id.desc()).limit(1)
            ).one_or_none()
            if last is not None and study.attempts >= max_attempts:
                said = {"code": FORGOTTEN, "words": "A person gave it up.", "happened": datetime.now(UTC)}
                row = {name: value for name, value in last._mapping.items() if name != "id"}
                connection.execute(insert(failures).values(row | said | {"counted": False}))


def withdraw(ledger: Ledger, label: str) -> tuple[str | None, str | None]:
    """The disc of a volume is lost or bad: what lies on it is owed again, and each run looks for it, however old its
    dates are.

    Returns the first and the last StudyDate (DA) on it, None where it holds nothing that no other has. Raises
    VolumeNotFound, also for a volume that isn't done.
    """
    with ledger.writing() as connection:
        volume_id = connection.scalar(select(volumes.c.id).where(volumes.c.label == label, volumes.c.state == "done"))
        if volume_id is None:
            raise VolumeNotFound(f"The ledger has no finished volume {label}.")
        dates = select(func.min(studies.c.study_date), func.max(studies.c.study_date)).join_from(studies, instances)
        first, last = connection.execute(dates.where(instances.c.volume_id == volume_id)).one()
        connection.execute(
            update(volumes).where(volumes.c.id == volume_id).values(state="gone", changed=datetime.now(UTC))
        )
    return first, last


def _free(connection: Connection, label: str) -> Row[Any]:
    """The volume of a label where no run works on it. Raises VolumeNotFound and ClaimLost."""
    row = connection.execute(HELD.where(volumes.c.label == label)).first()
    if row is None:
        raise VolumeNotFound(f"The ledger has no volume {label}; `mkiso archive report` says which wait for somebody.")
    if row.holder_id is not None and is_alive(connection, row):
        raise ClaimLost(f"An archive run works on volume {label} at this moment: wait for its end.")
    return row
