"""Files that are whole or not there: replaced in one step, on the disk before anybody is told, read as what was written
or not at all.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import BinaryIO, TypeVar
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from mkiso.errors import StorageUnreadable

T = TypeVar("T")
MAX_BYTES = 1 << 26
"""Of what is read in one piece: the marks of a disc of 100 GB have 10 MB."""


USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""How the system says that it can open nothing more just now: that tells nothing of a file."""


class Unreadable(Exception):
    """In a file's place is something else than what was written there; says what, and none of its content. `is_there`:
    what was written may be there, and the system can't read it just now; `errno`: why, as the system has it.
    """

    def __init__(self, words: str, *, is_there: bool = False, errno: int | None = None) -> None:
        super().__init__(words)
        self.is_there = is_there
        self.errno = errno

    def refuse_if_there(self, what: str) -> None:
        """Raise StorageUnreadable, so that nobody takes for lost what can't be read just now."""
        if self.is_there:
            raise StorageUnreadable(f"{what} can't be read just now ({self}). Ask again.") from None


@contextmanager
def descriptor_of(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """The descriptor of a file or folder, open until the `with` ends; a file that is made has mode 0600."""
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def private(path: str, flags: int) -> int:
    """The `opener` with which a new file can be read by its owner alone."""
    return os.open(path, flags, 0o600)


def write_whole(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Replace a file in one step; mode 0600. `durable`: it has reached the disk when this returns."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        with open(beside, "wb", opener=private) as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    except OSError:  # no room, or a folder in its place
        with suppress(OSError):
            beside.unlink()
        raise
    if durable:
        sync_folder(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file to be written and read, mode 0600, which takes the place of `path` when this ends well, and is gone
    otherwise.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with open(beside, "w+b", opener=private) as file:
            yield file
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_at(descriptor: int, data: bytes | memoryview, place: int) -> None:
    """Write all of it at a place; several threads may do so."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, place)
        view, place = view[count:], place + count


def read_whole(path: Path) -> bytes:
    """A file that is read in one piece. Raises FileNotFoundError, Unreadable."""
    try:
        with descriptor_of(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:  # a pipe has nobody who writes
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unreadable("it is no file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:  # a folder, a link to itself; too many open files, no permission, a failing disk
        is_there = error.errno not in (errno.EISDIR, errno.ELOOP, errno.ENXIO)
        words = error.strerror or type(error).__name__
        raise Unreadable(words, is_there=is_there, errno=error.errno) from None
    if len(content) > MAX_BYTES:
        raise Unreadable("it is too large")
    return content


def read_json(path: Path, kind: TypeAdapter[T]) -> T:
    """What was written as JSON, of the type that was written. Raises FileNotFoundError, Unreadable: nothing, half,
    zeros, something else.
    """
    try:
        return kind.validate_json(read_whole(path), strict=True)
    except ValidationError:
        raise Unreadable("it isn't what was written") from None


def find_json(path: Path, kind: TypeAdapter[T]) -> T | None:
    """As read_json; None where that can't be read."""
    with suppress(FileNotFoundError, Unreadable):
        return read_json(path, kind)
    return None


def json_lines(path: Path, kind: TypeAdapter[T]) -> Iterator[T]:
    """What was added as lines of JSON (mkiso.lines), the first first; what a power cut or a full disk has left of a
    line is passed over.
    """
    with suppress(FileNotFoundError, Unreadable):
        for line in read_whole(path).splitlines():
            with suppress(ValidationError):
                yield kind.validate_json(line, strict=True)


def sync_file(path: Path) -> None:
    """Make a file's bytes reach the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder reach the disk."""
    with descriptor_of(folder, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)


def clock_of(probe: Path) -> float:
    """The time by the clock that dates the files of a probe's folder, in seconds since the epoch: a share's are dated
    by its server.

    The probe is written anew and removed. Raises OSError, also where somebody has put a link in its place.
    """
    if not probe.is_symlink():
        probe.unlink(missing_ok=True)
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, b".")  # on some shares an empty file keeps our own clock's time
        os.fsync(descriptor)
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        probe.unlink(missing_ok=True)


def moment_of(seconds: float) -> str:
    """A time since 1970 in ISO 8601, UTC; empty where a harmed file says what no calendar has, as the year 10000."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return ""


def moment_in(written: str, zone: tzinfo | None = None) -> datetime | None:
    """A moment (ISO 8601) in a time zone, this machine's by default; None where what is written is none, or lies before
    the year 1 or after 9999 there.
    """
    try:
        return datetime.fromisoformat(written).astimezone(zone)
    except (ValueError, OverflowError):
        return None


def seconds_old(path: Path, now: float | None = None) -> float:
    """How long ago a file or folder was changed, never less than 0. `now` is by the clock that dated it, ours by
    default. Raises FileNotFoundError.

    What a clock that was ahead has dated into the future is dated anew, to when it is first seen: from then on it grows
    old like everything else.
    """
    now, changed = time.time() if now is None else now, path.stat().st_mtime
    if changed > now:
        with suppress(OSError):  # where it may only be read
            os.utime(path, (now, now))
    return max(0.0, now - changed)


def locked(descriptor: int) -> bool:
    """Whether this file is locked for us alone now: not where somebody else holds it. The kernel frees it when the
    descriptor is closed, or the process dies.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def make_beside_discs(folder: Path) -> None:
    """A folder in that of the discs. Never what these lie in: where the storage that several machines share is away,
    this one would begin anew below its mount point, with order books of its own. Raises FileNotFoundError there.
    """
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, exist_ok=True)


def hold(folder: Path) -> int:
    """Make a folder and hold it, so that `alone_in` finds somebody there; the descriptor to close. The kernel lets go
    of it when the process dies.
    """
    while True:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), folder.stat()):
                    return descriptor
            os.close(descriptor)  # it was taken away between making and holding it


@contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Whether nobody holds a folder; nobody can until the `with` ends. Raises FileNotFoundError."""
    with descriptor_of(folder, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        yield locked(descriptor)


def is_uuid(text: str) -> bool:
    """Whether it is a UUID as jobs and discs are named by: in small letters, with its hyphens (RFC 9562 4)."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
