"""A data set without what says whose it is. Table E.1-1 is taken from dicom-anonymizer, which has it of the edition
2026c; it is applied to every item of every sequence, and what no table knows is removed (PS3.15 E.1.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from types import MappingProxyType

from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom import DataElement, Dataset, Sequence
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_has_tag, dictionary_is_retired, dictionary_VR
from pydicom.multival import MultiValue

from mkiso.config.disc import DeidentifiedOption
from mkiso.deidentify.profile import codes_of, row_of
from mkiso.deidentify.pseudonyms import Pseudonyms

EDITION = "dicomfields_2026c"
_ACTIONS = {
    "X_TAGS": "X",
    "Z_TAGS": "Z",
    "X_Z_TAGS": "Z",
    "D_TAGS": "D",
    "Z_D_TAGS": "D",
    "X_D_TAGS": "D",
    "X_Z_D_TAGS": "D",
    "U_TAGS": "U",
    "X_Z_U_STAR_TAGS": "U",
}
"""Where the table leaves a choice, that which keeps a required attribute."""
_LUTS = frozenset({0x00281101, 0x00281102, 0x00281103, 0x00281201, 0x00281202, 0x00281203, 0x00283002, 0x00283006})
_NUMBERS = frozenset({"FD", "FL", "SL", "SS", "SV", "UL", "US", "UV", "AT", "DS", "IS"})
_SHORT_TEXT = frozenset({"CS", "LO", "SH"})
_PATIENT_NAME, _PATIENT_ID = 0x00100010, 0x00100020
_PATIENT, _FUNCTIONAL_GROUPS = 0x0010, 0x5200
"""Groups of tags. All others from 5000 on are curves, overlays, waveforms, pixels."""
_ANATOMICAL_ORIENTATION_TYPE = 0x00102210
"""Whether a patient has two legs or four, without which nobody knows where left is."""
_NUMBER = re.compile(r"[0-9+\-.Ee]*")
_DATE_TIME = re.compile(r"\d{8}(\d{2,6}(\.\d{1,6})?)?([+-]\d{4})?")
_TIME = re.compile(r"\d{2,6}(\.\d{1,6})?")

DUMMIES: Mapping[str, str] = MappingProxyType(
    {
        "AE": "REMOVED",
        "AS": "000Y",
        "CS": "REMOVED",
        "DA": "19000101",
        "DS": "0",
        "DT": "19000101000000",
        "IS": "0",
        "LO": "REMOVED",
        "LT": "REMOVED",
        "PN": "REMOVED",
        "SH": "REMOVED",
        "ST": "REMOVED",
        "TM": "000000",
        "UC": "REMOVED",
        "UT": "REMOVED",
    }
)


@cache
def _table() -> Mapping[int, str]:
    """The table's actions by tag. Its rows for groups of repeating tags are of groups that are removed whole."""
    found = dicom_anonymization_database_selector(EDITION)
    return {tag[0] << 16 | tag[1]: action for name, action in _ACTIONS.items() for tag in found[name] if len(tag) == 2}


def clean(
    data_set: Dataset, pseudonyms: Pseudonyms, options: Collection[DeidentifiedOption], *, is_blackened: bool
) -> None:
    """Remove from a whole data set, in place, what says whose it is, and write down that it was done (PS3.15 E.1.1)."""
    _clean(data_set, pseudonyms, options)
    data_set.PatientName, data_set.PatientID = pseudonyms.patient_name, pseudonyms.patient_id
    data_set.PatientIdentityRemoved = "YES"
    data_set.DeidentificationMethod = "mkiso: PS3.15 Basic Profile"
    data_set.DeidentificationMethodCodeSequence = Sequence(
        _code(*code) for code in codes_of(options, is_blackened=is_blackened)
    )
    data_set.LongitudinalTemporalInformationModified = "MODIFIED" if "modified-dates" in options else "REMOVED"
    data_set.BurnedInAnnotation = "NO"


def _clean(item: Dataset, pseudonyms: Pseudonyms, options: Collection[DeidentifiedOption]) -> None:
    for tag in list(item.keys()):
        number = int(tag)
        if tag.is_private or not dictionary_has_tag(tag) or (tag.group >= 0x5000 and tag.group != _FUNCTIONAL_GROUPS):
            del item[tag]
            continue
        if _may_be_anybodys(number):
            del item[tag]
            continue
        element = item[tag]
        if not _is_of_its_kind(element):
            del item[tag]
        elif element.VR == "SQ":
            _clean_sequence(item, element, pseudonyms, options)
        elif not ("patient-characteristics" in options and (row := row_of(number)) and row.characteristics == "K"):
            _clean_value(item, element, pseudonyms, options)


def _may_be_anybodys(tag: int) -> bool:
    """Whether no table looks after an attribute that may say whose an image is: the profile's leaves retired ones out,
    such as order numbers, and new ones of the patient, such as the birth date in another calendar.
    """
    is_known = tag in _table() or row_of(tag) is not None
    of_patient = tag >> 16 == _PATIENT and tag != _ANATOMICAL_ORIENTATION_TYPE
    return not is_known and (of_patient or dictionary_is_retired(tag))


def _is_of_its_kind(element: DataElement) -> bool:
    """Whether an attribute has the representation that the dictionary gives it: text under a number's tag is none."""
    if element.VR in ("DS", "IS") and not all(map(_NUMBER.fullmatch, _texts(element.value))):
        return False
    return element.VR in dictionary_VR(element.tag).split(" or ") or dictionary_VR(element.tag) == element.VR


def _clean_sequence(
    item: Dataset, element: DataElement, pseudonyms: Pseudonyms, options: Collection[DeidentifiedOption]
) -> None:
    match _table().get(int(element.tag)):
        case "X" | "D":  # there is no dummy for an item; no kind of image that is copied needs one here
            del item[element.tag]
        case "Z":
            item[element.tag].value = Sequence()
        case _:
            for each in element.value:
                _clean(each, pseudonyms, options)


def _clean_value(
    item: Dataset, element: DataElement, pseudonyms: Pseudonyms, options: Collection[DeidentifiedOption]
) -> None:
    tag, vr, action = int(element.tag), element.VR, _table().get(int(element.tag))
    if vr in ("DA", "DT", "TM"):
        is_shifted = "modified-dates" in options and (row := row_of(tag)) and row.dates == "C"
        _clean_moment(item, element, action, pseudonyms if is_shifted else None)
    elif vr == "UI" and action != "X":
        element.value = _each(element.value, lambda uid: uid if uid in UID_dictionary else pseudonyms.uid(uid))
    elif action == "D" and vr in DUMMIES:
        element.value = DUMMIES[vr]
    elif action == "Z" or tag in (_PATIENT_NAME, _PATIENT_ID):
        element.value = None
    elif action or not (vr in _NUMBERS or vr in _SHORT_TEXT or tag in _LUTS):
        del item[element.tag]


def _clean_moment(item: Dataset, element: DataElement, action: str | None, pseudonyms: Pseudonyms | None) -> None:
    """A date or time is shifted, or goes as the table says; one that it doesn't know stays empty."""
    if pseudonyms and (shifted := _each(element.value, lambda text: _shifted(text, element.VR, pseudonyms))):
        element.value = shifted
    elif action == "X":
        del item[element.tag]
    else:
        element.value = DUMMIES[element.VR] if action == "D" else None


def _shifted(text: str, vr: str, pseudonyms: Pseudonyms) -> str:
    if vr == "TM":
        return text if _TIME.fullmatch(text) else ""
    if vr == "DA":
        return pseudonyms.day(text) if len(text) == 8 else ""
    day = pseudonyms.day(text) if _DATE_TIME.fullmatch(text) else ""
    return f"{day}{text[8:]}" if day else ""


def _each(value: object, change: Callable[[str], str]) -> list[str]:
    """Each of an attribute's values changed; none where one can't be."""
    changed = [change(text) for text in _texts(value)]
    return changed if all(changed) else []


def _texts(value: object) -> list[str]:
    several = value if isinstance(value, MultiValue) else [value]
    return [str(each) for each in several if each is not None and each != ""]


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code
