"""An image object opened for its frames: its attributes without its pixels, and where those lie."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from mkiso.dataset.elements import Element, elements_up_to
from mkiso.dataset.header import encoding_of, is_deflated
from mkiso.dataset.part10 import HEAD_BYTES, data_set_offset, transfer_syntax_uid_in
from mkiso.errors import DamagedInstance
from mkiso.pictures.attributes import INTEGERS, PIXELS, WANTED, Attributes, integer, number, text
from mkiso.pictures.decoders import DECODED
from mkiso.pictures.form import EXPLICIT_BIG_ENDIAN, PixelForm, pixel_form
from mkiso.pictures.frames import EncapsulatedFrames, Frames, NativeFrames
from mkiso.pictures.values import NotDisplayable, ObjectFacts, Reason

_FIRST_BYTES = 16 * 1024  # the attributes of most images
_MAX_BYTES = 256 * 1024 * 1024  # of attributes, and of a deflated object; an enhanced one of 10,000 frames has 50 MB
_DEFLATED = "1.2.840.10008.1.2.1.99"
_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", EXPLICIT_BIG_ENDIAN, _DEFLATED})
VIDEO = frozenset(
    f"1.2.840.10008.1.2.4.{number}{fragmentable}" for number in range(100, 109) for fragmentable in ("", ".1")
)
"""MPEG-2, H.264 and HEVC (PS3.5 A.4.5 to A.4.10): mkiso.pictures.video."""
_REFERENCED = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (94, 95, 204, 205))  # JPIP


@dataclass(frozen=True, slots=True)
class Opened:
    """A Part 10 file's attributes, and where its pixel data lies in `file`; None where there is none."""

    attributes: Attributes
    transfer_syntax: str
    file: BinaryIO
    pixels: Element | None
    is_floating: bool


@dataclass(frozen=True, slots=True)
class Image:
    """An object that has frames to show."""

    dataset: Attributes
    form: PixelForm
    frames: Frames


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """A Part 10 file without its pixels. Raises NotDisplayable where it isn't DICOM."""
    with path.open("rb") as file:
        yield _opened(file)


def image_of(opened: Opened) -> Image:
    """What was opened as an image. Raises NotDisplayable with the reason why it isn't one that can be shown."""
    dataset, transfer_syntax, element = opened.attributes, opened.transfer_syntax, opened.pixels
    if transfer_syntax in VIDEO:
        raise NotDisplayable(Reason.VIDEO)
    if transfer_syntax in _REFERENCED or "PixelDataProviderURL" in dataset:
        raise NotDisplayable(Reason.PIXELS_ELSEWHERE)
    if element is None:
        raise NotDisplayable(Reason.DAMAGED if "Rows" in dataset else Reason.NO_PIXELS)
    form = pixel_form(dataset, transfer_syntax, floating=opened.is_floating)
    if transfer_syntax in _NATIVE and not element.delimited:
        in_words = element.vr == b"OW" and not form.little_endian and form.bits_allocated <= 8
        frames = NativeFrames(opened.file, form, element.offset, element.length, in_words=in_words)
        return Image(dataset, form, frames)
    if transfer_syntax not in DECODED or not element.delimited:
        raise NotDisplayable(
            Reason.DAMAGED if transfer_syntax in DECODED or transfer_syntax in _NATIVE else Reason.TRANSFER_SYNTAX
        )
    place = dataset.place("ExtendedOffsetTable")
    table = dataset.value(*place) if place else b""
    offsets = struct.unpack(f"<{len(table) // 8}Q", table[: len(table) // 8 * 8])
    return Image(dataset, form, EncapsulatedFrames(opened.file, form, element.offset, offsets))


def facts_of(opened: Opened) -> ObjectFacts:
    """What is true of an object whether or not it can be shown."""
    dataset = opened.attributes
    return ObjectFacts(
        sop_instance_uid=text(dataset, "SOPInstanceUID"),
        series_instance_uid=text(dataset, "SeriesInstanceUID"),
        modality=text(dataset, "Modality"),
        instance_number=integer(dataset, "InstanceNumber"),
        rows=integer(dataset, "Rows") or 0,
        columns=integer(dataset, "Columns") or 0,
        frames=integer(dataset, "NumberOfFrames") or 1,
        frame_time_ms=_frame_time(dataset),
        compressed=opened.transfer_syntax not in _NATIVE,
    )


def _opened(file: BinaryIO) -> Opened:
    """As much of the file is read as it takes to reach the pixels."""
    size = _FIRST_BYTES
    while True:
        file.seek(0)
        data = file.read(size)
        try:
            if found := _begun(file, data, is_whole=len(data) < size):
                return found
        except DamagedInstance:
            if len(data) < size:
                raise NotDisplayable(Reason.UNREADABLE) from None
        size *= 8
        if size > _MAX_BYTES:
            raise NotDisplayable(Reason.TOO_LARGE)


def _begun(file: BinaryIO, data: bytes, *, is_whole: bool) -> Opened | None:
    """What the beginning of a file says; None where that doesn't reach its pixels. Raises DamagedInstance."""
    start = data_set_offset(data[:HEAD_BYTES], os.fstat(file.fileno()).st_size)
    transfer_syntax = transfer_syntax_uid_in(data[HEAD_BYTES:start])
    if is_deflated(transfer_syntax):
        file.seek(start)
        data, start, is_whole = _inflated(file.read()), 0, True
        file = BytesIO(data)
    found = elements_up_to(data, start, encoding_of(transfer_syntax), WANTED, PIXELS)
    pixels = next((found[tag] for tag in PIXELS if tag in found), None)
    if start > len(data) or (pixels is None and not is_whole):
        return None
    return Opened(
        Attributes(data, found, WANTED, b"", len(data) - start), transfer_syntax, file, pixels, INTEGERS not in found
    )


def _inflated(deflated: bytes) -> bytes:
    """Raises DamagedInstance for more than the largest."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflate.decompress(deflated, _MAX_BYTES)
    except zlib.error:
        raise DamagedInstance("The deflated data set can't be inflated.") from None
    if inflate.unconsumed_tail:
        raise DamagedInstance("The deflated data set is larger than any is.")
    return data


def _frame_time(dataset: Attributes) -> float | None:
    """The time from frame to frame of a run."""
    found = number(dataset, "FrameTime")
    rate = number(dataset, "RecommendedDisplayFrameRate") or number(dataset, "CineRate")
    found = found or (1000 / rate if rate else None)
    return found if found and found > 0 else None
