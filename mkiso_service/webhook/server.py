"""`mkiso webhook`: the application under uvicorn until it is told to stop; what is under way then has the grace time to
end.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from mkiso.config.settings import Settings
from mkiso.errors import ConfigurationError
from mkiso_service.log_lines import begin_logging
from mkiso_service.webhook.app import build_app
from mkiso_service.webhook.connection import GuardedConnection
from mkiso_service.webhook.orchestrator import Orchestrator, PrefectOrchestrator
from mkiso_service.webhook.question import MAX_QUERY_BYTES

log = logging.getLogger("mkiso.webhook")

KEEP_ALIVE_SECONDS = (
    75  # longer than nginx keeps its idle connections to us (60), so it never sends into one that is closing
)
MAX_CONNECTIONS = 1000
DESCRIPTORS = 4096  # a download takes two: its connection and its disc
WAITERS_SHARE = 0.7  # of the grace time; the rest is for telling those who still wait where to ask again


def run(settings: Settings, stop: threading.Event) -> None:
    """Serve until `stop` is set. Raises ConfigurationError where the address can't be had."""
    begin_logging(settings.logging)
    asyncio.run(_run(settings, stop))


async def _run(settings: Settings, stop: threading.Event) -> None:
    async with PrefectOrchestrator.connected(settings) as orchestrator:
        await serve(settings, orchestrator, stop)


async def serve(settings: Settings, orchestrator: Orchestrator, stop: threading.Event) -> None:
    """Serve with this orchestrator until `stop` is set: no new connections then, downloads end, waiters are told, all
    within the grace time.
    """
    _raise_descriptor_limit()
    settings.storage.discs_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    closing = asyncio.Event()
    server = _Server(
        uvicorn.Config(
            build_app(settings, orchestrator, closing),
            host=settings.server.host,
            port=settings.server.port,
            http=GuardedConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=True,
            forwarded_allow_ips=list(settings.server.trusted_proxies),  # and not FORWARDED_ALLOW_IPS of the environment
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, int(settings.server.shutdown_grace_seconds)),
            h11_max_incomplete_event_size=2 * MAX_QUERY_BYTES,
        )
    )
    serving = asyncio.create_task(server.serve())
    while not stop.is_set() and not serving.done():
        await asyncio.sleep(0.1)
    server.should_exit = True
    asyncio.get_running_loop().call_later(settings.server.shutdown_grace_seconds * WAITERS_SHARE, closing.set)
    try:
        await serving
    except SystemExit:  # uvicorn's way to say that it can't listen
        raise ConfigurationError(
            f"The webhook can't listen on {settings.server.host}:{settings.server.port}: is the port in use?"
        ) from None


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        log.info("The webhook listens on %s port %s.", self.config.host, self.config.port)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the business of whoever set `stop`."""
        yield


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
