"""Which images may be copied without their identity: those whose pixels can't have text burned into them, and those of
devices of which the site says where they write. Whatever isn't known to be such is refused.
"""

from __future__ import annotations

from collections.abc import Collection

from pydicom import Dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from mkiso.config.disc import Region
from mkiso.deidentify.regions import Box, boxes_of, is_nearly_listed
from mkiso.errors import NotDeidentifiable

CLASSES = frozenset(
    {
        CTImageStorage,
        EnhancedCTImageStorage,
        LegacyConvertedEnhancedCTImageStorage,
        MRImageStorage,
        EnhancedMRImageStorage,
        LegacyConvertedEnhancedMRImageStorage,
        PositronEmissionTomographyImageStorage,
        EnhancedPETImageStorage,
        LegacyConvertedEnhancedPETImageStorage,
    }
)
"""Sections that a scanner computes. A screen may be stored under one of them: that is what the rest looks at."""
_SCREENS = ("SCREEN", "SAVE", "CAPTURE", "DOSE", "REPORT", "PROTOCOL", "TEXT")
"""Within the further values of Image Type, where makers say what they have put into a section's place."""
_SAYS_NOTHING = ("", "NO")
_SAYS_SO = "that says of itself that it shows whose it is"
_WRITES_SOMEWHERE = (
    "of a device that writes into such images, but in another size, version or spelling than its regions are listed for"
)
_ULTRASOUND = frozenset({UltrasoundImageStorage, UltrasoundMultiFrameImageStorage})
_OVERLAYS = range(0x6000, 0x6020, 2)
_OVERLAY_DATA = 0x3000
CHOOSE = "Choose the series that may be copied, and ask for these alone."


def admitted(image: Dataset, sop_class_uid: str, regions: Collection[Region]) -> tuple[Box, ...]:
    """What has to be blackened in an image before it may be copied. `image` is its whole data set.

    Raises NotDeidentifiable for one that may show whose it is all the same.
    """
    called, boxes = series_of(image), boxes_of(image, sop_class_uid, regions)
    if sop_class_uid not in CLASSES and not boxes:
        raise NotDeidentifiable(
            f"{called} has objects that are no CT, MR or PET image, nor of a device whose regions are blackened here: "
            f"what they show or say may name the patient. {CHOOSE}"
        )
    reason = _doubt_beyond(image, sop_class_uid) if boxes else _doubt(image)
    if sop_class_uid in CLASSES:
        reason = reason or _doubt_of_section(image)
        if not boxes and is_nearly_listed(image, sop_class_uid, regions):
            reason = reason or _WRITES_SOMEWHERE
    if reason:
        raise NotDeidentifiable(f"{called} has an image {reason}. {CHOOSE}")
    return boxes


def series_of(image: Dataset) -> str:
    """What an image's series is called where it is refused."""
    return f"Series {_number(image)} ({_modality(image)})"


def _doubt(image: Dataset) -> str:
    """Why the pixels may show whose image it is; empty where nothing says so."""
    if _word(image, "BurnedInAnnotation") not in _SAYS_NOTHING:
        return _SAYS_SO
    return _doubt_anywhere(image)


def _doubt_anywhere(image: Dataset) -> str:
    """Why more than some regions may show it."""
    if _word(image, "RecognizableVisualFeatures") not in _SAYS_NOTHING:
        return _SAYS_SO
    if any(word in value for value in _kind(image)[2:] for word in _SCREENS):
        return "that may be a screen or a page with words (Image Type)"
    if any(_in_pixels(image, group) for group in _OVERLAYS):
        return "with an overlay among its pixels, which may show whose it is"
    return ""


def _doubt_beyond(image: Dataset, sop_class_uid: str) -> str:
    """Why more than its device's regions may show it. Ultrasound devices store pages of words as images as well; these
    have no region of ultrasound (PS3.3 C.8.5.5).
    """
    if sop_class_uid in _ULTRASOUND and not image.get("SequenceOfUltrasoundRegions"):
        return "without a region of ultrasound, which may be a page with words"
    return _doubt_anywhere(image)


def _doubt_of_section(image: Dataset) -> str:
    """Why it may be none of the sections that a scanner computes."""
    kind = _kind(image)
    if kind[:1] not in (["ORIGINAL"], ["DERIVED"], ["MIXED"]) or kind[1:2] != ["PRIMARY"]:
        return "that isn't one of the examination's own (Image Type), such as a photograph of a screen"
    if "ConversionType" in image or _word(image, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        return "in colour or of another device's screen, which may show whose it is"
    return ""


def _kind(image: Dataset) -> list[str]:
    return [str(value).strip().upper() for value in _values(image, "ImageType")]


def _in_pixels(image: Dataset, group: int) -> bool:
    """Whether a group of overlays lies in unused bits of the pixels (retired, PS3.5 8.1.2), which nobody cleans."""
    return any(element.tag.group == group for element in image) and (group, _OVERLAY_DATA) not in image


def _values(image: Dataset, keyword: str) -> list[object]:
    value = image.get(keyword)
    return [value] if isinstance(value, str) else list(value or [])


def _word(image: Dataset, keyword: str) -> str:
    return str(image.get(keyword) or "").strip().upper()


def _number(image: Dataset) -> str:
    digits = str(image.get("SeriesNumber") or "").strip()
    return digits if digits.isascii() and digits.isdigit() and len(digits) < 8 else "without a number"


def _modality(image: Dataset) -> str:
    word = _word(image, "Modality")
    return word if word.isascii() and word.isalpha() and len(word) < 16 else "no modality"
