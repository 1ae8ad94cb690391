"""What the rooms hand to each other: plain frozen values, DICOM attributes under their keywords in snake_case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from pydicom import Dataset

from mkiso.config.sources import Origin

CountSource = Literal["image", "series", "study", "none"]


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient as the patient API knows them; empty strings where it is silent. `birth_date` is YYYYMMDD (VR DA),
    `sex` M, F, O or empty.
    """

    patient_id: str
    name: str = ""
    birth_date: str = ""
    sex: str = ""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the PACS says that a study holds, by the finest level it answers.

    `series` maps Series Instance UID to its SOP Instance UIDs (`source == "image"`); `count` is the number of instances
    (`image`, `series`, `study`), None where nothing is known (`none`). `of_series`: how many series the study has in
    all, where some of them are chosen and only these are expected; else 0.
    """

    source: CountSource
    count: int | None
    series: Mapping[str, frozenset[str]] = field(default_factory=dict)
    of_series: int = 0

    @property
    def instances(self) -> frozenset[str] | None:
        """Every expected SOP Instance UID, or None where the PACS gave counts at best."""
        if self.source != "image":
            return None
        return frozenset().union(*self.series.values())


@dataclass(frozen=True, slots=True)
class Study:
    """One study as C-FIND at STUDY level described it (PS3.4 C.6.2.1); text is decoded, dates are DA strings.

    `chosen`: the Series Instance UIDs of which a disc is wanted, and `expected` tells; empty: of all. `is_prior`: it
    isn't asked for by name (mkiso.study.priors). `listed_elsewhere`: the SOP Instance UIDs that another source lists
    and this answer doesn't: where it only counts, all of them.
    """

    accession_number: str
    study_instance_uid: str
    patient_id: str
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    study_date: str = ""
    study_time: str = ""
    study_id: str = ""
    study_description: str = ""
    modalities_in_study: tuple[str, ...] = ()
    issuer_of_patient_id: str = ""
    origin: Origin = Origin()  # noqa: RUF009  immutable
    expected: Expected = Expected("none", None)
    chosen: tuple[str, ...] = ()
    is_prior: bool = False
    listed_elsewhere: tuple[str, ...] = ()

    @property
    def day(self) -> date | None:
        """StudyDate; None where it is no date."""
        return as_day(self.study_date)

    @property
    def label(self) -> str:
        """Its accession number, else its Study Instance UID."""
        return self.accession_number or self.study_instance_uid

    @property
    def called(self) -> str:
        """What people know it by, within a sentence; a study needs no accession number."""
        number = self.accession_number
        return f"accession number {number}" if number else f"Study Instance UID {self.study_instance_uid}"


def count_words(count: int, thing: str, things: str = "") -> str:
    """1 record, 412 records; `things` where they aren't `thing` with an s."""
    return f"{count} {thing if count == 1 else things or f'{thing}s'}"


def images_words(count: int) -> str:
    """1 image, 412 images."""
    return count_words(count, "image")


def instances_words(count: int) -> str:
    """1 instance, 412 instances."""
    return count_words(count, "instance")


def studies_words(count: int) -> str:
    """1 study, 412 studies."""
    return count_words(count, "study", "studies")


def listed_words(names: Sequence[str], most: int) -> str:
    """A, B and 3 more: so many of them, and how many there are besides."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def as_day(text: str) -> date | None:
    """A date (DA, PS3.5 6.2); None where it is none."""
    try:
        return date.fromisoformat(text) if len(text) == 8 and text.isdigit() else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Series:
    """A series as C-FIND at SERIES level described it; `images` None where no count is told."""

    series_instance_uid: str
    number: str = ""
    modality: str = ""
    description: str = ""
    images: int | None = None
    body_part: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One instance that the receiver stored in a job's folder, whole. `sha256` is of the whole Part 10 file in
    hexadecimal, `size` in bytes.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    path: Path
    size: int
    sha256: str


def sop_classes_of(arrivals: Iterable[Arrival]) -> dict[str, dict[str, int]]:
    """How many there are of each SOP Class in each study, by its Study Instance UID."""
    found: dict[str, dict[str, int]] = {}
    counted = Counter((each.study_instance_uid, each.sop_class_uid) for each in arrivals)
    for (study, sop_class), count in counted.items():
        found.setdefault(study, {})[sop_class] = count
    return found


@dataclass(frozen=True, slots=True)
class Instance:
    """An arrival and its header: the attributes that identity, layout and DICOMDIR are made from, without pixel
    data. `converted`: the file that lies on a disc in place of the one that arrived (mkiso.media.explicit).
    """

    arrival: Arrival
    header: Dataset
    converted: Arrival | None = None

    @property
    def on_disc(self) -> Arrival:
        """The file that lies on a disc."""
        return self.converted or self.arrival


class Inside(NamedTuple):
    """What is in an encrypted DICOM file: the size in bytes and the SHA-256 of the file as it was."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class DiscFile:
    """One file of a disc: where it lies there (upper-case ISO 9660 path without version), where its bytes come from,
    and what they are.

    `joliet_path` is the long name (equal to `path` for all but viewer files). `source` is None for a file of a disc
    that was read back; `offset`: its bytes begin there in `source`, which holds others too (mkiso.storage.pack).
    `inside`: it is encrypted (mkiso.media.envelopes), and that is in it.
    """

    path: PurePosixPath
    size: int
    sha256: str
    source: Path | None = None
    joliet_path: PurePosixPath | None = None
    sop_instance_uid: str = ""
    inside: Inside | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Volume:
    """Which disc of a set this is: `number` of `total`."""

    number: int = 1
    total: int = 1
