"""Whether what goes by a schedule comes, the archive's nights and housekeeping, and how the last night ended."""

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
    """Why something doesn't come by its schedule, or that the last night failed, in words; empty where all is well.
    Raises httpx.HTTPError, LookupError, ValueError.
    """
    archived = {NIGHTLY_ARCHIVE: "The archive's nights are"} if settings.archive.enabled else {}
    for name, what in {**archived, HOUSEKEEPING: "Housekeeping is"}.items():
        deployment = await api.get(f"/deployments/name/{name}")
        own = deployment["name"]
        if deployment["paused"] or not all(each["active"] for each in deployment["schedules"]):
            return f"{what} paused in Prefect: resume the schedule of the deployment {own} there."
        if not deployment["schedules"]:
            return f"{what} without a schedule in Prefect: run `mkiso deploy`, which restores it."
        if name == NIGHTLY_ARCHIVE:
            nights = await _nights(api, deployment)
            if since := _overdue_since(nights, api, settings, deployment):
                return (
                    f"{what} overdue, since no run has ended after the night of {since:%Y-%m-%d} began: see in "
                    f"Prefect what became of the runs of {own}, and start one there without dates."
                )
            last = next((night for night in nights if night["end_time"]), None)
            if last and last["state_type"] != "COMPLETED":
                return (
                    f"The archive's last night failed: see in Prefect what the newest run of {own} says. The next "
                    "night does what this one left; to have it done before, start a run there without dates."
                )
    return ""


async def _nights(api: PrefectApi, deployment: dict[str, Any]) -> list[dict[str, Any]]:
    """The newest nights that go on, have ended or were cut off, the newest first: no runs for dates that somebody asked
    for, and no dry runs.
    """
    wanted = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["RUNNING", "COMPLETED", "FAILED", "CRASHED"]}}},
        "sort": "EXPECTED_START_TIME_DESC",
        "limit": LOOKED_AT,
    }
    return [run for run in await api.post("/flow_runs/filter", wanted) if not any(run["parameters"].values())]


def _overdue_since(
    nights: list[dict[str, Any]], api: PrefectApi, settings: Settings, deployment: dict[str, Any]
) -> datetime | None:
    """When the night began that should have ended by now, since another one has begun since; None where one has ended,
    goes on, or nobody knows: runs are kept only so long, and no night is missed before its schedule was made.
    """
    archive = settings.archive
    last = last_fire(archive.schedule, archive.timezone, api.now)
    before = last_fire(archive.schedule, archive.timezone, last - timedelta(seconds=1))
    made = max(datetime.fromisoformat(each["created"]) for each in deployment["schedules"])
    if before < max(made, api.now - timedelta(days=settings.prefect.keep_runs_days)):
        return None
    ended = (
        datetime.fromisoformat(night["end_time"]) if night["end_time"] else api.now
        for night in nights
        if night["state_type"] != "CRASHED"
    )
    return None if any(end >= before for end in ended) else before
