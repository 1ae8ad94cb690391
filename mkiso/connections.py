"""The connections of an HTTP client, to be ended while threads wait on them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpcore
import httpx


class Connections:
    """Those that requests have opened which it follows."""

    def __init__(self) -> None:
        self._streams: list[httpcore.NetworkStream] = []
        self._ended = False

    def end(self) -> None:
        """End all there are and will be: who waits on one, also for an answer that hasn't begun, is told that it is
        lost.
        """
        self._ended = True
        for stream in list(self._streams):
            _shut(stream)

    @contextmanager
    def ending_after(self, seconds: float) -> Iterator[None]:
        """End them so much later, unless all is done by then, whatever is waited for, a handshake within a proxy's
        TLS too: httpx's limit is for each read, and a server may send a byte of its header at a time. For a client of
        one answer.
        """
        timer = threading.Timer(seconds, self.end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def follow(self, request: httpx.Request) -> None:
        """A client's event hook for requests."""
        request.extensions["trace"] = self._take

    def _take(self, event: str, told: dict[str, Any]) -> None:
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):  # within a proxy's tunnel, too
            self._streams.append(told["return_value"])
            if self._ended:
                _shut(told["return_value"])


def _shut(stream: httpcore.NetworkStream) -> None:
    with suppress(OSError):  # SSLSocket.shutdown would go on in plain text, until it is shut
        socket.socket.shutdown(stream.get_extra_info("socket"), socket.SHUT_RDWR)
