"""A Unix socket and its address, however long its path is."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_PATH_BYTES = 107  # sun_path without its final zero (unix(7))


@contextmanager
def unix_address(path: Path) -> Iterator[str]:
    """What to bind or connect to for `path`: longer paths are reached through a descriptor of their folder. Raises
    OSError without the folder.
    """
    if len(os.fsencode(path)) <= MAX_PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def connected(path: Path, timeout_seconds: float | None) -> socket.socket:
    """A connection to the server at `path`. Each wait on it takes `timeout_seconds` at most. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_seconds)
        with unix_address(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def listening(path: Path, backlog: int) -> socket.socket:
    """A Unix socket, mode 0600, in the place of what an earlier process has left: whoever sees it can connect to it.
    Raises OSError.
    """
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with unix_address(beside) as address:
            listener.bind(address)
        beside.chmod(0o600)
        listener.listen(backlog)
        beside.replace(path)
    except BaseException:
        listener.close()
        raise
    return listener
