"""`mkiso webhook`: the application under uvicorn until it is told to stop; what is under way then has the grace time to
end. A connection isn't kept by a client which begins a request and never ends it, or takes no answer: uvicorn has no
limit for that, and a thousand of them would be all that the webhook takes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import h11
import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from mkiso.config.settings import Settings
from mkiso.tcp_address import bound, plain_address
from mkiso_service.log_lines import begin_logging
from mkiso_service.prefect.orchestrator import Orchestrator, PrefectOrchestrator
from mkiso_service.webhook.app import build_app
from mkiso_service.webhook.questions.query import MAX_QUERY_BYTES

HEADER_SECONDS = 15.0
LINGER_SECONDS = 300.0  # for the rest of an answer, on a slow line, once nothing more is to be said
log = logging.getLogger("mkiso.webhook")
KEEP_ALIVE_SECONDS = 75
"""Longer than nginx keeps its idle connections to us (60), so it never sends into one that is closing."""
MAX_CONNECTIONS = 1000
MOST_OF_ONE = MAX_CONNECTIONS // 2
"""Of one address, behind which may be a terminal server with a hundred clerks."""
DESCRIPTORS = 4096  # a download takes two: its connection and its disc
WAITERS_SHARE = 0.7  # of the grace time; the rest is for telling those who still wait where to ask again


class _Closing:
    """A transport whose closing comes to an end, whether or not the client takes what is left."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        if not self._transport.is_closing() and self._transport.get_write_buffer_size():
            self._loop.call_later(LINGER_SECONDS, self._transport.abort)
        self._transport.close()


class GuardedConnection(H11Protocol):
    """HTTP/1.1 with a deadline from a connection's first moment, or a later request's first byte, to the end of its
    header, and from the end of an answer to the end of a body that nobody has waited for.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Closing(transport, self.loop))  # type: ignore[arg-type]
        if self.client:
            self.client = plain_address(self.client[0]), self.client[1]
        self._expect(more=True)
        if self._is_one_too_many:
            words = "Too many connections come from this address: close some, and ask again."
            self._answer_and_close(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections", words)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect(more=self.conn.their_state is h11.IDLE or self._is_owed_a_body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect(more=self._is_owed_a_body)

    @property
    def _host(self) -> str:
        return self.client[0] if self.client else ""

    @property
    def _is_one_too_many(self) -> bool:
        """Whether this address has more connections than one may, and is no proxy's, who counts for itself."""
        host = self._host
        held = sum(isinstance(each, GuardedConnection) and each._host == host for each in self.connections)
        is_proxy = isinstance(self.app, ProxyHeadersMiddleware) and host in self.app.trusted_hosts
        return held > MOST_OF_ONE and not is_proxy

    @property
    def _is_owed_a_body(self) -> bool:
        return self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE

    def send_400_response(self, msg: str) -> None:
        """What can't be read as HTTP is answered as every error is."""
        self._answer_and_close(HTTPStatus.BAD_REQUEST, "invalid_http", "This can't be read as an HTTP request.")

    def _answer_and_close(self, status: HTTPStatus, code: str, words: str) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # an answer is on its way already
            self.transport.abort()
            return
        request_id = uuid4().hex
        body = {"error": words, "code": code, "request_id": request_id}
        headers = [
            ("content-type", "application/json"),
            ("connection", "close"),
            ("x-request-id", request_id),
            ("cache-control", "no-store"),
        ]
        for event in (
            h11.Response(status_code=status, headers=headers, reason=status.phrase.encode()),
            h11.Data(f"{json.dumps(body)}\n".encode()),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(more=False)
        super().connection_lost(exc)

    def _expect(self, *, more: bool) -> None:
        """Begin the deadline, unless it runs already, or end it."""
        if more and self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)
        elif not more and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


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
    settings.storage.discs_dir.mkdir(mode=0o700, exist_ok=True)
    closing = asyncio.Event()
    server = _Server(
        settings.server.address,
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
        ),
    )
    keys = "server.host", "server.port"
    listener = bound("The webhook", settings.server.host, settings.server.port, keys)
    serving = asyncio.create_task(server.serve([listener]))
    while not stop.is_set() and not serving.done():
        await asyncio.sleep(0.1)
    server.should_exit = True
    asyncio.get_running_loop().call_later(settings.server.shutdown_grace_seconds * WAITERS_SHARE, closing.set)
    await serving


class _Server(uvicorn.Server):
    def __init__(self, address: str, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        words = "The webhook listens on %s port %s; the counter page is %s/."
        log.info(words, self.config.host, self.config.port, self._address)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the business of whoever set `stop`."""
        yield


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
