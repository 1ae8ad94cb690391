"""Discs for tests: instances from files, laid out and mastered in one call."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mkiso.config.settings import Settings
from mkiso.dataset.header import read_header
from mkiso.formats.iso import master
from mkiso.formats.protocol import Contents, Format
from mkiso.media.layout import Layout, LayoutOptions, lay_out
from mkiso.storage.files import sha256_of
from mkiso.study.gate import CompleteStudies, Part
from mkiso.study.models import Arrival, Expected, Instance, Patient, Study
from mkiso.study.values import Found, Retrieved, StudyRetrieved

CREATED = datetime(2026, 2, 13, 9, 30, tzinfo=UTC)


def instance(path: Path) -> Instance:
    """An instance as the receiver and the header reader hand it on."""
    header = read_header(path)
    meta = _meta(path)
    arrival = Arrival(
        meta[0x0003],
        meta[0x0002],
        meta[0x0010],
        str(header.StudyInstanceUID),
        path,
        path.stat().st_size,
        sha256_of(path),
    )
    return Instance(arrival, header)


def instances(paths: Iterable[Path]) -> list[Instance]:
    return [instance(path) for path in paths]


def passed(found: Iterable[Instance], patient: Patient | None = None, **sections: Any) -> CompleteStudies:
    """These instances through the gate, as studies of which the PACS lists just them."""
    studies: dict[str, list[Instance]] = {}
    for each in found:
        studies.setdefault(each.arrival.study_instance_uid, []).append(each)
    retrieved = tuple(StudyRetrieved(_listed(uid, of_study), tuple(of_study)) for uid, of_study in studies.items())
    accession_numbers = tuple(dict.fromkeys(each.study.accession_number for each in retrieved))
    answer = Found(accession_numbers, tuple(each.study for each in retrieved), patient)
    return CompleteStudies(Retrieved(answer, retrieved), Settings.model_validate(sections).identity)


def archived(found: Iterable[Instance]) -> Part:
    """These instances as a part of an archive volume: each study went through the gate by itself."""
    studies: dict[str, list[Instance]] = {}
    for each in found:
        studies.setdefault(each.arrival.study_instance_uid, []).append(each)
    return Part.whole(*(passed(of_study) for of_study in studies.values()))


def _listed(uid: str, found: list[Instance]) -> Study:
    header = found[0].header
    expected = Expected("image", len(found), {"1.2": frozenset(each.arrival.sop_instance_uid for each in found)})
    return Study(
        str(header.get("AccessionNumber", "")),
        uid,
        patient_id=str(header.get("PatientID", "")),
        patient_name=str(header.get("PatientName", "")),
        study_date=str(header.get("StudyDate", "")),
        expected=expected,
    )


def settings(folder: Path, **sections: dict[str, Any]) -> Settings:
    return Settings.model_validate(
        {"storage": {"data_dir": folder / "data"}, "disc": {"institution": "Example Hospital"}, **sections}
    )


def disc(paths: Iterable[Path], folder: Path, **sections: dict[str, Any]) -> tuple[Layout, Path]:
    """A mastered disc of these files: its layout and its image."""
    chosen = settings(folder, **sections)
    layout = lay_out(Part.whole(passed(instances(paths))), LayoutOptions(chosen, CREATED), folder / "disc")
    master(layout.files, layout.volume_id, folder / "disc.iso", created=CREATED, publisher=chosen.disc.institution)
    return layout, folder / "disc.iso"


def _meta(path: Path) -> dict[int, str]:
    content = path.read_bytes()[132 : 132 + 2048]
    values: dict[int, str] = {}
    position = 0
    while content[position : position + 2] == b"\x02\x00":
        element, long = (
            int.from_bytes(content[position + 2 : position + 4], "little"),
            content[position + 4 : position + 6] in (b"OB", b"UN"),
        )
        start = position + (12 if long else 8)
        length = int.from_bytes(content[position + 8 : start] if long else content[position + 6 : start], "little")
        values[element] = content[start : start + length].decode("latin-1").rstrip("\0 ")
        position = start + length
    return values


def contents_of(form: Format, image: Path) -> Contents:
    """What the reader of a format finds in an image. Raises ProofFailed."""
    descriptor = os.open(image, os.O_RDONLY)
    try:
        return form.read(descriptor)
    finally:
        os.close(descriptor)
