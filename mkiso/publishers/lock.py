"""One job at a publisher after another, and a pause before the same patient comes again.

A DICOM publisher groups what it gets by calling AE and patient and starts after a quiet time: two studies of one
patient that come too soon after each other become one disc, or a half study and its repetition do.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mkiso.errors import PublisherUnavailable
from mkiso.publishers.protocol import Watch
from mkiso.storage.files import seconds_old

POLL_SECONDS = 0.2


@contextmanager
def turn(lock: Path, publisher: str, watch: Watch) -> Iterator[None]:
    """Hold the publisher's lock file; the kernel frees it when the process dies, however it dies.

    Raises PublisherUnavailable where the caller stops waiting.
    """
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _locked(descriptor):
            watch.progress(f"waiting for another print at {publisher}", 0, 0)
            if watch.stop.wait(POLL_SECONDS):
                raise PublisherUnavailable(
                    f"The print was stopped while it waited for its turn at {publisher}; nothing was sent."
                )
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Settling:
    """When a publisher was last sent something of a patient: the age of a file that is named by a hash of the patient's
    ID.
    """

    def __init__(self, orders_dir: Path, publisher: str, patient_id: str, settle_seconds: float) -> None:
        name = hashlib.sha256(f"{publisher}\n{patient_id}".encode()).hexdigest()[:32]
        self._file = orders_dir / f"{name}.patient"
        self._publisher = publisher
        self._settle_seconds = settle_seconds

    def touch(self) -> None:
        """Something of this patient was sent just now."""
        self._file.touch(mode=0o600)

    def wait(self, watch: Watch) -> None:
        """Wait until the publisher must have closed this patient's last job."""
        while (left := self._left_seconds()) > 0:
            watch.progress(
                f"waiting {left:.0f} s: {self._publisher} may still be gathering an earlier study of this patient", 0, 0
            )
            if watch.stop.wait(min(left, 1)):
                raise PublisherUnavailable(f"The print was stopped while {self._publisher} settled; nothing was sent.")

    def _left_seconds(self) -> float:
        try:
            return self._settle_seconds - seconds_old(self._file)  # of a time to come: waits once, from now
        except FileNotFoundError:
            return 0
