"""From the bytes of one encapsulated frame to its samples: one kept library, imagecodecs, whose parts are
libjpeg-turbo, CharLS, OpenJPEG, OpenJPH and libjxl (docs/decisions/pictures.md).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from mkiso.pictures.form import PixelForm
from mkiso.pictures.native import native_samples
from mkiso.pictures.values import NotDisplayable, Reason

_START_OF_SCAN, _START_OF_DATA, _END_OF_IMAGE = b"\xff\xda", b"\xff\x93", b"\xff\xd9"  # of JPEG, of JPEG 2000, of both
_RLE_PADDING = 2  # bytes that a segment may have too many

Samples = NDArray[Any]  # rows × columns, or rows × columns × samples
Decoder = Callable[[bytes, PixelForm], tuple[Samples, str]]


def decode(encoded: bytes, form: PixelForm) -> tuple[Samples, str]:
    """The samples of a frame and their photometric interpretation, which is RGB where the decoder has turned YCbCr into
    it.

    Raises NotDisplayable. A hostile frame may also crash the process, hang or exhaust memory: call it in a process of
    its own.
    """
    decoder = _DECODERS.get(form.transfer_syntax)
    if decoder is None:
        raise NotDisplayable(Reason.TRANSFER_SYNTAX)
    try:
        samples, photometric = decoder(encoded, form)
    except (NotDisplayable, MemoryError):
        raise
    except Exception:  # each decoder has its own error
        raise NotDisplayable(Reason.DAMAGED) from None
    if samples.ndim == 3 and samples.shape[2] == 1:
        samples = samples[:, :, 0]
    expected = (form.rows, form.columns) if form.samples == 1 else (form.rows, form.columns, form.samples)
    if samples.shape != expected or samples.dtype.kind not in "iuf":
        raise NotDisplayable(Reason.DAMAGED)
    return samples, photometric


def _jpeg(encoded: bytes, form: PixelForm) -> tuple[Samples, str]:
    """JPEG Baseline and Extended (PS3.5 A.4.1). Three components are YCbCr unless both DICOM and the stream's own
    markers say RGB.
    """
    _ends_after(encoded, _START_OF_SCAN)
    if form.samples == 1:
        return imagecodecs.jpeg8_decode(encoded), form.photometric
    space = "RGB" if form.photometric == "RGB" and not _says_ycbcr(encoded) else "YCBCR"
    return imagecodecs.jpeg8_decode(encoded, colorspace=space, outcolorspace="RGB"), "RGB"


def _jpeg_lossless(encoded: bytes, form: PixelForm) -> tuple[Samples, str]:
    """Components are as stored: lossless JPEG knows no colour transform."""
    _ends_after(encoded, _START_OF_SCAN)
    if form.samples == 1:
        return imagecodecs.jpeg8_decode(encoded), form.photometric
    return imagecodecs.jpeg8_decode(encoded, colorspace="RGB", outcolorspace="RGB"), form.photometric


def _jpeg_ls(encoded: bytes, form: PixelForm) -> tuple[Samples, str]:
    samples = imagecodecs.jpegls_decode(encoded)
    if samples.ndim == 3 and samples.shape[0] == form.samples and samples.shape[2] != form.samples:
        samples = np.moveaxis(samples, 0, 2)
    return samples, form.photometric


def _jpeg_2000(encoded: bytes, form: PixelForm) -> tuple[Samples, str]:
    """The multiple component transform is undone by the decoder (PS3.5 8.2.4)."""
    return imagecodecs.jpeg2k_decode(encoded, numthreads=1), _after_component_transform(form)


def _htj2k(encoded: bytes, form: PixelForm) -> tuple[Samples, str]:
    _ends_after(encoded, _START_OF_DATA)
    return imagecodecs.htj2k_decode(encoded), _after_component_transform(form)


def _ends_after(encoded: bytes, start: bytes) -> None:
    """Raises NotDisplayable for a stream without its last marker, of which some decoders show a part without a word.
    Neither marker can occur within coded data.
    """
    if encoded.rfind(_END_OF_IMAGE) < encoded.rfind(start):
        raise NotDisplayable(Reason.DAMAGED)


def _after_component_transform(form: PixelForm) -> str:
    return "RGB" if form.photometric in ("YBR_RCT", "YBR_ICT") else form.photometric


def _jpeg_xl(encoded: bytes, form: PixelForm) -> tuple[Samples, str]:
    return imagecodecs.jpegxl_decode(encoded, numthreads=1), "RGB" if form.samples == 3 else form.photometric


def _rle(encoded: bytes, form: PixelForm) -> tuple[Samples, str]:
    """Each byte of each sample is a segment of its own, the most significant first (PS3.5 G)."""
    size = form.bits_allocated // 8
    count, *offsets = struct.unpack("<16I", encoded[:64])
    if count != form.samples * size or count > len(offsets):
        raise NotDisplayable(Reason.DAMAGED)
    planes = np.empty((form.samples, form.rows, form.columns, size), np.uint8)
    for segment, (start, end) in enumerate(pairwise([*offsets[:count], len(encoded)])):
        decoded = imagecodecs.packbits_decode(encoded[start:end], out=form.pixels + _RLE_PADDING)
        plane = np.frombuffer(decoded, np.uint8, form.pixels).reshape(form.rows, form.columns)
        planes[segment // size, :, :, size - 1 - segment % size] = plane
    samples = planes.view(f"<u{size}")[:, :, :, 0]
    return (samples[0] if form.samples == 1 else np.moveaxis(samples, 0, 2)), form.photometric


def _deflated(encoded: bytes, form: PixelForm) -> tuple[Samples, str]:
    """Deflated Image Frame Compression (PS3.5 A.4.13)."""
    size = form.pixels * form.samples * max(form.bits_allocated, 8) // 8
    return native_samples(zlib.decompressobj(-zlib.MAX_WBITS).decompress(encoded, size), form)


def _says_ycbcr(encoded: bytes) -> bool:
    """Whether the segments before the first scan say that three components are YCbCr: Adobe's by its transform, else
    JFIF by being there.
    """
    position, jfif = 2, False
    while position + 4 <= len(encoded) and encoded[position] == 0xFF:
        marker, length = encoded[position + 1], int.from_bytes(encoded[position + 2 : position + 4])
        segment = encoded[position + 4 : position + 2 + length]
        if marker == 0xEE and segment.startswith(b"Adobe") and len(segment) >= 12:
            return segment[11] == 1
        jfif = jfif or (marker == 0xE0 and segment.startswith(b"JFIF\0"))
        if marker == 0xDA:
            break
        position += 2 + length
    return jfif


_JPEG = "1.2.840.10008.1.2.4."
_DECODERS: Mapping[str, Decoder] = {
    "1.2.840.10008.1.2.1.98": native_samples,  # Encapsulated Uncompressed Explicit VR Little Endian
    "1.2.840.10008.1.2.5": _rle,
    "1.2.840.10008.1.2.8.1": _deflated,
    **{_JPEG + number: _jpeg for number in ("50", "51", "53", "55")},
    **{_JPEG + number: _jpeg_lossless for number in ("57", "70")},
    **{_JPEG + number: _jpeg_ls for number in ("80", "81")},
    **{_JPEG + number: _jpeg_2000 for number in ("90", "91")},
    **{_JPEG + number: _htj2k for number in ("201", "202", "203")},
    **{_JPEG + number: _jpeg_xl for number in ("110", "111", "112")},
}
DECODED = frozenset(_DECODERS)
HAS_WORDS = frozenset({"1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.8.1"})
"""Those whose frames are words of Bits Allocated, every bit of them."""
