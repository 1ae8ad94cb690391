"""What goes into and comes out of rendering: plain frozen values that pages and a viewer are made from, and that cross
a process as JSON.

No value here names a patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mkiso.languages import N_

Vector = tuple[float, float, float]  # patient coordinates in mm (PS3.3 C.7.6.2.1.1)

THUMBNAIL_EDGE = 128  # pixels
FARTHEST = 1_000_000.0  # pixels off a picture: what is drawn beyond isn't meant
MOST_DRAWN = 50_000
"""Points and letters of the annotations of one object, over all its frames."""
SOME_ANNOTATIONS = "some annotations"
"""In `left_out`: not all are drawn."""
LONGEST_TEXT = 1024  # characters (PS3.5 6.2, ST)

MOST_CHOSEN = 240
"""Frames of a video that become pictures: some 50 MB of a large one."""

Coordinate = Annotated[float, Field(ge=-FARTHEST, le=FARTHEST, allow_inf_nan=False)]
Point = tuple[Coordinate, Coordinate]
"""In pixels of a picture as shown, to the right and down from its top left corner."""
Byte = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Byte, Byte, Byte]  # sRGB

SMALL_EDGE = 512
"""Up to here a picture is its own thumbnail: another file would cost more time and room than it spares."""


class Reason(StrEnum):
    """Why a frame or a whole object has no picture. `words` says it to a reader."""

    NO_PIXELS = "no_pixels"
    UNREADABLE = "unreadable"
    TRANSFER_SYNTAX = "transfer_syntax"
    VIDEO = "video"
    PIXELS_ELSEWHERE = "pixels_elsewhere"
    MALFORMED = "malformed"
    DAMAGED = "damaged"
    TOO_LARGE = "too_large"
    DECODER_CRASHED = "decoder_crashed"
    TOO_SLOW = "too_slow"
    UNFORESEEN = "unforeseen"

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS = {
    Reason.NO_PIXELS: N_("It holds no image."),
    Reason.UNREADABLE: N_("The file can't be read as DICOM."),
    Reason.TRANSFER_SYNTAX: N_("It is compressed in a way that can't be decoded here."),
    Reason.VIDEO: N_("It is a video, which isn't turned into pictures."),
    Reason.PIXELS_ELSEWHERE: N_("Its pixels lie on a server and not in the file."),
    Reason.MALFORMED: N_("What it says of its pixels makes no picture that is known here."),
    Reason.DAMAGED: N_("Its pixels are damaged or cut short."),
    Reason.TOO_LARGE: N_("It is too large to be shown here."),
    Reason.DECODER_CRASHED: N_("The decoder failed on it."),
    Reason.TOO_SLOW: N_("It took too long to decode."),
    Reason.UNFORESEEN: N_("It couldn't be turned into a picture."),
}


class NotDisplayable(Exception):
    """A frame or an object that gets no picture, and why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Function(StrEnum):
    """VOI LUT Function (PS3.3 C.11.2.1.3)."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True, slots=True)
class Window:
    """A window of the values after the Modality LUT. `explanation` is the object's own word for it."""

    centre: float
    width: float
    function: Function = Function.LINEAR
    explanation: str = ""


class Shown(StrEnum):
    """Where the grey values of a picture come from."""

    PRESENTATION = "presentation"  # a presentation state's
    VOI_LUT = "voi_lut"  # the object's own table
    WINDOW = "window"  # the object's own window
    PERCENTILES = "percentiles"  # it has none: between the 1st and 99th percentile of its values
    FULL_RANGE = "full_range"  # it has none, and at most 8 bits: all values
    COLOUR = "colour"  # nothing was chosen


@dataclass(frozen=True, slots=True)
class Look:
    """What a picture's grey values mean. `window` is None for a table and for colour; `explanation` is the object's
    word for table or window.
    """

    shown: Shown
    window: Window | None = None
    explanation: str = ""


class SpacingOf(StrEnum):
    """Where distances are true (PS3.3 10.7.1.3)."""

    PATIENT = "patient"  # within the patient: sections, or calibrated
    DETECTOR = "detector"  # at the detector: in the patient smaller, by an unknown magnification
    MAGNIFICATION = "magnification"  # at the detector, divided by the magnification that the object estimates
    ULTRASOUND = "ultrasound"  # within the only ultrasound region of the image (PS3.3 C.8.5.5)


@dataclass(frozen=True, slots=True)
class Spacing:
    """The distance between the centres of two neighbouring pixels in mm: down a column, and along a row."""

    row_mm: float
    column_mm: float
    of: SpacingOf


@dataclass(frozen=True, slots=True)
class Marks:
    """The patient's directions at the edges of a picture, such as R, A, or FP for an oblique edge (PS3.3
    C.7.6.1.1.1).
    """

    left: str
    right: str
    top: str
    bottom: str


@dataclass(frozen=True, slots=True)
class Plane:
    """Where a frame lies. What the object doesn't say is None or empty.

    `row` points along a row to the right, `column` down a column, `position` is the centre of the first pixel, all in
    patient coordinates and of the frame as stored; `marks` and `spacing` are of the picture as shown, `spacing` between
    the frame's pixels and not the picture's. `pixel_aspect` is a pixel's height divided by its width. `laterality` is
    R, L, U or B.
    """

    row: Vector | None = None
    column: Vector | None = None
    position: Vector | None = None
    frame_of_reference: str = ""
    spacing: Spacing | None = None
    pixel_aspect: float = 1.0
    marks: Marks | None = None
    laterality: str = ""


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A file of the target folder: its 8.3 name and its size in bytes; width and height in pixels."""

    name: str
    size: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class GraphicObject:
    """A line over a picture, of one point a dot. `curved`: of cubic Bézier curves, two control points before each
    further point. `colour` is None where a page chooses it.
    """

    points: Annotated[tuple[Point, ...], Field(min_length=1, max_length=MOST_DRAWN)]
    curved: bool = False
    filled: bool = False
    colour: Colour | None = None


class Justified(StrEnum):
    """Which end of a line of text lies at its place."""

    LEFT = "LEFT"
    CENTER = "CENTER"
    RIGHT = "RIGHT"


@dataclass(frozen=True, slots=True)
class TextObject:
    """Text over a picture, whose lines end in line feeds: below its place, or above it where `upwards`."""

    text: Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]
    place: Point
    justified: Justified = Justified.LEFT
    upwards: bool = False
    colour: Colour | None = None


@dataclass(frozen=True, slots=True)
class Annotations:
    """What a presentation state draws over a picture, later ones over earlier ones."""

    graphics: tuple[GraphicObject, ...] = ()
    texts: tuple[TextObject, ...] = ()

    @property
    def size(self) -> int:
        """In points and letters."""
        return sum(len(graphic.points) for graphic in self.graphics) + sum(len(each.text) for each in self.texts)


NO_ANNOTATIONS = Annotations()


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame that is shown. `frame` counts from 1. `thumbnail` is `file` itself where that is small. `shrunk` frame
    pixels lie along each side of one pixel of the picture.
    """

    frame: int
    file: PictureFile
    thumbnail: PictureFile
    look: Look
    plane: Plane
    script: PictureFile | None = None
    shrunk: int = 1
    annotations: Annotations = NO_ANNOTATIONS


@dataclass(frozen=True, slots=True)
class NotShown:
    """A frame that has no picture; frame 0 is the whole object."""

    frame: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What is true of an object as a whole.

    `left_out` names what a presentation state, else the object, asks for beyond what is drawn. `compressed`: its frames
    have to be decoded; `chosen` are those that are shown, where not all of them are.
    """

    sop_instance_uid: str = ""
    series_instance_uid: str = ""
    modality: str = ""
    instance_number: int | None = None
    rows: int = 0
    columns: int = 0
    frames: int = 0
    frame_time_ms: float | None = None
    left_out: tuple[str, ...] = ()
    compressed: bool = False
    chosen: Annotated[tuple[Annotated[int, Field(ge=1, le=100_000)], ...], Field(max_length=MOST_CHOSEN)] = ()


@dataclass(frozen=True, slots=True)
class PictureRequest:
    """What is wanted of one Part 10 file.

    Files go into `folder`, which exists. Frame n of the object is named by `number` + n - 1: see mkiso.pictures.names.
    `frames` count from 1; empty means all. `presentation` is the file of a presentation state to apply.
    """

    path: Path
    folder: Path
    number: int = 1
    frames: tuple[int, ...] = ()
    script: bool = False
    presentation: Path | None = None

    def __post_init__(self) -> None:
        if min(self.number, *self.frames, 1) < 1:
            raise ValueError("frames and the numbers of pictures count from 1")


@dataclass(frozen=True, slots=True)
class DecompressRequest:
    """The Part 10 file whose frames are wanted uncompressed, and the file that they go into."""

    path: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Decompressed:
    """What lies in the target: `size` bytes, samples of each pixel together."""

    photometric: str
    samples: int
    bits_allocated: int
    size: int


@dataclass(frozen=True, slots=True)
class PictureResult:
    """All that was asked of one file: each frame is in `pictures` or in `not_shown`, in order, unless the whole object
    isn't shown.
    """

    request: PictureRequest
    facts: ObjectFacts
    pictures: tuple[Picture, ...]
    not_shown: tuple[NotShown, ...]
