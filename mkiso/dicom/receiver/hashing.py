"""SHA-256 of what one association receives, beside it: hashlib lets go of the GIL, so another core hashes while the next bytes come in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Semaphore, Thread

PIECES_BYTES = 512 * 1024  # handed over at once: waking the thread for each PDU costs more than hashing one
MAX_WAITING = 16  # of these may wait for the thread; then the association does


class Digest:
    """The hash of one instance: bytes are added as they come, in order; the value is there some time after `finish`."""

    def __init__(self, hashing: Hashing, head: bytes) -> None:
        self._hashing = hashing
        self._pieces = [head]
        self._size = 0
        self._hash = hashlib.sha256()
        self._value = ""
        self._unknown = Lock()
        self._unknown.acquire()

    def add(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= PIECES_BYTES:
            self._hand_over()

    def finish(self) -> None:
        """Nothing more comes."""
        self._hand_over(last=True)

    def value(self) -> str:
        """In hexadecimal, once it is known: any thread may wait for it after `finish`."""
        with self._unknown:
            return self._value

    def then(self, tell: Callable[[str], None]) -> None:
        """Have `tell` called with the value, in the hashing thread."""
        self._hashing.put(lambda: tell(self._value))

    def _hand_over(self, *, last: bool = False) -> None:
        pieces, self._pieces, self._size = self._pieces, [], 0
        self._hashing.put(lambda: self._take(pieces, last))

    def _take(self, pieces: list[bytes], last: bool) -> None:
        for piece in pieces:
            self._hash.update(piece)
        if last:
            self._value = self._hash.hexdigest()
            self._unknown.release()


class Hashing:
    """The thread of one association; it begins with the first instance. What is put is done in order."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._room = Semaphore(MAX_WAITING)
        self._thread: Thread | None = None

    def begin(self, head: bytes) -> Digest:
        """The digest of an instance that begins with `head`."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name="hashing")
            self._thread.start()
        return Digest(self, head)

    def put(self, work: Callable[[], None]) -> None:
        self._room.acquire()
        self._waiting.put(work)

    def close(self) -> None:
        """Wait until everything is hashed and told."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (work := self._waiting.get()) is not None:
            work()
            self._room.release()
