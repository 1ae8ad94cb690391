"""What the supervisor of a data folder tells of its processes, for whoever looks after them."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from mkiso.config.storage import Storage
from mkiso.storage.files import Unreadable, read_json

RECENT_SECONDS = 600
"""How long it is remembered that a process has ended by itself."""


class ProcessState(TypedDict, total=False):
    """A process as the supervisor told of it; `ended`: when it ended by itself lately, in seconds since 1970."""

    up: bool
    pid: int | None
    ended: list[float]


def process_states(storage: Storage) -> dict[str, ProcessState]:
    """What the supervisor last wrote of each process. Empty where no `mkiso serve` runs in this folder."""
    try:
        return read_json(states_file(storage), TypeAdapter(dict[str, ProcessState]))
    except (FileNotFoundError, Unreadable):
        return {}


def states_file(storage: Storage) -> Path:
    """Where that stands."""
    return storage.data_dir / "processes.json"
