"""From colour samples to RGB of 8 bits (PS3.3 C.7.6.3.1.2, C.7.6.3.1.5, C.7.9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mkiso.pictures.attributes import Attributes, numbers, words
from mkiso.pictures.grey import Stored
from mkiso.pictures.values import Colour, NotDisplayable, Reason

Rgb = NDArray[np.uint8]  # rows × columns × 3

_MAX_ENTRIES = 65_536
_ROWS_AT_ONCE = 256  # bounds memory
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2  # opcodes of segments, C.7.9.2


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """A palette: `colours` are RGB of 8 bits, the first of which belongs to the stored value `first`."""

    first: int
    colours: Rgb

    def of_words(self, word_bytes: int, stored: Stored, grey: NDArray[np.uint8] | None = None) -> Rgb:
        """The colour of every word of 8 or 16 bits; below the first entry the grey values, where there are any."""
        values = stored.values(np.arange(1 << 8 * word_bytes, dtype=np.uint8 if word_bytes == 1 else np.uint16))
        colours = self.colours[np.clip(values - self.first, 0, len(self.colours) - 1).astype(np.int64)]
        return colours if grey is None else np.where((values >= self.first)[:, None], colours, grey[:, None])


def to_rgb(samples: NDArray[Any], photometric: str, stored: Stored) -> Rgb:
    """RGB of samples of 8, 16 or 32 bits, of which the 8 most significant are shown.

    Raises NotDisplayable for a photometric interpretation that isn't known.
    """
    if samples.dtype != np.uint8:
        samples = (samples >> samples.dtype.type(max(0, stored.high_bit - 7))).astype(np.uint8)
    if photometric in ("RGB", "YBR_RCT", "YBR_ICT"):
        return np.ascontiguousarray(samples)
    if photometric in ("YBR_FULL", "YBR_FULL_422"):
        return _from_ycbcr(samples, black=0, luma=1.0, chroma=1.0)
    if photometric in ("YBR_PARTIAL_422", "YBR_PARTIAL_420"):
        return _from_ycbcr(samples, black=16, luma=255 / 219, chroma=255 / 224)
    raise NotDisplayable(Reason.MALFORMED)


def _from_ycbcr(samples: NDArray[np.uint8], *, black: int, luma: float, chroma: float) -> Rgb:
    """ITU-R BT.601, by tables, some rows at once."""
    lumas = ((np.arange(256) - black) * luma).astype(np.float32)
    differences = ((np.arange(256) - 128) * chroma).astype(np.float32)
    rgb = np.empty(samples.shape, np.uint8)
    for row in range(0, len(samples), _ROWS_AT_ONCE):
        part = samples[row : row + _ROWS_AT_ONCE]
        y, cb, cr = lumas[part[:, :, 0]], differences[part[:, :, 1]], differences[part[:, :, 2]]
        mixed = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=2)
        rgb[row : row + _ROWS_AT_ONCE] = np.clip(np.rint(mixed), 0, 255)
    return rgb


_D50 = np.array([0.9642, 1.0, 0.8249])
_TO_LINEAR = np.array(
    [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
)


def rgb_of_cielab(encoded: Sequence[float]) -> Colour:
    """sRGB of a CIELab value as it is encoded in three words (PS3.3 C.10.7.1.1)."""
    lightness, a, b = (np.clip(encoded, 0, 0xFFFF) / 0xFFFF) * (100, 255, 255) - (0, 128, 128)
    middle = (lightness + 16) / 116
    root = np.array([middle + a / 500, middle, middle - b / 200])
    linear = np.clip(_TO_LINEAR @ (np.where(root > 6 / 29, root**3, (root - 4 / 29) * 108 / 841) * _D50), 0, 1)
    red, green, blue = np.rint(255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))
    return int(red), int(green), int(blue)


def palette_of(dataset: Attributes, *, signed: bool, little_endian: bool) -> Palette | None:
    """The palette of PALETTE COLOR, or the supplemental one of colour in grey images (C.7.6.19); None where there is
    none.

    Raises NotDisplayable where it can't be used.
    """
    descriptors = [
        numbers(dataset, f"{colour}PaletteColorLookupTableDescriptor", 3) for colour in ("Red", "Green", "Blue")
    ]
    if not any(descriptors):
        return None
    if not all(descriptors):
        raise NotDisplayable(Reason.MALFORMED)
    entries, first, bits = (int(value) & 0xFFFF for value in descriptors[0])
    entries = entries or _MAX_ENTRIES
    channels = [_channel(dataset, colour, entries, bits, little_endian) for colour in ("Red", "Green", "Blue")]
    colours: NDArray[np.uint16] = np.stack(channels, axis=1)
    if bits > 8 and colours.max() > 255:  # some write 8-bit entries and say 16
        colours >>= 8
    return Palette(first - 0x10000 if signed and first >= 0x8000 else first, np.minimum(colours, 255).astype(np.uint8))


def _channel(dataset: Attributes, colour: str, entries: int, bits: int, little_endian: bool) -> NDArray[np.uint16]:
    data = words(dataset, f"{colour}PaletteColorLookupTableData", little_endian)
    if (
        data is None
        and (segments := words(dataset, f"Segmented{colour}PaletteColorLookupTableData", little_endian)) is not None
    ):
        data = _expanded(segments, entries, entry_bytes=1 if bits <= 8 else 2)
    if data is None:
        raise NotDisplayable(Reason.MALFORMED)
    if data.size < entries <= 2 * data.size:  # two entries a word
        data = _bytes(data)
    if data.size < entries:
        raise NotDisplayable(Reason.MALFORMED)
    return data[:entries]


def _bytes(data: NDArray[np.uint16]) -> NDArray[np.uint16]:
    return data.view(np.uint8).astype(np.uint16)


def _expanded(data: NDArray[np.uint16], entries: int, *, entry_bytes: int) -> NDArray[np.uint16]:
    """The entries of a segmented table (C.7.9.2). An indirect segment repeats segments that lie at a byte offset before
    it.
    """
    if entry_bytes == 1:
        data = _bytes(data)
    expanded: list[NDArray[np.uint16]] = []
    size, position = 0, 0
    repeating, back = 0, 0  # segments still to repeat, and where to go on after them
    while size < entries and position + 2 < data.size:
        opcode, length = int(data[position]), int(data[position + 1])
        if opcode == _INDIRECT and not repeating:
            width = 4 // entry_bytes
            offset = int.from_bytes(
                data[position + 2 : position + 2 + width].astype(f"<u{entry_bytes}").tobytes(), "little"
            )
            repeating, back, position = length, position + 2 + width, offset // entry_bytes
            continue
        if opcode == _DISCRETE:
            segment = data[position + 2 : position + 2 + length]
            position += 2 + length
        elif opcode == _LINEAR and expanded:
            segment = np.rint(np.linspace(float(expanded[-1][-1]), float(data[position + 2]), length + 1)[1:]).astype(
                np.uint16
            )
            position += 3
        else:
            raise NotDisplayable(Reason.MALFORMED)
        if not segment.size:
            raise NotDisplayable(Reason.MALFORMED)
        expanded.append(segment)
        size += segment.size
        if repeating:
            repeating -= 1
            position = position if repeating else back
    return np.concatenate(expanded) if expanded else np.empty(0, np.uint16)
