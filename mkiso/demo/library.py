"""What the demo PACS holds: the studies and character-set samples of pydicom's wheel, written out as Part 10 files.

Some of them have no accession number; each of those gets a stable one (DEMO01, DEMO02 …). Those that have one keep it,
also where two patients share one (2, 2008050417172310), since that happens in hospitals and must be refused. These are
demonstration copies: nothing else is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

BUNDLED = Path(pydicom.__file__).parent / "data"
FOLDERS = ("test_files/dicomdirtests", "charset_files")
HEADER_KEYWORDS = [
    "SpecificCharacterSet",
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "IssuerOfPatientID"),
    *(
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "StudyDescription",
        "AccessionNumber",
        "ReferringPhysicianName",
    ),
    *("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "BodyPartExamined"),
    *("SOPInstanceUID", "SOPClassUID", "InstanceNumber"),
]


@dataclass(frozen=True, slots=True)
class Holding:
    """One file of the library and its header."""

    path: Path
    header: Dataset

    @property
    def transfer_syntax_uid(self) -> str:
        return str(self.header.file_meta.TransferSyntaxUID)


def holding(path: Path) -> Holding:
    """Read the header of a Part 10 file."""
    return Holding(path, dcmread(path, stop_before_pixels=True, specific_tags=HEADER_KEYWORDS))


def write_bundled_studies(folder: Path) -> list[Path]:
    """Write pydicom's studies into `folder`, by accession number, and return their files, each SOP instance once."""
    accession_numbers: dict[str, str] = {}
    written: dict[str, Path] = {}
    for source in sorted(path for name in FOLDERS for path in (BUNDLED / name).rglob("*") if path.is_file()):
        try:
            dataset = dcmread(source)
        except InvalidDicomError:
            continue
        if "StudyInstanceUID" not in dataset or dataset.SOPInstanceUID in written:
            continue
        if not dataset.get("AccessionNumber"):
            study = dataset.StudyInstanceUID
            dataset.AccessionNumber = accession_numbers.setdefault(study, f"DEMO{len(accession_numbers) + 1:02}")
        target = folder / dataset.AccessionNumber / f"{len(written) + 1:04}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(target)
        written[dataset.SOPInstanceUID] = target
    return list(written.values())
