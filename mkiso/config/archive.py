"""The nightly archive."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, SecretStr

from mkiso.config.section import Medium, NamedPath, Section

_OF_MACHINES = ("localtime", "posixrules", "Factory")
"""Files beside the time zones that are none, and which Prefect doesn't take."""


def _is_cron(line: str) -> str:
    try:
        CronSim(line, datetime(2000, 1, 1))
        if (fields := len(line.split())) != 5:  # a sixth is for seconds: a night for each of them
            raise CronSimError(f"{fields} fields")
    except CronSimError as error:
        raise ValueError(
            f"{line!r} is no cron line ({error}): five fields, minute, hour, day, month, day of the week, as in "
            "'0 2 * * *'"
        ) from None
    return line


def _is_time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
        if name in _OF_MACHINES:
            raise ZoneInfoNotFoundError(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone: a name of the IANA database, as Europe/Berlin") from None
    return name


def _is_modality(code: str) -> str:
    if not re.fullmatch(r"[A-Z0-9_ ]{1,16}", code):  # VR CS (PS3.5 6.2)
        raise ValueError(f"{code!r} is no modality: capital letters, as CT, MR")
    return code


CronLine = Annotated[str, AfterValidator(_is_cron)]
TimeZoneName = Annotated[str, AfterValidator(_is_time_zone)]


class Archive(Section):
    """The nightly archive."""

    enabled: bool = False
    schedule: CronLine = "0 2 * * *"
    timezone: TimeZoneName = "UTC"
    days_back: int = Field(1, ge=1, le=366)
    recheck_days: int = Field(30, ge=0, le=3660)
    medium: Medium = "dvd"
    volume_mib: int = Field(0, ge=0)
    modalities: tuple[Annotated[str, AfterValidator(_is_modality)], ...] = ()
    output: str = "store"
    directory: NamedPath = Path("archive")
    ledger_url: SecretStr = SecretStr("")
    max_attempts: int = Field(5, ge=1)
