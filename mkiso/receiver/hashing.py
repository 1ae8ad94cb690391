"""SHA-256 of what one association receives, beside it: hashlib lets go of the GIL, so another core hashes while the
next bytes come in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Semaphore, Thread

MAX_WAITING = 16  # batches of pieces may wait for the thread; then the association does


class Digest:
    """The hash of one instance: bytes are added as they come, in order; the value is there some time after `finish`."""

    def __init__(self, hashing: Hashing) -> None:
        self._hashing = hashing
        self._hash = hashlib.sha256()
        self._value = ""
        self._unknown = Lock()
        self._unknown.acquire()

    def add(self, pieces: list[bytes]) -> None:
        """Hash these next; nobody may change the list any more."""
        self._hashing.put(lambda: self._take(pieces))

    def finish(self) -> None:
        """Nothing more comes."""
        self._hashing.put(self._finish)

    def value(self) -> str:
        """In hexadecimal, once it is known: any thread may wait for it after `finish`."""
        with self._unknown:
            return self._value

    def then(self, tell: Callable[[str], None]) -> None:
        """Have `tell` called with the value, in the hashing thread."""
        self._hashing.put(lambda: tell(self._value))

    def _take(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._hash.update(piece)

    def _finish(self) -> None:
        self._value = self._hash.hexdigest()
        self._unknown.release()


class Hashing:
    """The thread of one association; it begins with the first instance. What is put is done in order."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._room = Semaphore(MAX_WAITING)
        self._thread: Thread | None = None

    def begin(self) -> Digest:
        """The digest of an instance."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name="hashing")
            self._thread.start()
        return Digest(self)

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
