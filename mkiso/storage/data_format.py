"""The format number of the data, in a file of each folder that holds any: an older mkiso refuses what it would misread
(docs/decisions/reports-by-day.md).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter

from mkiso.config.storage import Storage
from mkiso.errors import ConfigurationError, why_refused
from mkiso.storage.files import Unreadable, read_json, write_whole
from mkiso.storage.room import NO_ROOM

FORMAT = 1
"""One more where the version before would misread, or not find, what this one writes."""
_NUMBER = TypeAdapter(int)
log = logging.getLogger("mkiso.storage")


def newer_data(storage: Storage) -> Iterator[str]:
    """What an older mkiso may not touch, in words: no process of it can run then. A folder without a number is from
    before there was any. Raises StorageUnreadable.
    """
    for key, folder in _folders(storage):
        file = format_file(folder)
        try:
            if (number := read_json(file, _NUMBER)) > FORMAT:
                yield (
                    f"{key} {folder} holds data of a newer mkiso (format {number}; this one knows {FORMAT}): install "
                    "that one again. To go back all the same, see docs/operating.md, Upgrade"
                )
        except FileNotFoundError:
            continue
        except Unreadable as error:
            error.refuse_if_there(f"{key} {folder}: what says whether a newer mkiso wrote there, its file {file.name},")
            yield (
                f"{key} {folder}: its file {file.name} can't be read ({error}), so nobody knows whether a newer mkiso "
                "wrote there. Where none did, remove that file and start mkiso again, which makes a new one"
            )


def require_known(storage: Storage) -> None:
    """Raises ConfigurationError where the data is a newer mkiso's, StorageUnreadable."""
    if found := tuple(newer_data(storage)):
        raise ConfigurationError(f"{'. '.join(found)}.", found)


def note_format(storage: Storage) -> None:
    """Write down that data of this form lies there from now on. Raises ConfigurationError, StorageUnreadable."""
    require_known(storage)
    try:
        storage.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _, folder in _folders(storage):
            file = format_file(folder)
            if not file.exists() or read_json(file, _NUMBER) < FORMAT:
                write_whole(file, f"{FORMAT}\n", durable=True)
    except OSError as error:
        where = error.filename or storage.data_dir
        if error.errno not in NO_ROOM:
            raise ConfigurationError(f"{where} can't be written: {why_refused(error)}.") from None
        log.warning("%s can't be written: the disk is full. The next start tries it again.", where)
    require_known(storage)  # a newer mkiso may have started meanwhile


def _folders(storage: Storage) -> Iterator[tuple[str, Path]]:
    yield "storage.data_dir", storage.data_dir
    if storage.shared_dir:
        yield "storage.shared_dir", storage.shared_dir


def format_file(folder: Path) -> Path:
    """Where the number of a folder stands."""
    return folder / "format"
