"""One job at a publisher after another, and a pause before the same patient comes again.

A DICOM publisher groups what it gets by calling AE and patient and starts after a quiet time: two studies of one
patient that come too soon after each other become one disc, or a half study and its repetition do.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mkiso.errors import PublisherUnavailable
from mkiso.publishers.protocol import Watch
from mkiso.storage.files import clock_of, descriptor_of, locked, make_beside_discs, seconds_old

POLL_SECONDS = 0.2


@contextmanager
def publisher_lock(lock: Path, publisher: str, watch: Watch) -> Iterator[Callable[[], None]]:
    """Hold the publisher lock, a file, until the end or until what is given is called; the kernel frees it when the
    process dies, however it dies.

    Raises PublisherUnavailable where the caller stops waiting.
    """
    make_beside_discs(lock.parent)
    with ExitStack() as held:
        descriptor = held.enter_context(descriptor_of(lock, os.O_RDWR | os.O_CREAT))
        while not locked(descriptor):
            watch.progress(f"waiting for another print (at {publisher})", 0, 0)
            if watch.stop.wait(POLL_SECONDS):
                raise PublisherUnavailable(
                    f"The print was stopped while it waited for another print at {publisher}; nothing was sent."
                )
        yield held.close


class Settling:
    """When a publisher was last sent something of a patient: the age, by its share's clock, of a file that is named by
    a hash of both.
    """

    def __init__(self, orders_dir: Path, where: str, patient_id: str, settle_seconds: float) -> None:
        self._file = orders_dir / f"{_hashed(where, patient_id)}.patient"
        self._settle_seconds = settle_seconds

    def touch(self) -> None:
        """Something of this patient was sent just now."""
        self._file.touch(mode=0o600)

    def left_seconds(self) -> float:
        """How long until the publisher must have closed this patient's last job; 0 where it has."""
        if not self._file.exists():
            return 0
        try:
            # Of a time to come: waits once, from now.
            age = seconds_old(self._file, clock_of(self._file.with_suffix(f".{secrets.token_hex(4)}.new")))
        except FileNotFoundError:
            return 0
        return max(0.0, self._settle_seconds - age)


def lock_name(where: str, use: str = "") -> str:
    """The lock file's name of a publisher, however it is called: what two names lead to takes one job after another.
    `use`: what else of it only one job may have.
    """
    return f"{_hashed(where, use) if use else _hashed(where)}.lock"


def lock_name_of_patient(where: str, patient_id: str) -> str:
    """The lock file's name of a patient at a publisher. Some patients share one: nobody could clear away a file for
    each.
    """
    return lock_name(where, f"patients {_hashed(patient_id)[:2]}")


def _hashed(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]
