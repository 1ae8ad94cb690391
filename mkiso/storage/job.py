"""A job's folder: what is known of one job, and the instances that arrived for it. Names and birth dates stay here and
out of Prefect.

jobs/<job id>/job.json         what was asked and found
              arrivals-….jsonl a line for each instance stored of a study, so that a rerun moves only what is missing
              instances/       Part 10 files, named by SOP Instance UID, hard links made by the receiver
              pictures/        of each instance, by its SHA-256 (mkiso.media.rendering)
              documents/       the files of its reports, by the same (mkiso.media.reporting)
              converted/       instances in another transfer syntax, by the same (mkiso.media.explicit)
              notes…/          what is read of series that aren't chosen, for as long (mkiso.sources.collection)
              disc/            the files that mkiso makes for each volume
              disc1.…          the image of each volume, until it is shelved
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from traceback import format_exception
from typing import Any, Literal

from pydantic import TypeAdapter

from mkiso.config.settings import Settings
from mkiso.lines import append_line
from mkiso.storage.files import find_json, json_lines, sha256_of, write_whole
from mkiso.storage.spare_files import clear_away
from mkiso.study.models import Arrival

JobKind = Literal["download", "print", "archive"]
_ARRIVALS = "arrivals-{}.jsonl"
_FACTS = TypeAdapter(dict[str, Any])
_ARRIVAL = TypeAdapter(Arrival)


@dataclass(frozen=True)
class Job:
    """One job's place: its id (the flow run's), its kind, the settings, and its folder."""

    id: str
    kind: JobKind
    settings: Settings

    @cached_property
    def folder(self) -> Path:
        return self.settings.storage.jobs_dir / self.id

    @property
    def instances_dir(self) -> Path:
        return self.folder / "instances"

    @property
    def disc_dir(self) -> Path:
        return self.folder / "disc"

    @property
    def pictures_dir(self) -> Path:
        return self.folder / "pictures"

    @property
    def copies_dir(self) -> Path:
        """Of de-identified instances."""
        return self.folder / "copies"

    @property
    def documents_dir(self) -> Path:
        return self.folder / "documents"

    @property
    def converted_dir(self) -> Path:
        return self.folder / "converted"

    def image(self, number: int, suffix: str) -> Path:
        """Where the image of the n-th volume is mastered; `suffix` is its format's."""
        return self.folder / f"disc{number}{suffix}"

    def open(self) -> None:
        """Make the folder where it isn't there yet; mode 0700."""
        for folder in (self.folder, self.instances_dir, self.disc_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def discard(self) -> None:
        """Remove the folder and all that is in it; the files of its instances are the receiver's again."""
        clear_away(self.instances_dir, self.settings.storage.spares_dir)
        shutil.rmtree(self.folder, ignore_errors=True)

    def drop_made(self) -> None:
        """Remove what a later attempt makes again from the instances: all but these. What can't be removed stays."""
        made = (self.pictures_dir, self.documents_dir, self.copies_dir, self.converted_dir, self.disc_dir)
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)
        for image in self.folder.glob("disc*.*"):
            with suppress(OSError):
                image.unlink()

    def keep_fault(self, error: BaseException) -> None:
        """Keep an unexpected fault's traceback, which may quote patient data, where only who maintains mkiso reads it;
        as far as the disk takes it.
        """
        with suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self.folder / "fault.txt", "".join(format_exception(error)))

    def note(self, **facts: Any) -> None:
        """Add facts to job.json; it is replaced in one step, so a reader never sees half of it."""
        write_whole(self.folder / "job.json", json.dumps({**self.facts(), **facts}, ensure_ascii=False, indent=1))

    def facts(self) -> dict[str, Any]:
        """What job.json holds; empty before the first note, and where it is damaged: then nothing of an earlier attempt
        is kept.
        """
        return find_json(self.folder / "job.json", _FACTS) or {}

    @property
    def has_stored(self) -> bool:
        """Whether an earlier attempt has left instances here."""
        return any(self.instances_dir.iterdir())

    def begin(self, fingerprint: str) -> None:
        """Keep what an earlier attempt stored only where the PACS and the patient API say the same as then
        (mkiso.study.identity.fingerprint).

        A corrected image keeps its UID, and half a disc from before a correction and half from after it would be whole
        by every count. A file of which nothing was written down goes too.
        """
        if self.facts().get("fingerprint") != fingerprint:
            for arrivals in self.folder.glob(_ARRIVALS.format("*")):
                arrivals.unlink()
        names = {
            arrival.path.name
            for file in self.folder.glob(_ARRIVALS.format("*"))
            for arrival in self._written_down(file)
        }
        for stored in self.instances_dir.iterdir():
            if stored.name not in names:
                stored.unlink()
        self.note(fingerprint=fingerprint)

    def remember(self, arrival: Arrival) -> None:
        """Write an arrival down beside its file. Raises OSError."""
        line = {each.name: getattr(arrival, each.name) for each in fields(arrival)} | {"path": arrival.path.name}
        append_line(self._arrivals(arrival.study_instance_uid), json.dumps(line).encode())

    def kept(self, study_instance_uid: str, wanted: frozenset[str]) -> list[Arrival]:
        """The wanted instances of a study that an earlier attempt stored and whose bytes are still what they were; its
        other files go.
        """
        kept: dict[str, Arrival] = {}
        for arrival in self._written_down(self._arrivals(study_instance_uid)):
            if (
                arrival.sop_instance_uid in wanted
                and arrival.path.is_file()
                and sha256_of(arrival.path) == arrival.sha256
            ):
                kept[arrival.sop_instance_uid] = arrival
            else:
                arrival.path.unlink(missing_ok=True)
        unknown = wanted - kept.keys()
        for file in self.instances_dir.iterdir():
            if file.name in unknown:  # stored, and the attempt ended before it was written down
                file.unlink()
        return list(kept.values())

    def forget(self, study_instance_uid: str) -> None:
        """Write off what is stored of a study: the next attempt keeps none of it."""
        self._arrivals(study_instance_uid).unlink(missing_ok=True)

    def _arrivals(self, study_instance_uid: str) -> Path:
        return self.folder / _ARRIVALS.format(study_instance_uid)

    def _written_down(self, file: Path) -> Iterator[Arrival]:
        for arrival in json_lines(file, _ARRIVAL):
            if arrival.path.name:
                yield replace(arrival, path=self.instances_dir / arrival.path.name)
