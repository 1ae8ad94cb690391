"""What was sent to inboxes, as it lies on the disk: a folder for each study, written by the receiver, read by the
worker and by jobs.

inboxes/<AE title>/<Study Instance UID>/instances/      Part 10 files, named by SOP Instance UID; never replaced
                                        arrivals.jsonl  a line for each of them: what it is and who sent it
                                        conflicts       the SOP Instance UIDs of which other bytes came and were refused
                                        cleared         the SOP Instance UIDs of what lay there and was cleared away
                                        asked.json      the jobs that were asked for (mkiso.inboxes)

A file in `instances` is whole and has reached the disk. A line may be missing after a power cut: then the file itself
says what it is. Whoever adds to a study or takes it away holds its folder (mkiso.storage.files.hold).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from pydantic import TypeAdapter

from mkiso.config.storage import Storage
from mkiso.dataset.header import read_header
from mkiso.dataset.part10 import HEAD_BYTES, data_set_offset, transfer_syntax_uid_in
from mkiso.errors import DamagedInstance, StorageUnreadable
from mkiso.lines import append_line
from mkiso.storage.files import (
    Unreadable,
    alone_in,
    json_lines,
    read_json,
    read_whole,
    seconds_old,
    sha256_of,
    sync_folder,
    write_whole,
)
from mkiso.storage.spare_files import clear_away
from mkiso.study.models import Arrival
from mkiso.study.selection import is_uid

GOING = ".going-"
Clearing = Literal["", "instances", "wholly"]
"""What of a study is taken away: nothing, what was sent, or also what was asked for."""


@dataclass(frozen=True, slots=True)
class Line:
    """What is written down of an instance; `by` is who sent it: AE title and address."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    size: int
    sha256: str
    by: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A job that was asked for. `fingerprint` and `instances` are of what lay there, `time` in seconds since the epoch;
    `job_id` is empty until it is known that the job was created, `ended` until it has, `ended_time` 0. `nonce` is this
    ask's alone, so that no run of an earlier one, which nobody remembers any more, is taken for its job.
    """

    job_id: str
    fingerprint: str
    instances: int
    time: float
    ended: Literal["", "done", "failed"] = ""
    ended_time: float = 0
    nonce: str = ""


_LINE = TypeAdapter(Line)
_ASKED = TypeAdapter(tuple[Ask, ...])


@dataclass(frozen=True, slots=True)
class Pushed:
    """What lies there of one study: its instances in the order of their UIDs, those of which other bytes came too, who
    sent any of it, and the SOP Instance UIDs of what lay there and doesn't any more.
    """

    inbox: str
    study_instance_uid: str
    instances: tuple[Arrival, ...]
    conflicts: frozenset[str] = frozenset()
    senders: tuple[str, ...] = ()
    gone: frozenset[str] = frozenset()

    @property
    def uids(self) -> frozenset[str]:
        return frozenset(instance.sop_instance_uid for instance in self.instances)

    @property
    def came(self) -> frozenset[str]:
        """The SOP Instance UIDs of all that came, whether it still lies there or not."""
        return self.uids | self.gone

    @property
    def fingerprint(self) -> str:
        """Of the instances, byte for byte: 32 hexadecimal digits."""
        parts = (f"{each.sop_instance_uid} {each.sha256}" for each in self.instances)
        return hashlib.sha256("\n".join((*parts, *sorted(self.conflicts))).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class PushedStudy:
    """The folder of one study in an inbox."""

    storage: Storage
    inbox: str
    study_instance_uid: str

    def __hash__(self) -> int:
        """Without the storage, which is long: the watch asks it of each study each second."""
        return hash((self.inbox, self.study_instance_uid))

    @cached_property
    def folder(self) -> Path:
        return folder_of(self.storage, self.inbox) / self.study_instance_uid

    @cached_property
    def instances_dir(self) -> Path:
        return self.folder / "instances"

    @property
    def seconds_quiet(self) -> float | None:
        """How long nothing came; None where nothing lies there."""
        try:
            return seconds_old(self.instances_dir)
        except FileNotFoundError:
            return None

    def note(self, line: Line) -> None:
        """Write an instance down beside its file."""
        append_line(self.folder / "arrivals.jsonl", json.dumps(asdict(line)).encode())

    def note_conflict(self, sop_instance_uid: str) -> None:
        """Write down that other bytes came under a UID; it has reached the disk afterwards. Raises OSError."""
        with suppress(DamagedInstance, StorageUnreadable):
            if sop_instance_uid in self._uids("conflicts"):
                return
        append_line(self.folder / "conflicts", sop_instance_uid.encode("ascii"), durable=True)
        sync_folder(self.folder)

    def read(self) -> Pushed:
        """What lies there now. Raises DamagedInstance where a file isn't what it was, or nobody can say what was asked
        for; StorageUnreadable.
        """
        self.read_asked()
        lines = {line.sop_instance_uid: line for line in json_lines(self.folder / "arrivals.jsonl", _LINE)}
        try:
            names = sorted(name for name in os.listdir(self.instances_dir) if is_uid(name))  # noqa: PTH208
        except FileNotFoundError:
            names = []
        arrivals = [self._arrival(name, lines.get(name)) for name in names]
        senders = dict.fromkeys(lines[name].by for name in names if name in lines)
        conflicts, gone = self._uids("conflicts"), self._uids("cleared") - set(names)
        return Pushed(self.inbox, self.study_instance_uid, tuple(arrivals), conflicts, tuple(senders), gone)

    @property
    def asked(self) -> tuple[Ask, ...]:
        """The jobs that were asked for, the oldest first; none where that can't be read, and then `read` says so."""
        with suppress(DamagedInstance, StorageUnreadable):
            return self.read_asked()
        return ()

    def note_asked(self, asked: Iterable[Ask]) -> None:
        write_whole(self.folder / "asked.json", _ASKED.dump_json(tuple(asked)), durable=True)

    def clear(self, what: Callable[[], Clearing]) -> bool:
        """Take away what may go, as it is decided while nobody can add to the study; False where nothing went. Raises
        StorageUnreadable.
        """
        with alone_in(self.folder) as alone:
            if not alone or not (going := what()):
                return False
            with suppress(FileNotFoundError, DamagedInstance):
                left = self._uids("cleared").union(filter(is_uid, os.listdir(self.instances_dir)))  # noqa: PTH208
                write_whole(self.folder / "cleared", "\n".join(sorted(left)), durable=True)
            clear_away(self.instances_dir, self.storage.spares_dir)
            for name in ("arrivals.jsonl", "conflicts"):
                (self.folder / name).unlink(missing_ok=True)
            if going == "wholly":
                gone = self.folder.rename(self.folder.with_name(f"{GOING}{self.folder.name}"))
                shutil.rmtree(gone, ignore_errors=True)
        return True

    def read_asked(self) -> tuple[Ask, ...]:
        """As `asked`. Raises DamagedInstance, StorageUnreadable."""
        try:
            return read_json(self.folder / "asked.json", _ASKED)
        except FileNotFoundError:
            return ()
        except Unreadable as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Unreadable) -> DamagedInstance:
        what = f"What mkiso has written down of a study that was sent to {self.inbox}"
        error.refuse_if_there(what)
        return DamagedInstance(f"{what} can't be read ({error}).")

    def _uids(self, name: str) -> frozenset[str]:
        """SOP Instance UIDs, one a line. Raises DamagedInstance where they can't be read, StorageUnreadable."""
        try:
            return frozenset(read_whole(self.folder / name).decode("ascii", "replace").split())
        except FileNotFoundError:
            return frozenset()
        except Unreadable as error:
            raise self._damaged(error) from None

    def _arrival(self, name: str, line: Line | None) -> Arrival:
        path = self.instances_dir / name
        size = path.stat().st_size
        if line is not None and line.size == size:
            known = line.sop_class_uid, line.transfer_syntax_uid
            return Arrival(name, *known, self.study_instance_uid, path, size, line.sha256)
        header = read_header(path)
        with path.open("rb") as file:
            beginning = file.read(HEAD_BYTES * 64)
        offset = data_set_offset(beginning, size)
        known = str(header.get("SOPClassUID", "")), transfer_syntax_uid_in(beginning[HEAD_BYTES:offset])
        return Arrival(name, *known, self.study_instance_uid, path, size, sha256_of(path))


def folder_of(storage: Storage, inbox: str) -> Path:
    """An inbox's folder; an AE title may hold what no folder's name may."""
    name = "".join(sign if sign.isalnum() or sign in "-_" else f"%{ord(sign):02X}" for sign in inbox)
    return storage.inboxes_dir / name


def studies_in(storage: Storage, inbox: str) -> list[PushedStudy]:
    """Every study that an inbox has, or remembers."""
    try:
        names = os.listdir(folder_of(storage, inbox))  # noqa: PTH208
    except FileNotFoundError:
        return []
    return [PushedStudy(storage, inbox, name) for name in names if is_uid(name)]


def inboxes_on_disk(storage: Storage) -> list[str]:
    """The AE titles of the inboxes that have a folder, configured or not."""
    with suppress(FileNotFoundError):
        return [unquote(each.name) for each in storage.inboxes_dir.iterdir()]
    return []
