"""Regions in which a device writes into its images, blackened (PS3.15 E.3.1): a site's list says where."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom import Dataset
from pydicom.pixels.utils import iter_pixels

from mkiso.config.disc import Region
from mkiso.errors import NotDeidentifiable, ProofFailed

Box = tuple[int, int, int, int]
"""x, y, width and height in pixels, from the upper left corner."""
_TYPES = {(8, 0): "u1", (8, 1): "i1", (16, 0): "<u2", (16, 1): "<i2"}
_DEVICE_AND_KIND = ("Manufacturer", "ManufacturerModelName", "ImageType")
_YBR_BLACK = (0, 128, 128)
_PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL")


def boxes_of(image: Dataset, sop_class_uid: str, regions: Collection[Region]) -> tuple[Box, ...]:
    """What has to be blackened in an image, by all that a site's list says of its device; nothing where it says
    nothing. An attribute that differs in anything is another device's.
    """
    said = (
        sop_class_uid,
        *(_text(image, keyword) for keyword in ("Manufacturer", "ManufacturerModelName", "Rows", "Columns")),
    )
    versions, kind = _text(image, "SoftwareVersions"), _text(image, "ImageType")
    return tuple(
        box
        for each in regions
        if said
        == (
            each.sop_class_uid,
            each.manufacturer,
            each.manufacturer_model_name,
            str(each.rows),
            str(each.columns),
        )
        and each.software_versions in ("", versions)
        and f"{kind}\\".startswith(f"{each.image_type}\\" if each.image_type else "")
        for box in each.blacken
    )


def is_nearly_listed(image: Dataset, sop_class_uid: str, regions: Collection[Region]) -> bool:
    """Whether the list has the device of an image, and this kind of image, perhaps in another size, version or
    spelling: then it is known to write into such images, and not where.
    """
    maker, model, kind = map(_loosely, (_text(image, each) for each in _DEVICE_AND_KIND))
    return any(
        (sop_class_uid, maker, model)
        == (each.sop_class_uid, _loosely(each.manufacturer), _loosely(each.manufacturer_model_name))
        and kind.startswith(_loosely(each.image_type))
        for each in regions
    )


def blackened(source: BinaryIO, image: Dataset, length: int, boxes: Sequence[Box]) -> Iterator[bytes]:
    """The `length` bytes of an image's uncompressed pixels, frame by frame, black within the boxes.

    Raises NotDeidentifiable where nobody knows how the pixels lie or what is black.
    """
    rows, columns, bits = int(image.Rows), int(image.Columns), int(image.BitsAllocated)
    samples, signed, stored = map(image.get, ("SamplesPerPixel", "PixelRepresentation", "BitsStored"))
    planes = image.get("PlanarConfiguration") if samples == 3 else 0
    kind = _TYPES.get((bits, signed)) if isinstance(signed, int) else None
    if (
        kind is None
        or samples not in (1, 3)
        or planes not in (0, 1)
        or stored not in range(1, bits + 1)
        or image.get("PhotometricInterpretation") not in _PHOTOMETRIC
    ):
        raise NotDeidentifiable(
            "An image's pixels are stored in a way in which no regions are blackened. Choose other series."
        )
    shape = (samples, rows, columns) if planes else (rows, columns, samples)
    frame_bytes = rows * columns * samples * bits // 8
    black = np.array(_black(image, samples), kind)
    for _ in range(length // frame_bytes):
        frame = np.frombuffer(bytearray(_whole(source, frame_bytes)), kind).reshape(shape)
        pixels = np.moveaxis(frame, 0, -1) if planes else frame
        for x, y, width, height in boxes:
            pixels[y : y + height, x : x + width] = black
        yield frame.tobytes()
    yield _whole(source, length % frame_bytes)


def require_black(copy: Path, before: Path, boxes: Sequence[Box]) -> None:
    """Raise ProofFailed unless each frame of a copy has one colour within each box, and outside of them the pixels that
    it had; as pydicom reads both files.
    """
    for frame, was in zip(iter_pixels(copy, raw=True), iter_pixels(before, raw=True), strict=True):
        outside = np.ones(frame.shape[:2], bool)
        for x, y, width, height in boxes:
            box = frame[y : y + height, x : x + width]
            outside[y : y + height, x : x + width] = False
            if (box != box[0, 0]).any():
                _refuse()
        if not np.array_equal(frame[outside], was[outside]):
            _refuse()


def _refuse() -> None:
    raise ProofFailed(
        "A de-identified image's regions aren't black, or something beside them changed: nothing was made. Choose "
        "other series, or tell who maintains mkiso."
    )


def _black(image: Dataset, samples: int) -> tuple[int, ...]:
    """The darkest value of grey, by the bits that are stored; index 0 of a palette has some one colour."""
    photometric, values = image.PhotometricInterpretation, 1 << int(image.BitsStored)
    least = -values // 2 if image.get("PixelRepresentation") else 0
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        return (least + values - 1 if photometric == "MONOCHROME1" else least,) * samples
    return _YBR_BLACK if photometric == "YBR_FULL" else (0,) * samples


def _whole(source: BinaryIO, size: int) -> bytes:
    content = source.read(size)
    if len(content) != size:
        raise NotDeidentifiable("An image ends before its pixels do. Have the PACS checked.")
    return content


def _text(image: Dataset, keyword: str) -> str:
    value = image.get(keyword)
    several = value if hasattr(value, "append") else [value]
    return "\\".join("" if each is None else str(each).strip() for each in several)


def _loosely(text: str) -> str:
    return "".join(text.replace("\0", "").split()).casefold()
