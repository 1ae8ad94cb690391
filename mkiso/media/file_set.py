"""The tree of a file-set: patients, studies, series and instances in the order in which people expect them, each instance with its File ID."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydicom import Dataset

from mkiso.errors import InstanceConflict
from mkiso.media.names import component
from mkiso.media.record_types import record_type
from mkiso.media.values import raw_value, text
from mkiso.models import Arrival, Instance

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


@dataclass(frozen=True, slots=True)
class StudyBranch:
    """The series of one study."""

    study_instance_uid: str
    series: tuple[Series, ...]

    @property
    def header(self) -> Dataset:
        return self.series[0].header


@dataclass(frozen=True, slots=True)
class PatientBranch:
    """The studies of one patient. `patient_id` is as encoded in the first one's images; empty where they have none."""

    patient_id: bytes
    studies: tuple[StudyBranch, ...]

    @property
    def header(self) -> Dataset:
        return self.studies[0].header


def arrange(instances: Collection[Instance]) -> tuple[PatientBranch, ...]:
    """The tree of these instances, the same for the same instances in any order.

    A patient is a Patient ID with its issuer, however the name is spelled; who names no issuer means the only one that others name (PS3.3 C.2.2).
    Patients without an ID are told apart by their study.
    Raises InstanceConflict where a SOP Instance UID occurs twice.
    """
    _all_different(instances)
    issuers: dict[str, set[str]] = {}
    for instance in instances:
        issuers.setdefault(text(instance.header, "PatientID"), set()).add(text(instance.header, "IssuerOfPatientID"))
    patients: dict[tuple[str, str], dict[str, dict[bytes, list[Instance]]]] = {}
    for instance in instances:
        header, study = instance.header, instance.arrival.study_instance_uid
        patient_id = text(header, "PatientID")
        patient = (patient_id, _issuer(text(header, "IssuerOfPatientID"), issuers[patient_id])) if patient_id else ("", study)
        series = patients.setdefault(patient, {}).setdefault(study, {})
        series.setdefault(raw_value(header, _SERIES_INSTANCE_UID), []).append(instance)
    return tuple(
        _patient(studies, PurePosixPath("DICOM") / component("PT", number)) for number, (_, studies) in enumerate(sorted(patients.items()), 1)
    )


def leaves(tree: Collection[PatientBranch]) -> Iterator[Leaf]:
    """Every instance of the tree in its order."""
    return (leaf for patient in tree for study in patient.studies for series in study.series for leaf in series.leaves)


def _issuer(own: str, named: set[str]) -> str:
    others = named - {""}
    return next(iter(others)) if not own and len(others) == 1 else own


def _patient(studies: dict[str, dict[bytes, list[Instance]]], folder: PurePosixPath) -> PatientBranch:
    def by_date(study: tuple[str, dict[bytes, list[Instance]]]) -> tuple[bytes, bytes, str]:
        header = next(iter(study[1].values()))[0].header
        return raw_value(header, _STUDY_DATE), raw_value(header, _STUDY_TIME), study[0]

    ordered = enumerate(sorted(studies.items(), key=by_date), 1)
    branches = tuple(_study(uid, series, folder / component("ST", number)) for number, (uid, series) in ordered)
    return PatientBranch(raw_value(branches[0].header, _PATIENT_ID), branches)


def _study(uid: str, series: dict[bytes, list[Instance]], folder: PurePosixPath) -> StudyBranch:
    def by_number(entry: tuple[bytes, list[Instance]]) -> tuple[int, bytes]:
        return min(_number(instance.header, _SERIES_NUMBER) for instance in entry[1]), entry[0]

    ordered = enumerate(sorted(series.items(), key=by_number), 1)
    return StudyBranch(uid, tuple(_series(uid, found, folder / component("SE", number)) for number, (uid, found) in ordered))


def _series(uid: bytes, instances: list[Instance], folder: PurePosixPath) -> Series:
    ordered = sorted(instances, key=lambda instance: (_number(instance.header, _INSTANCE_NUMBER), instance.arrival.sop_instance_uid))
    return Series(
        uid,
        tuple(
            Leaf(instance, folder / component("IM", number), record_type(instance.arrival.sop_class_uid, instance.header))
            for number, instance in enumerate(ordered, 1)
        ),
    )


def _number(header: Dataset, tag: int) -> int:
    try:
        return int(raw_value(header, tag))
    except ValueError:
        return _UNNUMBERED


def _all_different(instances: Collection[Instance]) -> None:
    seen: set[str] = set()
    for instance in instances:
        uid = instance.arrival.sop_instance_uid
        if uid in seen:
            raise InstanceConflict(f"The instance {uid} was to go onto one disc twice. Have the PACS's studies checked.", sop_instance_uid=uid)
        seen.add(uid)
