"""A frame's values as a classic script, for a viewer that windows them itself: pages opened from a disc can't read
images or data files back.

    mkisoPixels({"name": "D0000001.JS", "rows": 512, "columns": 512, "signed": true, "slope": 1, "intercept": -1024,
                 "inverse": false, "padding": null, "data": "…"});

`data` is base64 of a zlib stream (DecompressionStream("deflate")) of rows × columns words, all their low bytes before
all their high bytes. A word w stands for the difference (w >>> 1) ^ -(w & 1), in 16 bits; a value is the one to its
left, of a row's first the one above it, of the very first 0, plus its difference. A value times `slope` plus
`intercept` is what windows are of. `inverse`: the lowest values are white (MONOCHROME1). `padding` are the first and
the last value that are no image, or null.

Of a CT of 512² it takes 150 to 280 KB, of 700 KB that its pixels would take as base64, and 2 ms to write.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from mkiso.pictures.grey import Greys

_NUMBER = rb"(?:-?[0-9.e+-]+|-?Infinity|NaN)"
_VALUE = rb'(?:true|false|null|"D[0-9]{7}\.JS"|%b|\[%b, %b\])' % ((_NUMBER,) * 3)
_WRITTEN = re.compile(rb'mkisoPixels\(\{(?:"[a-z]+": %b, )+"data": "[A-Za-z0-9+/=]*"\}\);\n' % _VALUE)


def pixel_script(name: str, words: NDArray[Any], greys: Greys) -> bytes | None:
    """The script of a frame of unsigned words of at most 16 bits; None for others, whose values no such script can
    carry.
    """
    if words.dtype not in (np.uint8, np.uint16):
        return None
    values, signed, slope, intercept = _values(words, greys)
    head = {
        "name": name,
        "rows": words.shape[0],
        "columns": words.shape[1],
        "signed": signed,
        "slope": slope,
        "intercept": intercept,
        "inverse": greys.inverse,
        "padding": _padding(greys),
    }
    data = base64.b64encode(isal_zlib.compress(_differences(values), 1)).decode()
    return f'mkisoPixels({json.dumps(head)[:-1]}, "data": "{data}"}});\n'.encode()


def is_pixel_script(content: bytes) -> bool:
    """Whether a script hands over values and does nothing else: a browser runs what the process of a decoder wrote."""
    return _WRITTEN.fullmatch(content) is not None


def _values(words: NDArray[Any], greys: Greys) -> tuple[NDArray[np.uint16], bool, float, float]:
    """What is carried: stored values and their line, or values after a Modality LUT, which are words themselves."""
    every = greys.stored.values(np.arange(1 << 8 * words.dtype.itemsize, dtype=words.dtype))
    if greys.modality.lut:
        every = greys.modality.lut.values(every)
        return every.astype(np.uint16)[words], False, 1.0, 0.0
    return (
        every.astype(np.int32).astype(np.uint16)[words],
        greys.stored.signed,
        greys.modality.slope,
        greys.modality.intercept,
    )


def _padding(greys: Greys) -> tuple[float, float] | None:
    """As values that are carried; after a Modality LUT it can't be told any more."""
    return (greys.padding.first, greys.padding.last) if greys.padding and not greys.modality.lut else None


def _differences(values: NDArray[np.uint16]) -> bytes:
    differences = values.copy()
    differences[:, 1:] -= values[:, :-1]
    differences[1:, 0] -= values[:-1, 0]
    signed = differences.view(np.int16)
    words = ((signed << 1) ^ (signed >> 15)).astype("<u2")  # small ones of either sign become small words
    return np.ascontiguousarray(words.view(np.uint8).reshape(-1, 2).T).tobytes()
