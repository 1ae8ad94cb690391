"""A night of the archive that was missed is caught up: when the worker starts, because the machine was down; while it
runs, because no run began when the night did.

The second happens once a year where the clocks skip the night's time. With Python before 3.13 Prefect begins its run
before the gap, when it is still the night before by the schedule (tests/service/test_prefect_schedules.py).
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import TERMINAL_STATES
from sqlalchemy.exc import SQLAlchemyError

from mkiso.archive.days import owe, searched
from mkiso.archive.ledger import Ledger, note_owed_from
from mkiso.archive.schedule import first_day, last_fire, was_missed
from mkiso.config.archive import Archive
from mkiso.config.settings import Settings
from mkiso.errors import MkisoError
from mkiso_service.prefect.environment import NIGHTLY_ARCHIVE

log = logging.getLogger("mkiso.worker")

LOOK_SECONDS = 900
BEGUN_WITHIN = timedelta(minutes=15)
"""By how much Prefect may be late to begin a night."""
A_MOMENT = timedelta(minutes=1)


async def catch_up(settings: Settings) -> None:
    """Of an archive that is enabled: owe its days from its first start on, and start it where a night was missed and no
    run is on its way. Trouble is only logged.
    """
    now = datetime.now(UTC)
    if await asyncio.to_thread(_is_missed, settings, now):  # a ledger may be waited for, and jobs wait for nothing here
        await _start(settings.archive, now)


def _is_missed(settings: Settings, now: datetime) -> bool:
    archive = settings.archive
    first = first_day(archive.schedule, archive.timezone, archive.days_back, now)
    try:
        note_owed_from(settings.storage, first)
        with Ledger.open(settings) as ledger:
            owe(ledger, first, now.astimezone(ZoneInfo(archive.timezone)).date())
            done = searched(ledger)
    except (MkisoError, SQLAlchemyError) as error:
        reason = error.words if isinstance(error, MkisoError) else type(error).__name__
        log.error("Whether a night of the archive was missed can't be told: %s", reason)
        return False
    return was_missed(archive.schedule, archive.timezone, archive.days_back, done, now)


async def catch_up_regularly(settings: Settings) -> None:
    """Look for a night that no run has begun, now and then; whatever goes wrong with that is tried again."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            if await is_unbegun(settings.archive, datetime.now(UTC) - BEGUN_WITHIN):
                await catch_up(settings)
        except Exception as error:
            log.warning("Looking for a missed night failed (%s); it is tried again.", type(error).__name__)


async def is_unbegun(archive: Archive, now: datetime) -> bool:
    """Whether no run has begun since the last night did, though its schedule is on."""
    night = last_fire(archive.schedule, archive.timezone, now)
    since = {"expected_start_time": {"after_": night - A_MOMENT, "before_": datetime.now(UTC)}}
    async with get_client() as client:
        deployment = await client.read_deployment_by_name(NIGHTLY_ARCHIVE)
        if deployment.paused or not any(schedule.active for schedule in deployment.schedules):
            return False
        runs = await client.read_flow_runs(
            deployment_filter=DeploymentFilter.model_validate({"id": {"any_": [deployment.id]}}),
            flow_run_filter=FlowRunFilter.model_validate(since),
        )
    return all(any(run.parameters.values()) for run in runs)  # what was asked for by hand is no night


async def _start(archive: Archive, now: datetime) -> None:
    async with get_client() as client:
        deployment = await client.read_deployment_by_name(NIGHTLY_ARCHIVE)
        on_its_way = {"state": {"type": {"not_any_": [*TERMINAL_STATES]}}, "expected_start_time": {"before_": now}}
        if await client.read_flow_runs(
            deployment_filter=DeploymentFilter.model_validate({"id": {"any_": [deployment.id]}}),
            flow_run_filter=FlowRunFilter.model_validate(on_its_way),
        ):
            return
        night = last_fire(archive.schedule, archive.timezone, now)
        log.info("The archive's night of %s was missed: it is caught up now.", f"{night:%Y-%m-%d}")
        await client.create_flow_run_from_deployment(deployment.id, idempotency_key=f"caught-up-{night:%Y-%m-%d}")
