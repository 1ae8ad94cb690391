"""What a header gives for a key of a record or of an item in one: text and codes as their VR allows them, UIDs,
numbers, and items that are whole."""

from __future__ import annotations

import hashlib
import re
import uuid

from pydicom import Dataset, Sequence
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from mkiso.media.conforming import LEFT_OUT, NUMBER_BYTES, conforming, is_valid_uid, number
from mkiso.media.elements import Element, Item
from mkiso.media.record_keys import Key
from mkiso.study.text import NO_TEXT, Text, raw_value, terms_of

# As the words of mkiso.media.conforming.
FILLED = "filled in {} of the DICOMDIR, not in the images"
REPLACED = "no valid UID, replaced by one of our own in {} of the DICOMDIR, not in the images"
KEPT = "no valid UID, named in {} of the DICOMDIR as the files have it"

BINARY_VRS = frozenset({"US", "UL"})
_UID_AS_STORED = re.compile(rb"(?=.{1,64}$)\d+(\.\d+)*")  # what the receiver takes: mkiso.study.selection.is_uid

Value = Text | tuple[Item, ...] | bytes


def uid_for(found: Text) -> Text:
    """A study's or series' UID as a record may name it: itself, or where it is no valid one (PS3.5 9.1) always the
    same one made from it."""
    return found if is_valid_uid(found.value) else made_uid(b"instead of " + found.value)


def made_uid(seed: bytes) -> Text:
    """A UID made from a UUID (PS3.5 B.2), the same for the same seed."""
    return Text(f"2.25.{uuid.UUID(bytes=hashlib.sha256(seed).digest()[:16], version=4).int}".encode())


def within(key: Key, dataset: Dataset, terms: bytes) -> tuple[Dataset, bytes] | None:
    """The first item of the sequences that a key names, with the Specific Character Set that holds in it."""
    for tag in key.within:
        items = sequence(dataset, tag)
        if not items:
            return None
        dataset, terms = items[0], terms_of(items[0], terms)
    return dataset, terms


def value_of(key: Key, dataset: Dataset, terms: bytes, given: Text = NO_TEXT) -> tuple[Value, str]:
    """The value of a key and what was done for it, empty where the data set has none that it may have. `given` is
    known better; `terms` is the
    Specific Character Set that holds in the data set."""
    if key.vr == "SQ":
        return _items(key, dataset, terms)
    if key.vr in BINARY_VRS:
        return _number(key, dataset), ""
    found = given or Text(raw_value(dataset, key.tag, terms), terms)
    if key.meaning == "uid" and found:
        uid = uid_for(found)
        return uid, "" if uid is found else REPLACED
    if key.vr == "UI" and key.meaning == "identifier" and _UID_AS_STORED.fullmatch(found.value):
        return found, "" if is_valid_uid(found.value) else KEPT
    return conforming(key, found)


def latest(datasets: list[Dataset], key: Key) -> bytes:
    """The latest valid moment (DT) of these data sets."""
    return max((conforming(key, Text(raw_value(dataset, key.tag))).value.value for dataset in datasets), default=b"")


def sequence(header: Dataset, tag: int) -> list[Dataset]:
    """The items of a sequence; none where it is absent or can't be read. A hostile one fails in as many ways as a
    parser has, hence the wide net."""
    try:
        found = _decoded(header, tag)
    except Exception:
        return []
    return list(found) if isinstance(found, Sequence) else []


def _number(key: Key, dataset: Dataset) -> bytes:
    raw = dataset.get_item(BaseTag(key.tag))
    if isinstance(raw, RawDataElement) and raw.is_little_endian and raw.VR in (key.vr, None):
        stored = raw.value or b""
        if len(stored) == NUMBER_BYTES[key.vr]:  # as a record has it; pydicom takes ten times as long
            return stored
    try:
        found = _decoded(dataset, key.tag)
    except Exception:  # as many ways as pydicom has to refuse a value
        return b""
    return number(key.vr, *found) if key.several and isinstance(found, MultiValue) else number(key.vr, found)


def _decoded(dataset: Dataset, tag: int) -> object:
    """A value as pydicom reads it, which the data set doesn't keep: it takes ten times as much memory as the bytes."""
    found = dataset.get_item(BaseTag(tag))
    if isinstance(found, RawDataElement):
        found = convert_raw_data_element(found, ds=dataset)
    return None if found is None else found.value


def _items(key: Key, dataset: Dataset, terms: bytes) -> tuple[tuple[Item, ...], str]:
    """The items that have what they must have, none where they are too few."""
    found = sequence(dataset, key.tag)
    kept: list[Item] = []
    how = ""
    for each in found:
        elements, done = _item(key, each, terms_of(each, terms))
        kept += [elements] if elements else []
        how = how or done
    if len(kept) < key.fewest:
        return (), LEFT_OUT if found else ""
    return tuple(kept[: key.most]), how or (LEFT_OUT if len(kept) > key.most else "")


def _item(key: Key, dataset: Dataset, terms: bytes) -> tuple[Item, str]:
    elements: dict[str, Element] = {}
    how = ""
    for inner in key.items:
        value, done = value_of(inner, dataset, terms)
        for tag in inner.instead_of:
            if not value and (inner.type == 1 or "CodeValue" not in elements):
                value, done = conforming(inner, Text(raw_value(dataset, tag, terms), terms)).value, FILLED
        if value:
            elements[inner.keyword] = Element(inner.tag, inner.vr, value)
        elif inner.type == 1:
            return (), LEFT_OUT
        how = how or (done if value or done != FILLED else "")
    return (tuple(elements.values()), how) if _is_whole(elements) else ((), LEFT_OUT)


def _is_whole(elements: dict[str, Element]) -> bool:
    """Whether an item has what it must have beyond its type 1 attributes; of a code, the one value that counts is
    kept (Tables 8.8-1 and C.17-5)."""
    if "CodeMeaning" in elements:
        values = [keyword for keyword in ("CodeValue", "LongCodeValue", "URNCodeValue") if keyword in elements]
        for keyword in values[1:]:
            del elements[keyword]
        return bool(values) and (values[0] == "URNCodeValue" or "CodingSchemeDesignator" in elements)
    if "ValueType" in elements:
        is_code = str(elements["ValueType"].value) == "CODE"
        elements.pop("TextValue" if is_code else "ConceptCodeSequence", None)
        return ("ConceptCodeSequence" if is_code else "TextValue") in elements
    return True
