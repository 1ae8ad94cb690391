"""What a presentation state draws over a picture, as a page and the viewer draw it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from mkiso.pictures.values import Annotations, Colour, GraphicObject, Justified, Picture, TextObject
from mkiso.study.identity import one_line

_LINE_LETTERS = 40
_LINE_EM = 1.2  # from one to the next
_ANCHORS = {Justified.LEFT: "start", Justified.CENTER: "middle", Justified.RIGHT: "end"}


@dataclass(frozen=True, slots=True)
class PathOnPage:
    """A path of SVG in pixels of the picture; `colour` is empty where the page's own counts."""

    path: str
    is_dot: bool
    filled: bool
    colour: str


@dataclass(frozen=True, slots=True)
class TextOnPage:
    """Text of SVG: its place in percent of the picture, and its lines, each with its way down from the one before in
    em.
    """

    x: float
    y: float
    anchor: str
    lines: tuple[tuple[float, str], ...]
    colour: str


@dataclass(frozen=True, slots=True)
class AnnotationsOnPage:
    """Over a picture of `width` × `height` pixels; `words` are all its texts, each on one line."""

    width: int
    height: int
    paths: tuple[PathOnPage, ...]
    texts: tuple[TextOnPage, ...]
    words: tuple[str, ...]


def annotations_on_page(picture: Picture) -> AnnotationsOnPage | None:
    """None where nothing is drawn."""
    drawn, file = picture.annotations, picture.file
    if not drawn.size:
        return None
    return AnnotationsOnPage(
        file.width,
        file.height,
        tuple(
            PathOnPage(_path(each), len(each.points) == 1, each.filled, _hex(each.colour)) for each in drawn.graphics
        ),
        tuple(_text(each, file.width, file.height) for each in drawn.texts),
        words_of(drawn),
    )


def words_of(drawn: Annotations) -> tuple[str, ...]:
    """Each text on one line."""
    return tuple(one_line(each.text) for each in drawn.texts)


def annotations_told(drawn: Annotations) -> list[Any] | None:
    """For the viewer: graphics as [points, curved, filled, colour], texts as [x, y, lines, anchor, upwards, colour];
    None where nothing is drawn.
    """
    if not drawn.size:
        return None
    return [
        [[[*map(list, each.points)], each.curved, each.filled, _hex(each.colour)] for each in drawn.graphics],
        [
            [*each.place, list(_lines(each)), _ANCHORS[each.justified], each.upwards, _hex(each.colour)]
            for each in drawn.texts
        ],
    ]


def _path(graphic: GraphicObject) -> str:
    first, *others = (f"{x:g} {y:g}" for x, y in graphic.points)
    return f"M{first}{'C' if graphic.curved else 'L'}{' '.join(others or [first])}"


def _text(drawn: TextObject, width: int, height: int) -> TextOnPage:
    lines = list(_lines(drawn))
    first = 1.0 if not drawn.upwards else -0.3 - _LINE_EM * (len(lines) - 1)
    return TextOnPage(
        round(100 * drawn.place[0] / width, 2),
        round(100 * drawn.place[1] / height, 2),
        _ANCHORS[drawn.justified],
        tuple((round(_LINE_EM if number else first, 2), line) for number, line in enumerate(lines)),
        _hex(drawn.colour),
    )


def _lines(drawn: TextObject) -> Iterator[str]:
    """Short enough for a phone."""
    for line in drawn.text.split("\n"):
        yield from wrap(one_line(line), _LINE_LETTERS, break_long_words=False)


def _hex(colour: Colour | None) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour) if colour else ""
