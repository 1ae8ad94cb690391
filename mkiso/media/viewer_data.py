"""What the viewer on the disc is told of a study: `VIEW/ST000001.JS`, a script that hands over one value.

    mkisoStudy({"stacks": [{"title": …, "folder": …, "values": …, "modality": …, "width": …, "height": …, "aspect": …,
                            "shrunk": …, "frame_ms": …, "of": …, "linked": [1], "looks": [{"marks": [left, right, top,
                            bottom], "side": …, "spacing": [row, column], "spacing_of": …, "window": [centre, width]}],
                            "slices": [[number, look, along, has values, image number, frame, annotations], …]}, …],
                "words": {message: translation, …}})

`looks` are what slices have in common; `linked` are the stacks that can be leafed together with this one, by `along`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from mkiso.languages import Language
from mkiso.media.annotated import annotations_told
from mkiso.media.series_page import DISTANCES, LATERALITY, aspect_of
from mkiso.media.shown import ShownPicture, ShownStack
from mkiso.pictures.stacks import Stack
from mkiso.pictures.values import Function, Picture

_VALUES_SHOWN = ("CT", "MR")  # where a window is of values that people know
_SCRIPTS = "mkiso/media/web"
_LINEAR = (Function.LINEAR, Function.LINEAR_EXACT)


def study_script(
    series: Sequence[tuple[str, PurePosixPath, PurePosixPath, Sequence[ShownStack]]], spoken: Language
) -> bytes:
    """The script of a study: of each series its title, the folders of its pictures and of its values as the viewer's
    page sees them, and its stacks.
    """
    told = [
        (stack.stack, _stack(_title(title, number, len(stacks), spoken), pictures, values, stack, spoken))
        for title, pictures, values, stacks in series
        for number, stack in enumerate(stacks, 1)
        if stack.pictures and stack.pictures[0].picture
    ]
    for stack, value in told:
        value["linked"] = [
            at for at, (other, _) in enumerate(told) if other is not stack and stack.is_parallel_to(other)
        ]
    study = {"stacks": [value for _, value in told], "words": spoken.words_of(_SCRIPTS)}
    return f"mkisoStudy({script_value(study)});\n".encode("ascii")


def script_value(value: Any) -> str:
    """A value as JavaScript source, of plain ASCII: in it no text can end the script or begin markup."""
    source = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        source = source.replace(character, f"\\u{ord(character):04x}")
    return source


def _title(series: str, number: int, of: int, spoken: Language) -> str:
    if of == 1:
        return series
    return spoken.gettext("%(series)s, stack %(number)s", series=series, number=number)


def _stack(
    title: str, pictures: PurePosixPath, values: PurePosixPath, shown: ShownStack, spoken: Language
) -> dict[str, Any]:
    stack = shown.stack
    first = shown.pictures[0].slice.picture
    looks: list[Mapping[str, Any]] = []
    slices = [_slice(each, stack, looks, spoken) for each in shown.pictures]
    return {
        "title": title,
        "folder": f"{quote(str(pictures))}/",
        "values": f"{quote(str(values))}/",
        "modality": stack.modality,
        "width": first.file.width,
        "height": first.file.height,
        "aspect": round(aspect_of(first.plane), 4),
        "shrunk": first.shrunk,
        "frame_ms": stack.frame_time_ms,
        "of": len(stack.slices),
        "looks": looks,
        "slices": slices,
    }


def _slice(shown: ShownPicture, stack: Stack, looks: list[Mapping[str, Any]], spoken: Language) -> list[Any]:
    look = _look(shown.slice.picture, stack, spoken)
    if look not in looks:
        looks.append(look)
    along = shown.slice.along_mm if stack.by_position else None
    return [
        shown.number,
        looks.index(look),
        None if along is None else round(along, 3),
        shown.values is not None,
        shown.slice.instance_number,
        shown.slice.picture.frame,
        annotations_told(shown.slice.picture.annotations),
    ]


def _look(picture: Picture, stack: Stack, spoken: Language) -> dict[str, Any]:
    plane, window = picture.plane, picture.look.window
    known = window if window and window.function in _LINEAR and stack.modality in _VALUES_SHOWN else None
    marks, spacing = plane.marks, plane.spacing
    return {
        "marks": [marks.left, marks.right, marks.top, marks.bottom] if marks else None,
        "side": _said(LATERALITY.get(plane.laterality, ""), spoken),
        "spacing": [spacing.row_mm, spacing.column_mm] if spacing else None,
        "spacing_of": _said(DISTANCES[spacing.of] if spacing else "", spoken),
        "window": [known.centre, known.width] if known else None,
    }


def _said(words: str, spoken: Language) -> str:
    return spoken.gettext(words) if words else ""  # gettext has a catalogue's own facts under the empty message
