"""What is kept, for how long, and what goes: discs, folders of failed jobs, reports, and whatever a crash left behind."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from mkiso.config import Settings, Storage
from mkiso.errors import StorageFull
from mkiso.files import seconds_old
from mkiso.publishers.orderbook import forget_old
from mkiso.store import remove_old

log = logging.getLogger("mkiso.retention")

GIB = 1 << 30
INCOMING_HOURS = 2
"""No instance takes longer to arrive (receiver.pdu_timeout_seconds ends a stalled one long before)."""


@dataclass(frozen=True, slots=True)
class Swept:
    """How many of each went."""

    discs: int
    job_folders: int
    reports: int
    order_books: int
    incoming: int

    def __str__(self) -> str:
        return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in asdict(self).items())


def sweep(settings: Settings, active_jobs: Collection[str] | None) -> Swept:
    """Remove what is older than it is kept. Folders of `active_jobs` stay whatever their age; where it isn't known which are active, all stay."""
    storage = settings.storage
    swept = Swept(
        discs=remove_old(storage, settings.disc.keep_hours),
        job_folders=_remove_jobs(storage, active_jobs) if active_jobs is not None else 0,
        reports=_remove_older(storage.reports_dir.glob("*.*"), settings.prefect.keep_runs_days * 24),
        order_books=forget_old(storage.orders_dir, settings.prefect.keep_runs_days),
        incoming=_remove_older(storage.incoming_dir.glob("*"), INCOMING_HOURS),
    )
    log.info("Swept: %s.", swept)
    return swept


def require_room(storage: Storage) -> None:
    """Refuse new work before a full disk breaks running work. Raises StorageFull below `storage.min_free_gib`."""
    places = [place for place in (storage.data_dir, storage.discs_dir) if place.exists()]
    free_gib = min((shutil.disk_usage(place).free for place in places), default=0) / GIB
    if free_gib < storage.min_free_gib:
        raise StorageFull(
            f"Only {free_gib:.1f} GiB are free on the disk of mkiso and storage.min_free_gib is {storage.min_free_gib:g}: "
            "make room there, or ask again when older discs have gone."
        )


def _remove_jobs(storage: Storage, active_jobs: Collection[str]) -> int:
    return _remove_older(storage.jobs_dir.glob("*"), max(storage.keep_failed_hours, 1), keep=active_jobs)


def _remove_older(paths: Iterable[Path], hours: float, keep: Collection[str] = ()) -> int:
    removed = 0
    for path in list(paths):
        try:
            if path.name in keep or seconds_old(path) < hours * 3600:
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            removed += 1
        except FileNotFoundError:  # went meanwhile
            continue
        except OSError as error:  # one that can't be removed keeps none of the others
            log.error("%s is older than it is kept and can't be removed: %s", path, error.strerror)
    return removed
