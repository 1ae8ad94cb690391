"""Files that grow by lines, to which several processes add."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def append_line(file: Path, line: bytes, *, durable: bool = False) -> None:
    """Add a line, by one write, so that lines of several processes don't mix (O_APPEND); the file is made where there
    is none, mode 0600. `durable`: its bytes have reached the disk when this returns.

    What a power cut or a full disk has left of the line before costs no other. Raises OSError, also where there is room
    for only a part of it.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        begin = b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""
        whole = b"%b%b\n" % (begin, line)
        if os.write(descriptor, whole) < len(whole):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
