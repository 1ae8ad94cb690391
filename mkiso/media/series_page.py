"""What the page of one series shows: its pictures in stacks, with marks and scale bars, and why some have none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath

from mkiso.languages import N_, Language
from mkiso.media.annotated import AnnotationsOnPage, annotations_on_page
from mkiso.media.record_types import PRESENTATION
from mkiso.media.shown import LeftOut, ShownPicture, ShownSeries
from mkiso.pictures.stacks import scale_bar
from mkiso.pictures.values import SOME_ANNOTATIONS, THUMBNAIL_EDGE, Marks, Picture, Plane, SpacingOf
from mkiso.study.text import text

LATERALITY = {"R": N_("Right"), "L": N_("Left"), "B": N_("Both sides")}
DISTANCES = {
    SpacingOf.PATIENT: "",
    SpacingOf.ULTRASOUND: "",
    SpacingOf.DETECTOR: N_("at the detector"),
    SpacingOf.MAGNIFICATION: N_("estimated"),
}

_NOT_DRAWN = {
    SOME_ANNOTATIONS: N_("some annotations"),
    "shutter": N_("a shutter"),
    "mask": N_("a mask"),
    "blending": N_("blending"),
    "displayed area": N_("cropping"),
}
"""By the word of ObjectFacts.left_out."""


@dataclass(frozen=True, slots=True)
class ScaleBar:
    """A length in mm, the percentage of the picture's width that it takes, and where it is true."""

    millimetres: int
    percent: float
    remark: str


@dataclass(frozen=True, slots=True)
class PictureOnPage:
    """A picture as a page shows it. `title` is its `name` and the patient's side; `edges` are the letters at its edges,
    by the edge; `caption` says all that is known of it. `picture` is None where only the thumbnail is on the disc;
    `height` is the picture's as shown, stretched where its pixels aren't square.
    """

    number: int
    name: str
    title: str
    side: str
    caption: str
    thumbnail: PurePosixPath
    thumbnail_width: int
    thumbnail_height: int
    picture: PurePosixPath | None
    width: int
    height: int
    stretched: bool
    edges: tuple[tuple[str, str], ...]
    bar: ScaleBar | None
    annotations: AnnotationsOnPage | None


@dataclass(frozen=True, slots=True)
class StackOnPage:
    pictures: tuple[PictureOnPage, ...]


@dataclass(frozen=True, slots=True)
class NotShownOnPage:
    """Objects that have no picture for one reason: their image numbers, and what they are."""

    words: str
    kind: str
    which: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SeriesPage:
    """The page of a series. `of` is how many pictures there would be; `middle` stands for the series elsewhere.
    `not_drawn`: what presentation states and images ask for beyond what the pictures show, in words.
    """

    page: PurePosixPath
    stacks: tuple[StackOnPage, ...]
    not_shown: tuple[NotShownOnPage, ...]
    of: int
    shown: ShownSeries
    not_drawn: str

    @property
    def count(self) -> int:
        return sum(len(stack.pictures) for stack in self.stacks)

    @property
    def middle(self) -> PictureOnPage | None:
        longest = max((stack.pictures for stack in self.stacks), key=len, default=())
        return longest[len(longest) // 2] if longest else None

    @property
    def annotated(self) -> tuple[PictureOnPage, ...]:
        """Those that something is drawn over."""
        pictures = (picture for stack in self.stacks for picture in stack.pictures)
        return tuple(picture for picture in pictures if picture.annotations and picture.picture)

    @property
    def has_pictures(self) -> bool:
        """Whether there are more than thumbnails."""
        return any(picture.picture for stack in self.stacks for picture in stack.pictures)


def series_page(shown: ShownSeries, spoken: Language) -> SeriesPage:
    """What the page of a series shows."""
    stacks = tuple(
        StackOnPage(tuple(_picture(each, shown.of, spoken) for each in stack.pictures)) for stack in shown.stacks
    )
    not_drawn = spoken.listed([spoken.gettext(_NOT_DRAWN[each]) for each in shown.not_drawn if each in _NOT_DRAWN])
    return SeriesPage(shown.page, stacks, tuple(_not_shown(shown.left_out, spoken)), shown.of, shown, not_drawn)


def _picture(shown: ShownPicture, of: int, spoken: Language) -> PictureOnPage:
    picture = shown.slice.picture
    plane = picture.plane
    aspect, side = aspect_of(plane), LATERALITY.get(plane.laterality, "")
    side = spoken.gettext(side) if side else ""
    smaller = max(1.0, max(picture.thumbnail.width, picture.thumbnail.height) / THUMBNAIL_EDGE)
    name, bar = spoken.gettext("Picture %(number)s", number=shown.number), _bar(picture)
    title = spoken.gettext("Picture %(number)s, %(side)s", number=shown.number, side=side) if side else name
    return PictureOnPage(
        number=shown.number,
        name=name,
        title=title,
        side=side,
        caption=" \u00b7 ".join(_captions(shown, of, bar, spoken)),
        thumbnail=shown.thumbnail.path,
        thumbnail_width=round(picture.thumbnail.width / smaller) or 1,
        thumbnail_height=round(picture.thumbnail.height / smaller * aspect) or 1,
        picture=shown.picture.path if shown.picture else None,
        width=picture.file.width,
        height=round(picture.file.height * aspect) or 1,
        stretched=not 0.99 < aspect < 1.01,
        edges=_edges(plane.marks),
        bar=bar,
        annotations=annotations_on_page(picture),
    )


def _captions(shown: ShownPicture, of: int, bar: ScaleBar | None, spoken: Language) -> Iterator[str]:
    picture, number = shown.slice.picture, shown.slice.instance_number
    yield spoken.gettext("Picture %(number)s of %(total)s", number=shown.number, total=of)
    if number is not None:
        frame = spoken.gettext("frame %(number)s", number=picture.frame) if picture.frame > 1 else ""
        yield ", ".join(filter(None, (spoken.gettext("image number %(number)s", number=number), frame)))
    if marks := picture.plane.marks:
        yield spoken.gettext("left edge %(left)s, right edge %(right)s", left=marks.left, right=marks.right)
    if bar:
        where = spoken.gettext(bar.remark) if bar.remark else ""
        yield " ".join(filter(None, (spoken.gettext("the bar is %(length)s mm", length=bar.millimetres), where)))
    yield spoken.gettext("not for diagnosis")


def _edges(marks: Marks | None) -> tuple[tuple[str, str], ...]:
    if marks is None:
        return ()
    edges = (("left", marks.left), ("right", marks.right), ("top", marks.top), ("bottom", marks.bottom))
    return tuple((edge, letters) for edge, letters in edges if letters)


def aspect_of(plane: Plane) -> float:
    """How much higher than wide a pixel is shown: no absurd value makes a page absurd."""
    return min(max(plane.pixel_aspect, 0.1), 10.0)


def _bar(picture: Picture) -> ScaleBar | None:
    spacing = picture.plane.spacing
    if spacing is None:
        return None
    columns = picture.file.width * picture.shrunk
    millimetres, pixels = scale_bar(spacing, columns)
    return ScaleBar(millimetres, round(min(100.0, 100 * pixels / columns), 2), DISTANCES[spacing.of])


def _not_shown(left_out: Iterable[LeftOut], spoken: Language) -> Iterable[NotShownOnPage]:
    def alike(each: LeftOut) -> tuple[str, str]:
        return each.reason.words, each.leaf.record_type

    pictureless = (each for each in left_out if each.leaf.record_type != PRESENTATION)  # mkiso.media.states_page
    for (words, kind), those in groupby(sorted(pictureless, key=alike), key=alike):
        yield NotShownOnPage(words, "" if kind == "IMAGE" else kind, tuple(_which(each, spoken) for each in those))


def _which(left_out: LeftOut, spoken: Language) -> str:
    name = text(left_out.leaf.instance.header, "InstanceNumber").strip() or left_out.leaf.path.name
    if not left_out.frame:
        return name
    frame = spoken.gettext("frame %(number)s", number=left_out.frame)
    return f"{name}, {frame}"
