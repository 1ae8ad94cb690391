"""A connection that isn't kept by a client which begins a request and never ends it: uvicorn has no limit for that."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 15.0


class GuardedConnection(H11Protocol):
    """HTTP/1.1 with a deadline from a connection's first moment, or a later request's first byte, to the end of its
    header.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEADER_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:  # the header is there
            self._cancel()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """What can't be read as HTTP is answered as every error is."""
        request_id = uuid4().hex
        body = {"error": "This can't be read as an HTTP request.", "code": "invalid_http", "request_id": request_id}
        headers = [
            ("content-type", "application/json"),
            ("connection", "close"),
            ("x-request-id", request_id),
            ("cache-control", "no-store"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(json.dumps(body).encode()),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
