"""Presentation states beside dcmtk's rendering of the same state."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, config, dcmread

from mkiso.pictures import jpeg
from mkiso.pictures.presentation import Presentation
from mkiso.pictures.render import render
from mkiso.pictures.values import Marks, NotShown, ObjectFacts, Picture, PictureRequest, Reason, Shown, SpacingOf
from peers.patience import LONG
from tests.pictures.objects import AXIAL, item, ramp, sequence, write
from tests.pictures.test_judged import GREY_LEVELS, decoded, difference, pnm

FORM: dict[str, Any] = {
    "BitsStored": 12,
    "RescaleSlope": 1,
    "RescaleIntercept": -1024,
    "WindowCenter": 40,
    "WindowWidth": 400,
}
PLACE: dict[str, Any] = {"Modality": "CT", "ImageOrientationPatient": AXIAL, "PixelSpacing": [0.5, 0.25]}


@pytest.fixture(autouse=True)
def finest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg, "QUALITY", 100)
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.IGNORE)


def state_of(image: Path, change: Callable[[Dataset], None]) -> Path:
    """A state that dcmtk makes of an image, changed."""
    path = image.with_name("state")
    done = subprocess.run(["dcmpsmk", "-q", str(image), str(path)], capture_output=True, timeout=LONG, check=False)
    assert done.returncode == 0, done.stderr.decode()
    dataset = dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path


def voi(**attributes: Any) -> Callable[[Dataset], None]:
    def change(state: Dataset) -> None:
        state.SoftcopyVOILUTSequence = [item(**attributes)]

    return change


def also(*changes: Callable[[Dataset], None]) -> Callable[[Dataset], None]:
    def change(state: Dataset) -> None:
        for each in changes:
            each(state)

    return change


def turned(quarters: int, flip: str = "N") -> Callable[[Dataset], None]:
    def change(state: Dataset) -> None:
        state.ImageRotation, state.ImageHorizontalFlip = quarters * 90, flip

    return change


def inverse(state: Dataset) -> None:
    state.PresentationLUTShape = "INVERSE"


def table(state: Dataset) -> None:
    del state.PresentationLUTShape
    entries = np.minimum(np.rint(4096 * (np.arange(4096) / 4096) ** 0.5), 4095).astype("<u2")
    state.PresentationLUTSequence = sequence(LUTDescriptor=[4096, 0, 12], LUTData=entries.tobytes())


def own_slope(state: Dataset) -> None:
    state.RescaleSlope, state.RescaleIntercept, state.RescaleType = "0.5", "-512", "US"


LUT_DATA = np.minimum(np.rint(4096 * (np.arange(2000) / 2000) ** 0.5), 4095).astype("<u2").tobytes()
STATES = {  # but SIGMOID, which dcmp2pgm doesn't know: it is judged in an image
    "the state that dcmtk makes": lambda state: None,
    "another window": voi(WindowCenter=300, WindowWidth=1500),
    "a VOI LUT": voi(VOILUTSequence=sequence(LUTDescriptor=[2000, 0, 12], LUTData=LUT_DATA)),
    "inverse": also(voi(WindowCenter=300, WindowWidth=1500), inverse),
    "a presentation LUT": also(voi(WindowCenter=300, WindowWidth=1500), table),
    "another Modality LUT": also(voi(WindowCenter=300, WindowWidth=1500), own_slope),
    **{f"turned {quarters * 90}°, flip {flip}": turned(quarters, flip) for quarters in range(4) for flip in "NY"},
}


@pytest.mark.peer
@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_state_looks_as_dcmtk_shows_it(tmp_path: Path, kind: str, photometric: str) -> None:
    image = write(tmp_path / "image", ramp(), PhotometricInterpretation=photometric, **FORM)
    state = state_of(image, STATES[kind])
    _, picture = render(PictureRequest(image, tmp_path, presentation=state))
    assert isinstance(picture, Picture)
    target = tmp_path / "dcmtk.pgm"
    command = ["dcmp2pgm", "-q", "-p", str(state), str(image), str(target)]
    done = subprocess.run(command, capture_output=True, timeout=LONG, check=False)
    assert done.returncode == 0, done.stderr.decode()
    theirs = pnm(target.read_bytes())
    assert theirs.std() > 5
    assert difference(decoded(tmp_path / picture.file.name), theirs) < GREY_LEVELS


def state_for(image: Path, **attributes: Any) -> Path:
    """A state of a few attributes, written without dcmtk."""
    uid = dcmread(image).SOPInstanceUID
    references = sequence(ReferencedImageSequence=sequence(ReferencedSOPInstanceUID=uid))
    return write(
        image.with_name("state"), b"", **{"ReferencedSeriesSequence": references, "BitsAllocated": 8, **attributes}
    )


def test_marks_and_spacing_turn_with_the_picture(tmp_path: Path) -> None:
    image = write(tmp_path / "image", ramp(), **FORM, **PLACE)
    state = state_for(image, ImageRotation=90, ImageHorizontalFlip="N")
    _, picture = render(PictureRequest(image, tmp_path, presentation=state))
    assert isinstance(picture, Picture)
    assert (picture.file.width, picture.file.height) == (64, 96)
    assert picture.plane.marks == Marks(left="P", right="A", top="R", bottom="L")
    assert picture.plane.spacing and picture.plane.spacing.of is SpacingOf.PATIENT
    assert (picture.plane.spacing.row_mm, picture.plane.spacing.column_mm) == (0.25, 0.5)
    assert picture.plane.pixel_aspect == 0.5


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_mark_stays_at_its_edge_of_the_patient(quarters: int, mirrored: bool) -> None:
    """Each edge of a frame is painted with its letter; after turning, the letter is where the paint is."""
    letters = {"R": 1, "L": 2, "A": 3, "P": 4}
    frame = np.zeros((5, 5), np.uint8)
    frame[2, 0], frame[2, -1], frame[0, 2], frame[-1, 2] = 1, 2, 3, 4
    presentation = Presentation(quarter_turns=quarters, mirrored=mirrored)
    shown = presentation.turned(frame)
    marks = presentation.turned_marks(Marks(left="R", right="L", top="A", bottom="P"))
    edges = [int(shown[2, 0]), int(shown[2, -1]), int(shown[0, 2]), int(shown[-1, 2])]
    assert edges == [letters[mark] for mark in (marks.left, marks.right, marks.top, marks.bottom)]


def test_what_a_state_asks_beyond_is_named(tmp_path: Path) -> None:
    image = write(tmp_path / "image", ramp(), **FORM)
    state = state_for(
        image,
        BlendingSequence=sequence(BlendingPosition="SUPERIMPOSED"),
        MaskSubtractionSequence=sequence(MaskOperation="AVG_SUB"),
        DisplayedAreaSelectionSequence=area([10, 10], [96, 64]),
    )
    facts, _ = render(PictureRequest(image, tmp_path, presentation=state))
    assert isinstance(facts, ObjectFacts)
    assert facts.left_out == ("blending", "displayed area", "mask")


def area(top_left: list[int], bottom_right: list[int]) -> Any:
    return sequence(DisplayedAreaTopLeftHandCorner=top_left, DisplayedAreaBottomRightHandCorner=bottom_right)


@pytest.mark.parametrize("corners", [([1, 1], [96, 64]), ([96, 1], [1, 64])], ids=["plain", "mirrored"])
def test_the_whole_area_leaves_nothing_out(tmp_path: Path, corners: tuple[list[int], list[int]]) -> None:
    image = write(tmp_path / "image", ramp(), **FORM)
    facts, _ = render(
        PictureRequest(image, tmp_path, presentation=state_for(image, DisplayedAreaSelectionSequence=area(*corners)))
    )
    assert isinstance(facts, ObjectFacts)
    assert facts.left_out == ()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_state_that_says_nothing_of_polarity_changes_none(tmp_path: Path, photometric: str) -> None:
    image = write(tmp_path / "image", ramp(), PhotometricInterpretation=photometric, **FORM)
    _, plain = render(PictureRequest(image, tmp_path, number=1))
    _, stated = render(PictureRequest(image, tmp_path, number=2, presentation=state_for(image)))
    assert isinstance(plain, Picture) and isinstance(stated, Picture)
    assert (decoded(tmp_path / plain.file.name) == decoded(tmp_path / stated.file.name)).all()


def test_a_state_of_another_image_changes_nothing(tmp_path: Path) -> None:
    image, other = write(tmp_path / "image", ramp(), **FORM), write(tmp_path / "other", ramp(), **FORM)
    state = state_for(other, ImageRotation=90)
    _, picture = render(PictureRequest(image, tmp_path, presentation=state))
    assert isinstance(picture, Picture)
    assert picture.look.shown is Shown.WINDOW
    assert picture.file.width == 96


def test_a_window_for_one_frame_alone(tmp_path: Path) -> None:
    form: dict[str, Any] = {
        "Rows": 64,
        "Columns": 96,
        "NumberOfFrames": 2,
        "BitsAllocated": 16,
        "PixelRepresentation": 0,
        **FORM,
    }
    image = write(tmp_path / "image", np.stack([ramp(), ramp()]).tobytes(), **form)
    uid = dcmread(image).SOPInstanceUID
    of_second = sequence(ReferencedSOPInstanceUID=uid, ReferencedFrameNumber=2)
    state = state_for(
        image, SoftcopyVOILUTSequence=sequence(ReferencedImageSequence=of_second, WindowCenter=1, WindowWidth=2)
    )
    _, *pictures = render(PictureRequest(image, tmp_path, presentation=state))
    looks = [picture.look.shown for picture in pictures if isinstance(picture, Picture)]
    assert looks == [Shown.WINDOW, Shown.PRESENTATION]


def test_a_state_that_cannot_be_read_shows_no_picture(tmp_path: Path) -> None:
    """Better none than one that looks otherwise than was meant."""
    image = write(tmp_path / "image", ramp(), **FORM)
    (tmp_path / "state").write_bytes(b"no DICOM")
    *_, found = render(PictureRequest(image, tmp_path, presentation=tmp_path / "state"))
    assert found == NotShown(0, Reason.UNREADABLE)
