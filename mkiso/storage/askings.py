"""Who asked for a job, and when: a line for each, beside the job's report, so that every webhook knows of a job from
the moment that it is asked for.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from mkiso.config.disc import Disc
from mkiso.config.section import TransferSyntax
from mkiso.config.storage import Storage
from mkiso.errors import JobNotFound
from mkiso.lines import append_line
from mkiso.storage.files import json_lines
from mkiso.storage.report_files import ASKED, file_of, make_folder
from mkiso.study.question import ISO, Question
from mkiso.study.selection import EVERYTHING, Selection

By = Literal["page", "link", "program", "inbox"]
MAX_BYTES = 256 * 1024
"""Of one job's file: a program that asks for the same disc all day; the audit goes on naming who asked."""


@dataclass(frozen=True, slots=True)
class Asking:
    """One who asked: `who` (a client's address), by our own page, a link in a browser or a program, or who sent to an
    inbox (`who`: AE title and address). What was asked for stands in each, since a job that waits has no report yet.
    `user` and `name` are the person's or the key's, empty where nobody has to say. `format` is of a download's discs;
    `language` and `transfer_syntax` are the disc's, also where they are the site's.
    """

    time: str
    who: str
    by: By
    kind: str
    accession_numbers: tuple[str, ...]
    publisher: str = ""
    user: str = ""
    name: str = ""
    selection: Selection = EVERYTHING
    format: str = ISO
    language: str = ""
    transfer_syntax: TransferSyntax = "as-archived"
    deidentified: bool = False


_ASKING = TypeAdapter(Asking)


def asking(who: str, by: By, question: Question, disc: Disc, *, user: str = "", name: str = "") -> Asking:
    """One who asks now. `disc`: what the question says nothing of."""
    return Asking(
        datetime.now(UTC).isoformat(timespec="milliseconds"),
        who,
        by,
        question.kind,
        question.accession_numbers,
        question.publisher,
        user,
        name,
        question.selection,
        question.format,
        disc.language,
        disc.transfer_syntax,
        question.deidentified,
    )


def write_asking(storage: Storage, job_id: str, asked: Asking) -> None:
    """Add one who asked, unless MAX_BYTES are full. Raises OSError."""
    file = file_of(storage, job_id, ASKED)
    while True:
        make_folder(storage, file)
        with suppress(FileNotFoundError):  # housekeeping has just removed the empty folder
            if not file.exists() or file.stat().st_size < MAX_BYTES:
                append_line(file, _ASKING.dump_json(asked))
            os.utime(file.parent)  # a longer file alone doesn't date its folder, and who looks may pass over an old one
            break


def askings_of(storage: Storage, job_id: str) -> tuple[Asking, ...]:
    """Everybody who asked for a job, the first first; empty where `job_id` is no UUID."""
    try:
        return read_askings(file_of(storage, job_id, ASKED))
    except JobNotFound:
        return ()


def read_askings(file: Path) -> tuple[Asking, ...]:
    """Everybody who asked, the first first."""
    return tuple(json_lines(file, _ASKING))
