"""Which presentation state an image is shown by: the newest one that is about it (PS3.3 A.33.1)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ColorSoftcopyPresentationStateStorage, GrayscaleSoftcopyPresentationStateStorage

from mkiso.study.models import Instance
from mkiso.study.text import text

_STATES = frozenset({GrayscaleSoftcopyPresentationStateStorage, ColorSoftcopyPresentationStateStorage})


def states_of(instances: Collection[Instance]) -> dict[str, Path]:
    """The file of a state by the SHA-256 of the image's file, of those that there are among the instances."""
    shas = {instance.arrival.sop_instance_uid: instance.arrival.sha256 for instance in instances}
    states = [each for each in instances if each.arrival.sop_class_uid in _STATES]
    return {
        shas[uid]: state.arrival.path
        for state in sorted(states, key=_created)
        for uid in _images_of(state.header)
        if uid in shas
    }


def _created(state: Instance) -> tuple[str, str, str]:
    created = (text(state.header, f"PresentationCreation{part}") for part in ("Date", "Time"))
    return (*created, state.arrival.sop_instance_uid)  # type: ignore[return-value]


def _images_of(state: Dataset) -> Iterator[str]:
    for series in _items(state, "ReferencedSeriesSequence"):
        for reference in _items(series, "ReferencedImageSequence"):
            yield text(reference, "ReferencedSOPInstanceUID")


def _items(dataset: Dataset, keyword: str) -> Sequence:
    found = dataset.get(keyword)
    return found if isinstance(found, Sequence) else Sequence()
