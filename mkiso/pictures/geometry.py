"""Where a frame lies in the patient, and how far apart its pixels are (PS3.3 C.7.6.2, 10.7.1.3)."""

from __future__ import annotations

import math

from mkiso.pictures.attributes import Attributes, functional_group, items, number, numbers, text, texts
from mkiso.pictures.values import Marks, Plane, Spacing, SpacingOf, Vector

_OBLIQUE = 0.1  # a direction counts from 6° on: less is how patients lie
_BIPED = ("LR", "PA", "HF")  # letters of x, y and z upwards, and of their opposites
_QUADRUPED = (("LE", "RT"), ("D", "V"), ("CR", "CD"))  # C.7.6.1.1.1
_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "H": "F", "F": "H"} | {
    "LE": "RT",
    "RT": "LE",
    "D": "V",
    "V": "D",
    "CR": "CD",
    "CD": "CR",
}
_CM, _TWO_DIMENSIONAL = 3, 1  # physical units and spatial format of an ultrasound region, C.8.5.5.1
_SECTIONS = frozenset({"CT", "MR", "PT", "NM", "US", "IVUS", "OCT"})  # whose Pixel Spacing is true within the patient


def plane_of(dataset: Attributes, frame: int) -> Plane:
    """The plane of a frame, from 0."""
    orientation = numbers(_orientation_holder(dataset, frame), "ImageOrientationPatient", 6)
    row, column = _unit(orientation[:3]), _unit(orientation[3:])
    if row is None or column is None or abs(dot(row, column)) > 0.01:
        row = column = None
    spacing = spacing_of(dataset, frame)
    return Plane(
        row=row,
        column=column,
        position=_position(dataset, frame, row, column),
        frame_of_reference=text(dataset, "FrameOfReferenceUID"),
        spacing=spacing,
        pixel_aspect=_aspect(dataset, spacing),
        marks=marks_of(dataset, row, column),
        laterality=laterality_of(dataset, frame),
    )


def marks_of(dataset: Attributes, row: Vector | None, column: Vector | None) -> Marks | None:
    """The letters at a frame's edges: by its orientation, else by Patient Orientation; None where neither is known."""
    if row and column:
        axes = _QUADRUPED if text(dataset, "AnatomicalOrientationType").upper() == "QUADRUPED" else _BIPED
        return Marks(
            left=_letters(row, axes, -1),
            right=_letters(row, axes, 1),
            top=_letters(column, axes, -1),
            bottom=_letters(column, axes, 1),
        )
    directions = [_parts(direction.upper()) for direction in texts(dataset, "PatientOrientation")]
    if len(directions) != 2 or not all(directions):
        return None
    right, bottom = directions
    return Marks(left=_opposite(right), right="".join(right), top=_opposite(bottom), bottom="".join(bottom))


def spacing_of(dataset: Attributes, frame: int) -> Spacing | None:
    """The spacing of a frame's pixels, and where it is true; None where that isn't known.

    Pixel Spacing that differs from Imager Pixel Spacing is calibrated, and so true within the patient; one that repeats
    it, or stands in a projection without calibration, is the detector's.
    """
    found = numbers(functional_group(dataset, frame, "PixelMeasuresSequence"), "PixelSpacing", 2)
    imager = numbers(dataset, "ImagerPixelSpacing", 2)
    if _positive(found):
        sections = text(dataset, "Modality") in _SECTIONS or "ImageOrientationPatient" in _orientation_holder(
            dataset, frame
        )
        calibrated = bool(text(dataset, "PixelSpacingCalibrationType")) or (
            _positive(imager) and not _alike(found, imager)
        )
        return Spacing(found[0], found[1], SpacingOf.PATIENT if sections or calibrated else SpacingOf.DETECTOR)
    if _positive(imager):
        magnification = number(dataset, "EstimatedRadiographicMagnificationFactor")
        if magnification and magnification >= 1:
            return Spacing(imager[0] / magnification, imager[1] / magnification, SpacingOf.MAGNIFICATION)
        return Spacing(imager[0], imager[1], SpacingOf.DETECTOR)
    nominal = numbers(dataset, "NominalScannedPixelSpacing", 2)
    if _positive(nominal):
        return Spacing(nominal[0], nominal[1], SpacingOf.DETECTOR)
    return _ultrasound_spacing(dataset)


def laterality_of(dataset: Attributes, frame: int) -> str:
    """R, L, U (unpaired) or B (both), of the frame, else the image, else the series."""
    holders = (
        (functional_group(dataset, frame, "FrameAnatomySequence"), "FrameLaterality"),
        (dataset, "ImageLaterality"),
        (dataset, "Laterality"),
    )
    found = (text(holder, keyword).upper() for holder, keyword in holders)
    return next((laterality for laterality in found if laterality in ("R", "L", "U", "B")), "")


def _orientation_holder(dataset: Attributes, frame: int) -> Attributes:
    holder = functional_group(dataset, frame, "PlaneOrientationSequence")
    return holder if "ImageOrientationPatient" in holder else _detector_of(dataset, frame) or holder


def _detector_of(dataset: Attributes, frame: int) -> Attributes | None:
    """The detector of nuclear medicine that says where a frame lies (C.8.4.8, C.8.4.11): the one that has taken it.
    None where nobody says which, or where it turned around the patient, since it says only where it began.
    """
    detectors, vector = items(dataset, "DetectorInformationSequence"), numbers(dataset, "DetectorVector")
    kind = _kind_of(dataset)
    if not detectors or ("TOMO" in kind and "RECON" not in kind):
        return None
    if "RECON" in kind or (len(detectors) == 1 and not vector):
        return detectors[0]
    which = vector[frame] if frame < len(vector) else 0
    return detectors[int(which) - 1] if 1 <= which <= len(detectors) else None


def _kind_of(dataset: Attributes) -> str:
    """The third value of Image Type: STATIC, TOMO, RECON TOMO (C.8.4.9.1.1)."""
    return "".join(texts(dataset, "ImageType")[2:3]).upper()


def _position(dataset: Attributes, frame: int, row: Vector | None, column: Vector | None) -> Vector | None:
    """Of a stack in one plain multi-frame object, a dose or a reconstruction, each frame lies further along the normal
    (C.8.8.3.2, C.8.4.15).
    """
    holder = functional_group(dataset, frame, "PlanePositionSequence")
    if "ImagePositionPatient" not in holder:
        holder = _detector_of(dataset, frame) or holder
    found = numbers(holder, "ImagePositionPatient", 3)
    if not found:
        return None
    position: Vector = (found[0], found[1], found[2])
    if frame == 0 or "PerFrameFunctionalGroupsSequence" in dataset:
        return position
    offsets, between = numbers(dataset, "GridFrameOffsetVector"), number(dataset, "SpacingBetweenSlices")
    slices = numbers(dataset, "SliceVector")
    if frame < len(offsets):
        along = offsets[frame] - offsets[0]
    elif text(dataset, "Modality") == "NM" and between and "RECON" in _kind_of(dataset):
        along = between * (slices[frame] - slices[0] if frame < len(slices) else frame)
    else:
        return None
    if row is None or column is None:
        return None
    normal = normal_of(row, column)
    return (position[0] + along * normal[0], position[1] + along * normal[1], position[2] + along * normal[2])


def normal_of(row: Vector, column: Vector) -> Vector:
    """The direction that looks out of a plane on its far side: row × column."""
    return (
        row[1] * column[2] - row[2] * column[1],
        row[2] * column[0] - row[0] * column[2],
        row[0] * column[1] - row[1] * column[0],
    )


def _letters(direction: Vector, axes: tuple[str | tuple[str, str], ...], sign: int) -> str:
    """The strongest first."""
    strongest = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    return "".join(
        axes[axis][0 if direction[axis] * sign > 0 else 1] for axis in strongest if abs(direction[axis]) >= _OBLIQUE
    )


def _parts(direction: str) -> list[str]:
    """The letters of a direction of Patient Orientation, of a biped or a quadruped; none where one isn't known."""
    parts: list[str] = []
    while direction:
        part = next((direction[:size] for size in (2, 1) if direction[:size] in _OPPOSITE), "")
        if not part:
            return []
        parts.append(part)
        direction = direction[len(part) :]
    return parts


def _opposite(parts: list[str]) -> str:
    return "".join(_OPPOSITE[part] for part in parts)


def _ultrasound_spacing(dataset: Attributes) -> Spacing | None:
    """Where the image has one two-dimensional region only: elsewhere a distance would depend on where it is taken."""
    regions = items(dataset, "SequenceOfUltrasoundRegions")
    if len(regions) != 1 or number(regions[0], "RegionSpatialFormat") != _TWO_DIMENSIONAL:
        return None
    region = regions[0]
    if number(region, "PhysicalUnitsXDirection") != _CM or number(region, "PhysicalUnitsYDirection") != _CM:
        return None
    across, down = number(region, "PhysicalDeltaX"), number(region, "PhysicalDeltaY")
    return Spacing(abs(down) * 10, abs(across) * 10, SpacingOf.ULTRASOUND) if across and down else None


def _aspect(dataset: Attributes, spacing: Spacing | None) -> float:
    ratio = numbers(dataset, "PixelAspectRatio", 2)
    if _positive(ratio):
        return ratio[0] / ratio[1]
    return spacing.row_mm / spacing.column_mm if spacing else 1.0


def _unit(vector: tuple[float, ...]) -> Vector | None:
    """None unless it has the length of 1, about."""
    if len(vector) != 3 or not 0.9 < (length := math.hypot(*vector)) < 1.1:
        return None
    return (vector[0] / length, vector[1] / length, vector[2] / length)


def dot(first: Vector, second: Vector) -> float:
    return sum(one * other for one, other in zip(first, second, strict=True))


def _positive(values: tuple[float, ...]) -> bool:
    return bool(values) and all(0 < value < 1e6 for value in values)


def _alike(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return all(math.isclose(one, other, rel_tol=1e-3) for one, other in zip(first, second, strict=True))
