"""An HTTP server whose answer never begins, or never goes on, though something comes all the time."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

HEAD = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "a header a byte at a time": (HEAD, b"a"),
    "answers before the answer": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a chunk's length a byte at a time": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
}
EACH_SECONDS = 0.05


@contextmanager
def dripping(what: str, tunnel: ssl.SSLContext | None = None) -> Iterator[int]:
    """One of DRIPS at the port that is given, to everybody. `tunnel`: it is a proxy, whose tunnels (RFC 9110 9.3.6)
    lead to it over TLS.
    """
    begin, each = DRIPS[what]
    stop = threading.Event()

    def drip(taken: socket.socket) -> None:
        with taken, suppress(OSError):
            taken.recv(65_536)
            if tunnel:
                taken.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                taken = tunnel.wrap_socket(taken, server_side=True)
                taken.recv(65_536)
            taken.sendall(begin)
            while not stop.wait(EACH_SECONDS):
                taken.sendall(each)

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
