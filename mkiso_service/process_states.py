"""What the supervisor of a data folder tells of its processes, for whoever looks after them."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from mkiso.config.storage import Storage
from mkiso.storage.files import find_json

START_SECONDS = 60
"""How long a process may take to be there when it is started."""
RECENT_SECONDS = 600
"""How long it is remembered that a process has ended by itself."""


class ProcessState(TypedDict, total=False):
    """A process as the supervisor told of it. In seconds since 1970: when it was begun, or the supervisor, where it
    wasn't yet (`begun`), and when it ended by itself lately (`ended`).
    """

    up: bool
    pid: int | None
    begun: float
    ended: list[float]


def process_states(storage: Storage) -> dict[str, ProcessState]:
    """What the supervisor last wrote of each process. Empty where no `mkiso serve` runs in this folder."""
    return find_json(states_file(storage), TypeAdapter(dict[str, ProcessState])) or {}


def called(name: str) -> str:
    """A process as a sentence begins with it."""
    return "Prefect's server" if name == "prefect" else f"The {name}"


def is_starting(storage: Storage) -> bool:
    """Whether processes are being started for the first time, and none had to be started again."""
    states, now = process_states(storage).values(), time.time()
    return not any(state.get("ended") for state in states) and any(
        0 <= now - state.get("begun", 0) < START_SECONDS
        and ((pid := state.get("pid")) is None or Path(f"/proc/{pid}").exists())
        for state in states
    )


def states_file(storage: Storage) -> Path:
    """Where that stands."""
    return storage.data_dir / "processes.json"
