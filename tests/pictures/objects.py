"""Image objects made for tests: one per pixel form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, Sequence
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

AXIAL = [1, 0, 0, 0, 1, 0]


def item(**attributes: Any) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def sequence(**attributes: Any) -> Sequence:
    return Sequence([item(**attributes)])


def ramp(rows: int = 64, columns: int = 96, *, low: int = 0, high: int = 4095, kind: str = "<u2") -> NDArray[Any]:
    """Every value between `low` and `high`, about, with structure in both directions."""
    across = np.linspace(low, high, rows * columns).reshape(rows, columns)
    return np.ascontiguousarray(np.rint(across[:, np.argsort(np.arange(columns) * 7 % columns)]).astype(kind))


def noise(rows: int = 512, columns: int = 512, frames: int = 1) -> NDArray[Any]:
    """Frames of bytes whose JPEG is larger than a pipe holds."""
    return np.random.default_rng(1).integers(0, 256, (frames, rows, columns), np.uint8)


def write(
    path: Path,
    pixels: NDArray[Any] | bytes,
    *,
    syntax: str = ExplicitVRLittleEndian,
    fragments: list[bytes] | None = None,
    **attributes: Any,
) -> Path:
    """Write an image object. What isn't given is taken from the pixels; `fragments` are encapsulated frames in place of
    them.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = attributes.get("SOPClassUID", SecondaryCaptureImageStorage)
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = attributes.get("SOPInstanceUID", generate_uid())
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.Modality, dataset.InstanceNumber = "TEST^PICTURES", "1", "OT", 1
    dataset.SamplesPerPixel = 1
    if not isinstance(pixels, bytes):
        dataset.Rows, dataset.Columns = pixels.shape[:2]
        dataset.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
        dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        pixels = pixels.tobytes()
    dataset.PhotometricInterpretation = "MONOCHROME2" if dataset.SamplesPerPixel == 1 else "RGB"
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    if "HighBit" not in dataset and "BitsStored" in dataset:
        dataset.HighBit = dataset.BitsStored - 1
    if fragments is not None:
        dataset.PixelData = encapsulate(fragments)
        dataset["PixelData"].is_undefined_length = True
    elif "FloatPixelData" not in dataset and "DoubleFloatPixelData" not in dataset:
        dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 and fragments is None else "OB"
    dataset.save_as(
        path,
        enforce_file_format=True,
        little_endian=syntax != ExplicitVRBigEndian,
        implicit_vr=syntax == ImplicitVRLittleEndian,
    )
    return path
