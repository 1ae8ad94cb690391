"""The last look at a cleaned file, by another table and other means than it was cleaned with: what isn't shown to be
harmless is an error, and no disc is made of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from pydicom import DataElement, Dataset, dcmread
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_has_tag, dictionary_is_retired, dictionary_VR

from mkiso.config.disc import DeidentifiedOption
from mkiso.deidentify.cleaning import DUMMIES
from mkiso.deidentify.profile import codes_of, row_of
from mkiso.deidentify.pseudonyms import Pseudonyms
from mkiso.deidentify.strings import Strings, days_in
from mkiso.errors import ProofFailed

_META = frozenset({0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013})
_HARMLESS = frozenset({"AT", "CS", "DS", "FD", "FL", "IS", "LO", "SH", "SL", "SS", "SV", "UL", "US", "UV"})
_TEXTS_KEPT = frozenset({"CS", "LO", "SH"})
_PALETTES = frozenset({0x00281101, 0x00281102, 0x00281103, 0x00281201, 0x00281202, 0x00281203, 0x00283002, 0x00283006})
_PATIENT_NAME, _PATIENT_ID, _ORIENTATION_TYPE = 0x00100010, 0x00100020, 0x00102210
_OF_FRAMES = frozenset({0x52009229, 0x52009230})
"""Shared and Per-frame Functional Groups Sequence, of which each item is looked at."""
_NUMERALS = frozenset("0123456789+-.eE")
_DUMMIES = frozenset(DUMMIES.values())


def require_clean(
    file: Path,
    head_bytes: int,
    strings: Strings,
    days: Collection[str],
    pseudonyms: Pseudonyms,
    options: Collection[DeidentifiedOption],
    *,
    is_blackened: bool,
) -> None:
    """Raise ProofFailed unless a file, whose pixels begin after so many bytes, says nothing of whom it is. `days` are
    those that stood in it.
    """
    with file.open("rb") as stream:
        head = stream.read(head_bytes)
    data_set = dcmread(file, stop_before_pixels=True)
    if any(head[:128]) or {int(each.tag) for each in data_set.file_meta} - _META:
        _refuse("its meta information")
    _require_marks(data_set, pseudonyms, [code for code, _ in codes_of(options, is_blackened=is_blackened)])
    for element in _elements(data_set):
        if not _is_harmless(element, strings, days, pseudonyms, options):
            _refuse(f"({element.tag.group:04X},{element.tag.element:04X})")
    if strings.found_in(head):
        _refuse(
            "some attribute, where a name or number of the patient, or of somebody else whom the images name, stands"
        )


def _refuse(where: str) -> None:
    raise ProofFailed(
        f"A de-identified image would still say something of the patient in {where}: nothing was made. Choose other "
        "series, or tell who maintains mkiso."
    )


def _elements(item: Dataset) -> Iterator[DataElement]:
    for element in item:
        yield element
        if element.VR == "SQ":
            for each in element.value:
                yield from _elements(each)


def _require_marks(data_set: Dataset, pseudonyms: Pseudonyms, wanted: list[str]) -> None:
    """It says of itself what was done (PS3.15 E.1.1, PS3.3 C.7.1.1)."""
    codes = [code.CodeValue for code in data_set.get("DeidentificationMethodCodeSequence", ())]
    if (
        data_set.get("PatientIdentityRemoved") != "YES"
        or codes != wanted
        or data_set.get("PatientID") != pseudonyms.patient_id
        or str(data_set.get("PatientName")) != pseudonyms.patient_name
    ):
        _refuse("what it says of itself")


def _is_harmless(
    element: DataElement,
    strings: Strings,
    days: Collection[str],
    pseudonyms: Pseudonyms,
    options: Collection[DeidentifiedOption],
) -> bool:
    tag, vr = int(element.tag), element.VR
    values = [] if vr == "SQ" else _texts(element)
    if element.tag.is_private or element.tag.group >= 0x5000 or not dictionary_has_tag(tag):
        return tag in _OF_FRAMES and vr == "SQ"
    if vr in ("DS", "IS") and not all(set(value) <= _NUMERALS for value in values):
        return False
    if vr not in dictionary_VR(tag).split(" or ") and vr != dictionary_VR(tag):
        return False
    if tag in (_PATIENT_NAME, _PATIENT_ID):
        return set(values) <= {pseudonyms.patient_name, pseudonyms.patient_id, *_DUMMIES}
    row = row_of(tag)
    if row is None and tag != _ORIENTATION_TYPE and (element.tag.group == 0x0010 or dictionary_is_retired(tag)):
        return False
    if row and row.characteristics == "K" and "patient-characteristics" in options:
        return vr not in _TEXTS_KEPT or not (_tell_a_day(values, days) or any(map(strings.is_in_text, values)))
    if row and row.dates == "C" and "modified-dates" in options:
        return all(vr == "TM" or value[:8] not in days for value in values)
    if row and row.action == "X":
        return False
    if vr == "UI":
        return all(uid in UID_dictionary or uid.startswith("2.25.") for uid in values)
    if vr == "SQ":
        return row is None or "U" in row.action or not element.value
    if row or vr in ("DA", "DT", "TM", "PN"):
        return set(values) <= _DUMMIES
    if (vr in _TEXTS_KEPT and _tell_a_day(values, days)) or (vr in ("DS", "IS") and not set(values).isdisjoint(days)):
        return False
    return (vr in _HARMLESS or tag in _PALETTES) and not any(map(strings.is_in_text, values))


def _tell_a_day(values: Collection[str], days: Collection[str]) -> bool:
    """Whether one of these days stands in texts, in whatever way it is written."""
    whole = {day for day in days if len(day) == 8}
    return any(day in value for day in whole for value in values) or any(days_in(value) & whole for value in values)


def _texts(element: DataElement) -> list[str]:
    """An attribute's values as text, those that are empty left out."""
    value = element.value
    several = value if isinstance(value, list) or hasattr(value, "append") else [value]
    return [str(each) for each in several if each is not None and each != "" and each != b""]
