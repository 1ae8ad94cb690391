"""The settings that a process was started with, for those of its parts that nobody can hand them to: flows, and hooks
that Prefect calls.

The file is read when a service starts. What is saved to it afterwards, whole or half, decides nothing of a patient's
disc before the next start.
"""

from __future__ import annotations

import json
import os
from typing import IO

from pydantic import SecretStr

from mkiso.config.file import load
from mkiso.config.settings import Settings

_in_force: Settings | None = None


def use(settings: Settings) -> None:
    """Make these the settings of this process for as long as it lives."""
    global _in_force
    _in_force = settings


def in_force() -> Settings:
    """The settings of this process; where nobody gave it any, what the file says now. Raises ConfigurationError."""
    return _in_force or load()


def handed_on(settings: Settings) -> IO[bytes]:
    """A file in memory, from which a process that we start takes these settings: secrets reach neither disk, command
    line nor environment.
    """
    file = os.fdopen(os.memfd_create("settings", os.MFD_CLOEXEC), "w+b")
    values = settings.model_dump(exclude={"pacs"} if settings.sources else None)  # never both
    file.write(json.dumps(values, default=_plain).encode())
    file.seek(0)
    return file


def take_over(file: IO[bytes]) -> None:
    """Use the settings that `handed_on` wrote."""
    use(Settings.model_validate_json(file.read()))


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
