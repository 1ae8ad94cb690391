"""What a presentation state draws over a picture lies where it should, and a hostile one costs itself alone. dcmtk's
dcmp2pgm draws no graphics: positions are held against the pixels that they point at, and against what is computed.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from pydicom import Dataset, Sequence, config, dcmread

from mkiso.pictures import jpeg, process
from mkiso.pictures import render as rendering
from mkiso.pictures.messages import ANSWER, Answer
from mkiso.pictures.pool import PicturePool
from mkiso.pictures.render import render
from mkiso.pictures.values import (
    MOST_DRAWN,
    SOME_ANNOTATIONS,
    Annotations,
    GraphicObject,
    Justified,
    Look,
    NotShown,
    ObjectFacts,
    Picture,
    PictureFile,
    PictureRequest,
    Plane,
    Reason,
    Shown,
    TextObject,
)
from peers.patience import LONG
from tests.pictures.objects import item, ramp, saying, sequence, write
from tests.pictures.test_judged import decoded
from tests.pictures.test_presentation import area, state_for

RED = [0x8AFB, 0xD19E, 0xC6AA]  # CIELab of sRGB's, with D50
FRAMES: dict[str, Any] = {"Rows": 64, "Columns": 96, "NumberOfFrames": 3, "BitsAllocated": 8, "PixelRepresentation": 0}


@pytest.fixture(autouse=True)
def as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.IGNORE)
    monkeypatch.setattr(config.settings, "writing_validation_mode", config.IGNORE)


def graphic(kind: str, *data: float, units: str = "PIXEL", **attributes: Any) -> Dataset:
    return item(
        GraphicAnnotationUnits=units,
        GraphicDimensions=2,
        NumberOfGraphicPoints=len(data) // 2,
        GraphicType=kind,
        GraphicData=list(data),
        **attributes,
    )


def words(text: str, box: tuple[float, ...] = (10, 10, 40, 20), units: str = "PIXEL", **attributes: Any) -> Dataset:
    return item(
        UnformattedTextValue=text,
        BoundingBoxAnnotationUnits=units,
        BoundingBoxTopLeftHandCorner=list(box[:2]),
        BoundingBoxBottomRightHandCorner=list(box[2:]),
        **attributes,
    )


def annotation(*objects: Dataset, **attributes: Any) -> Dataset:
    texts = [each for each in objects if "UnformattedTextValue" in each]
    graphics = [each for each in objects if "UnformattedTextValue" not in each]
    return item(
        GraphicLayer=attributes.pop("layer", "ONE"),
        TextObjectSequence=Sequence(texts),
        GraphicObjectSequence=Sequence(graphics),
        **attributes,
    )


def shown(image: Path, *annotations: Dataset, **state: Any) -> tuple[ObjectFacts, list[Picture]]:
    path = state_for(image, GraphicAnnotationSequence=Sequence(annotations), **state)
    facts, *pictures = render(PictureRequest(image, image.parent, presentation=path))
    assert isinstance(facts, ObjectFacts)
    return facts, [picture for picture in pictures if isinstance(picture, Picture)]


def drawn(folder: Path, *objects: Dataset, **state: Any) -> Annotations:
    """Over a picture of 96 × 64 pixels, whole."""
    image = write(folder / "image", ramp())
    facts, [picture] = shown(image, annotation(*objects), **state)
    assert SOME_ANNOTATIONS not in facts.left_out
    return picture.annotations


@pytest.mark.parametrize("shrink", [1, 3])
@pytest.mark.parametrize(("quarters", "flip"), [*product(range(4), "NY")])
def test_a_point_lies_on_the_pixel_that_it_points_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quarters: int, flip: str, shrink: int
) -> None:
    monkeypatch.setattr(jpeg, "QUALITY", 100)
    monkeypatch.setattr(rendering, "MAX_EDGE", 96 // shrink)
    pixels = np.zeros((64, 96), np.uint8)
    pixels[40:46, 20:26] = 255
    image = write(tmp_path / "image", pixels)
    dot = graphic("POINT", 23, 43)
    _, [picture] = shown(image, annotation(dot), ImageRotation=quarters * 90, ImageHorizontalFlip=flip)
    assert picture.shrunk == shrink
    light = decoded(tmp_path / picture.file.name).astype(float)
    down, across = (float((np.indices(light.shape)[axis] * light).sum() / light.sum()) + 0.5 for axis in (0, 1))
    assert picture.annotations.graphics[0].points[0] == pytest.approx((across, down), abs=0.4)


@pytest.mark.parametrize(("quarters", "flip"), [*product(range(4), "NY")])
def test_parts_of_the_displayed_area_are_counted_as_it_is_shown(tmp_path: Path, quarters: int, flip: str) -> None:
    """A part of the frame from column 21 to 60 and row 11 to 40; 0, 0 is always its top left corner on the picture."""
    made = drawn(
        tmp_path,
        graphic("POLYLINE", 0, 0, 1, 1, units="DISPLAY"),
        graphic("POLYLINE", 20, 10, 60, 40),
        ImageRotation=quarters * 90,
        ImageHorizontalFlip=flip,
        DisplayedAreaSelectionSequence=area([21, 11], [60, 40]),
    )
    parts, pixels = (graphic.points for graphic in made.graphics)
    corners = [tuple(pick(at) for at in zip(*pixels, strict=True)) for pick in (min, max)]
    assert list(parts) == corners


def test_a_circle_passes_through_its_point_and_an_ellipse_through_its_ends(tmp_path: Path) -> None:
    circle, ellipse = drawn(
        tmp_path,
        graphic("CIRCLE", 50, 30, 53, 34, GraphicFilled="Y"),
        graphic("ELLIPSE", 10, 10, 30, 30, 15, 25, 25, 15),
    ).graphics
    assert circle.curved and circle.filled
    for x, y in along(circle):
        assert np.hypot(x - 50, y - 30) == pytest.approx(5, abs=0.01)
    assert circle.points[0] == circle.points[-1]
    ends = {(10, 10), (30, 30), (15, 25), (25, 15)}
    assert ends <= set(ellipse.points) and not ellipse.filled
    for x, y in along(ellipse):
        major, minor = ((x - 20) + (y - 20)) / 2**0.5, ((x - 20) - (y - 20)) / 2**0.5
        assert (major / 200**0.5) ** 2 + (minor / 50**0.5) ** 2 == pytest.approx(1, abs=0.01)


def test_a_circle_is_round_where_pixels_are_not_square(tmp_path: Path) -> None:
    image = write(tmp_path / "image", ramp(), PixelAspectRatio=["2", "1"])
    for turned, aspect in ((0, 2.0), (90, 0.5)):
        _, [picture] = shown(image, annotation(graphic("CIRCLE", 50, 30, 50, 35)), ImageRotation=turned)
        xs, ys = zip(*picture.annotations.graphics[0].points, strict=True)
        assert picture.plane.pixel_aspect == aspect
        assert max(xs) - min(xs) == pytest.approx((max(ys) - min(ys)) * aspect, abs=0.05)


def test_a_spline_passes_through_each_of_its_points(tmp_path: Path) -> None:
    data = (10, 10, 30, 50, 60, 20, 80, 40)
    [spline] = drawn(tmp_path, graphic("INTERPOLATED", *data)).graphics
    assert spline.curved and spline.points[::3] == ((10, 10), (30, 50), (60, 20), (80, 40))
    straight = np.array(along(drawn(tmp_path, graphic("INTERPOLATED", 0, 0, 10, 10, 20, 20)).graphics[0]))
    assert np.abs(straight[:, 0] - straight[:, 1]).max() < 0.01


def along(graphic: GraphicObject) -> list[tuple[float, float]]:
    """Points on its Bézier curves."""
    points = np.array(graphic.points)
    found = []
    for first in range(0, len(points) - 1, 3):
        for part in np.linspace(0, 1, 9):
            weights = [(1 - part) ** 3, 3 * part * (1 - part) ** 2, 3 * part**2 * (1 - part), part**3]
            x, y = np.dot(weights, points[first : first + 4])
            found.append((float(x), float(y)))
    return found


def test_only_what_is_closed_is_filled(tmp_path: Path) -> None:
    made = drawn(
        tmp_path,
        graphic("POLYLINE", 1, 1, 9, 1, 9, 9, 1, 1, GraphicFilled="Y"),
        graphic("POLYLINE", 1, 1, 9, 1, 9, 9, GraphicFilled="Y"),
    )
    assert [each.filled for each in made.graphics] == [True, False]


def test_an_item_is_about_the_frames_that_it_names(tmp_path: Path) -> None:
    image = write(tmp_path / "image", bytes(3 * 64 * 96), **FRAMES)
    uid = dcmread(image).SOPInstanceUID
    of_two = sequence(ReferencedSOPInstanceUID=uid, ReferencedFrameNumber=[2, 3])
    _, pictures = shown(
        image,
        annotation(graphic("POINT", 1, 1)),
        annotation(graphic("POINT", 2, 2), ReferencedImageSequence=of_two),
        annotation(graphic("POINT", 3, 3), ReferencedImageSequence=sequence(ReferencedSOPInstanceUID=uid)),
        annotation(graphic("POINT", 4, 4), ReferencedImageSequence=sequence(ReferencedSOPInstanceUID="1.2.3")),
    )
    found = [[graphic.points[0][0] for graphic in picture.annotations.graphics] for picture in pictures]
    assert found == [[1, 3], [1, 2, 3], [1, 2, 3]]


FRAME_NUMBER, ITEM = b"\x08\x00\x60\x11IS\x02\x00", b"\xfe\xff\x00\xe0"


@pytest.mark.parametrize(("before", "good", "bad"), [(FRAME_NUMBER, b"2 ", b"2x"), (b"", ITEM, b"\xfe\xff\x01\xe0")])
def test_an_item_that_does_not_say_which_frames_it_means_is_left_out(
    tmp_path: Path, before: bytes, good: bytes, bad: bytes
) -> None:
    """It may be about another one than is shown."""
    image = write(tmp_path / "image", bytes(3 * 64 * 96), **FRAMES)
    of_two = sequence(ReferencedSOPInstanceUID=dcmread(image).SOPInstanceUID, ReferencedFrameNumber=2)
    said = [annotation(words("everywhere")), annotation(words("somewhere"), ReferencedImageSequence=of_two)]
    state = state_for(image, GraphicAnnotationSequence=Sequence(said))
    content = state.read_bytes()
    at = content.rindex(before + good, 0, content.index(FRAME_NUMBER) + 12) + len(before)
    state.write_bytes(content[:at] + bad + content[at + len(bad) :])
    facts, *pictures = render(PictureRequest(image, image.parent, presentation=state))
    assert isinstance(facts, ObjectFacts) and SOME_ANNOTATIONS in facts.left_out
    found = [picture.annotations.texts for picture in pictures if isinstance(picture, Picture)]
    assert [[each.text for each in texts] for texts in found] == [["everywhere"]] * 3


def test_layers_have_their_order_and_their_colour(tmp_path: Path) -> None:
    image = write(tmp_path / "image", ramp())
    layers = [
        item(GraphicLayer="ONE", GraphicLayerOrder=3, GraphicLayerRecommendedDisplayCIELabValue=RED),
        item(GraphicLayer="TWO", GraphicLayerOrder=1, GraphicLayerRecommendedDisplayGrayscaleValue=0x8000),
        item(GraphicLayer="THREE", GraphicLayerOrder=2, GraphicLayerRecommendedDisplayRGBValue=[0, 0xFFFF, 0]),
    ]
    _, [picture] = shown(
        image,
        *(annotation(graphic("POINT", at, 1), layer=layer) for at, layer in enumerate(("ONE", "?", "TWO", "THREE"), 1)),
        GraphicLayerSequence=Sequence(layers),
    )
    found = [(graphic.points[0][0], graphic.colour) for graphic in picture.annotations.graphics]
    assert found == [(3, (128, 128, 128)), (4, (0, 255, 0)), (1, (255, 0, 0)), (2, None)]


def test_text_runs_inwards_from_its_box(tmp_path: Path) -> None:
    texts = drawn(
        tmp_path,
        words("a", (10, 10, 40, 20)),
        words("b", (60, 10, 90, 20)),
        words("c", (0, 0, 0.9, 0.1), "DISPLAY", BoundingBoxTextHorizontalJustification="RIGHT"),
        words("d", (10, 50, 40, 60), BoundingBoxTextHorizontalJustification="CENTER"),
        words("e", (10, 10, 30, 20), BoundingBoxTextHorizontalJustification="RIGHT"),
        item(UnformattedTextValue="f", AnchorPoint=[5, 6], AnchorPointAnnotationUnits="PIXEL"),
    ).texts
    assert [(each.text, each.place, each.justified, each.upwards) for each in texts] == [
        ("a", (10, 10), Justified.LEFT, False),
        ("b", (90, 10), Justified.RIGHT, False),
        ("c", (86.4, 0), Justified.RIGHT, False),
        ("d", (25, 60), Justified.CENTER, True),
        ("e", (10, 10), Justified.LEFT, False),
        ("f", (5, 6), Justified.LEFT, False),
    ]


def test_a_shown_anchor_is_led_to_its_text(tmp_path: Path) -> None:
    at: dict[str, Any] = {"AnchorPoint": [70.0, 60.0], "AnchorPointAnnotationUnits": "PIXEL"}
    made = drawn(tmp_path, words("a", AnchorPointVisibility="Y", **at), words("b", AnchorPointVisibility="N", **at))
    assert [graphic.points for graphic in made.graphics] == [((70, 60), (40, 20))]


def test_text_is_read_in_its_character_set_line_by_line(tmp_path: Path) -> None:
    made = drawn(tmp_path, words(" Herd\\rechts \r\n\r\nÖdem\t18 mm \n"), SpecificCharacterSet="ISO_IR 100")
    assert made.texts[0].text == "Herd\\rechts\nÖdem 18 mm"
    assert drawn(tmp_path, words("ปอด"), SpecificCharacterSet="ISO_IR 166").texts[0].text == "ปอด"


BROKEN: dict[str, list[Dataset]] = {
    "a kind that isn't known": [graphic("STAR", 1, 1)],
    "a circle of one point": [graphic("CIRCLE", 1, 1)],
    "half a point": [graphic("POLYLINE", 1, 1, 2)],
    "no point": [graphic("POLYLINE")],
    "not a number": [graphic("POINT", float("nan"), 1)],
    "endless": [graphic("POINT", float("inf"), 1)],
    "far away": [graphic("POINT", 1e30, 1)],
    "units that aren't known": [graphic("POINT", 1, 1, units="MATRIX")],
    "text without a place": [item(UnformattedTextValue="x")],
    "text of many letters": [words("x" * 1025)],
    "more points than are drawn": [graphic("POLYLINE", *range(MOST_DRAWN))],
    "more objects than are drawn": [graphic("POINT", 1, 1)] * (MOST_DRAWN // 8),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.filterwarnings("ignore:The value for the data element .* exceeds the size of 64 kByte")
def test_what_cannot_be_drawn_is_left_out_and_said(tmp_path: Path, kind: str) -> None:
    image = write(tmp_path / "image", ramp())
    facts, [picture] = shown(image, annotation(graphic("POINT", 2, 2), *BROKEN[kind], words("after it")))
    assert facts.left_out == (SOME_ANNOTATIONS,)
    assert picture.annotations.graphics[0].points == ((2, 2),)
    assert picture.annotations.size <= MOST_DRAWN
    if "objects" not in kind:
        assert [each.text for each in picture.annotations.texts] == ["after it"]


def test_the_bound_is_of_all_frames_together(tmp_path: Path) -> None:
    image = write(tmp_path / "image", bytes(3 * 64 * 96), **FRAMES)
    half = graphic("POLYLINE", *range(MOST_DRAWN // 6))
    facts, pictures = shown(image, annotation(half, half))
    assert facts.left_out == (SOME_ANNOTATIONS,)
    assert [len(picture.annotations.graphics) for picture in pictures] == [1, 1, 1]


def test_coordinates_stay_within_bounds_whatever_turns_them(tmp_path: Path) -> None:
    image = write(tmp_path / "image", ramp(), PixelAspectRatio=["1", "1000000"])
    _, [picture] = shown(
        image,
        annotation(graphic("CIRCLE", -1e6, -1e6, 1e6, 1e6), graphic("POINT", 1e6, -1e6, units="DISPLAY")),
        ImageRotation=90,
        DisplayedAreaSelectionSequence=area([-2147483648, 1], [2147483647, 2]),
    )
    assert ANSWER.validate_json(ANSWER.dump_json(Answer(picture=picture))).picture == picture


FILE = PictureFile("P0000001.JPG", 1, 1, 1)
PICTURE = Picture(1, FILE, FILE, Look(Shown.COLOUR), Plane())


@pytest.mark.parametrize(
    "annotations",
    [
        {"graphics": [{"points": []}]},
        {"graphics": [{"points": [["<script>", 1]]}]},
        {"graphics": [{"points": [[1e7, 1]]}]},
        {"graphics": [{"points": [[float("nan"), 1]]}]},
        {"graphics": [{"points": [[1, 1]], "colour": [256, 0, 0]}]},
        {"graphics": [{"points": [[1, 1]], "colour": "url(x)"}]},
        {"graphics": [{"points": [[1, 1]] * (MOST_DRAWN + 1)}]},
        {"texts": [{"text": "x" * 1025, "place": [1, 1]}]},
        {"texts": [{"text": "x", "place": [1, 1], "justified": '"onload'}]},
    ],
)
def test_a_process_cannot_say_what_no_state_can(annotations: dict[str, Any]) -> None:
    said = json.loads(ANSWER.dump_json(Answer(picture=PICTURE)))
    ANSWER.validate_json(json.dumps(said))
    said["picture"]["annotations"] = {"graphics": [], "texts": [], **annotations}
    with pytest.raises(ValidationError):
        ANSWER.validate_json(json.dumps(said))


def test_a_process_that_draws_without_end_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "P0000001.JPG").write_bytes(b"x")
    text = TextObject("x" * 1000, (1, 1))
    many = Picture(1, FILE, FILE, Look(Shown.COLOUR), Plane(), annotations=Annotations((), (text,) * 51))
    answers = (Answer(), Answer(facts=ObjectFacts(frames=1)), Answer(picture=many), Answer(done=True))
    (tmp_path / "said").write_bytes(b"".join(ANSWER.dump_json(each) + b"\n" for each in answers))

    monkeypatch.setattr(process, "_forked", lambda *_: None)
    monkeypatch.setattr(process, "_begun", saying(tmp_path / "said"))
    with PicturePool(tmp_path, tmp_path, 1) as pool:
        result = pool.begin(pool.render, PictureRequest(tmp_path / "image", tmp_path)).result(LONG)
    assert not result.pictures and result.not_shown == (NotShown(1, Reason.DECODER_CRASHED),)
