"""The shutter of a presentation state or of an image: what lies outside of it is painted over (PS3.3 C.7.6.11,
C.7.6.15).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mkiso.pictures.attributes import (
    OVERLAY_GROUPS,
    Attributes,
    functional_group,
    integer,
    items,
    number,
    numbers,
    texts,
)
from mkiso.pictures.colour import rgb_of_cielab
from mkiso.pictures.overlays import Mask, overlay_of
from mkiso.pictures.values import FARTHEST, Colour

_MOST_VERTICES = 4096
_SIDES = ("LeftVertical", "RightVertical", "UpperHorizontal", "LowerHorizontal")

Shut = Callable[[NDArray[Any], float], Mask | None]
"""What one shape shuts of a frame, by its words and the height of a pixel divided by its width; None where that isn't
known."""


@dataclass(frozen=True, slots=True)
class Shutter:
    """Shapes, of which each shuts what is outside of it, and what is shown there."""

    shapes: tuple[Shut, ...]
    grey: int
    colour: Colour

    def mask(self, words: NDArray[Any], aspect: float) -> Mask | None:
        """What is shut of a frame; None where nothing is."""
        masks = [mask for shape in self.shapes if (mask := shape(words, aspect)) is not None]
        mask = reduce(np.logical_or, masks) if masks else None
        return None if mask is None or not mask.any() else mask

    def paint(self, pixels: NDArray[np.uint8], mask: Mask) -> None:
        """Paint over what is shut."""
        pixels[mask] = self.grey if pixels.ndim == 2 else self.colour


def own_shutter(image: Attributes, frame: int) -> Shutter | None:
    """An image's own for a frame, from 0: where its frames have none of theirs, the same for each."""
    return shutter_of(functional_group(image, frame, "FrameDisplayShutterSequence"))[0]


def is_own_understood(image: Attributes) -> bool:
    """Whether all that an image says of its own shutters can be applied."""
    frames = range(max(1, len(items(image, "PerFrameFunctionalGroupsSequence"))))
    return all(shutter_of(functional_group(image, frame, "FrameDisplayShutterSequence"))[1] for frame in frames)


def shutter_of(state: Attributes) -> tuple[Shutter | None, bool]:
    """The shutter of a state, or of what describes an image's, and whether all that it has is understood."""
    if "ShutterShape" not in state:
        return None, "ShutterOverlayGroup" not in state
    names = [name.upper() for name in texts(state, "ShutterShape") if name]
    shapes = [_SHAPES[name](state) if name in _SHAPES else None for name in names]
    known = tuple(filter(None, shapes))
    grey = int(number(state, "ShutterPresentationValue") or 0) // 257
    cielab = numbers(state, "ShutterPresentationColorCIELabValue", 3)
    colour = rgb_of_cielab(cielab) if cielab else (grey, grey, grey)
    whole = len(known) == len(names) and ("ShutterOverlayGroup" not in state or "BITMAP" in names)
    return Shutter(known, min(max(grey, 0), 255), colour) if known else None, whole


def _rectangle(state: Attributes) -> Shut | None:
    edges = [integer(state, f"Shutter{side}Edge") for side in _SIDES]
    if None in edges:
        return None
    left, right, top, bottom = (max(edge or 0, 0) for edge in edges)

    def shut(words: NDArray[Any], _: float) -> Mask:
        mask = np.ones(words.shape[:2], bool)
        mask[max(top - 1, 0) : bottom, max(left - 1, 0) : right] = False
        return mask

    return shut if left <= right and top <= bottom and right and bottom else None  # zeros stand for none


def _circle(state: Attributes) -> Shut | None:
    centre, radius = numbers(state, "CenterOfCircularShutter", 2), number(state, "RadiusOfCircularShutter")
    if not centre or not radius or radius < 0 or max(radius, *map(abs, centre)) > FARTHEST:
        return None
    row, column = centre

    def shut(words: NDArray[Any], aspect: float) -> Mask:
        down = (np.arange(1, words.shape[0] + 1) - row) * aspect
        across = np.abs(np.arange(1, words.shape[1] + 1) - column)
        reach = np.sqrt(np.clip(radius**2 - down**2, 0, None))
        reach[np.abs(down) > radius] = -1
        mask: Mask = across[None, :] > reach[:, None]
        return mask

    return shut


def _polygon(state: Attributes) -> Shut | None:
    vertices = np.array(numbers(state, "VerticesOfThePolygonalShutter"))
    if vertices.size % 2 or not 6 <= vertices.size <= 2 * _MOST_VERTICES or np.abs(vertices).max() > FARTHEST:
        return None
    corners = vertices.reshape(-1, 2) - 1  # row and column, from 0

    def shut(words: NDArray[Any], _: float) -> Mask:
        """A pixel is inside where an odd number of edges lies to its left."""
        rows, columns = words.shape[:2]
        passed = np.zeros((rows, columns + 1), bool)
        for (row0, column0), (row1, column1) in pairwise([*corners, corners[0]]):
            first, last = sorted((row0, row1))
            at = np.arange(int(np.clip(np.ceil(first), 0, rows)), int(np.clip(np.ceil(last), 0, rows)))
            if at.size:
                crossed = column0 + (at - row0) * (column1 - column0) / (row1 - row0)
                passed[at, np.clip(np.ceil(crossed), 0, columns).astype(np.int64)] ^= True
        return ~np.logical_xor.accumulate(passed, axis=1)[:, :columns]

    return shut


def _bitmap(state: Attributes) -> Shut | None:
    group = integer(state, "ShutterOverlayGroup")
    if group is None or group not in OVERLAY_GROUPS or overlay_of(state, group, 0, np.zeros((1, 1), np.uint8)) is None:
        return None

    def shut(words: NDArray[Any], _: float) -> Mask | None:
        return overlay_of(state, int(group), 0, words)

    return shut


_SHAPES: Mapping[str, Callable[[Attributes], Shut | None]] = {
    "RECTANGULAR": _rectangle,
    "CIRCULAR": _circle,
    "POLYGONAL": _polygon,
    "BITMAP": _bitmap,
}
