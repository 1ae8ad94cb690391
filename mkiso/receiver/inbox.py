"""The receiver's side of an inbox: what comes to its AE title lies in the inbox's own folder when it is acknowledged,
and nowhere else.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from mkiso.config.inboxes import Inbox
from mkiso.config.settings import Settings
from mkiso.errors import DamagedInstance
from mkiso.network import dimse
from mkiso.receiver.expectations import Expectations
from mkiso.receiver.pushed import Line, PushedStudy, folder_of, studies_in
from mkiso.receiver.spool import NoRoom, Refused, Spool, Whole, give_name, refuse
from mkiso.storage.files import hold, sha256_of, sync_folder
from mkiso.storage.room import GIB
from mkiso.study.selection import is_uid

COUNT_SECONDS = 5.0
"""How old what is known of an inbox's size may be where it refuses: jobs take away what they are done with."""
NOTE_SECONDS = 1.0


@dataclass(slots=True)
class Held:
    """What an inbox holds: how many instances of each study, and bytes."""

    counts: dict[str, int]
    size: int
    time: float


def _sha256_of(path: Path, size: int) -> str:
    """Of a file of this size, empty where none is there. It takes half a minute for 8 GiB. Raises OSError."""
    try:
        return sha256_of(path) if path.stat().st_size == size else ""
    except FileNotFoundError:
        return ""


class InboxSpool(Spool):
    """Takes every instance that fits; jobs hear of none, and none is given to a job."""

    def __init__(self, settings: Settings, name: str) -> None:
        super().__init__(settings.storage, settings.receiver.max_instance_gib, Expectations())
        self.name = name
        self._storage = settings.storage
        self._rules: Inbox = settings.inboxes[name]
        self._least_free_bytes = int(settings.storage.min_free_gib * GIB)
        self._giving = threading.Lock()
        self._held: Held | None = None
        self._noted: dict[str, float] = {}

    @property
    def rules(self) -> Inbox:
        return self._rules

    def held(self, sop_instance_uids: Collection[str]) -> dict[str, str]:
        """Which of these instances lie here, and their SOP Class UIDs; none of which other bytes were refused, since
        nobody knows which ones are asked about.
        """
        wanted, found, doubted = set(sop_instance_uids), dict[str, str](), set[str]()
        for study in studies_in(self._storage, self.name):
            with suppress(OSError, DamagedInstance):
                if not wanted.isdisjoint(os.listdir(study.instances_dir)):  # noqa: PTH208
                    sent = study.read()
                    found |= {each.sop_instance_uid: each.sop_class_uid for each in sent.instances}
                    doubted |= sent.conflicts
        return {uid: found[uid] for uid in (wanted & found.keys()) - doubted}

    def admit(self, sop_instance_uid: str) -> None:
        """Whatever it is, its study says later whether there is room for it."""

    def coming(self, study_instance_uid: str) -> None:
        """While a long instance comes its study isn't quiet."""
        now = monotonic()
        if is_uid(study_instance_uid) and now - self._noted.get(study_instance_uid, 0) > NOTE_SECONDS:
            if len(self._noted) > self._rules.max_studies:
                self._noted.clear()
            self._noted[study_instance_uid] = now
            with suppress(OSError):
                os.utime(PushedStudy(self._storage, self.name, study_instance_uid).instances_dir)

    def give(self, whole: Whole, by: str) -> None:
        """Into the study's folder; it has reached the disk when this returns. Raises Refused, also where other bytes
        came under its UID before: the first stay.
        """
        if not is_uid(whole.study_instance_uid):
            raise Refused(dimse.CANNOT_UNDERSTAND, "its Study Instance UID is no UID")
        study = PushedStudy(self._storage, self.name, whole.study_instance_uid)
        try:
            os.fsync(whole.descriptor)
            sha256 = whole.digest.value()
            earlier, path = "", study.instances_dir / whole.sop_instance_uid
            with ExitStack() as held:
                if path.exists():  # what came again is read before others have to wait; held, it stays what it is
                    held.callback(os.close, hold(study.folder))
                    earlier = _sha256_of(path, whole.size)
                with self._giving:
                    self._give(study, whole, sha256, by, earlier)
            sync_folder(study.instances_dir)
        except OSError as error:
            refuse(error)

    def _give(self, study: PushedStudy, whole: Whole, sha256: str, by: str, earlier: str) -> None:
        path = study.instances_dir / whole.sop_instance_uid
        if not path.exists():
            self._require_room(study.study_instance_uid, whole.size)
        holding = hold(study.folder)  # so that nothing of it is cleared away before it is answered
        try:
            if path.exists():
                self._again(study, path, whole, sha256, earlier)
                return
            is_new = not study.instances_dir.is_dir()
            study.instances_dir.mkdir(mode=0o700, exist_ok=True)
            if is_new:
                for folder in (study.folder, study.folder.parent, study.folder.parent.parent):
                    sync_folder(folder)
            give_name(whole, str(path))
            study.note(
                Line(whole.sop_instance_uid, whole.sop_class_uid, whole.transfer_syntax_uid, whole.size, sha256, by)
            )
        finally:
            os.close(holding)
        held = self._held
        if held is not None:
            held.size += whole.size
            held.counts[study.study_instance_uid] = held.counts.get(study.study_instance_uid, 0) + 1

    def _again(self, study: PushedStudy, path: Path, whole: Whole, sha256: str, earlier: str) -> None:
        """The same once more is well, and may ask for a disc that came to nothing; other bytes are nobody knows
        whose.
        """
        if sha256 == (earlier or _sha256_of(path, whole.size)):
            os.utime(study.instances_dir)
            return
        study.note_conflict(whole.sop_instance_uid)
        os.utime(study.instances_dir)
        raise Refused(dimse.TWO_VERSIONS, "other bytes came under its SOP Instance UID before")

    def _require_room(self, study_instance_uid: str, size: int) -> None:
        rules = self._rules
        free = os.statvfs(self.folder)
        if free.f_bavail * free.f_frsize < self._least_free_bytes + size:
            raise NoRoom(dimse.OUT_OF_RESOURCES, "less would be free on the disk than storage.min_free_gib")
        if (words := self._lack(study_instance_uid, size)) and monotonic() - self._count().time > COUNT_SECONDS:
            self._held = None
            words = self._lack(study_instance_uid, size)
        if words:
            raise Refused(dimse.OUT_OF_RESOURCES, f"{words} (inboxes.{self.name}: {rules.keep_hours:g} h are kept)")

    def _lack(self, study_instance_uid: str, size: int) -> str:
        rules, held = self._rules, self._count()
        if held.size + size > rules.max_gib * GIB:
            return f"the inbox is full: max_gib is {rules.max_gib:g}"
        if study_instance_uid not in held.counts and len(held.counts) >= rules.max_studies:
            return f"the inbox is full: max_studies is {rules.max_studies}"
        if held.counts.get(study_instance_uid, 0) >= rules.max_instances:
            return f"its study is too large: max_instances is {rules.max_instances}"
        return ""

    def _count(self) -> Held:
        if self._held is None:
            counts, size = {}, 0
            with suppress(FileNotFoundError):
                for study in folder_of(self._storage, self.name).iterdir():
                    with suppress(OSError):
                        sizes = [each.stat().st_size for each in (study / "instances").iterdir()]
                        counts[study.name], size = len(sizes), size + sum(sizes)
            self._held = Held(counts, size, monotonic())
        return self._held
