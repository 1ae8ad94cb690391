"""Files as soon as whoever wrote them has closed them (inotify(7))."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

IN_CLOSE_WRITE, IN_CREATE, IN_ISDIR = 0x8, 0x100, 0x40000000
EVENT = struct.Struct("iIII")


def closed_after_writing(folder: Path, stop: threading.Event) -> Iterator[Path]:
    """Files of the folder and of the folders that are made in it, until `stop`."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.inotify_init1(os.O_NONBLOCK)
    watched = {library.inotify_add_watch(descriptor, bytes(folder), IN_CREATE): folder}
    try:
        while not stop.is_set():
            if not select.select([descriptor], [], [], 0.05)[0]:
                continue
            events = os.read(descriptor, 65536)
            while events:
                watch, mask, _, length = EVENT.unpack_from(events)
                file = watched[watch] / os.fsdecode(events[EVENT.size : EVENT.size + length].rstrip(b"\0"))
                events = events[EVENT.size + length :]
                if mask & IN_ISDIR:
                    watched[library.inotify_add_watch(descriptor, bytes(file), IN_CLOSE_WRITE)] = file
                elif mask & IN_CLOSE_WRITE:
                    yield file
    finally:
        os.close(descriptor)
