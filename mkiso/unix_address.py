"""The address of a Unix socket, however long its path is."""

from __future__ import annotations

import os
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
