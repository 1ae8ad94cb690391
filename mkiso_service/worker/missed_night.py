"""A night of the archive that was missed, because the machine was down, is caught up when the worker starts."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
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


async def catch_up(settings: Settings) -> None:
    """Of an archive that is enabled: owe its days from its first start on, and start it where a night was missed and no
    run is on its way. Trouble is only logged.
    """
    archive, now = settings.archive, datetime.now(UTC)
    first = first_day(archive.schedule, archive.timezone, archive.days_back, now)
    try:
        note_owed_from(settings.storage, first)
        with Ledger.open(settings) as ledger:
            owe(ledger, first, now.astimezone(ZoneInfo(archive.timezone)).date())
            done = searched(ledger)
    except (MkisoError, SQLAlchemyError) as error:
        reason = error.words if isinstance(error, MkisoError) else type(error).__name__
        log.error("Whether a night of the archive was missed can't be told: %s", reason)
        return
    if was_missed(archive.schedule, archive.timezone, archive.days_back, done, now):
        await _start(archive, now)


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
