"""Where the dataset of a stored file begins (PS3.10 7.1), so that it can be sent as it came."""

from __future__ import annotations

import struct
from pathlib import Path

from mkiso.errors import ProofFailed

PREFIX = struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, 0)[:8]


def dataset_offset(path: Path) -> int:
    """Bytes before the dataset: preamble, prefix and the File Meta Information by its group length. Raises ProofFailed
    for anything else.
    """
    with path.open("rb") as file:
        head = file.read(144)
    if len(head) < 144 or head[128:132] != b"DICM" or head[132:140] != PREFIX:
        raise ProofFailed(
            f"{path.name} in the job's folder is no DICOM file any more: the study must be retrieved again."
        )
    (group_length,) = struct.unpack("<I", head[140:144])
    offset = 144 + int(group_length)
    if offset > path.stat().st_size:
        raise ProofFailed(f"{path.name} in the job's folder is cut short: the study must be retrieved again.")
    return offset
