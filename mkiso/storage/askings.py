"""Who asked for a job, and when: a line for each, beside the job's report, so that every webhook knows of a job from
the moment that it is asked for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from mkiso.config.settings import Storage
from mkiso.storage.files import Unreadable, read_whole

By = Literal["page", "link", "program"]
SUFFIX = ".asked"


@dataclass(frozen=True, slots=True)
class Asking:
    """One who asked: `who` (a client's address), by our own page, a link in a browser or a program. What was asked for
    stands in each, since a job that waits has no report yet.
    """

    time: str
    who: str
    by: By
    kind: str
    accession_numbers: tuple[str, ...]
    publisher: str = ""


_ASKING = TypeAdapter(Asking)


def asking(who: str, by: By, kind: str, accession_numbers: tuple[str, ...], publisher: str) -> Asking:
    """One who asks now."""
    return Asking(datetime.now(UTC).isoformat(timespec="milliseconds"), who, by, kind, accession_numbers, publisher)


def write_asking(storage: Storage, job_id: str, asked: Asking) -> None:
    """Add one who asked. One write, so that lines of several webhooks don't mix (O_APPEND)."""
    storage.reports_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = storage.reports_dir / f"{UUID(job_id)}{SUFFIX}"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, _ASKING.dump_json(asked) + b"\n")
    finally:
        os.close(descriptor)


def read_askings(file: Path) -> tuple[Asking, ...]:
    """Everybody who asked, the first first; what a power cut or a full disk has left of a line is passed over."""
    try:
        lines = read_whole(file).splitlines()
    except (FileNotFoundError, Unreadable):
        return ()
    found = []
    for line in lines:
        try:
            found.append(_ASKING.validate_json(line))
        except ValidationError:
            continue
    return tuple(found)
