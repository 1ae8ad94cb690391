"""Reading the attributes of objects as they are met: what is absent, empty, malformed or not finite is None, never an
exception.

They are read as the bytes that they are, each when it is asked for: pydicom's data sets take 2 ms of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mkiso.dataset.items import Item, keywords, tag_of
from mkiso.errors import DamagedInstance
from mkiso.study.text import SPECIFIC_CHARACTER_SET

INTEGERS = 0x7FE00010
PIXELS = frozenset({INTEGERS, 0x7FE00008, 0x7FE00009})
"""Pixel Data in its three forms: integers, floats, doubles."""
OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
_OVERLAY = (0x0010, 0x0011, 0x0015, 0x0050, 0x0051, 0x0100, 0x0102, 0x1001, 0x3000)

_ASKED = keywords("""
    SOPInstanceUID SeriesInstanceUID Modality InstanceNumber ImageType Rows Columns NumberOfFrames FrameTime
    RecommendedDisplayFrameRate CineRate SamplesPerPixel BitsAllocated BitsStored HighBit PixelRepresentation
    PhotometricInterpretation PlanarConfiguration PixelPresentation PixelDataProviderURL ExtendedOffsetTable
    PerFrameFunctionalGroupsSequence SharedFunctionalGroupsSequence FrameVOILUTSequence PixelMeasuresSequence
    PixelValueTransformationSequence PlaneOrientationSequence PlanePositionSequence FrameAnatomySequence
    ModalityLUTSequence RescaleSlope RescaleIntercept WindowCenter WindowWidth VOILUTFunction
    WindowCenterWidthExplanation VOILUTSequence LUTExplanation LUTDescriptor LUTData PixelPaddingValue
    PixelPaddingRangeLimit FloatPixelPaddingValue FloatPixelPaddingRangeLimit
    RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor
    RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData
    SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData
    SegmentedBluePaletteColorLookupTableData
    ImageOrientationPatient ImagePositionPatient FrameOfReferenceUID SpacingBetweenSlices PixelSpacing
    ImagerPixelSpacing PixelSpacingCalibrationType EstimatedRadiographicMagnificationFactor NominalScannedPixelSpacing
    PixelAspectRatio PatientOrientation AnatomicalOrientationType FrameLaterality ImageLaterality Laterality
    DetectorInformationSequence DetectorVector SliceVector GridFrameOffsetVector SequenceOfUltrasoundRegions
    RegionSpatialFormat
    PhysicalUnitsXDirection PhysicalUnitsYDirection PhysicalDeltaX PhysicalDeltaY
    ReferencedSeriesSequence ReferencedImageSequence ReferencedSOPInstanceUID ReferencedFrameNumber PresentationLUTShape
    PresentationLUTSequence ImageRotation ImageHorizontalFlip DisplayedAreaSelectionSequence
    DisplayedAreaTopLeftHandCorner DisplayedAreaBottomRightHandCorner SoftcopyVOILUTSequence
    MaskSubtractionSequence BlendingSequence GraphicAnnotationSequence GraphicLayer GraphicLayerSequence
    GraphicLayerOrder GraphicLayerRecommendedDisplayGrayscaleValue GraphicLayerRecommendedDisplayCIELabValue
    GraphicLayerRecommendedDisplayRGBValue GraphicObjectSequence GraphicAnnotationUnits GraphicType GraphicData
    GraphicFilled TextObjectSequence UnformattedTextValue BoundingBoxAnnotationUnits BoundingBoxTopLeftHandCorner
    BoundingBoxBottomRightHandCorner BoundingBoxTextHorizontalJustification AnchorPointAnnotationUnits AnchorPoint
    AnchorPointVisibility ShutterShape ShutterOverlayGroup ShutterLeftVerticalEdge ShutterRightVerticalEdge
    ShutterUpperHorizontalEdge ShutterLowerHorizontalEdge CenterOfCircularShutter RadiusOfCircularShutter
    VerticesOfThePolygonalShutter ShutterPresentationValue ShutterPresentationColorCIELabValue
    FrameDisplayShutterSequence
""")
WANTED = frozenset(
    {
        *map(tag_of, _ASKED),
        SPECIFIC_CHARACTER_SET,
        *PIXELS,
        *(group << 16 | element for group in OVERLAY_GROUPS for element in _OVERLAY),
    }
)


class Attributes(Item):
    """A data set, or an item of one; the items of its sequences are read once."""

    __slots__ = ("_sequences",)

    def __init__(self, *found: Any) -> None:
        super().__init__(*found)
        self._sequences: dict[str, Sequence[Attributes]] = {}

    def __contains__(self, keyword: str) -> bool:
        assert keyword in _ASKED, keyword
        return super().__contains__(keyword)

    def sequence(self, keyword: str) -> Sequence[Attributes]:
        """The items of a sequence; none of one that is malformed."""
        assert keyword in _ASKED, keyword
        if (found := self._sequences.get(keyword)) is None:
            try:
                found = tuple(self.items(keyword))
            except DamagedInstance:
                found = ()
            self._sequences[keyword] = found
        return found

    def raw(self, tag: int) -> tuple[bytes, bool] | None:
        """A value as it is encoded, and whether in little endian."""
        element = self._found.get(tag)
        if element is None or element.delimited:
            return None
        return self.value(element.offset, element.length), element.encoding.little_endian


def text(dataset: Attributes, keyword: str) -> str:
    """The first value as text."""
    assert keyword in _ASKED, keyword
    return dataset.text(keyword).partition("\\")[0].strip()


def texts(dataset: Attributes, keyword: str) -> tuple[str, ...]:
    assert keyword in _ASKED, keyword
    found = dataset.text(keyword)
    return tuple(value.strip() for value in found.split("\\")) if found else ()


def number(dataset: Attributes, keyword: str) -> float | None:
    """The first value as a finite number."""
    return next(iter(numbers(dataset, keyword)), None)


def numbers(dataset: Attributes, keyword: str, count: int | None = None) -> tuple[float, ...]:
    """All values as finite numbers; none where one of them isn't, or where there are not `count`."""
    assert keyword in _ASKED, keyword
    found = dataset.numbers(keyword)
    return found if count in (None, len(found)) else ()


def integer(dataset: Attributes, keyword: str) -> int | None:
    """The first value as a whole number."""
    found = number(dataset, keyword)
    return int(found) if found is not None and found == int(found) else None


def items(dataset: Attributes, keyword: str) -> Sequence[Attributes]:
    """The items of a sequence."""
    return dataset.sequence(keyword)


def are_damaged(dataset: Attributes, keyword: str) -> bool:
    """Whether there is a sequence whose items can't be read."""
    try:
        list(dataset.items(keyword))
    except DamagedInstance:
        return True
    return False


def first_item(dataset: Attributes, keyword: str) -> Attributes | None:
    return next(iter(items(dataset, keyword)), None)


def functional_group(dataset: Attributes, frame: int, keyword: str) -> Attributes:
    """The item of a functional group macro for a frame, from 0; else the data set itself, whose modules have the same
    attributes (PS3.3 C.7.6.16).
    """
    per_frame = items(dataset, "PerFrameFunctionalGroupsSequence")
    for group in (*per_frame[frame : frame + 1], *items(dataset, "SharedFunctionalGroupsSequence")[:1]):
        if (found := first_item(group, keyword)) is not None:
            return found
    return dataset


def words(dataset: Attributes, keyword: str, little_endian: bool) -> NDArray[np.uint16] | None:
    """The 16-bit words of a look-up table, whether its VR is US, SS or OW."""
    assert keyword in _ASKED, keyword
    place = dataset.place(keyword)
    if place is None or not place[1]:
        return None
    found = dataset.value(*place)
    return np.frombuffer(found[: len(found) & ~1], "<u2" if little_endian else ">u2").astype(np.uint16)
