"""The settings that a process was started with, for those of its parts that nobody can hand them to: flows, and hooks
that Prefect calls.

The file is read when a service starts. What is saved to it afterwards, whole or half, decides nothing of a patient's
disc before the next start.
"""

from __future__ import annotations

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
