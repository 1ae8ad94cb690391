"""Whether what goes by a schedule comes: the archive's nights and housekeeping."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from mkiso.archive.schedule import last_fire
from mkiso.config.settings import Settings
from mkiso_service.prefect.api import PrefectApi
from mkiso_service.prefect.environment import HOUSEKEEPING, NIGHTLY_ARCHIVE

LOOKED_AT = 50
"""The newest runs: nobody starts so many by hand between two nights."""


async def why_schedules_rest(api: PrefectApi, settings: Settings) -> str:
    """Why something doesn't come by its schedule, in words; empty where all does. Raises httpx.HTTPError, LookupError,
    ValueError.
    """
    nights = {NIGHTLY_ARCHIVE: "The archive's nights are"} if settings.archive.enabled else {}
    for name, what in {**nights, HOUSEKEEPING: "Housekeeping is"}.items():
        deployment = await api.get(f"/deployments/name/{name}")
        own = deployment["name"]
        if deployment["paused"] or not all(each["active"] for each in deployment["schedules"]):
            return f"{what} paused in Prefect: resume the schedule of the deployment {own} there."
        if not deployment["schedules"]:
            return f"{what} without a schedule in Prefect: run `mkiso deploy`, which restores it."
        if name == NIGHTLY_ARCHIVE and (since := await _overdue_since(api, settings, deployment)):
            return (
                f"{what} overdue, since no run has ended after the night of {since:%Y-%m-%d} began: see in "
                f"Prefect what became of the runs of {own}, and start one there without dates."
            )
    return ""


async def _overdue_since(api: PrefectApi, settings: Settings, deployment: dict[str, Any]) -> datetime | None:
    """When the night began that should have ended by now, since another one has begun since; None where one has ended,
    goes on, or nobody knows: runs are kept only so long, and no night is missed before its schedule was made.
    """
    archive = settings.archive
    last = last_fire(archive.schedule, archive.timezone, api.now)
    before = last_fire(archive.schedule, archive.timezone, last - timedelta(seconds=1))
    made = max(datetime.fromisoformat(each["created"]) for each in deployment["schedules"])
    if before < max(made, api.now - timedelta(days=settings.prefect.keep_runs_days)):
        return None
    wanted = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["RUNNING", "COMPLETED", "FAILED"]}}},
        "sort": "EXPECTED_START_TIME_DESC",
        "limit": LOOKED_AT,
    }
    for run in await api.post("/flow_runs/filter", wanted):
        by_schedule = not any(run["parameters"].values())  # no dates that somebody asked for, and no dry run
        if by_schedule and (run["end_time"] is None or datetime.fromisoformat(run["end_time"]) >= before):
            return None
    return before
