"""An image object opened for its frames: its attributes without its pixels, and where those lie."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset, dcmread

from mkiso.pictures.attributes import integer, number, text, value_of
from mkiso.pictures.decoders import DECODED
from mkiso.pictures.form import EXPLICIT_BIG_ENDIAN, PixelForm, pixel_form
from mkiso.pictures.frames import EncapsulatedFrames, Frames, NativeFrames
from mkiso.pictures.luts import frame_window, windows_of
from mkiso.pictures.values import NotDisplayable, ObjectFacts, Reason

_UNDEFINED_LENGTH = 0xFFFFFFFF
_INTEGERS, _FLOATS, _DOUBLES = 0x7FE00010, 0x7FE00008, 0x7FE00009  # Pixel Data in its three forms
_VRS = (b"OB", b"OW", b"OF", b"OD", b"UN")
_DEFLATED = "1.2.840.10008.1.2.1.99"
_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", EXPLICIT_BIG_ENDIAN, _DEFLATED})
_VIDEO = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in range(100, 109))
_REFERENCED = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (94, 95, 204, 205))  # JPIP


@dataclass(frozen=True, slots=True)
class _Element:
    """The pixel data: where its value begins in the file, and its length."""

    tag: int
    vr: bytes
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Image:
    """An object that has frames to show."""

    dataset: Dataset
    form: PixelForm
    frames: Frames


@contextmanager
def opened(path: Path) -> Iterator[tuple[Dataset, BinaryIO]]:
    """The attributes of a Part 10 file without its pixels, and the file, which stands at them. Raises NotDisplayable
    where it isn't DICOM.
    """
    with path.open("rb") as file:
        yield _attributes(file, pixels=False), file


def image_of(dataset: Dataset, file: BinaryIO) -> Image:
    """What `opened` gave, as an image. Raises NotDisplayable with the reason why it isn't one that can be shown."""
    transfer_syntax = text(dataset.file_meta, "TransferSyntaxUID")
    if transfer_syntax in _VIDEO:
        raise NotDisplayable(Reason.VIDEO)
    if transfer_syntax in _REFERENCED or "PixelDataProviderURL" in dataset:
        raise NotDisplayable(Reason.PIXELS_ELSEWHERE)
    if transfer_syntax == _DEFLATED:  # inflated as a whole: it has no other beginning
        file.seek(0)
        file, element = _inflated(_attributes(file, pixels=True))
    else:
        element = _element(file, dataset)
    form = pixel_form(dataset, transfer_syntax, floating=element.tag != _INTEGERS)
    if transfer_syntax in _NATIVE and element.length != _UNDEFINED_LENGTH:
        in_words = element.vr == b"OW" and not form.little_endian and form.bits_allocated <= 8
        return Image(dataset, form, NativeFrames(file, form, element.start, element.length, in_words=in_words))
    if transfer_syntax not in DECODED or element.length != _UNDEFINED_LENGTH:
        raise NotDisplayable(
            Reason.DAMAGED if transfer_syntax in DECODED or transfer_syntax in _NATIVE else Reason.TRANSFER_SYNTAX
        )
    table = value_of(dataset, "ExtendedOffsetTable")
    offsets = struct.unpack(f"<{len(table) // 8}Q", table[: len(table) // 8 * 8]) if isinstance(table, bytes) else ()
    return Image(dataset, form, EncapsulatedFrames(file, form, element.start, offsets))


def facts_of(dataset: Dataset) -> ObjectFacts:
    """What is true of an object whether or not it can be shown."""
    return ObjectFacts(
        sop_instance_uid=text(dataset, "SOPInstanceUID"),
        series_instance_uid=text(dataset, "SeriesInstanceUID"),
        modality=text(dataset, "Modality"),
        instance_number=integer(dataset, "InstanceNumber"),
        rows=integer(dataset, "Rows") or 0,
        columns=integer(dataset, "Columns") or 0,
        frames=integer(dataset, "NumberOfFrames") or 1,
        windows=windows_of(frame_window(dataset, 0)),
        frame_time_ms=_frame_time(dataset),
    )


def _attributes(file: BinaryIO, *, pixels: bool) -> Dataset:
    try:
        return dcmread(file, stop_before_pixels=not pixels)
    except Exception:  # what pydicom makes of broken bytes is any exception at all: a broken length is a MemoryError
        raise NotDisplayable(Reason.UNREADABLE) from None


def _inflated(dataset: Dataset) -> tuple[BinaryIO, _Element]:
    for tag in (_INTEGERS, _FLOATS, _DOUBLES):
        if tag in dataset:
            value = dataset.get_item(tag).value
            return BytesIO(value), _Element(tag, b"", 0, len(value))
    raise NotDisplayable(Reason.NO_PIXELS)


def _element(file: BinaryIO, dataset: Dataset) -> _Element:
    """The pixel data at which the file stands."""
    order = ">" if text(dataset.file_meta, "TransferSyntaxUID") == EXPLICIT_BIG_ENDIAN else "<"
    head = file.read(12)
    group, element = struct.unpack_from(f"{order}HH", head) if len(head) == 12 else (0, 0)
    tag = group << 16 | element
    if tag not in (_INTEGERS, _FLOATS, _DOUBLES):
        raise NotDisplayable(Reason.DAMAGED if "Rows" in dataset else Reason.NO_PIXELS)
    explicit = head[4:6] in _VRS  # an implicit length never looks like one: it is even
    (length,) = struct.unpack_from(f"{order}I", head, 8 if explicit else 4)
    return _Element(tag, head[4:6] if explicit else b"", file.tell() - (0 if explicit else 4), length)


def _frame_time(dataset: Dataset) -> float | None:
    """The time from frame to frame of a run."""
    found = number(dataset, "FrameTime")
    rate = number(dataset, "RecommendedDisplayFrameRate") or number(dataset, "CineRate")
    found = found or (1000 / rate if rate else None)
    return found if found and found > 0 else None
