"""Ledger, data directory and store of an archive know each other by the ledger's id, which stands in all three.
Strangers are refused.

    data_dir/volumes/.place           the data directory's own name, the ledger's id, how many volumes it planned
    archive.directory/.mkiso-archive  the store's own name, the ledger's id

Whoever looks after the machine may have changed `archive.ledger_url`, restored a database, mounted nothing or another
folder: a run that went on would delete what a ledger hasn't seen, or forget what it has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Set
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, with_config

from mkiso.errors import ArchiveUnusable
from mkiso.storage.files import Unreadable, read_json, read_whole, write_whole

ADOPT = "Where that is meant: `mkiso archive adopt`."


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class Mark:
    """What a data directory says of itself; empty where it says nothing. Those of earlier versions name the place
    alone. `owed_from`: the archive's first day (ISO 8601), for a ledger that couldn't be had when it began.
    """

    place: str = ""
    archive: str = ""
    planned: int = 0
    label: str = ""
    owed_from: str = ""


_MARK = TypeAdapter(Mark)


def read_mark(file: Path) -> Mark:
    """Raises ArchiveUnusable where the file is damaged."""
    try:
        text = read_whole(file).strip()
        if re.fullmatch(rb"([0-9a-f]{32})?", text):  # an earlier version's
            return Mark(place=text.decode())
        return read_json(file, _MARK)
    except FileNotFoundError:
        return Mark()
    except Unreadable as error:
        raise ArchiveUnusable(
            f"{file} is damaged, or this user may not read it ({error}): whose data directory this is can't be told. "
            "Give it back to the user that mkiso runs as, or restore it from a backup."
        ) from None


def write_mark(file: Path, mark: Mark) -> None:
    write_whole(file, json.dumps(asdict(mark)), durable=True)


@dataclass(frozen=True, slots=True)
class Known:
    """What a ledger says of itself: its id (empty where it has none yet), whether its database had no tables, the
    places that it knows.
    """

    archive: str
    is_new: bool
    places: Set[str]


class Meeting(Enum):
    """How a ledger and a data directory, or a store, come together."""

    SAME = "they know each other"
    JOIN = "a directory that belongs to nobody joins the archive"
    RETURN = "a ledger from before it had an id gets the one that the directory knows"
    FOUND = "both are new: an archive begins"


def meet(mark: Mark, has_volumes: bool, ledger: Known) -> Meeting:
    """Whether a ledger may be used with a data directory; `has_volumes`: something lies under `volumes`. Raises
    ArchiveUnusable.
    """
    known = mark.place in ledger.places
    if mark.archive:
        if ledger.archive:
            if mark.archive == ledger.archive:
                return Meeting.SAME
            raise ArchiveUnusable(_words("The archive's ledger is another one than this data directory belongs to"))
        if known:
            return Meeting.RETURN
        what = "is empty" if ledger.is_new else "doesn't know this data directory"
        raise ArchiveUnusable(_words(f"The archive's ledger {what}, and the data directory belongs to another one"))
    if has_volumes and mark.place and not known:
        raise ArchiveUnusable(_words("The archive's ledger doesn't know this data directory, in which volumes lie"))
    if ledger.archive:
        return Meeting.JOIN
    if ledger.is_new and (mark.place or has_volumes):
        raise ArchiveUnusable(
            _words("The archive's ledger is empty, and the data directory has been used with another one")
        )
    return Meeting.FOUND


def _words(what: str) -> str:
    why = "Was archive.ledger_url changed, or another database restored? Use the ledger that it was."
    return f"{what}. Nothing was touched. {why} {ADOPT}"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class StoreMark:
    """What a store says of itself."""

    store: str
    archive: str


@dataclass(frozen=True, slots=True)
class Shelf:
    """A directory beside what the ledger has of it: the labels of volumes that lie in it, those that the ledger has
    as stored in a directory of this name, and whether it knows a store of this name; on whichever machine, since a
    name says nothing of what is mounted there.
    """

    labels: Set[str]
    stored: Set[str]
    used: bool


def meet_store(mark: StoreMark | None, archive: str, shelf: Shelf) -> Meeting:
    """Whether a directory may be the store of an archive. Raises ArchiveUnusable, above all for the empty folder
    that something was mounted on.
    """
    if mark is not None:
        if mark.archive == archive:
            return Meeting.SAME
        raise ArchiveUnusable(
            f"archive.directory is the store of another archive. Nothing was touched. Name the one that it was. {ADOPT}"
        )
    if shelf.labels & shelf.stored:
        return Meeting.RETURN
    if shelf.used or shelf.stored:
        raise ArchiveUnusable(
            "The archive's store isn't there: in archive.directory lies none of what was stored in it. Is it mounted? "
            f"Mount it. {ADOPT}"
        )
    if shelf.labels:
        raise ArchiveUnusable(
            f"In archive.directory lie volumes that the ledger knows nothing of, such as {min(shelf.labels)}. "
            f"Nothing was touched. Was another ledger restored, or another folder mounted? {ADOPT}"
        )
    return Meeting.JOIN
