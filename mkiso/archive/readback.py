"""Is a disc still what the ledger says? Its files, read by whoever can read discs, against what was written down when
it was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select, union_all, update

from mkiso.archive.ledger import Ledger
from mkiso.archive.tables import instances, other_files, volumes
from mkiso.errors import VolumeNotFound


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What reading a disc back showed, by paths on it: as many files `good`, those damaged, those missing, those that
    nobody put there.
    """

    label: str
    good: int
    damaged: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        return self.good > 0 and not (self.damaged or self.missing or self.unexpected)


def compare(label: str, recorded: Mapping[str, tuple[int, str]], read: Iterable[tuple[str, int, str]]) -> ReadBack:
    """Compare files in both directions; `recorded` maps a path to its size and SHA-256, `read` gives path, size,
    SHA-256 (PS3.10 8.2 paths).
    """
    found = {path: (size, sha256) for path, size, sha256 in read}
    return ReadBack(
        label=label,
        good=sum(found.get(path) == facts for path, facts in recorded.items()),
        damaged=tuple(sorted(path for path, facts in recorded.items() if path in found and found[path] != facts)),
        missing=tuple(sorted(recorded.keys() - found.keys())),
        unexpected=tuple(sorted(found.keys() - recorded.keys())),
    )


def verify_against_ledger(ledger: Ledger, label: str, read: Iterable[tuple[str, int, str]]) -> ReadBack:
    """Compare a disc with the ledger and write down the outcome; `label` is its ISO 9660 volume identifier.

    `read` gives the path, the size in bytes and the SHA-256 of every file of the disc. Raises VolumeNotFound.
    """
    with ledger.reading() as connection:
        row = connection.execute(
            select(volumes.c.id, volumes.c.state).where(volumes.c.label == label.strip())
        ).one_or_none()
        if row is None or row.state == "planned":
            named = label.strip() or "without a label"
            words = f"The ledger has no volume {named}: this disc wasn't archived here, or after the ledger was copied"
            raise VolumeNotFound(
                f"{words} that is used now. `mkiso archive import` records a disc of this archive again."
            )
        if row.state == "gone":
            words = f"Volume {label.strip()} was settled as lost or bad, and what lies on it is archived again"
            raise VolumeNotFound(f"{words}; `mkiso archive import` records it again.")
        volume_id = row.id
        tables = [
            select(table.c.path, table.c.size, table.c.sha256).where(table.c.volume_id == volume_id)
            for table in (instances, other_files)
        ]
        recorded = {path: (size, sha256) for path, size, sha256 in connection.execute(union_all(*tables))}
    outcome = compare(label.strip(), recorded, read)
    with ledger.writing() as connection:
        seen = {"read_back": datetime.now(UTC), "read_back_good": outcome.is_good}
        connection.execute(update(volumes).where(volumes.c.id == volume_id).values(**seen))
    return outcome
