"""What a presentation state says of one image: which of it can be applied to a picture, and what can't (PS3.3 C.11,
C.10).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mkiso.pictures.annotations import Box, StateAnnotations
from mkiso.pictures.attributes import Attributes, first_item, integer, items, numbers, text
from mkiso.pictures.grey import Lut, Modality
from mkiso.pictures.luts import lut_of, modality_of, voi_luts_of, windows_of
from mkiso.pictures.references import is_about
from mkiso.pictures.shutter import shutter_of
from mkiso.pictures.values import FARTHEST, SOME_ANNOTATIONS, Marks, Window

# What is not drawn, by the attribute that asks for it.
_LEFT_OUT = {
    "MaskSubtractionSequence": "mask",
    "BlendingSequence": "blending",
}


@dataclass(frozen=True, slots=True)
class Presentation:
    """What one presentation state says of one frame. What it doesn't say is None, and the image's own holds.

    The frame is turned by `quarter_turns` clockwise, then mirrored left to right where `mirrored` (PS3.3 C.10.6).
    `area` is what it displays, in pixels of the frame from its top left corner (C.10.4).
    """

    modality: Modality | None = None
    voi: Window | Lut | None = None
    explanation: str = ""
    table: Lut | None = None
    inverse: bool | None = None
    quarter_turns: int = 0
    mirrored: bool = False
    area: Box | None = None

    def turned(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The frame as it is to be shown."""
        turned = np.rot90(pixels, -self.quarter_turns)
        return turned[:, ::-1] if self.mirrored else turned

    def turned_marks(self, marks: Marks) -> Marks:
        edges = [marks.left, marks.top, marks.right, marks.bottom]  # clockwise
        left, top, right, bottom = (edges[(number - self.quarter_turns) % 4] for number in range(4))
        return Marks(right, left, top, bottom) if self.mirrored else Marks(left, right, top, bottom)


def presentation_of(
    state: Attributes, sop_instance_uid: str, frame: int, *, signed: bool, little_endian: bool
) -> Presentation | None:
    """What a state says of a frame, from 0; None where it isn't about it. `signed`: the image's stored values may be
    negative.
    """
    series = [each for each in items(state, "ReferencedSeriesSequence") if items(each, "ReferencedImageSequence")]
    if not any(is_about(each, sop_instance_uid, frame) for each in series):
        return None
    voi, explanation = _voi(state, sop_instance_uid, frame, signed=signed, little_endian=little_endian)
    shape = text(state, "PresentationLUTShape").upper()
    table = first_item(state, "PresentationLUTSequence")
    says_modality = "RescaleSlope" in state or "ModalityLUTSequence" in state
    return Presentation(
        modality=modality_of(state, signed=signed, little_endian=little_endian) if says_modality else None,
        voi=voi,
        explanation=explanation,
        table=lut_of(table, signed=False, little_endian=little_endian) if table is not None else None,
        inverse=shape == "INVERSE" if shape or table is not None else None,
        quarter_turns=(integer(state, "ImageRotation") or 0) // 90 % 4,
        mirrored=text(state, "ImageHorizontalFlip").upper() == "Y",
        area=_area(state, sop_instance_uid, frame),
    )


def left_out_of(state: Attributes, rows: int, columns: int, annotations: StateAnnotations) -> tuple[str, ...]:
    """What a state asks for beyond what a picture of an image of this size shows."""
    found = {word for keyword, word in _LEFT_OUT.items() if keyword in state}
    if annotations.are_cut:
        found.add(SOME_ANNOTATIONS)
    if not shutter_of(state)[1]:
        found.add("shutter")
    for area in items(state, "DisplayedAreaSelectionSequence"):
        corners = [numbers(area, f"DisplayedArea{corner}HandCorner", 2) for corner in ("TopLeft", "BottomRight")]
        if all(corners) and [sorted(along) for along in zip(*corners, strict=True)] != [[1, columns], [1, rows]]:
            found.add("displayed area")
    return tuple(sorted(found))


def _area(state: Attributes, sop_instance_uid: str, frame: int) -> Box | None:
    """Of the first item that is about the frame."""
    for item in items(state, "DisplayedAreaSelectionSequence"):
        if not is_about(item, sop_instance_uid, frame):
            continue
        first, last = (numbers(item, f"DisplayedArea{corner}HandCorner", 2) for corner in ("TopLeft", "BottomRight"))
        if first and last and max(map(abs, first + last)) <= FARTHEST:
            (left, right), (top, bottom) = (sorted(along) for along in zip(first, last, strict=True))
            return left - 1, top - 1, right, bottom
    return None


def _voi(
    state: Attributes, sop_instance_uid: str, frame: int, *, signed: bool, little_endian: bool
) -> tuple[Window | Lut | None, str]:
    """Of the first item that is about the frame: a table before a window."""
    for item in items(state, "SoftcopyVOILUTSequence"):
        if not is_about(item, sop_instance_uid, frame):
            continue
        if tables := voi_luts_of(item, signed=signed, little_endian=little_endian):
            return tables[0]
        if windows := windows_of(item):
            return windows[0], windows[0].explanation
    return None, ""
