"""Which images and frames an item of a presentation state is about (PS3.3 10.3, C.11). What can't be read is about
none: what a reader drew on one frame may not show on another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mkiso.pictures.attributes import Attributes, are_damaged, items, numbers, text


def is_about(item: Attributes, sop_instance_uid: str, frame: int) -> bool:
    """Whether an item is about a frame, from 0; without references it is about all that its state is about."""
    return frame in frames_meant(item, sop_instance_uid, frame + 1)


def frames_meant(item: Attributes, sop_instance_uid: str, frames: int) -> Collection[int]:
    """The frames, from 0, of an image of so many that an item is about."""
    if is_unclear(item, sop_instance_uid):
        return ()
    said = list(_said(item, sop_instance_uid))
    if None in said or not items(item, "ReferencedImageSequence"):
        return range(frames)
    return frozenset(int(number) - 1 for each in said for number in each or () if 1 <= number <= frames)


def is_unclear(item: Attributes, sop_instance_uid: str) -> bool:
    """Whether it can't be read which frames of an image an item is about."""
    return are_damaged(item, "ReferencedImageSequence") or () in _said(item, sop_instance_uid)


def _said(item: Attributes, sop_instance_uid: str) -> Iterator[tuple[float, ...] | None]:
    """The frames, from 1, that each reference to an image names; None for one that means all."""
    for each in items(item, "ReferencedImageSequence"):
        if text(each, "ReferencedSOPInstanceUID") == sop_instance_uid:
            yield numbers(each, "ReferencedFrameNumber") if text(each, "ReferencedFrameNumber") else None
