"""Discs on the shelf are read again: before nginx sends one whose file was touched, and all in turn by housekeeping.

What mkiso sends itself is proved as it leaves (mkiso.storage.marks).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mkiso.config.storage import Storage
from mkiso.errors import JobNotFound, ProofFailed, StorageUnreadable
from mkiso.storage.marks import NOT_KEPT, NOT_PROVED, ProvedSpan
from mkiso.storage.shelf import Appearance, Manifest, last_seen, manifests, note_seen, open_image, take_off
from mkiso.study.models import count_words

BYTES_PER_SECOND = 100e6
"""A disk of 200 MB/s still has half of its time for jobs and clerks."""
BEGIN_WITHIN_SECONDS = 120.0
"""After this long no other disc is begun: the housekeeping run takes a job's place. In an hour that is 12 GB."""
AGAIN_AFTER = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Reread:
    """How many discs were read again; how many weren't what was proved and left the shelf with their sets."""

    discs: int
    taken_off: int

    def require_all_right(self) -> None:
        """Raises ProofFailed where a disc left the shelf: a memory or a disk may be at fault."""
        if self.taken_off:
            raise ProofFailed(
                f"{self.taken_off} of {count_words(self.discs, 'disc')} on the shelf "
                f"{'was' if self.taken_off == 1 else 'were'} not what was proved. What is wrong was taken off with the "
                "rest of its set, and is made again at the next question. Check the memory and the disk of the disc "
                "store."
            )


def require_right(storage: Storage, disc: Manifest) -> None:
    """Before somebody else sends a disc's file: read it whole, unless it looks as when it was last read and right.

    Raises ProofFailed, JobNotFound.
    """
    with open_image(storage, disc) as image:
        appearance = Appearance.of(image.descriptor)
    if appearance != last_seen(storage, disc)[0]:
        read_whole(storage, disc)


def read_whole(storage: Storage, disc: Manifest, after: Callable[[int], None] = lambda size: None) -> None:
    """Read a disc's image from the disk and prove every byte; `after` hears of the size of each piece.

    Raises ProofFailed, JobNotFound.
    """
    with open_image(storage, disc) as image:
        before = Appearance.of(image.descriptor)
        os.posix_fadvise(image.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # what lies in memory says nothing of the disk
        span = ProvedSpan(image, 0, disc.size)
        while piece := span.read():
            after(len(piece))
        os.posix_fadvise(image.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # nor does this push out what others read
        if not os.fstat(image.descriptor).st_nlink:  # which changes how it looks, and nothing is damaged
            raise JobNotFound(NOT_KEPT)
        if Appearance.of(image.descriptor) != before:
            raise ProofFailed(NOT_PROVED)
    note_seen(storage, disc, before)


def reread_shelf(
    storage: Storage, clock: Callable[[], float] = time.monotonic, wait: Callable[[float], None] = time.sleep
) -> Reread:
    """Read discs again that nobody has read whole for six hours: the longest ago first, slowly, for a bounded time."""
    now = datetime.now(UTC)
    seen = sorted((last_seen(storage, disc)[1], disc.disc_id, disc) for disc in manifests(storage))
    due = [disc for when, _, disc in seen if not now - AGAIN_AFTER <= when <= now]  # nor is a time to come a proof
    begun, read = clock(), 0

    def keep_pace(size: int) -> None:
        nonlocal read
        read += size
        if (early := read / BYTES_PER_SECOND - (clock() - begun)) > 0:
            wait(early)

    discs = taken_off = 0
    for disc in due:
        if clock() - begun > BEGIN_WITHIN_SECONDS:
            break
        try:
            read_whole(storage, disc, keep_pace)
            discs += 1
        except (JobNotFound, StorageUnreadable):  # removed meanwhile, or to be read later
            continue
        except ProofFailed:
            take_off(storage, disc)
            discs, taken_off = discs + 1, taken_off + 1
    return Reread(discs, taken_off)
