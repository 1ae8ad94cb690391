"""Which images a presentation state is about, and which state an image is shown by: the newest one (PS3.3 A.33.1)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ColorSoftcopyPresentationStateStorage, GrayscaleSoftcopyPresentationStateStorage

from mkiso.reports.values import Reference
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
        for image in references_of(state.header)
        if (uid := image.sop_instance_uid) in shas
    }


def references_of(state: Dataset) -> Iterator[Reference]:
    """The images that a state is about, and their frames where it names any; of one that blends those of each layer."""
    for layer in (state, *_items(state, "BlendingSequence")):
        for series in _items(layer, "ReferencedSeriesSequence"):
            for image in _items(series, "ReferencedImageSequence"):
                numbers = (number.strip() for number in text(image, "ReferencedFrameNumber").split("\\"))
                yield Reference(
                    text(image, "ReferencedSOPClassUID"),
                    text(image, "ReferencedSOPInstanceUID"),
                    tuple(int(number) for number in numbers if number.isdecimal()),
                )


def _created(state: Instance) -> tuple[str, str, str]:
    day, time = (text(state.header, f"PresentationCreation{part}") for part in ("Date", "Time"))
    return day, time, state.arrival.sop_instance_uid


def _items(dataset: Dataset, keyword: str) -> Sequence:
    found = dataset.get(keyword)
    return found if isinstance(found, Sequence) else Sequence()
