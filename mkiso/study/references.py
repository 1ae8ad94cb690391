"""The objects that a header names by study and series (Hierarchical SOP Instance Reference Macro, PS3.3 C.17.2.1)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom import Dataset

from mkiso.study.text import stated

_REFERENCED_SOP_INSTANCE_UID = 0x00081155


def named_in_sequence(header: Dataset, keyword: str) -> Iterator[str]:
    """The SOP Instance UID of each object that this sequence of a header names."""
    for study in header.get(keyword) or ():
        for series in study.get("ReferencedSeriesSequence") or ():
            for named in series.get("ReferencedSOPSequence") or ():
                yield stated(named, _REFERENCED_SOP_INSTANCE_UID)
