"""From a peer's data set to the folders of the jobs that expect it: written once, checked, linked into all of them or
none.

Linux: an instance is a spare file (mkiso.storage.spare_files) or an unnamed one until it is linked. What ends early
leaves nothing behind, but for a receiver that is killed: the spares that it was filling go at its next start.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp
from typing import NoReturn

from mkiso.config.storage import Storage
from mkiso.dataset.header import Identity, begin_identity, read_identity
from mkiso.dataset.part10 import file_head
from mkiso.errors import DamagedInstance
from mkiso.network import dimse
from mkiso.receiver.expectations import NOBODY, NOT_EXPECTED, Expectations, Expected
from mkiso.receiver.hashing import Digest, Hashing
from mkiso.storage.files import sha256_of
from mkiso.storage.room import GIB
from mkiso.storage.spare_files import SpareFiles
from mkiso.study.selection import is_uid

# Jobs start only with storage.min_free_gib free; those that run may use of it all but this part, which leaves room for
# the disc and the logs.
RESERVE = 0.1
HELD_BYTES = 512 * 1024
"""Written and handed to the hashing thread at once: a call and a waking for each PDU cost more than the work."""
PIECE_BYTES = 64
"""Memory that a piece takes beside its bytes: a sender may send one at a time."""
PIECES_AT_ONCE = 1024  # of one writev (IOV_MAX)


class Refused(Exception):
    """The instance isn't stored: the C-STORE's status (PS3.4 B.2.3) and why, without anything about the patient."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class NoRoom(Refused):
    """The disk is full: the jobs that wait for the instance are told, since the PACS's own words won't say so."""


@dataclass(frozen=True, slots=True)
class Whole:
    """An instance that has come in and is what its C-STORE said: a Part 10 file that has no place yet."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    size: int
    digest: Digest
    descriptor: int
    sender: frozenset[str] = NOBODY
    series_instance_uid: str = ""


class Spool:
    """Where instances land before they are linked into the folders of jobs, and the bounds that hold there."""

    def __init__(self, storage: Storage, max_instance_gib: float, expectations: Expectations) -> None:
        self.folder = storage.incoming_dir
        self.spares = SpareFiles(storage.spares_dir)
        self.expectations = expectations
        self.max_instance_bytes = int(max_instance_gib * GIB)
        self._reserve_bytes = int(storage.min_free_gib * RESERVE * GIB)

    @classmethod
    def of_one(cls, storage: Storage, max_instance_gib: float, expected: Expected) -> Spool:
        """A spool that takes what one job expects, and nothing else."""
        expectations = Expectations()
        expectations.add(expected)
        storage.incoming_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(storage, max_instance_gib, expectations)

    def open(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        hashing: Hashing,
        sender: frozenset[str] = NOBODY,
    ) -> Incoming:
        """Begin an instance from `sender` (AE title and address). Raises Refused before a byte of it is read where it
        can't be stored."""
        if not (is_uid(sop_instance_uid) and is_uid(sop_class_uid)):
            raise Refused(dimse.INVALID_SOP_INSTANCE, "its SOP Class or Instance UID is no UID")
        self.admit(sop_instance_uid)
        free = os.statvfs(self.folder)
        if free.f_bavail * free.f_frsize < self._reserve_bytes:
            raise NoRoom(dimse.OUT_OF_RESOURCES, "the disk is nearly full")
        return Incoming(self, sop_class_uid, sop_instance_uid, transfer_syntax_uid, hashing, sender)

    def admit(self, sop_instance_uid: str) -> None:
        """Raises Refused where nobody expects it, whatever its study is."""
        if not self.expectations.may_want(sop_instance_uid):
            raise Refused(dimse.NOT_AUTHORIZED, NOT_EXPECTED)

    def coming(self, study_instance_uid: str) -> None:
        """More of an instance of this study has come."""

    def give(self, whole: Whole, by: str) -> None:
        """Link an instance into the folder of every job that expects it, and tell them. Raises Refused where nobody
        expects it, or a job has other bytes under its UID already.
        """
        uid = whole.sop_instance_uid
        with self.expectations.giving(whole.study_instance_uid, uid, whole.sender, whole.series_instance_uid) as jobs:
            if not jobs:
                raise Refused(dimse.NOT_AUTHORIZED, NOT_EXPECTED)
            _link(jobs, whole, self.folder)
            told = [job for job in jobs if uid not in job.arrived]
            for job in told:
                job.arrived[uid] = whole.digest

        def tell(sha256: str) -> None:
            for job in told:
                job.tell_arrival(uid, whole.sop_class_uid, whole.transfer_syntax_uid, whole.size, sha256)

        whole.digest.then(tell)


class Incoming:
    """One instance while it comes in: a Part 10 file in the making. Close it whatever happens."""

    def __init__(
        self,
        spool: Spool,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        hashing: Hashing,
        sender: frozenset[str],
    ) -> None:
        self._spool = spool
        self._sender = sender
        self._uids = sop_class_uid, sop_instance_uid, transfer_syntax_uid
        head = file_head(sop_class_uid, sop_instance_uid, transfer_syntax_uid)
        self._data_set_offset = self.size = self._held_bytes = len(head)
        self._held = [head]
        self._digest = hashing.begin()
        self._begun: tuple[Identity, int] | None = None
        try:
            self._descriptor, self._name = spool.spares.take(spool.folder) or _open(spool.folder)
        except OSError as error:
            refuse(error)

    def write(self, piece: bytes) -> None:
        """Take a piece of the data set as it came. Raises Refused where the disk is full or the instance too large."""
        if self.size == self._data_set_offset:
            self._begun = begin_identity(piece, self._uids[2])
        self.size += len(piece)
        if self._begun is not None:
            self._spool.coming(self._begun[0].study_instance_uid)
        if self.size > self._spool.max_instance_bytes:
            raise Refused(dimse.OUT_OF_RESOURCES, "it is larger than receiver.max_instance_gib")
        self._held.append(piece)
        self._held_bytes += len(piece) + PIECE_BYTES
        if self._held_bytes >= HELD_BYTES:
            self._pass_on()

    def deliver(self, by: str) -> Identity:
        """Check the whole instance and give it to whom it is for; which it is. `by`: who sent it.

        Raises Refused where it is damaged, isn't what its C-STORE said, or isn't taken.
        """
        sop_class_uid, sop_instance_uid, transfer_syntax_uid = self._uids
        self._pass_on()
        self._digest.finish()  # the last piece is hashed while the file is checked and linked
        identity = self._identity(transfer_syntax_uid)
        if (identity.sop_class_uid, identity.sop_instance_uid) != (sop_class_uid, sop_instance_uid):
            raise Refused(dimse.DOES_NOT_MATCH_SOP_CLASS, "its data set isn't the instance that its C-STORE names")
        study, series = identity.study_instance_uid, identity.series_instance_uid
        whole = Whole(*self._uids, study, self.size, self._digest, self._descriptor, self._sender, series)
        self._spool.give(whole, by)
        return identity

    def close(self) -> None:
        os.close(self._descriptor)
        if self._name is not None:
            with suppress(OSError):  # a disk that fails; housekeeping tries it again, and the next start
                self._name.unlink()

    def _identity(self, transfer_syntax_uid: str) -> Identity:
        """Of the whole data set, by what its beginning said where its size bears that out. Raises Refused."""
        if self._begun is not None and self._begun[1] == self.size - self._data_set_offset:
            return self._begun[0]
        try:
            return read_identity(self._descriptor, self._data_set_offset, transfer_syntax_uid, self._spool.folder)
        except DamagedInstance as error:
            raise Refused(dimse.CANNOT_UNDERSTAND, error.words) from None
        except OSError as error:  # no room to inflate it
            refuse(error)

    def _pass_on(self) -> None:
        """Write what is held, and have it hashed: many small PDUs in one call of each."""
        pieces, self._held, self._held_bytes = self._held, [], 0
        self._digest.add(pieces)
        try:
            for start in range(0, len(pieces), PIECES_AT_ONCE):
                batch = pieces[start : start + PIECES_AT_ONCE]
                written = os.writev(self._descriptor, batch)
                if written < sum(map(len, batch)):  # a nearly full disk
                    _write_all(self._descriptor, memoryview(b"".join(batch))[written:])
        except OSError as error:
            refuse(error)


@contextmanager
def _named(whole: Whole, folder: Path) -> Iterator[None]:
    """A name of the receiver's own, in `folder`, while several jobs are given a file: what has one name alone is its
    job's to cut and to be filled anew (mkiso.storage.spare_files), and the next job would have another's image.
    """
    status = os.fstat(whole.descriptor)
    if status.st_nlink:
        yield
        return
    name = folder / str(status.st_ino)
    give_name(whole, str(name))
    try:
        yield
    finally:
        name.unlink(missing_ok=True)


def give_name(whole: Whole, path: str) -> None:
    """A name for its file, which may have none yet. Raises FileExistsError and what else the system says."""
    # linkat(2) follows the link in /proc only where it is called with a folder; the source is absolute, so any
    # descriptor serves.
    os.link(f"/proc/self/fd/{whole.descriptor}", path, src_dir_fd=whole.descriptor, follow_symlinks=True)


def _link(jobs: list[Expected], whole: Whole, folder: Path) -> None:
    """Link the file into the folder of every job that hasn't got it, or into none. A job that has other bytes under
    its UID is told so. `folder` is the receiver's.
    """
    linked: list[str] = []
    sop_instance_uid = whole.sop_instance_uid
    conflicting = [
        job
        for job in jobs
        if sop_instance_uid in job.arrived and job.arrived[sop_instance_uid].value() != whole.digest.value()
    ]
    waiting = [] if conflicting else [job for job in jobs if sop_instance_uid not in job.arrived]
    try:
        with _named(whole, folder) if len(waiting) > 1 else nullcontext():
            for job in waiting:
                path = f"{job.folder}/{sop_instance_uid}"
                try:
                    give_name(whole, path)
                    linked.append(path)
                except FileExistsError:  # from an earlier run of the job
                    if sha256_of(Path(path)) != whole.digest.value():
                        conflicting.append(job)
        if not conflicting:
            return
    except OSError as error:
        _unlink(linked)
        refuse(error)
    _unlink(linked)
    for job in conflicting:
        job.tell_conflict(sop_instance_uid)
    raise Refused(dimse.TWO_VERSIONS, "other bytes came under its SOP Instance UID before")


def _open(folder: Path) -> tuple[int, Path | None]:
    """A new file's descriptor, and its name where the file system has no unnamed files."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), None
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
        descriptor, name = mkstemp(dir=folder)
        return descriptor, Path(name)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _unlink(paths: list[str]) -> None:
    for path in paths:
        Path(path).unlink(missing_ok=True)


def refuse(error: OSError) -> NoReturn:
    """Raise Refused for what the system says."""
    kind = NoRoom if error.errno in (errno.ENOSPC, errno.EDQUOT) else Refused
    raise kind(dimse.OUT_OF_RESOURCES, f"it can't be written: {error.strerror}") from None
