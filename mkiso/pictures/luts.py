"""The look-up tables and windows that an object, or a presentation state, carries (PS3.3 C.11)."""

from __future__ import annotations

import numpy as np

from mkiso.pictures.attributes import (
    Attributes,
    first_item,
    functional_group,
    items,
    number,
    numbers,
    text,
    texts,
    words,
)
from mkiso.pictures.form import PixelForm
from mkiso.pictures.grey import Lut, Modality, Padding
from mkiso.pictures.values import Function, Window

_MAX_ENTRIES = 65_536


def modality_of(holder: Attributes, *, signed: bool, little_endian: bool) -> Modality:
    """The Modality LUT that a data set or a Pixel Value Transformation item holds; the identity where it holds none."""
    item = first_item(holder, "ModalityLUTSequence")
    if item is not None and (lut := lut_of(item, signed=signed, little_endian=little_endian)):
        return Modality(lut=lut)
    slope, intercept = number(holder, "RescaleSlope"), number(holder, "RescaleIntercept")
    return Modality(slope or 1.0, intercept or 0.0)


def windows_of(holder: Attributes) -> tuple[Window, ...]:
    """The windows that a data set or a Frame VOI LUT item holds; those without a width are left out."""
    centres, widths = numbers(holder, "WindowCenter"), numbers(holder, "WindowWidth")
    explanations = texts(holder, "WindowCenterWidthExplanation")
    named = text(holder, "VOILUTFunction").upper()
    function = Function(named) if named in set(Function) else Function.LINEAR
    return tuple(
        Window(centre, width, function, explanations[number] if number < len(explanations) else "")
        for number, (centre, width) in enumerate(zip(centres, widths, strict=False))
        if width > 0
    )


def voi_luts_of(holder: Attributes, *, signed: bool, little_endian: bool) -> tuple[tuple[Lut, str], ...]:
    """The VOI LUTs that it holds, each with its explanation. `signed`: values after the Modality LUT may be
    negative.
    """
    found = (
        (lut_of(item, signed=signed, little_endian=little_endian), text(item, "LUTExplanation"))
        for item in items(holder, "VOILUTSequence")
    )
    return tuple((lut, explanation) for lut, explanation in found if lut)


def lut_of(item: Attributes, *, signed: bool, little_endian: bool) -> Lut | None:
    """The table of `LUTDescriptor` and `LUTData`; None where it can't be used.

    A table whose words have more bits than its descriptor says is taken by its words.
    """
    descriptor = numbers(item, "LUTDescriptor", 3)
    data = words(item, "LUTData", little_endian)
    if not descriptor or data is None:
        return None
    entries, first, bits = (int(value) & 0xFFFF for value in descriptor)
    entries = entries or _MAX_ENTRIES
    if data.size < entries <= 2 * data.size and bits <= 8:  # two entries a word
        data = data.view(np.uint8).astype(np.uint16)
    if data.size < entries:
        return None
    data = data[:entries]
    needed = int(data.max()).bit_length()
    return Lut(first - 0x10000 if signed and first >= 0x8000 else first, max(1, min(bits, 16), needed), data.tobytes())


def padding_of(dataset: Attributes, form: PixelForm) -> Padding | None:
    """Pixel Padding Value, and the range up to its limit; either may be written with the other sign."""
    value, limit = number(dataset, "PixelPaddingValue"), number(dataset, "PixelPaddingRangeLimit")
    if form.floating:
        value, limit = number(dataset, "FloatPixelPaddingValue"), number(dataset, "FloatPixelPaddingRangeLimit")
    if value is None or form.samples != 1:
        return None
    ends = sorted(
        end if form.floating else _as_stored(int(end), form) for end in (value, value if limit is None else limit)
    )
    return Padding(ends[0], ends[1])


def frame_window(dataset: Attributes, frame: int) -> Attributes:
    """What holds the windows and VOI LUTs of a frame, from 0."""
    return functional_group(dataset, frame, "FrameVOILUTSequence")


def frame_modality(dataset: Attributes, frame: int) -> Attributes:
    """What holds the Modality LUT of a frame, from 0."""
    return functional_group(dataset, frame, "PixelValueTransformationSequence")


def _as_stored(value: int, form: PixelForm) -> int:
    span = 1 << form.bits_stored
    if not form.signed:
        return value % span if value < 0 else value
    return value - span if value >= span // 2 else value
