"""What lies outside of a state's or an image's shutter is painted over, and what is inside stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, Sequence, config, dcmread

from mkiso.pictures import jpeg
from mkiso.pictures.render import render
from mkiso.pictures.values import FARTHEST, ObjectFacts, Picture, PictureRequest
from tests.pictures.objects import item, ramp, rgb, sequence, write
from tests.pictures.test_judged import decoded
from tests.pictures.test_presentation import state_for

ROWS, COLUMNS = np.mgrid[1:65, 1:97]
RECTANGLE: dict[str, Any] = {
    "ShutterLeftVerticalEdge": 20,
    "ShutterRightVerticalEdge": 60,
    "ShutterUpperHorizontalEdge": 10,
    "ShutterLowerHorizontalEdge": 40,
}
CIRCLE: dict[str, Any] = {"CenterOfCircularShutter": [30, 50], "RadiusOfCircularShutter": 20}
HUGE = 2 * int(FARTHEST)
TRIANGLE: dict[str, Any] = {"VerticesOfThePolygonalShutter": [5, 10, 60, 10, 60, 90]}
IN_RECTANGLE = (COLUMNS >= 20) & (COLUMNS <= 60) & (ROWS >= 10) & (ROWS <= 40)
IN_CIRCLE = (ROWS - 30) ** 2 + (COLUMNS - 50) ** 2 <= 400
IN_TRIANGLE = (COLUMNS >= 10) & (ROWS < 60) & ((COLUMNS - 10) * 55 < (ROWS - 5) * 80)


@pytest.fixture(autouse=True)
def finest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg, "QUALITY", 100)
    monkeypatch.setattr(config.settings, "writing_validation_mode", config.IGNORE)


def shown(folder: Path, pixels: NDArray[Any], **state: Any) -> tuple[ObjectFacts, NDArray[np.uint8]]:
    image = write(folder / "image", pixels)
    facts, picture = render(PictureRequest(image, folder, presentation=state_for(image, **state)))
    assert isinstance(facts, ObjectFacts) and isinstance(picture, Picture)
    return facts, decoded(folder / picture.file.name)


SHUTTERS = {
    "a rectangle": ("RECTANGULAR", RECTANGLE, IN_RECTANGLE),
    "a circle": ("CIRCULAR", CIRCLE, IN_CIRCLE),
    "a polygon": ("POLYGONAL", TRIANGLE, IN_TRIANGLE),
    "all three": (
        ["RECTANGULAR", "CIRCULAR", "POLYGONAL"],
        {**RECTANGLE, **CIRCLE, **TRIANGLE},
        IN_RECTANGLE & IN_CIRCLE & IN_TRIANGLE,
    ),
}


@pytest.mark.parametrize("kind", SHUTTERS)
def test_what_is_outside_has_the_value_of_the_shutter(tmp_path: Path, kind: str) -> None:
    shape, attributes, inside = SHUTTERS[kind]
    pixels = ramp(high=200, kind="u1")
    facts, found = shown(tmp_path, pixels, ShutterShape=shape, ShutterPresentationValue=0xFFFF, **attributes)
    assert facts.left_out == ()
    expected = np.where(inside, pixels, 255)
    assert (np.abs(found.astype(int) - expected) <= 3).mean() > 0.999


def test_colour_is_shut_in_the_colour_of_the_shutter(tmp_path: Path) -> None:
    red = [0x8AFB, 0xD19E, 0xC6AA]
    _, found = shown(tmp_path, rgb(), ShutterShape="RECTANGULAR", ShutterPresentationColorCIELabValue=red, **RECTANGLE)
    assert np.abs(found[0, 0].astype(int) - (255, 0, 0)).max() <= 3
    assert np.abs(found[20:30, 30:50].astype(int) - rgb()[20:30, 30:50]).mean() < 3


def test_the_shutter_turns_with_the_picture(tmp_path: Path) -> None:
    pixels = np.full((64, 96), 200, np.uint8)
    _, found = shown(tmp_path, pixels, ShutterShape="RECTANGULAR", ImageRotation=90, **RECTANGLE)
    assert found.shape == (96, 64)
    assert (np.abs(found.astype(int) - np.rot90(np.where(IN_RECTANGLE, 200, 0), -1)) <= 3).mean() > 0.99


def test_a_circle_is_round_where_pixels_are_not_square(tmp_path: Path) -> None:
    image = write(tmp_path / "image", np.full((64, 96), 200, np.uint8), PixelAspectRatio=["2", "1"])
    state = state_for(image, ShutterShape="CIRCULAR", **CIRCLE)
    _, picture = render(PictureRequest(image, tmp_path, presentation=state))
    assert isinstance(picture, Picture)
    lit = decoded(tmp_path / picture.file.name) > 100
    assert [int(lit.any(axis=axis).sum()) for axis in (1, 0)] == [21, 41]


@pytest.mark.parametrize(
    "state",
    [
        {"ShutterShape": "RECTANGULAR"},
        {"ShutterShape": "RECTANGULAR", **RECTANGLE, "ShutterLeftVerticalEdge": 70},
        {"ShutterShape": "RECTANGULAR", **dict.fromkeys(RECTANGLE, 0)},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [3, 3], "RadiusOfCircularShutter": -3},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [3, 3], "RadiusOfCircularShutter": HUGE},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 2, 3, 4]},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 2, 60, HUGE, -HUGE, 90]},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 2] * 5000},
        {"ShutterShape": "BITMAP", "ShutterOverlayGroup": 0x6000},
        {"ShutterOverlayGroup": 0x6000},
        {"ShutterShape": "STAR"},
    ],
)
def test_a_shutter_that_cannot_be_closed_is_said(tmp_path: Path, state: dict[str, Any]) -> None:
    pixels = ramp(high=200, kind="u1")
    facts, found = shown(tmp_path, pixels, **state)
    assert facts.left_out == ("shutter",)
    assert np.abs(found.astype(int) - pixels).max() <= 3


def test_bitmaps_shut_and_activated_overlays_are_drawn(tmp_path: Path) -> None:
    image = write(tmp_path / "image", np.full((64, 96), 100, np.uint8))
    shut, drawn, asleep = (np.zeros((64, 96), bool) for _ in range(3))
    shut[:16], drawn[24:32], asleep[40:48] = True, True, True
    state = state_for(image, ShutterShape="BITMAP", ShutterOverlayGroup=0x6002, ShutterPresentationValue=0x8000)
    made = dcmread(state)
    for group, mask in ((0x6002, shut), (0x6004, drawn), (0x6006, asleep)):
        for element, vr, value in (
            (0x10, "US", 64),
            (0x11, "US", 96),
            (0x50, "SS", [1, 1]),
            (0x3000, "OW", np.packbits(mask.reshape(-1), bitorder="little").tobytes()),
        ):
            made.add_new(group << 16 | element, vr, value)
    made.add_new(0x60041001, "CS", "DRAWN")
    made.save_as(state)
    facts, picture = render(PictureRequest(image, tmp_path, presentation=state))
    assert isinstance(facts, ObjectFacts) and isinstance(picture, Picture) and facts.left_out == ()
    found = decoded(tmp_path / picture.file.name)
    assert [int(found[row, 50]) for row in (8, 20, 28, 44)] == [127, 100, 255, 100]


def looked_at(image: Path, frame: int = 1, presentation: Path | None = None) -> tuple[ObjectFacts, NDArray[np.uint8]]:
    facts, picture = render(PictureRequest(image, image.parent, frames=(frame,), presentation=presentation))
    assert isinstance(facts, ObjectFacts) and isinstance(picture, Picture)
    return facts, decoded(image.parent / picture.file.name)


def is_shut(found: NDArray[np.uint8], pixels: NDArray[Any], inside: NDArray[np.bool_], outside: int = 0) -> bool:
    return bool((np.abs(found.astype(int) - np.where(inside, pixels, outside)) <= 3).mean() > 0.999)


@pytest.mark.parametrize("kind", SHUTTERS)
def test_an_image_is_shown_within_its_own_shutter(tmp_path: Path, kind: str) -> None:
    shape, attributes, inside = SHUTTERS[kind]
    pixels = ramp(high=200, kind="u1")
    image = write(tmp_path / "image", pixels, ShutterShape=shape, ShutterPresentationValue=0x8000, **attributes)
    facts, found = looked_at(image)
    assert facts.left_out == ()
    assert is_shut(found, pixels, inside, 127)


@pytest.mark.parametrize("kind", [None, "a circle"])
def test_a_state_goes_before_the_shutter_of_the_image(tmp_path: Path, kind: str | None) -> None:
    """Also one without a shutter (PS3.4 N.2)."""
    pixels = ramp(high=200, kind="u1")
    image = write(tmp_path / "image", pixels, ShutterShape="RECTANGULAR", **RECTANGLE)
    state = state_for(image, ShutterShape="CIRCULAR", **CIRCLE) if kind else state_for(image)
    facts, found = looked_at(image, presentation=state)
    assert facts.left_out == ()
    assert is_shut(found, pixels, IN_CIRCLE if kind else np.ones_like(IN_CIRCLE))


def frames_of(folder: Path, **attributes: Any) -> Path:
    return write(folder / "image", bytes(np.full((3, 64, 96), 200, np.uint8)), **FRAMES, **attributes)


FRAMES: dict[str, Any] = {
    "Rows": 64,
    "Columns": 96,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "PixelRepresentation": 0,
    "NumberOfFrames": 3,
}


def test_the_shutter_of_an_image_is_that_of_each_of_its_frames(tmp_path: Path) -> None:
    image = frames_of(tmp_path, ShutterShape="CIRCULAR", **CIRCLE)
    for frame in (1, 2, 3):
        assert is_shut(looked_at(image, frame)[1], np.full((64, 96), 200), IN_CIRCLE)


def test_a_frame_has_a_shutter_of_its_own_in_its_functional_group(tmp_path: Path) -> None:
    def group(**shutter: Any) -> Dataset:
        return item(FrameDisplayShutterSequence=sequence(**shutter))

    image = frames_of(
        tmp_path,
        SharedFunctionalGroupsSequence=Sequence([group(ShutterShape="RECTANGULAR", **RECTANGLE)]),
        PerFrameFunctionalGroupsSequence=Sequence([item(), group(ShutterShape="CIRCULAR", **CIRCLE), item()]),
    )
    for frame, inside in ((1, IN_RECTANGLE), (2, IN_CIRCLE), (3, IN_RECTANGLE)):
        facts, found = looked_at(image, frame)
        assert facts.left_out == ()
        assert is_shut(found, np.full((64, 96), 200), inside)
    odd = frames_of(tmp_path, PerFrameFunctionalGroupsSequence=Sequence([item(), group(ShutterShape="STAR"), item()]))
    assert looked_at(odd)[0].left_out == ("shutter",)


def test_a_state_of_one_frame_leaves_the_shutter_of_the_others(tmp_path: Path) -> None:
    image = frames_of(tmp_path, ShutterShape="CIRCULAR", **CIRCLE)
    state = dcmread(state_for(image))
    state.ReferencedSeriesSequence[0].ReferencedImageSequence[0].ReferencedFrameNumber = 2
    state.save_as(tmp_path / "of one")
    for frame, inside in ((1, IN_CIRCLE), (2, np.ones_like(IN_CIRCLE)), (3, IN_CIRCLE)):
        assert is_shut(looked_at(image, frame, tmp_path / "of one")[1], np.full((64, 96), 200), inside)


@pytest.mark.parametrize("shuts", ["image", "state", "frames"])
def test_a_window_by_percentiles_counts_nothing_beneath_a_shutter(tmp_path: Path, shuts: str) -> None:
    """Beside the collimated field lies direct exposure, or lettering."""
    pixels = np.where(IN_CIRCLE, ramp(low=100, high=300), 4000).astype("<u2")
    shutter: dict[str, Any] = {"ShutterShape": "CIRCULAR", **CIRCLE}
    if shuts == "frames":
        form = {**FRAMES, "BitsAllocated": 16, "BitsStored": 12}
        image = write(tmp_path / "image", np.stack([pixels] * 3).tobytes(), **form, **shutter)
    else:
        image = write(tmp_path / "image", pixels, BitsStored=12, **(shutter if shuts == "image" else {}))
    state = state_for(image, **shutter) if shuts == "state" else None
    _, *pictures = render(PictureRequest(image, tmp_path, presentation=state))
    for picture in pictures:
        assert isinstance(picture, Picture) and picture.look.window
        window = picture.look.window
        assert 100 <= window.centre - window.width / 2 <= window.centre + window.width / 2 <= 300


def test_values_beneath_a_shutter_are_not_carried(tmp_path: Path) -> None:
    image = write(tmp_path / "image", ramp(), BitsStored=12, ShutterShape="RECTANGULAR", **RECTANGLE)
    _, picture = render(PictureRequest(image, tmp_path, script=True))
    assert isinstance(picture, Picture) and picture.script is None
