"""The kinds of robots with a watched folder; apart from their settings, since `mkiso --help` names them at once."""

from __future__ import annotations

from typing import Literal

RobotKind = Literal["epson", "primera", "rimage", "folder"]
