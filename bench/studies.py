"""The studies that are measured, made when a row first needs them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread

from peers.corpus import make_ct_series


@dataclass(frozen=True)
class StudyFiles:
    """One study in Part 10 files."""

    accession_number: str
    study_instance_uid: str
    files: list[Path]

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(file.stat().st_size for file in self.files)


# (kind, instances, rows and columns)
SIZES = {
    "CT1000": ("ct", 1000, 512),  # 504 MB after the count
    "MR2000": ("mr", 2000, 256),
    "DX4": ("dx", 4, 2690),  # 58 MB
    "SEEN_CT1000": ("ct", 1000, 512),
    "SEEN_DX4": ("dx", 4, 2690),
    "SMALL10000": (
        "mr",
        10_000,
        64,
    ),  # as 20 studies: dcmmkdir takes the square of a series' length, seven minutes for 10,000 in one
    "CTPART": ("ct", 100, 512),  # what storescp as it comes gets of the first two
    "MRPART": ("mr", 100, 256),
    "TINY": ("ct", 1, 64),
    "LONG20000": ("mr", 20_000, 64),
    "LONG2000": ("mr", 2000, 64),
    "BIG4GB": ("ct", 8000, 512),
    "BIG5GB": ("ct", 9000, 512),  # 4.7 GB, beyond what 32 bits count
    **{f"FEW{number}": ("ct", 10, 256) for number in range(20)},
    **{f"JOB{number}": ("ct", 250, 512) for number in range(8)},
}

SEEN = "SEEN_"  # the pixels are smooth with a little noise, as a patient's are: what pictures take depends on them
PARTS = {"SMALL10000": 20}


class Studies:
    """Makes each study once, under a folder, in PARTS studies of one patient where there are such."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, StudyFiles] = {}

    def get(self, name: str) -> StudyFiles:
        if name not in self._made:
            kind, count, size = SIZES[name]
            parts = PARTS.get(name, 1)
            numbers = [f"{name}-{part}" if parts > 1 else name for part in range(parts)]
            seen = looks(kind, size) if name.startswith(SEEN) else {}
            files = [
                file
                for each in numbers
                for file in make_ct_series(self._folder / name, each, count // parts, size=size, kind=kind, **seen)
            ]
            uid = str(dcmread(files[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
            self._made[name] = StudyFiles(name, uid, files)
        return self._made[name]

    def forget(self, name: str) -> None:
        """Free the room of a study that no further row needs."""
        study = self._made.pop(name, None)
        for file in study.files if study else []:
            file.unlink()


def looks(kind: str, size: int) -> dict[str, Any]:
    """How a study is made to look like a patient's (`make_ct_series`): a section of a head in its bone, or a
    chest's soft shadow; with the noise that such images have.
    """
    y, x = np.ogrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    from_centre = np.hypot(x / 0.7, y / 0.85)
    if kind == "ct":
        clean = np.select([from_centre < 0.9, from_centre < 1], [1060.0, 1900.0], 24.0)
        window = {"WindowCenter": 40, "WindowWidth": 400, "RescaleIntercept": -1024, "RescaleSlope": 1}
    else:
        clean, window = 3000 * np.exp(-(from_centre**2)), {"WindowCenter": 1600, "WindowWidth": 3200}
    noisy = clean + np.random.default_rng(1).normal(0, 12, (size, size))
    return {"pixels": np.clip(noisy, 0, 4095).astype(np.uint16), **window}
