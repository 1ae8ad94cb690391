"""The pictures of a study in the order in which they are leafed through, with the geometry that scrolling two series
together needs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from mkiso.pictures.geometry import dot, normal_of
from mkiso.pictures.values import Picture, PictureResult, Plane, Spacing, Vector

T = TypeVar("T")
_PARALLEL = 0.99  # cosine of 8°
_SAME_DIRECTION = 0.999  # cosine of 2.5°
_SAME_POSITION_MM = 0.01
_BAR_MM = (200, 100, 50, 20, 10, 5, 2, 1)

_Group = list[tuple[PictureResult, Picture]]


@dataclass(frozen=True, slots=True)
class Slice:
    """One picture of a stack. `along_mm` is its distance along the stack's normal from the origin; None where that
    isn't known.
    """

    sop_instance_uid: str
    instance_number: int | None
    picture: Picture
    along_mm: float | None


@dataclass(frozen=True, slots=True)
class Stack:
    """Pictures of one series, of one size and one orientation, in order.

    `by_position`: sorted along `normal`; else by instance number and frame, since positions are missing or stand there
    more than once, as in a run. `frame_time_ms` is of a run.
    """

    series_instance_uid: str
    modality: str
    slices: tuple[Slice, ...]
    by_position: bool
    normal: Vector | None
    frame_of_reference: str
    frame_time_ms: float | None

    def is_parallel_to(self, other: Stack) -> bool:
        """Whether both can be scrolled together, by `along_mm`: parallel planes in one frame of reference, each with
        its position.
        """
        if not (self.by_position and other.by_position and self.normal and other.normal and self.frame_of_reference):
            return False
        return self.frame_of_reference == other.frame_of_reference and dot(self.normal, other.normal) >= _PARALLEL


def stacks_of(results: Iterable[PictureResult]) -> tuple[Stack, ...]:
    """Every picture in exactly one stack; those of a series follow each other by their first instance number. What
    isn't shown is in the results.
    """
    series: dict[tuple[object, ...], list[_Group]] = defaultdict(list)
    for result in results:
        for picture in result.pictures:
            groups = series[_may_share(result, picture)]
            group = next((group for group in groups if _alike(group[0][1].plane, picture.plane)), None)
            if group is None:
                groups.append(group := [])
            group.append((result, picture))
    stacks = [(min(map(_by_number, group)), _stack(group)) for groups in series.values() for group in groups]
    return tuple(stack for _, stack in sorted(stacks, key=lambda pair: (pair[1].series_instance_uid, pair[0])))


def scale_bar(spacing: Spacing, columns: int) -> tuple[int, float]:
    """A round length in mm and the frame pixels that it takes along a row: the longest that takes at most a quarter of
    a frame's width.
    """
    for length in _BAR_MM:
        if length / spacing.column_mm <= columns / 4:
            return length, length / spacing.column_mm
    return _BAR_MM[-1], _BAR_MM[-1] / spacing.column_mm


def evenly(things: Sequence[T], most: int) -> list[T]:
    """At most so many of them, evenly spaced, the first and the last among them."""
    if len(things) <= most:
        return list(things)
    return [things[round(index * (len(things) - 1) / (most - 1))] for index in range(most)]


def evenly_with(things: Sequence[T], most: int, is_wanted: Callable[[T], bool]) -> list[T]:
    """`evenly`, with each that is wanted in place of its nearest neighbour; of those alone where they are enough."""
    wanted = [at for at, thing in enumerate(things) if is_wanted(thing)]
    if len(wanted) >= most:
        return [things[at] for at in evenly(wanted, most)]
    chosen: set[int] = set(evenly(range(len(things)), most))
    for at in wanted:
        if at not in chosen:
            _, nearest = min((abs(each - at), each) for each in chosen.difference(wanted))
            chosen.remove(nearest)
            chosen.add(at)
    return [things[at] for at in sorted(chosen)]


def _stack(group: _Group) -> Stack:
    result, first = group[0]
    normal = _normal(first.plane)
    slices = [
        Slice(each.facts.sop_instance_uid, each.facts.instance_number, picture, _along(picture.plane, normal))
        for each, picture in group
    ]
    known = sorted(each.along_mm for each in slices if each.along_mm is not None)
    distinct = len(known) == len(slices) and all(
        after - before > _SAME_POSITION_MM for before, after in pairwise(known)
    )
    by_position = distinct and len(slices) > 1
    if by_position:
        ordered = sorted(slices, key=lambda each: each.along_mm or 0.0)
    else:
        ordered = [
            each for _, each in sorted(zip(map(_by_number, group), slices, strict=True), key=lambda pair: pair[0])
        ]
    return Stack(
        series_instance_uid=result.facts.series_instance_uid,
        modality=result.facts.modality,
        slices=tuple(ordered),
        by_position=by_position,
        normal=normal,
        frame_of_reference=first.plane.frame_of_reference,
        frame_time_ms=result.facts.frame_time_ms,
    )


def _may_share(result: PictureResult, picture: Picture) -> tuple[object, ...]:
    """What may stand in one stack: one series, one size, one frame of reference, and each run on its own."""
    facts = result.facts
    run = facts.sop_instance_uid if facts.frame_time_ms and facts.frames > 1 else ""
    return (facts.series_instance_uid, facts.rows, facts.columns, run, picture.plane.frame_of_reference)


def _alike(first: Plane, second: Plane) -> bool:
    """Whether rows and columns point the same way, within 2.5°; or neither says where."""
    if not (first.row and first.column and second.row and second.column):
        return first.row == second.row
    return dot(first.row, second.row) > _SAME_DIRECTION and dot(first.column, second.column) > _SAME_DIRECTION


def _by_number(pair: tuple[PictureResult, Picture]) -> tuple[float, str, int]:
    result, picture = pair
    number = result.facts.instance_number
    return (float("inf") if number is None else number, result.facts.sop_instance_uid, picture.frame)


def _normal(plane: Plane) -> Vector | None:
    return normal_of(plane.row, plane.column) if plane.row and plane.column else None


def _along(plane: Plane, normal: Vector | None) -> float | None:
    return dot(plane.position, normal) if plane.position and normal else None
