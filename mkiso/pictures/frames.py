"""Where the frames of an object's pixel data lie, and their samples, one at a time: an object of any size costs the
memory of one frame.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from mkiso.pictures.decoders import HAS_WORDS, decode
from mkiso.pictures.form import PixelForm
from mkiso.pictures.native import is_subsampled, native_samples
from mkiso.pictures.values import NotDisplayable, Reason

_ITEM = 0xFFFEE000
_END_OF_IMAGE = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000 alike
_BEGINNINGS = (b"\xff\xd8", b"\xff\x4f", b"\xff\x0a")  # of images of JPEG and JPEG-LS, JPEG 2000, JPEG XL

Fragment = tuple[int, int]  # where its value begins in the file, and its length


class Frames(Protocol):
    """`samples` gives those of one frame, from 0, and their photometric interpretation; it raises NotDisplayable."""

    def samples(self, index: int) -> tuple[NDArray[Any], str]: ...


class NativeFrames:
    """Frames that follow each other without compression from `start` on, `length` bytes in all.

    `in_words`: bytes lie in big endian words of 16 bits, the first in the lower half (PS3.5 A.3).
    """

    def __init__(self, file: BinaryIO, form: PixelForm, start: int, length: int, *, in_words: bool) -> None:
        self._file, self._form, self._start, self._length, self._in_words = file, form, start, length, in_words
        self._bits = form.pixels * form.samples * form.bits_allocated
        if is_subsampled(form) and length < form.frames * self._bits // 8:
            self._bits = form.pixels * 16

    def samples(self, index: int) -> tuple[NDArray[Any], str]:
        first, last = index * self._bits, (index + 1) * self._bits
        if self._in_words:
            even = first // 16 * 2
            words = self._read(even, -(-last // 16) * 2)
            data = np.frombuffer(words[: len(words) & ~1], np.uint16).byteswap().tobytes()[first // 8 - even :]
        else:
            data = self._read(first // 8, -(-last // 8))
        return native_samples(data, self._form, first % 8)

    def _read(self, first: int, end: int) -> bytes:
        self._file.seek(self._start + first)
        return self._file.read(max(0, min(end, self._length) - first))


class EncapsulatedFrames:
    """Frames in fragments from `start` on (PS3.5 A.4); `offsets` is an Extended Offset Table, where there is one."""

    def __init__(self, file: BinaryIO, form: PixelForm, start: int, offsets: Sequence[int]) -> None:
        self._file, self._form = file, form
        table, fragments = _with_table(file, start)
        self._frames = _grouped(file, fragments, offsets or table, form.frames)

    def are_just(self, count: int) -> bool:
        """Whether there are so many frames, and no image behind one that a decoder would pass over."""
        more = [each for frame in self._frames for each in frame[1:]]
        if more and self._form.transfer_syntax in HAS_WORDS:  # a frame is one fragment (PS3.5 A.4.2, A.4.11, A.4.13)
            return False
        return len(self._frames) == count and not any(map(self._begins_image, more))

    def _begins_image(self, fragment: Fragment) -> bool:
        self._file.seek(fragment[0])
        return self._file.read(2) in _BEGINNINGS

    def samples(self, index: int) -> tuple[NDArray[Any], str]:
        if index >= len(self._frames):
            raise NotDisplayable(Reason.DAMAGED)
        encoded = []
        for offset, length in self._frames[index]:
            self._file.seek(offset)
            encoded.append(self._file.read(length))
        return decode(b"".join(encoded), self._form)


def fragments_of(file: BinaryIO, start: int) -> list[Fragment]:
    """The fragments of pixel data, without its Basic Offset Table. Raises NotDisplayable."""
    return _with_table(file, start)[1]


def _with_table(file: BinaryIO, start: int) -> tuple[list[int], list[Fragment]]:
    """The Basic Offset Table and the fragments; of a file that is cut short those that are there."""
    file.seek(0, 2)
    end = file.tell()
    fragments: list[Fragment] = []
    position = start
    while position + 8 <= end:
        file.seek(position)
        group, element, length = struct.unpack("<HHI", file.read(8))
        if group << 16 | element != _ITEM:
            break
        fragments.append((position + 8, min(length, end - position - 8)))
        position += 8 + length
    if not fragments:
        raise NotDisplayable(Reason.DAMAGED)
    file.seek(fragments[0][0])
    table = file.read(fragments[0][1])
    return list(struct.unpack(f"<{len(table) // 4}I", table[: len(table) // 4 * 4])), fragments[1:]


def _grouped(file: BinaryIO, fragments: list[Fragment], offsets: Sequence[int], frames: int) -> list[list[Fragment]]:
    """The fragments of each frame: one each, else as the offset table tells, else up to each end of an image."""
    if frames == 1 or not fragments:
        return [fragments] if fragments else []
    if len(fragments) == frames:
        return [[fragment] for fragment in fragments]
    starts = [offset - fragments[0][0] for offset, _ in fragments]  # both are counted from the first fragment's item
    if len(offsets) == frames and set(offsets) <= set(starts):
        cuts = [bisect_left(starts, offset) for offset in offsets]
        return [fragments[first:last] for first, last in zip(cuts, [*cuts[1:], len(fragments)], strict=True)]
    grouped: list[list[Fragment]] = [[]]
    for offset, length in fragments:
        grouped[-1].append((offset, length))
        file.seek(offset + max(0, length - 4))
        if _END_OF_IMAGE in file.read(min(4, length)):
            grouped.append([])
    return grouped if grouped[-1] else grouped[:-1]
