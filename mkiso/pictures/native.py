"""Uncompressed frames: from bytes to samples (PS3.5 8.1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mkiso.pictures.form import PixelForm
from mkiso.pictures.values import NotDisplayable, Reason


def native_samples(data: bytes, form: PixelForm, first_bit: int = 0) -> tuple[NDArray[Any], str]:
    """The samples of one frame, rows × columns or rows × columns × samples, and their photometric interpretation.

    `first_bit` is where a frame of 1 bit a pixel begins within `data`. Raises NotDisplayable where `data` is too short.
    """
    count = form.pixels * form.samples
    if form.bits_allocated == 1:
        samples: NDArray[Any] = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[
            first_bit : first_bit + count
        ]
    else:
        kind = "f" if form.floating else "u"
        size = form.bits_allocated // 8
        samples = np.frombuffer(data[: len(data) // size * size], f"{'<' if form.little_endian else '>'}{kind}{size}")
    if is_subsampled(form) and len(data) < count:
        return _from_422(samples, form), form.photometric
    if samples.size < count:
        raise NotDisplayable(Reason.DAMAGED)
    samples = samples[:count]
    if form.samples == 1:
        return samples.reshape(form.rows, form.columns), form.photometric
    if form.planar:
        return np.moveaxis(samples.reshape(form.samples, form.rows, form.columns), 0, 2), form.photometric
    return samples.reshape(form.rows, form.columns, form.samples), form.photometric


def is_subsampled(form: PixelForm) -> bool:
    """Whether two neighbouring pixels may share their colour (PS3.3 C.7.6.3.1.2, YBR_FULL_422)."""
    return (
        form.photometric in ("YBR_FULL_422", "YBR_PARTIAL_422") and form.bits_allocated == 8 and form.columns % 2 == 0
    )


def _from_422(samples: NDArray[Any], form: PixelForm) -> NDArray[Any]:
    """Y1 Y2 Cb Cr of each two pixels, to Y Cb Cr of each."""
    if samples.size < form.pixels * 2:
        raise NotDisplayable(Reason.DAMAGED)
    pairs = samples[: form.pixels * 2].reshape(form.rows, form.columns // 2, 4)
    full = np.empty((form.rows, form.columns, 3), samples.dtype)
    full[:, 0::2, 0], full[:, 1::2, 0] = pairs[:, :, 0], pairs[:, :, 1]
    full[:, :, 1], full[:, :, 2] = np.repeat(pairs[:, :, 2], 2, axis=1), np.repeat(pairs[:, :, 3], 2, axis=1)
    return full
