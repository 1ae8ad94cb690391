"""Files that are whole or not there: replaced in one step, on the disk before anybody is told."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Replace a file in one step; mode 0600. `durable`: it has reached the disk when this returns."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    beside.replace(path)
    if durable:
        sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Make a file's bytes reach the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seconds_old(path: Path) -> float:
    """How long ago a file or folder was changed, never less than 0. Raises FileNotFoundError.

    What a clock that was ahead has dated into the future is dated anew, to when it is first seen: from then on it grows
    old like everything else.
    """
    now, changed = time.time(), path.stat().st_mtime
    if changed > now:
        with suppress(OSError):  # where it may only be read
            os.utime(path, (now, now))
    return max(0.0, now - changed)


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
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)
