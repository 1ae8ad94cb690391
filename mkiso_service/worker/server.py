"""`mkiso worker`: ensures the work pool and the deployments, then runs the worker until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from contextlib import suppress
from datetime import date
from functools import partial
from pathlib import Path
from subprocess import PIPE

import anyio
import httpx
from prefect.client.orchestration import get_client

from mkiso.config.settings import Settings
from mkiso.housekeeping import sweep
from mkiso.languages import language
from mkiso.pictures.process import bare_environment
from mkiso_service.ending import jobs_grace_seconds, on_signals
from mkiso_service.prefect.api import PrefectApi
from mkiso_service.prefect.environment import api_url
from mkiso_service.prefect.workers import leave, worker_name
from mkiso_service.worker.deploy import end_stranded, ensure_deployments, is_missing
from mkiso_service.worker.deployments import deployments
from mkiso_service.worker.executor import FlowRunExecution, warm_context
from mkiso_service.worker.inboxes import LOOK_SECONDS, InboxWatch
from mkiso_service.worker.orphans import Orphans
from mkiso_service.worker.worker import WarmWorker
from tasks.cleaning import standings

log = logging.getLogger("mkiso.worker")

API_POLL_SECONDS = 0.03
SWEEP_SECONDS = 3600
DEPLOYMENT_CHECK_SECONDS = 15
TROUBLED_SECONDS = 10
ANSWER_SECONDS = 5
UNANSWERED_SECONDS = 15
"""So long Prefect's server may take to start before somebody is told that it doesn't answer."""


def run(settings: Settings) -> None:
    """Run the worker in this process until SIGINT or SIGTERM; a second signal ends it at once.

    Running jobs get `server.shutdown_grace_seconds`.
    """
    language(settings.disc.language).date(date.today())  # reads 10 to 40 ms of words, which each run then has
    asyncio.run(_run(settings, FlowRunExecution(warm_context())))


async def _run(settings: Settings, execution: FlowRunExecution) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    on_signals(jobs_grace_seconds(settings.server), partial(loop.call_soon_threadsafe, stop.set), execution.kill_all)

    await _await_api(stop, api_url(settings.prefect))
    if stop.is_set():
        return
    await ensure_deployments(settings)
    if settings.archive.enabled:
        from mkiso_service.worker.missed_night import catch_up  # the ledger's SQLAlchemy, which nothing else here needs

        await catch_up(settings)
    try:
        await _serve(settings, execution, stop)
    except Exception as error:
        if not stop.is_set():
            raise
        # Prefect's worker leaves its cancel scope the wrong way where it is ended while it connects
        log.info("The worker was ended while it was starting (%s).", type(error).__name__)


async def _serve(settings: Settings, execution: FlowRunExecution, stop: asyncio.Event) -> None:
    async with execution, anyio.create_task_group() as services:
        worker = WarmWorker(
            execution,
            work_pool_name=settings.prefect.work_pool,
            name=worker_name(settings),
            # One more where there is an archive: of that, its queue lets one run at a time, which takes hours and none
            # of the clerks' places.
            limit=settings.server.max_running_jobs + settings.archive.enabled,
            prefetch_seconds=0,
            own=deployments(settings.archive),
        )
        services.start_soon(partial(worker.start, printer=log.info))
        services.start_soon(worker.wake_by_events)
        services.start_soon(worker.wake_by_ends)
        services.start_soon(worker.watch_orphans, Orphans(settings))
        services.start_soon(_sweep_regularly, settings, worker)
        services.start_soon(_look_after_deployments, settings)
        if settings.archive.enabled:
            from mkiso_service.worker.missed_night import catch_up_regularly

            services.start_soon(catch_up_regularly, settings)
        if settings.disc.pictures != "none":
            services.start_soon(_keep_fork_server, settings.storage.pictures_socket)
        if settings.inboxes:
            services.start_soon(_watch_inboxes, settings)
        await stop.wait()
        await worker.finish_or_end_runs(settings.server.shutdown_grace_seconds)
        services.cancel_scope.cancel()
    await _leave(settings)


async def _leave(settings: Settings) -> None:
    """A worker that was stopped isn't missed; where Prefect doesn't answer just then, it is until it starts again."""
    password = settings.prefect.api_auth_string.get_secret_value()
    with suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS), PrefectApi.connected(api_url(settings.prefect), password) as api:
            await leave(api, settings)


async def _sweep_regularly(settings: Settings, worker: WarmWorker) -> None:
    """Clear this machine's own folders, now, every hour, and after a job whose process could not do so itself.

    The housekeeping flow runs on one machine, and job folders lie on each.
    """
    while True:
        try:
            await asyncio.to_thread(sweep, settings, standings)
        except Exception as error:
            log.warning("Clearing old folders failed (%s); it is tried again in an hour.", type(error).__name__)
        await worker.run_broken(SWEEP_SECONDS)


async def _look_after_deployments(settings: Settings) -> None:
    """Make anew what somebody has removed from Prefect, or lost with its database: else nobody could ask, and who has
    asked would wait for ever.
    """
    while True:
        await asyncio.sleep(DEPLOYMENT_CHECK_SECONDS)
        try:
            if await is_missing(settings):
                log.warning("Prefect has lost deployments of mkiso or their work pool: they are made anew.")
                await ensure_deployments(settings)
            if ended := await end_stranded(settings):
                log.warning("%d runs waited without a work queue, which somebody has removed: they are ended.", ended)
        except Exception as error:
            log.warning("Looking after the deployments failed (%s); it is tried again.", type(error).__name__)


async def _keep_fork_server(path: Path) -> None:
    """Keep the process whose forks make pictures. It ends with this one, by its input; where it is gone, jobs make
    theirs themselves, which takes longer.
    """
    command = (sys.executable, "-P", "-m", "mkiso.pictures.fork_server", str(path))
    while True:
        try:
            async with await anyio.open_process(
                command, stdin=PIPE, stdout=None, stderr=None, env=bare_environment()
            ) as server:
                ended = f"ended with {await server.wait()}"
        except OSError as error:  # no reason to end the worker
            ended = f"doesn't start ({error.strerror})"
        log.warning("The process that forks makers of pictures %s; it is started again.", ended)
        await asyncio.sleep(TROUBLED_SECONDS)


async def _watch_inboxes(settings: Settings) -> None:
    """Start a job for each study that was sent to an inbox, once it is settled."""
    watch = InboxWatch(settings)
    while True:
        try:
            await asyncio.to_thread(watch.look)
        except Exception as error:
            log.warning("Looking at the inboxes failed (%s); it is tried again.", type(error).__name__)
            await asyncio.sleep(TROUBLED_SECONDS)
        await asyncio.sleep(LOOK_SECONDS)


async def _await_api(stop: asyncio.Event, url: str) -> None:
    """Wait until Prefect's API answers; it starts at the same time, or on another machine."""
    begun, is_told = time.monotonic(), False
    async with get_client() as client:
        while not stop.is_set():
            try:
                async with asyncio.timeout(ANSWER_SECONDS):  # by itself it asks for minutes where nobody answers
                    trouble = await client.api_healthcheck()
            except TimeoutError as error:
                trouble = error
            if trouble is None:
                return
            if not is_told and time.monotonic() - begun > UNANSWERED_SECONDS:
                words = "Prefect's API at %s doesn't answer (%s): no job begins here until it does."
                log.warning(words, url, type(trouble).__name__)
                is_told = True
            await asyncio.sleep(1 if is_told else API_POLL_SECONDS)
