"""When each named key was used last: the time of an empty file, which every webhook sees."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

from mkiso.config.storage import Storage
from mkiso.storage.files import make_beside_discs, moment_of

EVERY_SECONDS = 60.0
"""How exactly a use is noted: a program may ask a hundred times a second."""


class KeyUse:
    """Notes and tells uses. Safe to use from several threads."""

    def __init__(self, storage: Storage) -> None:
        self._folder = storage.keys_dir
        self._noted: dict[str, float] = {}
        self._lock = threading.Lock()

    def is_due(self, name: str) -> bool:
        """Whether a use that happens now is to be noted."""
        with self._lock:
            return time.monotonic() - self._noted.get(name, float("-inf")) >= EVERY_SECONDS

    def note(self, name: str) -> None:
        """The key of this name is used now. Raises OSError."""
        with self._lock:
            self._noted[name] = time.monotonic()
        make_beside_discs(self._folder)
        (self._folder / name).touch(mode=0o600)

    def last_used(self, names: Iterable[str]) -> dict[str, str]:
        """When each of these keys was used last (ISO 8601, UTC); empty where it never was."""
        return {name: _time_of(self._folder / name) for name in names}


def _time_of(file: Path) -> str:
    try:
        return moment_of(file.stat().st_mtime)
    except OSError:
        return ""
