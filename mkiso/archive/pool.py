"""Studies that passed the gate and wait for their volumes, and which of them make a volume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mkiso.config.section import Medium
from mkiso.dataset.header import read_header
from mkiso.errors import InstanceConflict
from mkiso.media.capacity import holdable
from mkiso.media.filling import full_volumes
from mkiso.media.volumes import Parcel, pack, span, study_sectors
from mkiso.storage.job import Job
from mkiso.study.gate import CompleteStudies
from mkiso.study.models import Arrival, Instance, Study
from mkiso.study.values import Found, Retrieved, StudyRetrieved

Volumes = tuple[tuple[str, ...], ...]
"""The StudyInstanceUIDs of each volume."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """A study that waits: its instances are kept without their headers, which would fill the memory."""

    found: Found
    study: Study
    arrivals: tuple[Arrival, ...]
    elsewhere: frozenset[str]
    parcel: Parcel
    job: Job

    def complete(self) -> CompleteStudies:
        """Through the gate once more, with the headers as they are now. Raises what the gate raises,
        DamagedInstance.
        """
        instances = tuple(Instance(arrival, read_header(arrival.path)) for arrival in self.arrivals)
        retrieved = Retrieved(self.found, (StudyRetrieved(self.study, instances),), self.elsewhere)
        return CompleteStudies(retrieved, self.job.settings.identity)


class Pool(dict[str, Pooled]):
    """By StudyInstanceUID. `room` is what studies may take of a volume, in sectors."""

    def __init__(self, room: int, medium: Medium) -> None:
        super().__init__()
        self._room = room
        self._medium = medium

    def add(self, job: Job, studies: CompleteStudies) -> None:
        """Let a study wait in its folder; one without instances doesn't. Raises InstanceConflict, and what no volume
        can hold: here, as this study's failure; when the volume is made it would end the night, and each night after
        it.
        """
        [study], instances = studies.studies, studies.instances
        waiting = {arrival.sop_instance_uid for each in self.values() for arrival in each.arrivals}
        if shared := {each.arrival.sop_instance_uid for each in instances} & waiting:
            raise InstanceConflict(
                f"{len(shared)} instances of {study.label} are also part of another study. Have the PACS's studies "
                "checked.",
                sop_instance_uid=min(shared),
            )
        if not instances:
            return
        parcel = Parcel(study.study_instance_uid, study.patient_id, study_sectors(instances, medium=self._medium))
        holdable([each.arrival for each in instances])
        if parcel.sectors > self._room:
            span(instances, self._room, self._medium)
        retrieved = studies.retrieved
        arrivals = tuple(each.arrival for each in retrieved.instances)
        self[study.study_instance_uid] = Pooled(retrieved.found, study, arrivals, retrieved.elsewhere, parcel, job)

    def full_volumes(self, *, pressed: bool) -> Volumes:
        """The volumes to make now; `pressed`: the disk is short of room."""
        large, parcels = self._by_size()
        return (*large, *_uids(full_volumes(parcels, self._room, self._medium, pressed=pressed)))

    def last_volumes(self) -> Volumes:
        """The same, when no study is to come any more."""
        large, parcels = self._by_size()
        return (*large, *_uids(pack(parcels, self._room, self._medium)))

    def _by_size(self) -> tuple[Volumes, list[Parcel]]:
        """Studies that need a set of volumes of their own, and all others."""
        parcels = [each.parcel for each in self.values()]
        large = tuple((parcel.study_instance_uid,) for parcel in parcels if parcel.sectors > self._room)
        return large, [parcel for parcel in parcels if parcel.sectors <= self._room]


def _uids(volumes: Iterable[tuple[Parcel, ...]]) -> Iterator[tuple[str, ...]]:
    return (tuple(parcel.study_instance_uid for parcel in volume) for volume in volumes)
