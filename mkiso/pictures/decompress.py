"""The compressed frames of an object as they lie uncompressed in a file (PS3.5 8.1, 8.2), in this process:
mkiso.pictures.worker calls it in one of its own.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mkiso.pictures.decoders import HAS_WORDS
from mkiso.pictures.form import PixelForm
from mkiso.pictures.frames import EncapsulatedFrames
from mkiso.pictures.image import image_of, opened
from mkiso.pictures.values import Decompressed, DecompressRequest, NotDisplayable, NotShown, Reason

MAX_PIXEL_BYTES = 0xFFFFFFFE  # of Pixel Data that isn't encapsulated: its length has 32 bits and is even (PS3.5 7.1.1)
_FULL = {"YBR_FULL_422": "YBR_FULL"}  # decoders give each pixel its own colour
_NATIVE = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL")


def decompress(request: DecompressRequest) -> Iterator[int | Decompressed | NotShown]:
    """How many frames are written so far, and at last what they are; the reason where they can't be had whole.

    Samples are those that the decoder gives, each pixel's together (Planar Configuration 0), in words of Bits Allocated
    in little endian. Raises OSError.
    """
    try:
        yield from _frames(request)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        yield NotShown(0, Reason.TOO_LARGE)
    except NotDisplayable as error:
        yield NotShown(0, error.reason)
    except MemoryError:
        yield NotShown(0, Reason.TOO_LARGE)
    except Exception:
        yield NotShown(0, Reason.UNFORESEEN)


def _frames(request: DecompressRequest) -> Iterator[int | Decompressed]:
    with opened(request.path) as object_, request.target.open("wb") as out:
        image = image_of(object_)
        form, frames = image.form, image.frames
        if not isinstance(frames, EncapsulatedFrames) or not frames.are_just(form.frames):
            raise NotDisplayable(Reason.DAMAGED)
        if form.floating or (form.bits_allocated == 1 and form.pixels % 8):
            raise NotDisplayable(Reason.MALFORMED)
        if form.frames * form.pixels * form.samples * form.bits_allocated // 8 > MAX_PIXEL_BYTES:
            raise NotDisplayable(Reason.TOO_LARGE)
        found: set[str] = set()
        for index in range(form.frames):
            samples, photometric = frames.samples(index)
            found.add(_FULL.get(photometric, photometric))
            out.write(native_bytes(samples, form))
            yield index + 1
        [photometric] = found
        if photometric not in _NATIVE:
            raise NotDisplayable(Reason.MALFORMED)
        out.flush()
        yield Decompressed(photometric, form.samples, form.bits_allocated, out.tell())


def native_bytes(samples: NDArray[Any], form: PixelForm) -> bytes:
    """A frame in words of Bits Allocated in little endian. Raises NotDisplayable where they can't hold what the decoder
    gave.
    """
    if form.bits_allocated == 1:
        if samples.max() > 1:
            raise NotDisplayable(Reason.MALFORMED)
        return np.packbits(samples.astype(np.uint8), bitorder="little").tobytes()
    if samples.dtype.kind not in "iu" or (samples.dtype.kind == "i" and not form.signed and samples.min() < 0):
        raise NotDisplayable(Reason.MALFORMED)
    words = samples.astype(f"<{samples.dtype.kind}{form.bits_allocated // 8}", copy=False)
    if words.dtype.itemsize < samples.dtype.itemsize and (words != samples).any():
        raise NotDisplayable(Reason.MALFORMED)
    if form.transfer_syntax not in HAS_WORDS:
        if form.high_bit != form.bits_stored - 1:  # where the decoder's values lie in a word isn't said
            raise NotDisplayable(Reason.MALFORMED)
        words = _with_sign(words, form)
    return words.tobytes()


def _with_sign(words: NDArray[Any], form: PixelForm) -> NDArray[Any]:
    """Negative values of fewer bits than a word has, with the sign in the bits above, which most readers want. Words
    that have anything there stay.
    """
    if not form.signed or words.dtype.kind == "i" or form.bits_stored == form.bits_allocated:
        return words
    if words.size and int(words.max()) >> form.bits_stored:
        return words
    sign = words.dtype.type(1 << (form.bits_stored - 1))
    extended: NDArray[Any] = (words ^ sign) - sign
    return extended
