"""DICOMDIRs of dirty data: every record type, every attribute, every kind of dirt, judged by dciodvfy, dcmtk and
pydicom at its strictest."""

from __future__ import annotations

import re
import subprocess
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement
from pydicom.fileset import FileSet

from mkiso.media.dicomdir import dicomdir
from mkiso.media.file_set import arrange, leaves
from mkiso.media.record_keys import KEYS
from mkiso.study.models import Instance
from peers.patience import LONG
from tests.media.dirt import LEVELS, samples, write
from tests.media.discs import instance

pytestmark = pytest.mark.peer

MOST_CHARACTERS = {"LO": 64, "SH": 16, "ST": 1024, "PN": 64}
NAMES = {"PerformingPhysicianName"}  # of which there may be several
NOT_OURS = (  # where dciodvfy of 2024 is behind the standard or stricter than it
    r"enumerated value <(PLAN|SURFACE SCAN|TRACT|ASSESSMENT|RADIOTHERAPY|ANNOTATION)> .*<Directory Record Type>",
    # Table F.5-27 has Table C.17-3 there, required if the instance has it; dciodvfy wants Table 10-11, always.
    r"Element=<ReferencedImageEvidenceSequence> Module=<Spectroscopy",
    r"Element=<ReferencedSOP(Class|Instance)UID> Module=<SOPInstanceReference",
    # It counts bytes, PS3.5 6.2 characters; `texts_within_bounds` counts these.
    r"Length invalid for this VR = \d+, expected <= \d+.*\(beyond ASCII\)",
    r"Dicom dataset contains invalid data values for Value Representations$",  # the sum of those above
)
# A reference has the UID that its file has (PS3.10 8.6), whatever that is: unit/test_dicomdir.
UNMENDABLE = "ReferencedSOPInstanceUID: leading zero"


def errors(folder: Path) -> list[str]:
    """What dciodvfy finds wrong with the DICOMDIR of a folder, and dcmdump when it turns every text into UTF-8."""
    judged = subprocess.run(["dciodvfy", "DICOMDIR"], cwd=folder, capture_output=True, timeout=LONG, check=False)
    lines = (judged.stdout + judged.stderr).decode("utf-8", "replace").splitlines()
    found = [f"{line} (beyond ASCII)" if not line.isascii() else line for line in lines if line.startswith("Error")]
    dumped = subprocess.run(["dcmdump", "+U8", "DICOMDIR"], cwd=folder, capture_output=True, timeout=LONG, check=False)
    told = dumped.stderr.decode("utf-8", "replace").splitlines()
    if any("is not supported by the utilized character set conversion library" in line for line in told):
        told = []  # Debian 12's dcmtk can't turn ISO 2022 IR 87 into UTF-8, and ends there
    return [*(line for line in found if not any(re.search(known, line) for known in NOT_OURS)), *told]


def elements(dataset: Dataset) -> Iterator[DataElement]:
    """Every element of a data set and of its items, each read as its VR says."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from elements(item)
        else:
            yield element


def texts_within_bounds(directory: Dataset) -> Iterator[str]:
    """What PS3.5 6.2 forbids, in characters."""
    for element in elements(directory):
        if element.VR in MOST_CHARACTERS and element.value:
            names = element.value if element.VM > 1 else [element.value]
            assert element.VM == 1 or element.keyword in NAMES, element.keyword
            is_name = element.VR == "PN"
            groups = [group for name in names for group in (str(name).split("=") if is_name else [str(name)])]
            controls = [character for character in str(element.value) if unicodedata.category(character) == "Cc"]
            if any(len(group) > MOST_CHARACTERS[element.VR] for group in groups) or len(groups) > 3 * len(names):
                yield f"{element.keyword} is too long"
            if controls and not (element.VR == "ST" and set(controls) <= set("\r\n\t\f")):
                yield f"{element.keyword} has control characters"


def judged(found: list[Instance], folder: Path) -> list[str]:
    """What is wrong with the DICOMDIR of these instances."""
    content, _ = dicomdir(arrange(found), "DIRTY")
    (folder / "DICOMDIR").write_bytes(content)
    with warnings.catch_warnings(), pydicom.config.strict_reading():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # pydicom's FileSet leaves its folder to the collector
        directory = dcmread(folder / "DICOMDIR")
        records = list(directory.DirectoryRecordSequence)
        wrong = list(texts_within_bounds(directory))
    for kind, keyword in zip(LEVELS, ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"), strict=True):
        values = [record.get(keyword) for record in records if record.DirectoryRecordType == kind]
        wrong += [f"{kind} records share one {keyword}, or have none"] * (
            not all(values) or len(set(values)) < len(values)
        )
    return wrong + errors(folder)


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.filterwarnings("ignore:Unknown encoding", "ignore:Value 'ISO_IR 192' for Specific Character Set")
def test_records_of_dirty_data_are_valid(tmp_path: Path, kind: str) -> None:
    dirty = [sample for sample in samples(kind) if not sample.name.endswith(UNMENDABLE)]
    files = [write(sample, number, tmp_path) for number, sample in enumerate(dirty, 1)]
    found = [instance(file) for file in files]
    assert judged(found, tmp_path) == []
    tree = arrange(found)
    if kind not in LEVELS:
        assert {leaf.record_type for leaf in leaves(tree)} == {kind}
    for leaf in leaves(tree):
        (tmp_path / leaf.path).parent.mkdir(parents=True, exist_ok=True)
        leaf.arrival.path.rename(tmp_path / leaf.path)
    if kind != "ANNOTATION":  # which pydicom's FileSet doesn't know
        assert len(FileSet(tmp_path / "DICOMDIR")) == len(files)
