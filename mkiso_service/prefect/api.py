"""Prefect's HTTP API and its events, as far as the webhook needs them. Prefect's own client would bring all of Prefect
into the webhook: a second of processor time at its start, and 50 MB.

Addresses and bodies are those of the description that Prefect's server gives at `/docs`.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from websockets.asyncio.client import connect

from mkiso.trust import trusting

BUSY = frozenset((408, 429, 502, 503))
"""What Prefect's server answers where it may be asked again: on SQLite, "database is locked" is 503."""
PAUSE_SECONDS = 1.0
READ_SECONDS = 30.0
KEEP_SECONDS = 2.5
"""How long a connection waits for the next question: less than Prefect's server keeps it (5 s), which would close it
while a question is on its way.
"""
LOST = (httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError)
"""A connection that the server closed instead of answering."""
LOST_PAUSE_SECONDS = 0.1
"""Where one is lost others are, and may not have been noticed yet: each of them would count as a try."""
TRIES = 3
BACKFILL = timedelta(minutes=1)
"""How far back events are told again where a subscription begins, so that none is lost between two."""
DAY = timedelta(days=1)


class PrefectApi:
    """A connection to Prefect's API; use it as `async with PrefectApi.connected(url, auth)`."""

    def __init__(self, http: httpx.AsyncClient, events: str, password: str, verify: ssl.SSLContext | None) -> None:
        self._http = http
        self._events = events
        self._password = password
        self._verify = verify
        self._ahead = timedelta()

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str, password: str) -> AsyncIterator[PrefectApi]:
        """`password` is `user:password`, or empty."""
        verify = trusting(os.environ.get("PREFECT_API_SSL_CERT_FILE"))
        user, _, secret = password.partition(":")
        async with httpx.AsyncClient(
            base_url=url,
            auth=httpx.BasicAuth(user, secret) if password else None,
            timeout=READ_SECONDS,
            verify=verify,
            limits=httpx.Limits(keepalive_expiry=KEEP_SECONDS),
            trust_env=False,  # a proxy would be told the password
        ) as http:
            yield cls(
                http, f"ws{url.removeprefix('http')}/events/out", password, verify if url.startswith("https:") else None
            )

    @property
    def now(self) -> datetime:
        """The time by the server's clock, to a second; by ours until it has answered."""
        return datetime.now(UTC) + self._ahead

    async def get(self, path: str) -> Any:
        """The answer's JSON. Raises httpx.HTTPError, ValueError where the answer isn't JSON."""
        return (await self._send("GET", path, None)).json()

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer's JSON. Raises httpx.HTTPError, ValueError where the answer isn't JSON."""
        return (await self._send("POST", path, body)).json()

    async def delete(self, path: str) -> None:
        """Raises httpx.HTTPError."""
        await self._send("DELETE", path, None)

    async def _send(self, method: str, path: str, body: dict[str, Any] | None) -> httpx.Response:
        """Ask until the server isn't busy: who calls gives it a time. Where a connection was lost ask anew: what we
        post does the same twice as once (a run has its key).
        """
        losses = 0
        while True:
            try:
                answer = await self._http.request(method, path, json=body)
            except LOST:
                if (losses := losses + 1) == TRIES:
                    raise
                await asyncio.sleep(LOST_PAUSE_SECONDS)
                continue
            with suppress(TypeError, ValueError):  # it doesn't say what time it is
                self._ahead = parsedate_to_datetime(answer.headers.get("date")) - datetime.now(UTC)
            if answer.status_code not in BUSY:
                return answer.raise_for_status()
            await asyncio.sleep(PAUSE_SECONDS)

    async def events(self, names: Collection[str]) -> AsyncIterator[str]:
        """The resource of each event of these names, as `prefect.flow-run.<id>`, some of them twice. Ends with the
        connection. Raises OSError, websockets' WebSocketException, ValueError.
        """
        async with connect(self._events, subprotocols=["prefect"], ssl=self._verify, proxy=None) as socket:  # type: ignore[list-item]
            await socket.send(json.dumps({"type": "auth", "token": self._password or None}))
            if json.loads(await socket.recv()).get("type") != "auth_success":
                raise ValueError("Prefect's events refuse our password")
            now = datetime.now(UTC)
            occurred = {"since": (now - BACKFILL).isoformat(), "until": (now + 365 * DAY).isoformat()}
            wanted = {"event": {"name": list(names)}, "occurred": occurred}
            await socket.send(json.dumps({"type": "filter", "filter": wanted}))
            async for message in socket:
                yield str(json.loads(message)["event"]["resource"]["prefect.resource.id"])
