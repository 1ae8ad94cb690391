"""Writing pictures: a JPEG file, in full or shrunk by a whole number, so that a pixel of it is a whole block of the
frame's.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from mkiso.pictures.values import PictureFile

QUALITY = 72  # of a CT of 512² about 23 KB: 1,000 of them with all else of pictures add less than 35 MB
MAX_EDGE = 3072  # pixels; a radiograph of 3,000² stays as it is, one of 4,300 × 3,500 is halved


def shrink_by(pixels: NDArray[np.uint8], longest: int) -> int:
    """How many pixels along each side become one, so that neither side is longer than `longest`."""
    return -(-int(max(pixels.shape[:2])) // longest)


def shrunk(pixels: NDArray[np.uint8], by: int) -> NDArray[np.uint8]:
    """Each block of `by` × `by` pixels as its mean; blocks at the right and at the bottom may be smaller."""
    if by == 1:
        return pixels
    rows, columns = (-(-edge // by) for edge in pixels.shape[:2])
    missing = ((0, rows * by - pixels.shape[0]), (0, columns * by - pixels.shape[1]))
    whole = np.pad(pixels, (*missing, *((0, 0),) * (pixels.ndim - 2)), mode="edge") if any(sum(missing, ())) else pixels
    total = sum((whole[at::by] for at in range(by)), start=np.zeros((), np.uint32))  # rows, then columns: far faster
    total = sum((total[:, at::by] for at in range(by)), start=np.zeros((), np.uint32))  # than a sum over two axes
    return ((total + by * by // 2) // (by * by)).astype(np.uint8)


def write_jpeg(folder: Path, name: str, pixels: NDArray[np.uint8]) -> PictureFile:
    """Write grey or RGB pixels as a JPEG file, colour without subsampling: lettering stays sharp."""
    encoded = imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), QUALITY, subsampling="444")
    return write(folder, name, encoded, pixels)


def write(folder: Path, name: str, content: Any, pixels: NDArray[Any]) -> PictureFile:
    """Write a file, mode 0600, in place of one of that name, whose inode is used again: new ones are slow."""
    with os.fdopen(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(content)
        if os.fstat(file.fileno()).st_size > len(content):
            file.truncate()
    return PictureFile(name, len(content), pixels.shape[1], pixels.shape[0])
