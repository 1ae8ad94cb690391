"""Which images may be copied without their identity: those whose pixels can't have text burned into them. Whatever
isn't known to be such is refused.
"""

from __future__ import annotations

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
)

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
_OVERLAYS = range(0x6000, 0x6020, 2)
_OVERLAY_DATA = 0x3000
CHOOSE = "Choose the series that may be copied, and ask for these alone."


def require_admitted(image: Dataset, sop_class_uid: str) -> None:
    """Raise NotDeidentifiable for an image that may show whose it is. `image` is its whole data set."""
    called = series_of(image)
    if sop_class_uid not in CLASSES:
        raise NotDeidentifiable(
            f"{called} has objects that are no CT, MR or PET image: what they show or say may name the patient. "
            f"{CHOOSE}"
        )
    if reason := _doubt(image):
        raise NotDeidentifiable(f"{called} has an image {reason}. {CHOOSE}")


def series_of(image: Dataset) -> str:
    """What an image's series is called where it is refused."""
    return f"Series {_number(image)} ({_modality(image)})"


def _doubt(image: Dataset) -> str:
    """Why the pixels may show whose image it is; empty where nothing says so."""
    kind = [str(value).strip().upper() for value in _values(image, "ImageType")]
    if "YES" in (_word(image, "BurnedInAnnotation"), _word(image, "RecognizableVisualFeatures")):
        return "that says of itself that it shows whose it is"
    if kind[:1] not in (["ORIGINAL"], ["DERIVED"], ["MIXED"]) or kind[1:2] != ["PRIMARY"]:
        return "that isn't one of the examination's own (Image Type), such as a photograph of a screen"
    if any(word in value for value in kind[2:] for word in _SCREENS):
        return "that may be a screen or a page with words (Image Type)"
    if "ConversionType" in image or _word(image, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        return "in colour or of another device's screen, which may show whose it is"
    if any(_in_pixels(image, group) for group in _OVERLAYS):
        return "with an overlay among its pixels, which may show whose it is"
    return ""


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
