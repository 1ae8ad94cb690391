"""What a presentation state draws over an image: its graphic and text objects (PS3.3 C.10.5), in the order of their
layers (C.10.7), placed on the picture as it is shown.

Text stays upright and of one size, whatever turns the picture; it begins where its bounding box does, or ends there
where that lies in the other half of the picture, so that it runs inwards. Compound objects are drawn by the plain ones
that stand for them (C.10.5.1.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mkiso.pictures.attributes import Attributes, items, number, numbers, text
from mkiso.pictures.colour import rgb_of_cielab
from mkiso.pictures.form import MAX_FRAMES
from mkiso.pictures.references import frames_meant, is_unclear
from mkiso.pictures.values import (
    FARTHEST,
    LONGEST_TEXT,
    MOST_DRAWN,
    Annotations,
    Colour,
    GraphicObject,
    Justified,
    Point,
    TextObject,
)

_ROUND = 0.5523  # of a quarter of a circle: how far the control points lie from its ends
_PIXEL, _DISPLAY = "PIXEL", "DISPLAY"
_COUNTS = {"POINT": 1, "CIRCLE": 2, "ELLIPSE": 4}  # of points; the others have as many as they like
_LINES = ("POLYLINE", "INTERPOLATED")
_SIZE_OF_EACH = 8  # beside its points: also of many small ones there is an end

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Placing:
    """From a frame to its picture: shrunk to `width` × `height`, then turned by `quarter_turns` clockwise, then
    mirrored. `area` is the displayed area in pixels of the frame, `aspect` the height of a pixel of the picture as it
    is shown, divided by its width.
    """

    width: int
    height: int
    shrunk: int
    quarter_turns: int
    mirrored: bool
    area: Box
    aspect: float

    def of_frame(self, x: float, y: float) -> Point:
        """Where a point of the frame lies, of which the top left corner is 0, 0."""
        x, y, width, height = x / self.shrunk, y / self.shrunk, self.width, self.height
        for _ in range(self.quarter_turns):
            x, y, width, height = height - y, x, height, width
        return (width - x if self.mirrored else x), y

    def of_area(self, across: float, down: float) -> Point:
        """Where a part of the displayed area lies, as it is shown."""
        left, top, right, bottom = self.area
        (x0, y0), (x1, y1) = self.of_frame(left, top), self.of_frame(right, bottom)
        return min(x0, x1) + across * abs(x1 - x0), min(y0, y1) + down * abs(y1 - y0)

    @property
    def shown(self) -> Point:
        """Width and height of the picture as it is shown."""
        return (self.height, self.width) if self.quarter_turns % 2 else (self.width, self.height)


@dataclass(frozen=True, slots=True)
class _Spot:
    """A point in its units."""

    x: float
    y: float
    units: str

    def on(self, placing: Placing) -> Point:
        return (placing.of_frame if self.units == _PIXEL else placing.of_area)(self.x, self.y)


@dataclass(frozen=True, slots=True)
class _Graphic:
    kind: str
    spots: tuple[_Spot, ...]
    filled: bool
    colour: Colour | None

    @property
    def size(self) -> int:
        return 3 * len(self.spots) + 4 + _SIZE_OF_EACH

    def on(self, placing: Placing) -> list[GraphicObject]:
        points = [spot.on(placing) for spot in self.spots]
        made = _CURVES[self.kind](points, placing.aspect) if self.kind in _CURVES else points
        return [GraphicObject(_rounded(made), self.kind in _CURVES, self.filled, self.colour)]


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    box: tuple[_Spot, _Spot] | None
    anchor: _Spot | None
    anchor_shown: bool
    justified: Justified
    colour: Colour | None

    @property
    def size(self) -> int:
        return len(self.text) + 2 * _SIZE_OF_EACH

    def on(self, placing: Placing) -> tuple[list[GraphicObject], TextObject]:
        """The line that leads from the anchor to the text, and the text."""
        corners = [spot.on(placing) for spot in (self.box or (self.anchor,)) if spot]
        left, right = (pick(x for x, _ in corners) for pick in (min, max))
        top, bottom = (pick(y for _, y in corners) for pick in (min, max))
        width, height = placing.shown
        justified = self.justified
        if justified is Justified.LEFT and left > width / 2:
            justified = Justified.RIGHT
        elif justified is Justified.RIGHT and right < width / 2:
            justified = Justified.LEFT
        x = {Justified.LEFT: left, Justified.RIGHT: right, Justified.CENTER: (left + right) / 2}[justified]
        upwards = top + bottom > height
        [place] = _rounded([(x, bottom if upwards else top)])
        lines = []
        if self.box and self.anchor and self.anchor_shown:
            at = self.anchor.on(placing)
            near = (min(max(at[0], left), right), min(max(at[1], top), bottom))
            lines = [GraphicObject(_rounded([at, near]), colour=self.colour)]
        return lines, TextObject(self.text, place, justified, upwards, self.colour)


@dataclass(frozen=True, slots=True)
class _Group:
    """An item, and which frames it is about, from 0."""

    frames: Collection[int]
    objects: tuple[_Graphic | _Text, ...]


@dataclass(frozen=True, slots=True)
class StateAnnotations:
    """What a state draws over the frames of one image. `are_cut`: not all of it is here."""

    groups: tuple[_Group, ...] = ()
    are_cut: bool = False

    def on(self, frame: int, placing: Placing) -> Annotations:
        """What is drawn over a frame, from 0."""
        graphics: list[GraphicObject] = []
        texts: list[TextObject] = []
        for each in (each for group in self.groups if frame in group.frames for each in group.objects):
            if isinstance(each, _Graphic):
                graphics += each.on(placing)
            else:
                lines, words = each.on(placing)
                graphics += lines
                texts.append(words)
        return Annotations(tuple(graphics), tuple(texts))


def annotations_of(state: Attributes, sop_instance_uid: str, frames: int) -> StateAnnotations:
    """What a state draws over an image of so many frames. What can't be placed, or goes beyond MOST_DRAWN, is cut."""
    layers, frames = _layers(state), min(frames, MAX_FRAMES)
    groups, left, cut = [], MOST_DRAWN, False
    for item in sorted(items(state, "GraphicAnnotationSequence"), key=lambda item: _layer(item, layers)[0]):
        meant = frames_meant(item, sop_instance_uid, frames)
        cut = cut or is_unclear(item, sop_instance_uid)
        objects = []
        for each in _objects(item, _layer(item, layers)[1]) if meant else ():
            if each is None or each.size * len(meant) > left:
                cut = True
            else:
                left -= each.size * len(meant)
                objects.append(each)
        groups.append(_Group(meant, tuple(objects)))
    return StateAnnotations(tuple(group for group in groups if group.objects), cut)


def _layers(state: Attributes) -> Mapping[str, tuple[float, Colour | None]]:
    """The order and the colour of each layer, by its name."""
    return {
        text(layer, "GraphicLayer"): (number(layer, "GraphicLayerOrder") or 0.0, _colour(layer))
        for layer in items(state, "GraphicLayerSequence")
    }


def _layer(item: Attributes, layers: Mapping[str, tuple[float, Colour | None]]) -> tuple[float, Colour | None]:
    return layers.get(text(item, "GraphicLayer"), (math.inf, None))


def _colour(layer: Attributes) -> Colour | None:
    """What it recommends: CIELab, else RGB of before 2004, else a grey value."""
    if cielab := numbers(layer, "GraphicLayerRecommendedDisplayCIELabValue", 3):
        return rgb_of_cielab(cielab)
    words = numbers(layer, "GraphicLayerRecommendedDisplayRGBValue", 3)
    words = words or 3 * numbers(layer, "GraphicLayerRecommendedDisplayGrayscaleValue", 1)
    if not words:
        return None
    red, green, blue = (int(min(max(word, 0), 0xFFFF)) >> 8 for word in words)
    return red, green, blue


def _objects(item: Attributes, colour: Colour | None) -> Iterator[_Graphic | _Text | None]:
    """Each of an item; None for one that can't be drawn."""
    for graphic in items(item, "GraphicObjectSequence"):
        yield _graphic(graphic, colour)
    for words in items(item, "TextObjectSequence"):
        yield _text(words, colour)


def _graphic(item: Attributes, colour: Colour | None) -> _Graphic | None:
    kind, data = text(item, "GraphicType").upper(), numbers(item, "GraphicData")
    spots = tuple(
        filter(None, (_spot(data[at : at + 2], item, "GraphicAnnotationUnits") for at in range(0, len(data), 2)))
    )
    count = len(data) // 2
    sound = count == _COUNTS[kind] if kind in _COUNTS else kind in _LINES and count > 1
    if not sound or len(spots) != count:
        return None
    is_closed = kind in ("CIRCLE", "ELLIPSE") or (kind in _LINES and spots[0] == spots[-1])
    return _Graphic(kind, spots, is_closed and text(item, "GraphicFilled").upper() == "Y", colour)


def _text(item: Attributes, colour: Colour | None) -> _Text | None:
    lines = (" ".join(line.split()) for line in item.text("UnformattedTextValue").splitlines())
    words = "\n".join(filter(None, lines))
    corners = [
        _spot(numbers(item, f"BoundingBox{corner}HandCorner", 2), item, "BoundingBoxAnnotationUnits")
        for corner in ("TopLeft", "BottomRight")
    ]
    anchor = _spot(numbers(item, "AnchorPoint", 2), item, "AnchorPointAnnotationUnits")
    first, last = corners
    box = (first, last) if first and last else None
    if not words or len(words) > LONGEST_TEXT or not (box or anchor):
        return None
    said = text(item, "BoundingBoxTextHorizontalJustification").upper()
    justified = Justified(said) if said in set(Justified) else Justified.LEFT
    return _Text(words, box, anchor, text(item, "AnchorPointVisibility").upper() == "Y", justified, colour)


def _spot(at: Sequence[float], item: Attributes, units: str) -> _Spot | None:
    """None where it lies nowhere."""
    said = text(item, units).upper()
    if len(at) != 2 or said not in (_PIXEL, _DISPLAY) or max(map(abs, at)) > FARTHEST:
        return None
    return _Spot(at[0], at[1], said)


def _rounded(points: Sequence[Point]) -> tuple[Point, ...]:
    """To hundredths of a pixel, and no further away than means anything."""
    return tuple((_within(x), _within(y)) for x, y in points)


def _within(coordinate: float) -> float:
    return round(min(max(coordinate, -FARTHEST), FARTHEST), 2)


def _circle(points: Sequence[Point], aspect: float) -> list[Point]:
    """Round as it is shown, through its second point, the first of which is the centre."""
    (x, y), (x1, y1) = points
    radius = math.hypot(x1 - x, (y1 - y) * aspect)
    return _arcs((x, y), (radius, 0), (0, radius / aspect))


def _ellipse(points: Sequence[Point], _: float) -> list[Point]:
    """Of the ends of its axes."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = points
    return _arcs(((x0 + x1) / 2, (y0 + y1) / 2), ((x1 - x0) / 2, (y1 - y0) / 2), ((x3 - x2) / 2, (y3 - y2) / 2))


def _arcs(centre: Point, first: Point, second: Point) -> list[Point]:
    """Four curves around a centre, by the way to the ends of two half axes."""
    parts = [(1.0, 0.0), (1.0, _ROUND), (_ROUND, 1.0), (0.0, 1.0)]
    round_ = [(c, s) for c, s in parts[:3]]
    round_ += [(-s, c) for c, s in parts[:3]] + [(-c, -s) for c, s in parts[:3]] + [(s, -c) for c, s in parts]
    return [(centre[0] + c * first[0] + s * second[0], centre[1] + c * first[1] + s * second[1]) for c, s in round_]


def _interpolated(points: Sequence[Point], _: float) -> list[Point]:
    """Through each of the points, smoothly: a Catmull-Rom spline."""
    closed = points[0] == points[-1]
    before = points[-2] if closed else points[0]
    after = points[1] if closed else points[-1]
    around = [before, *points, after]
    made = [points[0]]
    for at, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        (xb, yb), (xa, ya) = around[at], around[at + 3]
        made += [(x0 + (x1 - xb) / 6, y0 + (y1 - yb) / 6), (x1 - (xa - x0) / 6, y1 - (ya - y0) / 6), (x1, y1)]
    return made


_CURVES: Mapping[str, Callable[[Sequence[Point], float], list[Point]]] = {
    "CIRCLE": _circle,
    "ELLIPSE": _ellipse,
    "INTERPOLATED": _interpolated,
}
