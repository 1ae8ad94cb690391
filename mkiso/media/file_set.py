"""The tree of a file-set: patients, studies, series and instances in the order in which people expect them, each
instance with its File ID.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import PurePosixPath
from types import MappingProxyType

from pydicom import Dataset

from mkiso.media.names import component
from mkiso.media.record_types import record_type
from mkiso.study.gate import require_distinct
from mkiso.study.models import Arrival, Instance
from mkiso.study.text import NO_TEXT, Text, named_in, raw_value, stated, text_of

_PATIENT_ID = 0x00100020
_STUDY_DATE, _STUDY_TIME, _SERIES_NUMBER, _INSTANCE_NUMBER = 0x00080020, 0x00080030, 0x00200011, 0x00200013
_SERIES_INSTANCE_UID = 0x0020000E
_UNNUMBERED = 1 << 31  # after every number that an IS can hold (PS3.5 6.2)


@dataclass(frozen=True, slots=True)
class Leaf:
    """An instance with its File ID as a path and its directory record type."""

    instance: Instance
    path: PurePosixPath
    record_type: str

    @property
    def arrival(self) -> Arrival:
        return self.instance.arrival


@dataclass(frozen=True, slots=True)
class Series:
    """The instances of one series; `header` is that of the first."""

    series_instance_uid: bytes
    leaves: tuple[Leaf, ...]

    @property
    def header(self) -> Dataset:
        return self.leaves[0].instance.header

    @property
    def headers(self) -> tuple[Dataset, ...]:
        """Of each instance."""
        return tuple(leaf.instance.header for leaf in self.leaves)


@dataclass(frozen=True, slots=True)
class StudyBranch:
    """The series of one study."""

    study_instance_uid: str
    series: tuple[Series, ...]

    @property
    def header(self) -> Dataset:
        return self.series[0].header

    @property
    def headers(self) -> tuple[Dataset, ...]:
        """Of each series."""
        return tuple(series.header for series in self.series)


@dataclass(frozen=True, slots=True)
class PatientBranch:
    """The studies of one patient; `patient_id` is empty where the images have none. `told_apart`: what tells this
    patient from others of the same ID, empty where nothing has to. `persons` are the headers that say whose they are.
    """

    patient_id: Text
    told_apart: str
    studies: tuple[StudyBranch, ...]
    persons: tuple[Dataset, ...]

    @property
    def name(self) -> Text:
        """The first PatientName that can be read, else the first that there is."""
        named = named_in(self.persons)
        return NO_TEXT if named is None else text_of(named, "PatientName")


def arrange(
    instances: Collection[Instance],
    told_apart: Mapping[str, str] = MappingProxyType({}),
    persons: Mapping[str, tuple[Dataset, ...]] = MappingProxyType({}),
) -> tuple[PatientBranch, ...]:
    """The tree of these instances, the same for the same instances in any order.

    A patient is a Patient ID, however the name is spelled. `told_apart` says by Study Instance UID which studies of one
    ID are of several patients, and `persons` which headers say whose a study is (mkiso.study.gate.Part); patients
    without an ID are told apart by their study. Raises InstanceConflict where a SOP Instance UID occurs twice.
    """
    require_distinct(instances)
    patients: dict[tuple[str, str], list[Instance]] = {}
    for instance in instances:
        study = instance.arrival.study_instance_uid
        patient_id = stated(instance.header, _PATIENT_ID)
        patients.setdefault((patient_id, told_apart.get(study, "") if patient_id else study), []).append(instance)
    return tuple(
        _patient(those, part if patient_id else "", persons, PurePosixPath("DICOM") / component("PT", number))
        for number, ((patient_id, part), those) in enumerate(sorted(patients.items(), key=itemgetter(0)), 1)
    )


def leaves(tree: Collection[PatientBranch]) -> Iterator[Leaf]:
    """Every instance of the tree in its order."""
    return (leaf for patient in tree for study in patient.studies for series in study.series for leaf in series.leaves)


def _patient(
    instances: Collection[Instance],
    told_apart: str,
    persons: Mapping[str, tuple[Dataset, ...]],
    folder: PurePosixPath,
) -> PatientBranch:
    studies: dict[str, list[Instance]] = {}
    for instance in instances:
        studies.setdefault(instance.arrival.study_instance_uid, []).append(instance)

    def by_date(study: tuple[str, list[Instance]]) -> tuple[bytes, bytes, str]:
        header = _first(study[1]).header
        return raw_value(header, _STUDY_DATE), raw_value(header, _STUDY_TIME), study[0]

    ordered = enumerate(sorted(studies.items(), key=by_date), 1)
    branches = tuple(_study(uid, found, folder / component("ST", number)) for number, (uid, found) in ordered)
    told = {id(header): header for branch in branches for header in persons.get(branch.study_instance_uid, ())}
    whose = tuple(told.values()) or tuple(header for branch in branches for header in branch.headers)
    return PatientBranch(text_of(_first(instances).header, _PATIENT_ID), told_apart, branches, whose)


def _first(instances: Iterable[Instance]) -> Instance:
    """One that is the same whatever order they come in."""
    return min(instances, key=lambda instance: instance.arrival.sop_instance_uid)


def _study(uid: str, instances: Collection[Instance], folder: PurePosixPath) -> StudyBranch:
    series: dict[bytes, list[Instance]] = {}
    for instance in instances:
        series.setdefault(raw_value(instance.header, _SERIES_INSTANCE_UID), []).append(instance)

    def by_number(entry: tuple[bytes, list[Instance]]) -> tuple[int, bytes]:
        return min(_number(instance.header, _SERIES_NUMBER) for instance in entry[1]), entry[0]

    ordered = enumerate(sorted(series.items(), key=by_number), 1)
    return StudyBranch(
        uid, tuple(_series(uid, found, folder / component("SE", number)) for number, (uid, found) in ordered)
    )


def _series(uid: bytes, instances: list[Instance], folder: PurePosixPath) -> Series:
    ordered = sorted(
        instances, key=lambda instance: (_number(instance.header, _INSTANCE_NUMBER), instance.arrival.sop_instance_uid)
    )
    return Series(
        uid,
        tuple(
            Leaf(
                instance, folder / component("IM", number), record_type(instance.arrival.sop_class_uid, instance.header)
            )
            for number, instance in enumerate(ordered, 1)
        ),
    )


def _number(header: Dataset, tag: int) -> int:
    try:
        return int(raw_value(header, tag))
    except ValueError:
        return _UNNUMBERED
