"""The network between two peers, as a test likes it: cut, silent, or led to somebody else."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Self


class Link:
    """Listens on a free port and passes everything on to `target`, a port of this machine that may change at any time;
    0: nobody is there.

    `connections` counts what was connected, `carried` the bytes that came back from the target. `on_carried` hears of
    each growth of it. Where what is sent to the target holds `hush_at`, it is silent from there on. Where an answer
    holds `lose_at`, `on_lost` is called instead of passing it on, and then every connection breaks: once.
    """

    def __init__(self, target: int = 0, hush_at: bytes = b"", lose_at: bytes = b"") -> None:
        self.target = target
        self.hush_at = hush_at
        self.lose_at = lose_at
        self.on_lost: Callable[[], object] = lambda: None
        self.connections = 0
        self.carried = 0
        self.on_carried: Callable[[Link], None] | None = None
        self._flowing = threading.Event()
        self.hushed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: list[socket.socket] = []
        self._cut: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self._flowing.set()
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.mend()
        self.cut()
        for thread in self._threads:
            thread.join()

    def hush(self) -> None:
        """From now on nothing is passed on, while every connection stays open."""
        self._flowing.clear()
        self.hushed.set()

    def cut(self) -> None:
        """Break every connection with RST, on both sides."""
        ends, self._sockets = self._sockets, []  # whoever comes back meanwhile isn't cut again
        for end in ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._cut.add(end)
                end.shutdown(socket.SHUT_RD)  # wakes the thread that reads it, which closes it: with RST

    def mend(self) -> None:
        """Pass on again."""
        self.on_carried = None
        self._flowing.set()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.socket()
            if not self.target or far.connect_ex(("127.0.0.1", self.target)):
                near.close()
                far.close()
                continue
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.extend((near, far))
            for source, sink, back in ((near, far, False), (far, near, True)):
                self._threads.append(threading.Thread(target=self._carry, args=(source, sink, back)))
                self._threads[-1].start()

    def _carry(self, source: socket.socket, sink: socket.socket, back: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.hush_at and self.hush_at in data and not back:
                    self.hush()
                if self.lose_at and self.lose_at in data and back:
                    self.lose_at = b""
                    self.on_lost()
                    self.cut()
                    break
                self._flowing.wait()
                sink.sendall(data)
                if back:
                    self.carried += len(data)
                    if self.on_carried is not None:
                        self.on_carried(self)
        if source not in self._cut:
            for end in (sink, source):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        source.close()


@contextmanager
def far_away(target: int, seconds: float) -> Iterator[int]:
    """The port of a way to `target` for one connection, on which each byte takes that long, however many are on it."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(("127.0.0.1", target)) as far:
        ends: list[socket.socket] = [far]
        threads: list[threading.Thread] = []

        def lead() -> None:
            near, _ = listener.accept()
            ends.append(near)
            for end in ends:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink in ((near, far), (far, near)):
                on_it: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
                threads.append(threading.Thread(target=_depart, args=(source, on_it)))
                threads.append(threading.Thread(target=_arrive, args=(on_it, sink, seconds)))
            for thread in threads:
                thread.start()

        leading = threading.Thread(target=lead)
        leading.start()
        try:
            yield listener.getsockname()[1]
        finally:
            leading.join()
            for end in ends:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
            for end in ends:
                end.close()


def _depart(source: socket.socket, on_it: SimpleQueue[tuple[float, bytes]]) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            on_it.put((time.monotonic(), data))
    on_it.put((0, b""))


def _arrive(on_it: SimpleQueue[tuple[float, bytes]], sink: socket.socket, seconds: float) -> None:
    with suppress(OSError):
        while (piece := on_it.get())[1]:
            time.sleep(max(0.0, piece[0] + seconds - time.monotonic()))
            sink.sendall(piece[1])
        sink.shutdown(socket.SHUT_WR)
