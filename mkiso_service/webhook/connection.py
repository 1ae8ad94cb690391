"""A connection that isn't kept by a client which begins a request and never ends it, or takes no answer: uvicorn has no
limit for that, and a thousand of them would be all that the webhook takes.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 15.0
LINGER_SECONDS = 300.0  # for the rest of an answer, on a slow line, once nothing more is to be said


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
        self._expect(more=True)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect(more=self.conn.their_state is h11.IDLE or self._is_owed_a_body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect(more=self._is_owed_a_body)

    @property
    def _is_owed_a_body(self) -> bool:
        return self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE

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
        self._expect(more=False)
        super().connection_lost(exc)

    def _expect(self, *, more: bool) -> None:
        """Begin the deadline, unless it runs already, or end it."""
        if more and self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)
        elif not more and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
