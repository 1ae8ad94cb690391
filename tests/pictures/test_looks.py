"""What a picture shows, and what is said of it: which window, which palette, which frames, which files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from mkiso.pictures.grey import Greys, Modality, Padding, Stored, _line
from mkiso.pictures.jpeg import MAX_EDGE, shrunk
from mkiso.pictures.names import names_of, picture_name
from mkiso.pictures.render import render
from mkiso.pictures.values import (
    SMALL_EDGE,
    THUMBNAIL_EDGE,
    Function,
    NotShown,
    ObjectFacts,
    Picture,
    PictureRequest,
    Reason,
    Shown,
    Window,
)
from tests.pictures.objects import ramp, rgb, sequence, write


def picture_of(path: Path, **wanted: Any) -> Picture:
    _, picture = render(PictureRequest(path, path.parent, **wanted))
    assert isinstance(picture, Picture), picture
    return picture


def pixels_of(path: Path, name: str) -> NDArray[np.uint8]:
    return np.asarray(imagecodecs.jpeg8_decode((path.parent / name).read_bytes()))


@pytest.mark.parametrize(
    ("attributes", "shown", "window"),
    [
        ({"WindowCenter": 40, "WindowWidth": 400}, Shown.WINDOW, Window(40, 400)),
        (
            {
                "WindowCenter": [40, 1],
                "WindowWidth": [400, 2],
                "WindowCenterWidthExplanation": ["SOFT", "X"],
                "VOILUTFunction": "SIGMOID",
            },
            Shown.WINDOW,
            Window(40, 400, Function.SIGMOID, "SOFT"),
        ),
        ({"WindowCenter": [40, 1], "WindowWidth": [0, 2]}, Shown.WINDOW, Window(1, 2)),
        ({"WindowCenter": 40, "WindowWidth": -1, "BitsStored": 12}, Shown.PERCENTILES, None),
        ({"WindowCenter": 40, "BitsStored": 12}, Shown.PERCENTILES, None),
        ({"BitsStored": 8}, Shown.FULL_RANGE, Window(127.5, 255, Function.LINEAR_EXACT)),
        (
            {
                "WindowCenter": 40,
                "WindowWidth": 400,
                "VOILUTSequence": sequence(LUTDescriptor=[2, 0, 8], LUTData=b"\0\0\xff\0", LUTExplanation="STEP"),
            },
            Shown.VOI_LUT,
            None,
        ),
    ],
    ids=["a window", "the first of two", "no width of 0", "none below 0", "half a window", "8 bits", "a table first"],
)
def test_a_look_says_where_its_greys_come_from(
    tmp_path: Path, attributes: dict[str, Any], shown: Shown, window: Window | None
) -> None:
    look = picture_of(write(tmp_path / "image", ramp(high=255), **attributes)).look
    assert look.shown is shown
    if window:
        assert look.window == window
    assert look.explanation == ("STEP" if shown is Shown.VOI_LUT else window.explanation if window else "")


def test_percentiles_leave_out_padding_and_air(tmp_path: Path) -> None:
    """A body on a quarter of the frame, air around it, padding at the rim, and one pixel of metal."""
    pixels = np.full((100, 100), 0, "<i2")
    pixels[:10] = -2000
    pixels[40:90, 25:75] = ramp(50, 50, low=500, high=1500, kind="<i2")
    pixels[60, 60] = 30000
    path = write(tmp_path / "image", pixels, PixelPaddingValue=-2000)
    window = picture_of(path).look.window
    assert window
    assert window.centre - window.width / 2 == pytest.approx(510, abs=5)
    assert window.centre + window.width / 2 == pytest.approx(1490, abs=15)


def test_a_frame_without_contrast_is_shown(tmp_path: Path) -> None:
    assert picture_of(write(tmp_path / "image", np.full((10, 10), 700, "<u2"))).look.shown is Shown.PERCENTILES


def test_percentiles_are_the_same_for_all_frames_of_an_object(tmp_path: Path) -> None:
    frames = np.stack([ramp(high=100), ramp(high=3000), ramp(high=3000), ramp(high=3000)])
    form: dict[str, Any] = {"Rows": 64, "Columns": 96, "BitsAllocated": 16, "BitsStored": 12, "PixelRepresentation": 0}
    path = write(tmp_path / "image", frames.tobytes(), NumberOfFrames=4, **form)
    _, *pictures = render(PictureRequest(path, tmp_path))
    windows = {picture.look.window for picture in pictures if isinstance(picture, Picture)}
    assert len(windows) == 1
    (window,) = windows
    assert window and window.width > 2500


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black(tmp_path: Path, photometric: str) -> None:
    pixels = ramp()
    pixels[:32] = 0xFFF0
    path = write(
        tmp_path / "image",
        pixels,
        PhotometricInterpretation=photometric,
        PixelPaddingValue=0xFFF0,
        PixelPaddingRangeLimit=0xFFFF,
        WindowCenter=3000,
        WindowWidth=2000,
    )
    assert pixels_of(path, picture_of(path).file.name)[:24].max() < 12


@pytest.mark.parametrize("stored", [Stored(12, 11, False), Stored(12, 14, True), Stored(16, 15, True)], ids=str)
@pytest.mark.parametrize("inverse", [False, True])
def test_a_window_is_the_same_by_a_line_as_by_the_standards_words(stored: Stored, inverse: bool) -> None:
    words = np.arange(1 << 16, dtype=np.uint16).reshape(-1, 64)
    by_line = 0
    for modality in (Modality(1, -1024), Modality(2.442, -7), Modality(-0.3, 100)):
        for centre, width in ((40, 400), (-600, 1500), (300, 1), (40, 401), (127.5, 0.5)):
            for function in Function:
                for padding in (None, Padding(100, 200)):
                    greys = Greys(stored, modality, Window(centre, width, function), inverse, padding)
                    assert (greys(words) == greys.computed(words)).all()
                    by_line += _line(greys) is not None
    assert by_line >= 10


def test_padding_may_be_written_with_the_other_sign(tmp_path: Path) -> None:
    pixels = ramp(kind="<i2")
    pixels[:32] = -2000
    path = write(tmp_path / "image", pixels, WindowCenter=-2500, WindowWidth=100)
    assert pixels_of(path, picture_of(path).file.name)[:24].min() > 240
    path = write(tmp_path / "image", pixels, PixelPaddingValue=-2000, WindowCenter=-2500, WindowWidth=100)
    path.write_bytes(path.read_bytes().replace(b"\x28\0\x20\1SS", b"\x28\0\x20\1US"))
    assert pixels_of(path, picture_of(path).file.name)[:24].max() < 12


def test_colour_has_no_window(tmp_path: Path) -> None:
    picture = picture_of(write(tmp_path / "image", rgb(), Modality="CT", RescaleIntercept=0))
    assert (picture.look.shown, picture.look.window) == (Shown.COLOUR, None)


def palette(first: int, data: bytes, *, segmented: bool = False, bits: int = 16) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for colour in ("Red", "Green", "Blue"):
        given[f"{colour}PaletteColorLookupTableDescriptor"] = [256, first, bits]
        given[f"{'Segmented' if segmented else ''}{colour}PaletteColorLookupTableData"] = data
    return given


def expanded() -> NDArray[np.uint16]:
    """16 entries of 100, a line over 112 to 1,123, and these once more."""
    part = [*[100] * 16, *np.rint(np.linspace(100, 1123, 113)[1:]).astype(int)]
    return np.array([*part, *part], np.uint16) * 57


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_in_segments_is_expanded(tmp_path: Path, bits: int) -> None:
    """A discrete segment, a linear one, and an indirect one that repeats both."""
    entries = expanded() if bits == 16 else (expanded() >> 8)
    kind = "<u2" if bits == 16 else "u1"
    start, end = int(entries[0]), int(entries[127])
    offset = [0, 0] if bits == 16 else [0, 0, 0, 0]
    segments = np.array([0, 16, *[start] * 16, 1, 112, end, 2, 2, *offset], kind).tobytes()
    line = np.rint(np.linspace(start, end, 113)[1:]).astype(kind)
    plain = np.concatenate([np.full(16, start, kind), line] * 2).tobytes()
    grey = ramp(high=255, kind="u1")
    colours: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    packed = write(tmp_path / "packed", grey, **colours, **palette(0, segments, segmented=True, bits=bits))
    whole = write(tmp_path / "whole", grey, **colours, **palette(0, plain, bits=bits))
    found = pixels_of(packed, picture_of(packed).file.name)
    assert found.std() > 10
    assert (found == pixels_of(whole, picture_of(whole).file.name)).all()


def test_a_palette_that_repeats_itself_for_ever_ends(tmp_path: Path) -> None:
    segments = np.array([2, 65535, 0, 0, 0], "<u2").tobytes()
    path = write(
        tmp_path / "image",
        ramp(high=255, kind="u1"),
        PhotometricInterpretation="PALETTE COLOR",
        **palette(0, segments, segmented=True),
    )
    _, found = render(PictureRequest(path, tmp_path))
    assert found == NotShown(0, Reason.MALFORMED)


def test_a_supplemental_palette_colours_what_reaches_it(tmp_path: Path) -> None:
    """Grey below 200, through the window; above, the palette's own (PS3.3 C.7.6.19)."""
    pixels = np.full((32, 32), 100, "<u2")
    pixels[:, 16:] = 201
    given = palette(200, b"")
    for colour, level in (("Red", 65535), ("Green", 0), ("Blue", 0)):
        given[f"{colour}PaletteColorLookupTableData"] = np.full(256, level, "<u2").tobytes()
    path = write(tmp_path / "image", pixels, WindowCenter=100, WindowWidth=101, PixelPresentation="COLOR", **given)
    picture = picture_of(path)
    found = pixels_of(path, picture.file.name)
    assert picture.look.shown is Shown.WINDOW
    assert found[16, 4].tolist() == pytest.approx([128] * 3, abs=6)
    assert found[16, 28].tolist() == pytest.approx([255, 0, 0], abs=6)


def test_a_palette_that_nothing_asks_for_colours_nothing(tmp_path: Path) -> None:
    """Left behind in a grey image by whatever made it from a colour one."""
    red = np.full(256, 65535, "<u2").tobytes()
    path = write(tmp_path / "image", ramp(), WindowCenter=2000, WindowWidth=4000, **palette(0, red))
    assert pixels_of(path, picture_of(path).file.name).ndim == 2


def test_frames_are_asked_for_by_number(tmp_path: Path) -> None:
    form: dict[str, Any] = {"Rows": 64, "Columns": 96, "BitsAllocated": 16, "BitsStored": 12, "PixelRepresentation": 0}
    path = write(tmp_path / "image", np.stack([ramp()] * 5).tobytes(), NumberOfFrames=5, **form)
    facts, *found = render(PictureRequest(path, tmp_path, number=101, frames=(4, 2, 9)))
    assert isinstance(facts, ObjectFacts) and facts.frames == 5
    names = [each.file.name for each in found if isinstance(each, Picture)]
    assert names == ["P0000102.JPG", "P0000104.JPG"]
    assert found[-1] == NotShown(9, Reason.DAMAGED)
    assert sorted(file.name for file in tmp_path.glob("*.JPG")) == names


@pytest.mark.parametrize(
    ("rows", "columns", "shrink", "size"),
    [(64, 96, 1, (96, 64)), (MAX_EDGE, 10, 1, (10, MAX_EDGE)), (10, MAX_EDGE + 1, 2, (MAX_EDGE // 2 + 1, 5))],
)
def test_large_frames_shrink_by_a_whole_factor(
    tmp_path: Path, rows: int, columns: int, shrink: int, size: tuple[int, int]
) -> None:
    path = write(tmp_path / "image", np.zeros((rows, columns), "u1"))
    picture = picture_of(path)
    assert picture.shrunk == shrink
    assert (picture.file.width, picture.file.height) == size
    assert pixels_of(path, picture.file.name).shape == (size[1], size[0])
    assert picture.file.size == (tmp_path / picture.file.name).stat().st_size


def test_a_small_picture_is_its_own_thumbnail(tmp_path: Path) -> None:
    small, large = (write(tmp_path / f"{edge}", np.zeros((10, edge), "u1")) for edge in (SMALL_EDGE, SMALL_EDGE + 1))
    picture = picture_of(small)
    assert picture.thumbnail == picture.file
    thumbnail = picture_of(large).thumbnail
    assert (thumbnail.name, max(thumbnail.width, thumbnail.height)) == ("T0000001.JPG", 103)
    assert thumbnail.width <= THUMBNAIL_EDGE
    assert pixels_of(large, thumbnail.name).shape == (thumbnail.height, thumbnail.width)


def test_a_shrunk_pixel_is_the_mean_of_its_block() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    assert shrunk(pixels, 2)[1, 2] == round(pixels[2:4, 4:6].mean() + 0.01)
    assert (shrunk(np.stack([pixels] * 3, axis=2), 2)[:, :, 1] == shrunk(pixels, 2)).all()
    assert shrunk(pixels[:5, :7], 2).shape == (3, 4)


@pytest.mark.parametrize("wrong", [{"number": 0}, {"frames": (1, 0)}])
def test_a_request_counts_from_1(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="from 1"):
        PictureRequest(tmp_path, tmp_path, **wrong)


def test_names_are_8_3() -> None:
    assert names_of(7) == ("P0000007.JPG", "T0000007.JPG", "D0000007.JS")
    for number in (0, 10_000_000):
        with pytest.raises(ValueError, match="more than"):
            picture_name("P", number)


def test_what_is_no_image_says_so(tmp_path: Path) -> None:
    path = tmp_path / "report"
    dataset = dcmread(write(tmp_path / "image", ramp(), Modality="SR"))
    for keyword in ("PixelData", "Rows", "Columns"):
        del dataset[keyword]
    dataset.save_as(path)
    facts, found = render(PictureRequest(path, tmp_path))
    assert isinstance(facts, ObjectFacts) and facts.modality == "SR"
    assert found == NotShown(0, Reason.NO_PIXELS)


def test_every_reason_has_words() -> None:
    assert all(reason.words.endswith(".") for reason in Reason)
    assert len({reason.words for reason in Reason}) == len(Reason)
