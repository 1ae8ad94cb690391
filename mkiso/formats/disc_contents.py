"""Which instances of which studies a disc holds, by its DICOMDIR; for a disc that was found sound
(mkiso.formats.disc_check).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydicom import Dataset, dcmread

from mkiso.errors import ProofFailed
from mkiso.formats.envelope_reader import DICOMDIR
from mkiso.formats.protocol import Contents

_FIRST = "OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity"
_LOWER, _NEXT = "OffsetOfReferencedLowerLevelDirectoryEntity", "OffsetOfTheNextDirectoryRecord"


@dataclass(frozen=True, slots=True)
class ListedInstance:
    """An instance as DICOMDIR lists it, with its study's accession number and StudyDate (DA)."""

    path: PurePosixPath
    sop_instance_uid: str
    study_instance_uid: str
    accession_number: str
    study_date: str


def listed_instances(descriptor: int, image: Contents) -> tuple[ListedInstance, ...]:
    """Raises ProofFailed where there is no DICOMDIR, or it can't be read."""
    extent = image.files.get(DICOMDIR)
    if extent is None:
        raise ProofFailed("The disc has no DICOMDIR.")
    try:
        directory = dcmread(io.BytesIO(image.read(descriptor, extent)))
        records = {record.seq_item_tell: record for record in directory.DirectoryRecordSequence}
        return tuple(_below(records, int(directory[_FIRST].value), Dataset()))
    except ProofFailed:
        raise
    except Exception:  # what pydicom makes of broken bytes is any exception at all
        raise ProofFailed("The disc's DICOMDIR can't be read.") from None


def _below(records: dict[int, Dataset], offset: int, study: Dataset) -> Iterator[ListedInstance]:
    while offset:
        record = records[offset]
        within = record if record.DirectoryRecordType == "STUDY" else study
        if "ReferencedFileID" in record:
            file_id = record.ReferencedFileID
            yield ListedInstance(
                PurePosixPath(*([file_id] if isinstance(file_id, str) else file_id)),
                str(record.ReferencedSOPInstanceUIDInFile),
                str(within.StudyInstanceUID),
                str(within.get("AccessionNumber") or ""),
                str(within.get("StudyDate") or ""),
            )
        yield from _below(records, int(record.get(_LOWER, 0)), within)
        offset = int(record.get(_NEXT, 0))
