"""Where a frame lies, which way it faces, and how large it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, Sequence

from mkiso.pictures import geometry
from mkiso.pictures.render import render
from mkiso.pictures.stacks import Stack, scale_bar, stacks_of
from mkiso.pictures.values import (
    Look,
    Marks,
    ObjectFacts,
    Picture,
    PictureFile,
    PictureRequest,
    PictureResult,
    Plane,
    Shown,
    Spacing,
    SpacingOf,
    Vector,
)
from tests.pictures.objects import AXIAL, attributes_of, item, ramp, sequence, write


def plane_of(dataset: Dataset, frame: int) -> Plane:
    return geometry.plane_of(attributes_of(dataset), frame)


SAGITTAL, CORONAL = [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1]


@pytest.mark.parametrize(
    ("orientation", "marks"),
    [
        (AXIAL, Marks(left="R", right="L", top="A", bottom="P")),
        (CORONAL, Marks(left="R", right="L", top="H", bottom="F")),
        (SAGITTAL, Marks(left="A", right="P", top="H", bottom="F")),
        ([-1, 0, 0, 0, -1, 0], Marks(left="L", right="R", top="P", bottom="A")),
        ([0.98, 0.17, 0.087, 0, 0.456, -0.89], Marks(left="RA", right="LP", top="HA", bottom="FP")),
        ([0.9998, 0.02, 0, -0.02, 0.9998, 0], Marks(left="R", right="L", top="A", bottom="P")),
    ],
    ids=["axial", "coronal", "sagittal", "prone, turned", "oblique", "as patients lie"],
)
def test_marks_follow_the_orientation(orientation: list[float], marks: Marks) -> None:
    assert plane_of(item(ImageOrientationPatient=orientation), 0).marks == marks


def test_marks_of_an_animal() -> None:
    dataset = item(ImageOrientationPatient=AXIAL, AnatomicalOrientationType="QUADRUPED")
    assert plane_of(dataset, 0).marks == Marks(left="RT", right="LE", top="V", bottom="D")


@pytest.mark.parametrize(
    ("directions", "marks"),
    [
        (["L", "F"], Marks(left="R", right="L", top="H", bottom="F")),
        (["AR", "FP"], Marks(left="PL", right="AR", top="HA", bottom="FP")),
        (["", ""], None),
        (["X", "F"], None),
        (["L"], None),
    ],
)
def test_a_projection_says_its_directions_in_letters(directions: list[str], marks: Marks | None) -> None:
    assert plane_of(item(PatientOrientation=directions), 0).marks == marks


@pytest.mark.parametrize(
    "orientation", [[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0], [3, 0, 0, 0, 3, 0], [1, 0, 0]], ids=str
)
def test_an_orientation_that_is_none_gives_no_marks(orientation: list[float]) -> None:
    plane = plane_of(item(ImageOrientationPatient=orientation, PixelSpacing=[0, 0]), 0)
    assert (plane.row, plane.column, plane.marks, plane.spacing) == (None, None, None, None)


@pytest.mark.parametrize(
    ("attributes", "spacing"),
    [
        ({"Modality": "CT", "PixelSpacing": [0.5, 0.7]}, Spacing(0.5, 0.7, SpacingOf.PATIENT)),
        ({"Modality": "DX", "ImagerPixelSpacing": [0.1, 0.1]}, Spacing(0.1, 0.1, SpacingOf.DETECTOR)),
        (
            {"Modality": "DX", "ImagerPixelSpacing": [0.1, 0.1], "PixelSpacing": [0.1, 0.1]},
            Spacing(0.1, 0.1, SpacingOf.DETECTOR),
        ),
        (
            {"Modality": "DX", "ImagerPixelSpacing": [0.1, 0.1], "PixelSpacing": [0.09, 0.09]},
            Spacing(0.09, 0.09, SpacingOf.PATIENT),
        ),
        (
            {"Modality": "CR", "PixelSpacing": [0.1, 0.1], "PixelSpacingCalibrationType": "FIDUCIAL"},
            Spacing(0.1, 0.1, SpacingOf.PATIENT),
        ),
        ({"Modality": "CR", "PixelSpacing": [0.1, 0.1]}, Spacing(0.1, 0.1, SpacingOf.DETECTOR)),
        (
            {"Modality": "MG", "ImagerPixelSpacing": [0.1, 0.1], "EstimatedRadiographicMagnificationFactor": 1.25},
            Spacing(0.08, 0.08, SpacingOf.MAGNIFICATION),
        ),
        ({"Modality": "US"}, None),
    ],
    ids=["sections", "imager", "repeated", "calibrated", "said to be calibrated", "computed", "magnified", "none"],
)
def test_a_distance_says_where_it_is_true(attributes: dict[str, Any], spacing: Spacing | None) -> None:
    assert plane_of(item(**attributes), 0).spacing == spacing


def region(**attributes: Any) -> Dataset:
    given = {"RegionSpatialFormat": 1, "PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3}
    return item(**given, PhysicalDeltaX=0.05, PhysicalDeltaY=-0.04, **attributes)


def test_ultrasound_is_measured_where_it_has_one_region() -> None:
    one, two = item(SequenceOfUltrasoundRegions=[region()]), item(SequenceOfUltrasoundRegions=[region(), region()])
    assert plane_of(one, 0).spacing == Spacing(0.4, 0.5, SpacingOf.ULTRASOUND)
    assert plane_of(two, 0).spacing is None


@pytest.mark.parametrize(
    ("of", "laterality"), [("FrameLaterality", "L"), ("ImageLaterality", "R"), ("Laterality", "B")]
)
def test_laterality_is_the_frames_own_first(of: str, laterality: str) -> None:
    dataset = item(Laterality="B")
    if of != "Laterality":
        dataset.ImageLaterality = "R"
    if of == "FrameLaterality":
        dataset.SharedFunctionalGroupsSequence = sequence(FrameAnatomySequence=sequence(FrameLaterality="L"))
    assert plane_of(dataset, 0).laterality == laterality


def test_pixels_that_are_not_square_say_so() -> None:
    assert plane_of(item(PixelAspectRatio=[2, 1]), 0).pixel_aspect == 2
    assert plane_of(item(Modality="CT", PixelSpacing=[1, 0.5]), 0).pixel_aspect == 2
    assert plane_of(item(), 0).pixel_aspect == 1


def test_frames_of_an_enhanced_object_have_their_own_planes() -> None:
    groups = [item(PlanePositionSequence=sequence(ImagePositionPatient=[0, 0, z])) for z in (5, 2)]
    shared = item(
        PlaneOrientationSequence=sequence(ImageOrientationPatient=CORONAL),
        PixelMeasuresSequence=sequence(PixelSpacing=[0.8, 0.8]),
    )
    dataset = item(Modality="MR", PerFrameFunctionalGroupsSequence=groups, SharedFunctionalGroupsSequence=[shared])
    assert [plane_of(dataset, frame).position for frame in (0, 1)] == [(0, 0, 5), (0, 0, 2)]
    assert plane_of(dataset, 1).spacing == Spacing(0.8, 0.8, SpacingOf.PATIENT)
    assert plane_of(dataset, 1).marks == Marks(left="R", right="L", top="H", bottom="F")


def test_frames_of_a_dose_lie_along_its_normal() -> None:
    dataset = item(
        Modality="RTDOSE",
        ImageOrientationPatient=AXIAL,
        ImagePositionPatient=[1, 2, 3],
        GridFrameOffsetVector=[0, 4, 8],
    )
    assert [plane_of(dataset, frame).position for frame in range(3)] == [(1, 2, 3), (1, 2, 7), (1, 2, 11)]


POSTERIOR = [-1, 0, 0, 0, 0, -1]
FROM_BEFORE, FROM_BEHIND = (Marks(left=left, right=right, top="H", bottom="F") for left, right in ("RL", "LR"))


def scintigram(kind: str, *orientations: list[int], **facts: Any) -> Dataset:
    detectors = [item(ImageOrientationPatient=each, ImagePositionPatient=[1, 2, 3]) for each in orientations]
    told = {"Modality": "NM", "ImageType": ["ORIGINAL", "PRIMARY", kind, "EMISSION"], "NumberOfFrames": 4}
    return item(**told, DetectorInformationSequence=Sequence(detectors), **facts)


def test_each_frame_of_a_scintigram_is_seen_from_its_own_detector() -> None:
    """From behind, the patient's left is at the left edge."""
    whole_body = scintigram("WHOLE BODY", CORONAL, POSTERIOR, DetectorVector=[1, 2, 1, 2])
    assert [plane_of(whole_body, frame).marks for frame in range(4)] == [FROM_BEFORE, FROM_BEHIND] * 2
    assert plane_of(scintigram("STATIC", CORONAL), 0).marks == FROM_BEFORE
    for vector in ([], [3], [0], [1, 1]):
        untold = scintigram("STATIC", CORONAL, POSTERIOR, **({"DetectorVector": vector} if vector else {}))
        assert plane_of(untold, 2).marks is None


@pytest.mark.parametrize("kind", ["TOMO", "GATED TOMO"])
def test_a_detector_that_turns_around_the_patient_has_no_side(kind: str) -> None:
    turning = scintigram(kind, CORONAL, DetectorVector=[1] * 4, SpacingBetweenSlices=4)
    for plane in (plane_of(turning, 0), plane_of(turning, 3)):
        assert (plane.marks, plane.position) == (None, None)


def test_reconstructed_slices_lie_where_their_vector_says() -> None:
    slices = scintigram("RECON TOMO", AXIAL, AXIAL, SpacingBetweenSlices=-4)
    assert [plane_of(slices, frame).position for frame in range(3)] == [(1, 2, 3), (1, 2, -1), (1, 2, -5)]
    gated = scintigram("RECON GATED TOMO", AXIAL, SpacingBetweenSlices=4, SliceVector=[1, 2, 1, 2])
    assert [plane_of(gated, frame).position for frame in range(4)] == [(1, 2, 3), (1, 2, 7)] * 2


def shown(
    number: int,
    position: Vector | None,
    *,
    row: Vector = (1, 0, 0),
    column: Vector = (0, 1, 0),
    series: str = "1.2",
    frame_of_reference: str = "1.9",
    **facts: Any,
) -> PictureResult:
    """An object of one picture, as a pool returns it."""
    plane = Plane(row=row, column=column, position=position, frame_of_reference=frame_of_reference)
    file = PictureFile("P0000001.JPG", 1, 1, 1)
    given = ObjectFacts(f"1.2.3.{number}", series, "CT", number, 512, 512, **{"frames": 1, **facts})
    frames = range(1, given.frames + 1)
    pictures = tuple(Picture(frame, file, file, Look(Shown.WINDOW), plane) for frame in frames)
    return PictureResult(PictureRequest(Path("image"), Path("folder")), given, pictures, ())


def numbers(stack: Stack) -> list[int | None]:
    return [each.instance_number for each in stack.slices]


def test_a_stack_is_sorted_by_position() -> None:
    (stack,) = stacks_of([shown(1, (0, 0, 9)), shown(2, (0, 0, -4)), shown(3, (0, 0, 2.5))])
    assert numbers(stack) == [2, 3, 1]
    assert stack.by_position
    assert [each.along_mm for each in stack.slices] == [-4, 2.5, 9]


def test_a_tilted_stack_is_sorted_along_its_own_normal() -> None:
    """By any axis of the patient alone these two would stand the other way round."""
    tilt: Vector = (0, 0.6, 0.8)
    (stack,) = stacks_of([shown(1, (0, 9, 1), column=tilt), shown(2, (0, -9, 2), column=tilt)])
    assert numbers(stack) == [1, 2]
    assert stack.normal == pytest.approx((0, -0.8, 0.6))


@pytest.mark.parametrize(
    "results",
    [
        [shown(2, (0, 0, 1)), shown(1, (0, 0, 1)), shown(3, (0, 0, 2))],
        [shown(2, (0, 0, 1)), shown(1, None), shown(3, (0, 0, 2))],
    ],
    ids=["a position twice", "no position"],
)
def test_without_positions_of_their_own_slices_keep_their_numbers(results: list[PictureResult]) -> None:
    (stack,) = stacks_of(results)
    assert not stack.by_position
    assert numbers(stack) == [1, 2, 3]


def test_a_series_falls_into_stacks_by_direction_size_and_run() -> None:
    noise = 0.0049  # of an orientation, which rounding would tear apart
    results = [
        *(shown(number, (0, 0, number), row=(1, noise * (number % 2), 0)) for number in (3, 4)),
        shown(1, (5, 0, 0), row=(0, 1, 0), column=(0, 0, -1)),
        shown(9, None, frames=3, frame_time_ms=40.0),
    ]
    stacks = stacks_of(results)
    assert [numbers(stack) for stack in stacks] == [[1], [3, 4], [9, 9, 9]]
    assert [each.picture.frame for each in stacks[2].slices] == [1, 2, 3]
    assert sum(len(stack.slices) for stack in stacks) == sum(len(result.pictures) for result in results)


def test_parallel_stacks_of_one_frame_of_reference_scroll_together() -> None:
    def stack(series: str, **given: Any) -> Stack:
        (made,) = stacks_of([shown(number, (0, 0, number), series=series, **given) for number in (1, 2)])
        return made

    one, slanted = stack("1.2"), stack("1.3", row=(0.999, 0, 0.0447))
    assert one.is_parallel_to(slanted) and slanted.is_parallel_to(one)
    assert not one.is_parallel_to(stack("1.4", frame_of_reference="1.8"))
    assert not one.is_parallel_to(stack("1.5", column=(0, 0.8, 0.6)))
    assert not stack("1.6", frame_of_reference="").is_parallel_to(stack("1.7", frame_of_reference=""))


@pytest.mark.parametrize(
    ("column_mm", "columns", "bar"),
    [(0.7, 512, (50, 50 / 0.7)), (0.1, 4000, (100, 1000.0)), (0.001, 100, (1, 1000.0))],
)
def test_a_scale_bar_is_round_and_fits(column_mm: float, columns: int, bar: tuple[int, float]) -> None:
    assert scale_bar(Spacing(1, column_mm, SpacingOf.PATIENT), columns) == bar


def test_a_pictures_plane_comes_with_it(tmp_path: Path) -> None:
    path = write(
        tmp_path / "image",
        ramp(),
        Modality="CT",
        ImageOrientationPatient=AXIAL,
        ImagePositionPatient=[1, 2, 3],
        PixelSpacing=[0.5, 0.5],
        FrameOfReferenceUID="1.2.3",
        Laterality="L",
    )
    _, picture = render(PictureRequest(path, tmp_path))
    assert isinstance(picture, Picture)
    assert picture.plane == Plane(
        row=(1, 0, 0),
        column=(0, 1, 0),
        position=(1, 2, 3),
        frame_of_reference="1.2.3",
        spacing=Spacing(0.5, 0.5, SpacingOf.PATIENT),
        marks=Marks(left="R", right="L", top="A", bottom="P"),
        laterality="L",
    )
    assert np.isclose(picture.plane.pixel_aspect, 1)
