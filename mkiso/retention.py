"""What is kept, for how long, and what goes: discs, folders of failed jobs, reports, and whatever a crash left behind."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from mkiso.config import Settings, Storage
from mkiso.errors import StorageFull
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
    incoming: int


def sweep(settings: Settings, active_jobs: Collection[str] = ()) -> Swept:
    """Remove what is older than it is kept. Folders of `active_jobs` stay whatever their age."""
    storage = settings.storage
    swept = Swept(
        discs=remove_old(storage, settings.disc.keep_hours),
        job_folders=_remove_older(storage.jobs_dir.glob("*"), max(storage.keep_failed_hours, 1), keep=active_jobs),
        reports=_remove_older(storage.reports_dir.glob("*.json"), settings.prefect.keep_runs_days * 24),
        incoming=_remove_older(storage.incoming_dir.glob("*"), INCOMING_HOURS),
    )
    log.info(
        "Swept: %s discs, %s job folders, %s reports, %s unfinished instances.", swept.discs, swept.job_folders, swept.reports, swept.incoming
    )
    return swept


def require_room(storage: Storage, *, folder: Path | None = None) -> None:
    """Refuse new work before a full disk breaks running work. Raises StorageFull below `storage.min_free_gib`."""
    free_gib = shutil.disk_usage(folder or storage.data_dir).free / GIB
    if free_gib < storage.min_free_gib:
        raise StorageFull(
            f"Only {free_gib:.1f} GiB are free on the disk of mkiso and storage.min_free_gib is {storage.min_free_gib:g}: "
            "make room there, or ask again when older discs have gone."
        )


def _remove_older(paths: Iterable[Path], hours: float, keep: Collection[str] = ()) -> int:
    removed = 0
    for path in list(paths):
        try:
            if path.name in keep or time.time() - path.stat().st_mtime < hours * 3600:
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            removed += 1
        except FileNotFoundError:  # went meanwhile
            continue
    return removed
