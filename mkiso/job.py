"""A job's folder: what is known of one job, and the instances that arrived for it. Names and birth dates stay here and out of Prefect.

    jobs/<job id>/job.json         what was asked and found
                  arrivals.jsonl   a line for each instance stored, so that a rerun moves only what is missing
                  instances/       Part 10 files, named by SOP Instance UID, hard links made by the receiver
                  disc/            the files that mkiso makes for each volume
                  disc1.iso        the image of each volume, until it is shelved
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from mkiso.config import Settings
from mkiso.files import sha256_of, write_whole
from mkiso.models import Arrival, Instance, Patient, Study
from mkiso.spare_files import clear_away

JobKind = Literal["download", "print", "archive"]


@dataclass
class Job:
    """One job while it runs: its id (the flow run's), its folder, the settings, and what is known so far.

    `patients` are the patient API's answers by accession number; `instances` are by SOP Instance UID; `degraded` names what the job does without;
    `fingerprint` is mkiso.identity's of what was found.
    """

    id: str
    kind: JobKind
    settings: Settings
    accession_numbers: tuple[str, ...] = ()
    patients: dict[str, Patient] = field(default_factory=dict)
    studies: list[Study] = field(default_factory=list)
    instances: dict[str, Instance] = field(default_factory=dict)
    degraded: list[str] = field(default_factory=list)
    fingerprint: str = ""

    @property
    def patient(self) -> Patient | None:
        """The patient API's patient, where it answered."""
        return next(iter(self.patients.values()), None)

    @property
    def patient_name(self) -> str:
        """The patient API's name, else that of the images: a PACS may answer C-FIND in a character set that can't hold it."""
        known = self.patient.name if self.patient else ""
        return known or next((str(instance.header.get("PatientName", "")) for instance in self.instances.values()), "")

    @cached_property
    def folder(self) -> Path:
        return self.settings.storage.jobs_dir / self.id

    @cached_property
    def _arrivals(self) -> Path:
        return self.folder / "arrivals.jsonl"

    @property
    def instances_dir(self) -> Path:
        return self.folder / "instances"

    @property
    def disc_dir(self) -> Path:
        return self.folder / "disc"

    def image(self, number: int) -> Path:
        """Where the image of the n-th volume is mastered."""
        return self.folder / f"disc{number}.iso"

    def open(self) -> None:
        """Make the folder where it isn't there yet; mode 0700."""
        for folder in (self.folder, self.instances_dir, self.disc_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def discard(self) -> None:
        """Remove the folder and all that is in it; the files of its instances are the receiver's again."""
        clear_away(self.instances_dir, self.settings.storage.spares_dir)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def started_before(self) -> bool:
        """Whether an earlier attempt of this job has stored something."""
        return any(self.instances_dir.iterdir())

    def keep_fault(self, text: str) -> None:
        """Keep an unforeseen fault's traceback, which may quote patient data, where only who maintains mkiso reads it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(self.folder / "fault.txt", text)

    def note(self, **facts: Any) -> None:
        """Add facts to job.json; it is replaced in one step, so a reader never sees half of it."""
        write_whole(self.folder / "job.json", json.dumps({**self.facts(), **facts}, ensure_ascii=False, indent=1))

    def facts(self) -> dict[str, Any]:
        """What job.json holds; empty before the first note."""
        try:
            facts: dict[str, Any] = json.loads((self.folder / "job.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return facts

    def remember(self, arrival: Arrival) -> None:
        """Write an arrival down beside its file."""
        line = {each.name: getattr(arrival, each.name) for each in fields(arrival)} | {"path": arrival.path.name}
        descriptor = os.open(self._arrivals, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, f"{json.dumps(line)}\n".encode())
        finally:
            os.close(descriptor)

    def kept_arrivals(self) -> list[Arrival]:
        """The instances that an earlier run of this job stored and whose bytes are still what they were; anything else is removed."""
        try:
            lines = self._arrivals.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            lines = []
        kept: dict[str, Arrival] = {}
        for line in lines:
            try:
                values = json.loads(line)
                arrival = Arrival(**{**values, "path": self.instances_dir / Path(values["path"]).name})
            except (ValueError, TypeError, KeyError):  # a line that a crash cut short
                continue
            if arrival.path.is_file() and arrival.path.stat().st_size == arrival.size and sha256_of(arrival.path) == arrival.sha256:
                kept[arrival.sop_instance_uid] = arrival
        names = {arrival.path.name for arrival in kept.values()}
        for file in self.instances_dir.iterdir():
            if file.name not in names:
                file.unlink()
        return list(kept.values())
