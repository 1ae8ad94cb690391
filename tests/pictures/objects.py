"""Image objects made for tests: one per pixel form."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, Sequence, dcmwrite
from pydicom._uid_dict import UID_dictionary
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from mkiso.dataset.elements import EXPLICIT_LITTLE, elements
from mkiso.pictures.attributes import WANTED, Attributes

AXIAL = [1, 0, 0, 0, 1, 0]


def saying(said: Path) -> Callable[[Any], Any]:
    """In place of mkiso.pictures.process._begun: a process that says what a file holds, whatever it is asked, and stays
    until then.
    """

    def begun(_: Any) -> Any:
        command = ["sh", "-c", 'cat "$0"; exec cat > /dev/null', str(said)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return process, process.stdin, process.stdout

    return begun


def item(**attributes: Any) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def sequence(**attributes: Any) -> Sequence:
    return Sequence([item(**attributes)])


def attributes_of(dataset: Dataset) -> Attributes:
    """As they are read of a file."""
    encoded = BytesIO()
    dcmwrite(encoded, dataset, implicit_vr=False, little_endian=True)
    data = encoded.getvalue()
    found = elements(data, 0, len(data), EXPLICIT_LITTLE, WANTED)
    return Attributes(data, found, WANTED, b"", len(data))


def ramp(rows: int = 64, columns: int = 96, *, low: int = 0, high: int = 4095, kind: str = "<u2") -> NDArray[Any]:
    """Every value between `low` and `high`, about, with structure in both directions."""
    across = np.linspace(low, high, rows * columns).reshape(rows, columns)
    return np.ascontiguousarray(np.rint(across[:, np.argsort(np.arange(columns) * 7 % columns)]).astype(kind))


def rgb(kind: str = "u1") -> NDArray[Any]:
    top = int(np.iinfo(kind).max)
    planes = [ramp(high=top, kind=kind), ramp(high=top, kind=kind)[::-1], ramp(high=top, kind=kind)[:, ::-1]]
    return np.stack(planes, axis=2)


def noise(rows: int = 516, columns: int = 512, frames: int = 1) -> NDArray[Any]:
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
    meta.TransferSyntaxUID = UID(syntax)
    meta.MediaStorageSOPClassUID = attributes.get("SOPClassUID", SecondaryCaptureImageStorage)
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    dataset = FileDataset(
        str(path), {}, file_meta=meta, preamble=b"\0" * 128, is_implicit_VR=implicit, is_little_endian=little
    )
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
    known = UID(syntax) if syntax in UID_dictionary else JPEGBaseline8Bit
    meta.TransferSyntaxUID = known
    dataset.save_as(path, enforce_file_format=True)
    if known != syntax:  # pydicom writes no syntax that it doesn't know
        path.write_bytes(_renamed(path.read_bytes(), known, syntax))
    return path


def _renamed(content: bytes, known: str, syntax: str) -> bytes:
    """A Part 10 file with another transfer syntax in its file meta information."""
    old, new = (b"\2\0\x10\0UI" + struct.pack("<H", len(value)) + value for value in map(_even, (known, syntax)))
    (length,) = struct.unpack_from("<I", content, 140)
    changed = content.replace(old, new, 1)
    return changed[:140] + struct.pack("<I", length + len(new) - len(old)) + changed[144:]


def _even(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)
