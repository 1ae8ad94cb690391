"""The Prefect server of mkiso: Prefect's own, but for ten things.

It answers nobody without the password, and no page of another site (mkiso_service/prefect/gate.py). Of Prefect's two
UIs it serves the one that asks nobody outside.

On SQLite, Prefect begins its writing transactions DEFERRED. Where two overlap, SQLite refuses the second at once
("database is locked", no waiting for busy_timeout), the API answers 503 and its client comes back two seconds later: a
clerk in ten waits for that. Begun IMMEDIATE, the second waits its few milliseconds (docs/decisions/prefect.md has the
measurement). Events of every step's states, of artifacts and heartbeats are passed on to who listens and not written
down: they were three quarters of what a job left in the database. A run's id says when it was made, by which its report
is found (docs/decisions/reports-by-day.md). Which runs are due it says by its own clock. Where that was ahead and is
set back, schedules go on (`go_on_by`). And its log looks like all others of mkiso (mkiso_service/prefect/logging.yaml).
Where PostgreSQL can't be had it answers 503, which its clients ask again after, and not 500.

Run as `mkiso prefect`, with the environment of mkiso_service/prefect/environment.py.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

import asyncpg  # type: ignore[import-untyped]
import prefect
import sqlalchemy as sa
import uvicorn
from docket import Docket
from prefect.server import schemas
from prefect.server.api import server
from prefect.server.api.background_workers import background_worker
from prefect.server.api.server import create_app
from prefect.server.database import PrefectDBInterface, dependencies, orm_models, provide_database_interface
from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.server.events.services import event_persister
from prefect.server.events.storage.database import write_events
from prefect.server.models import flow_runs, workers
from prefect.server.services import db_vacuum
from prefect.server.services.perpetual_services import get_enabled_perpetual_services
from prefect.settings import (
    PREFECT_API_DATABASE_CONNECTION_URL,
    PREFECT_API_DATABASE_MIGRATE_ON_START,
    get_current_settings,
    temporary_settings,
)
from prefect.settings import Settings as PrefectSettings
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

from mkiso.config.settings import Settings
from mkiso.errors import ConfigurationError
from mkiso.tcp_address import bound
from mkiso_service.ending import SERVER_GRACE_SECONDS, end_within
from mkiso_service.prefect.database import check_whole, is_migrated, make_database
from mkiso_service.prefect.gate import Gate, known_hosts

PASSING_EVENTS = ("prefect.task-run.", "prefect.artifact", "prefect.flow-run.heartbeat")
"""How the names of events begin that come many times a job and tell nothing that its states, artifacts and logs don't
keep.
"""

CLOCK_LOOK_SECONDS = 10.0
SETTLING_SECONDS = 5.0
"""After its start until Prefect's services have certainly begun, on a busy machine, too."""

_create_run: Callable[..., Awaitable[orm_models.FlowRun]] = flow_runs.create_flow_run
_is_retryable = server.is_client_retryable_exception
_scheduled_runs: Callable[..., Awaitable[Sequence[schemas.responses.WorkerFlowRunResponse]]] = (
    workers.get_scheduled_flow_runs
)
_environment_variables = PrefectSettings.to_environment_variables
_delete_batch = db_vacuum._delete_flow_run_batch
NO_FOLDER = Path("/nonexistent")
"""Of Prefect's second UI, which asks an analytics host on the internet."""
SELLS_NOTHING = '<script>localStorage.setItem("prefect-show-promotional-content", "false")</script>'

log = logging.getLogger("mkiso.prefect")


class ImmediateSqlite(AioSqliteConfiguration):
    """Prefect's SQLite configuration with every writing transaction begun IMMEDIATE.

    Not what begins within another transaction: Prefect reads there by a session of its own, which would wait for the
    one around it, and with it everybody for the minute of busy_timeout.
    """

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        if SQLITE_BEGIN_MODE.get() is not None:
            async with super().begin_transaction(session, with_for_update) as transaction:
                yield transaction
            return
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            await session.connection()  # begins it now
            token = SQLITE_BEGIN_MODE.set("DEFERRED")
            try:
                yield transaction
            finally:
                SQLITE_BEGIN_MODE.reset(token)


async def write_lasting_events(session: AsyncSession, events: Sequence[ReceivedEvent]) -> None:
    """Write down what isn't a passing event."""
    await write_events(
        session=session, events=[event for event in events if not event.event.startswith(PASSING_EVENTS)]
    )


async def create_run(
    session: AsyncSession, flow_run: schemas.core.FlowRun, orchestration_parameters: dict[str, Any] | None = None
) -> orm_models.FlowRun:
    """As Prefect's own, with the id that Prefect's schema has for it, a UUIDv7. Since nobody has set that one, Prefect
    would leave it out and let the database make one by chance.
    """
    flow_run.id = flow_run.id  # it counts as set from now on
    made: orm_models.FlowRun = await _create_run(
        session=session, flow_run=flow_run, orchestration_parameters=orchestration_parameters
    )
    return made


def is_retryable(exc: Exception) -> bool:
    """As Prefect's own, and where PostgreSQL can't be reached or has no connection left: with 503 whoever asks comes
    back, and with 500 a job ended, or a worker with all of its jobs. Prefect's own log says nothing of such an answer.
    """
    if isinstance(exc, (OSError, asyncpg.TooManyConnectionsError)):
        number = getattr(exc, "errno", None) or 0  # below 0 where it is getaddrinfo's own
        why = os.strerror(number) if number > 0 else type(exc).__name__
        log.warning("A request can't be answered just now: %s. Whoever asks is told to ask again.", why)
        return True
    return _is_retryable(exc)


async def due_runs(**asked: Any) -> Sequence[schemas.responses.WorkerFlowRunResponse]:
    """As Prefect's own, by this server's clock. By the worker's, where that is minutes behind, each job would wait for
    so long, and where it is ahead, a run for later would begin.
    """
    return await _scheduled_runs(**asked | {"scheduled_before": datetime.now(UTC)})


def _looking(db: PrefectDBInterface) -> AbstractAsyncContextManager[AsyncSession]:
    """A session that keeps nobody from writing (SQLite), or has no time limit (PostgreSQL)."""
    on_sqlite = isinstance(db.database_config, AioSqliteConfiguration)
    return db.session_context() if on_sqlite else db_vacuum._maintenance_session(db)


async def delete_old_runs(
    db: PrefectDBInterface, condition: sa.ColumnElement[bool], limit: int, ids_per_statement: int
) -> Sequence[UUID]:
    """As Prefect's own, where there are any: it looks for them in a transaction in which on SQLite nobody else writes,
    half a second of a start with 200,000 runs, and each hour.
    """
    async with _looking(db) as session:
        if not (await session.execute(sa.select(db.FlowRun.id).where(condition).limit(1))).all():
            return []
    return await _delete_batch(db, condition, limit, ids_per_statement)


async def delete_orphans(
    db: PrefectDBInterface, model: type[orm_models.Log | orm_models.Artifact], batch_size: int
) -> int:
    """Delete the log lines or artifacts of runs that are gone; how many there were.

    Prefect walks all runs in steps of 200, each with a transaction of its own: 2,000 of them with 200,000 runs, for 40
    seconds after each start, and on SQLite every job waited among them.
    """
    ids = sa.select(model.flow_run_id).where(model.flow_run_id.is_not(None))
    gone = ids.except_(sa.select(db.FlowRun.id)).limit(batch_size)
    deleted = 0
    while True:
        async with _looking(db) as session:
            runs = (await session.execute(gone)).scalars().all()
        if not runs:
            return deleted
        exists = sa.exists().where(db.FlowRun.id == model.flow_run_id)
        found = sa.and_(model.flow_run_id.in_(runs), ~exists)
        deleted += await db_vacuum._batch_delete(db, model, found, batch_size)


@asynccontextmanager
async def minding_the_clock(docket: Docket, **modes: bool) -> AsyncGenerator[None]:
    """Prefect's own services, by a clock that may be wrong."""
    async with background_worker(docket, **modes):
        watch = asyncio.create_task(go_on_by(docket, time.time))
        try:
            yield
        finally:
            watch.cancel()


async def go_on_by(docket: Docket, clock: Callable[[], float]) -> None:
    """Have schedules go on where the clock is set back, now or since the last start.

    Prefect's services rest until the time that they have set themselves, so they would rest as long as the clock was
    ahead; and where three runs of a schedule are to come, however late, it makes none before them.
    """
    ahead = math.inf
    while True:
        before, ahead = ahead, clock() - time.monotonic()
        if before - ahead > CLOCK_LOOK_SECONDS:
            services = get_enabled_perpetual_services() if before < math.inf else []
            try:
                await _forget_what_comes_later()
                for service in services:
                    await docket.replace(service.function, datetime.now(UTC), service.function.__name__)()
                if services:
                    log.warning("The clock was set back by %.0f s: schedules go on by it.", before - ahead)
            except Exception as error:
                log.warning("Schedules don't go by the clock yet (%s): it is tried again.", type(error).__name__)
                ahead = before
        await asyncio.sleep(CLOCK_LOOK_SECONDS)


async def _forget_what_comes_later() -> None:
    """Delete the scheduled runs that a clock which was ahead has made, and let Prefect make those again that have begun
    by it before their time: it makes no two of one key.
    """
    db, now = provide_database_interface(), datetime.now(UTC)
    run = db.FlowRun
    made = run.auto_scheduled.is_(True), run.created > now, run.state_type == "SCHEDULED", run.run_count == 0
    begun = run.auto_scheduled.is_(True), run.start_time > now, run.expected_start_time > now
    async with db.session_context(begin_transaction=True) as session:
        await session.execute(sa.delete(run).where(*made))
        await session.execute(sa.update(run).where(*begun).values(idempotency_key=None))


def run(settings: Settings) -> None:
    """Run the server in this process until SIGTERM. Raises ConfigurationError where it would answer everybody, or its
    database is damaged.
    """
    if get_current_settings().server.api.auth_string is None:
        raise ConfigurationError(
            "Prefect's API has no password: set prefect.api_auth_string, or remove it and let mkiso make one."
        )
    with temporary_settings({PREFECT_API_DATABASE_MIGRATE_ON_START: not _is_ready_made()}):
        _serve(settings)


def _is_ready_made() -> bool:
    """Whether the database is SQLite and has nothing to be migrated; made, where there is none yet. Raises
    ConfigurationError where it is damaged.
    """
    try:
        url = make_url(PREFECT_API_DATABASE_CONNECTION_URL.value())
    except ArgumentError:
        raise ConfigurationError("PREFECT_SERVER_DATABASE_CONNECTION_URL is no database URL.") from None
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return False
    check_whole(Path(url.database))
    make_database(Path(url.database))
    return is_migrated(Path(url.database))


def _serve(settings: Settings) -> None:
    api = get_current_settings().server.api
    keys = "PREFECT_SERVER_API_HOST of the environment", "prefect.server_port"
    listener = bound("Prefect's server", api.host, api.port, keys)  # before the seconds that its application takes
    dependencies.AioSqliteConfiguration = ImmediateSqlite  # type: ignore[attr-defined]
    event_persister.write_events = write_lasting_events  # type: ignore[attr-defined]
    flow_runs.create_flow_run = create_run
    workers.get_scheduled_flow_runs = due_runs
    server.is_client_retryable_exception = is_retryable
    server.background_worker = minding_the_clock  # type: ignore[attr-defined, assignment]
    db_vacuum._delete_orphaned_by_flow_run = delete_orphans
    db_vacuum._delete_flow_run_batch = delete_old_runs
    prefect.__ui_v2_static_path__ = NO_FOLDER  # what isn't there isn't served, and no button leads to it
    PrefectSettings.to_environment_variables = _without_secrets  # type: ignore[method-assign, assignment]
    app = create_app(final=True)  # begins the logging, too
    if ui := get_current_settings().server.ui.static_directory:
        for folder in Path(ui).rglob("*/"):
            folder.chmod(0o700)  # a copy of Prefect's, with the modes of its folders
        for index in Path(ui).rglob("index.html"):
            _sell_nothing(index)
    log.info("Prefect's server starts on %s port %s.", api.host, api.port)
    config = uvicorn.Config(
        Gate(app, known_hosts(settings, api.host)),
        lifespan="on",
        host=api.host,
        port=api.port,
        timeout_keep_alive=api.keepalive_timeout,
        ws_ping_interval=api.websocket_ping_interval,
        ws_ping_timeout=api.websocket_ping_timeout,
        log_config=None,
        access_log=False,
        server_header=False,
    )
    _Server(config).run([listener])


def _without_secrets(settings: PrefectSettings, **how: bool) -> dict[str, str]:
    """As Prefect's own, which looks through all settings for secrets, 0.06 s each time: making the application asks for
    a key of its cache, twice, and for the levels of the log.
    """
    return _environment_variables(settings, **how | {"include_secrets": False})


def _sell_nothing(index: Path) -> None:
    """A browser that asks for the password learns only after it that there are no promotions, so its page says so."""
    page = index.read_text(encoding="utf-8")
    if SELLS_NOTHING not in page:
        index.write_text(page.replace("<head>", f"<head>{SELLS_NOTHING}", 1), encoding="utf-8")


class _Server(uvicorn.Server):
    _answers_since = math.inf

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._answers_since = time.monotonic()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn's; at once where it has only just started: nothing is under way, and a service of Prefect's that
        is stopped before it has begun ends in a traceback.
        """
        if time.monotonic() - self._answers_since < SETTLING_SECONDS:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        end_within(SERVER_GRACE_SECONDS)
        super().handle_exit(sig, frame)
