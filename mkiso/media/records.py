"""Directory records: each attribute from the headers of what the record stands for, as its VR allows it, whatever
the images have (PS3.3 F.5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import BlendingSoftcopyPresentationStateStorage

from mkiso.media.conforming import conforming, number
from mkiso.media.elements import Element, Item, common_set, declaring, encoded, texts
from mkiso.media.record_keys import KEYS, ORDERED, VERIFICATION_DATE_TIME, Key
from mkiso.media.record_values import BINARY_VRS, FILLED, Value, latest, sequence, uid_for, value_of, within
from mkiso.study.character_sets import UNICODE
from mkiso.study.text import CHARACTER_SET_VRS, NO_TEXT, Text, terms_of, text_of

# As the words of mkiso.media.conforming.
FILLED_WITH_ITSELF = "filled in {} of the DICOMDIR with a reference to the instance itself, since it names no other"
IN_UNICODE = "ISO_IR 192 in {} of the DICOMDIR, where the images have another set, several, or none that is defined"
UNDEFINED = "left out of {} of the DICOMDIR, since the images name a set that isn't defined"

_WITH_TEXT = frozenset(
    kind for kind, keys in KEYS.items() if any(key.vr in CHARACTER_SET_VRS or key.items for key in keys)
)
_REFERENCED_SERIES, _BLENDING = 0x00081115, 0x00700402
_CONTENT_DATE, _CONTENT_TIME, _VERIFICATION_FLAG, _VERIFYING_OBSERVERS = 0x00080023, 0x00080033, 0x0040A493, 0x0040A073
_TITLES = {  # the least that a title can say, for reports that have none (PS3.16)
    "SR DOCUMENT": (b"121144", b"DCM", b"Document Title"),
    "KEY OBJECT DOC": (b"113000", b"DCM", b"Of Interest"),
}
_MIME_TYPES = {  # PS3.3 C.24.2, by SOP class
    "1.2.840.10008.5.1.4.1.1.104.1": b"application/pdf",
    "1.2.840.10008.5.1.4.1.1.104.2": b"text/XML",
    "1.2.840.10008.5.1.4.1.1.104.3": b"model/stl",
    "1.2.840.10008.5.1.4.1.1.104.4": b"model/obj",
    "1.2.840.10008.5.1.4.1.1.104.5": b"model/mtl",
}

Notes = Counter[str]
"""How many records say what the images don't, by "RECORD TYPE, Keyword: words" with a place for the number; no
patient data."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a record stands for.

    `headers` are asked one after another for each attribute; `given` are values that are known better than from them,
    by tag; `order` is the record's place among its siblings. The UIDs are those in the file, of an instance's record
    only.
    """

    headers: tuple[Dataset, ...]
    order: int
    given: Mapping[int, Text]
    sop_class_uid: str = ""
    sop_instance_uid: str = ""


def record_body(kind: str, subject: Subject, notes: Notes) -> bytes:
    """A record's attributes from (0008,0005) upwards; what it says that the images don't is counted in `notes`."""
    elements = []
    with_text = kind in _WITH_TEXT
    sources = [(header, terms_of(header) if with_text else b"") for header in subject.headers]
    for key in KEYS[kind]:
        if type_ := key.type_for(subject.sop_class_uid):
            value, how = _value(kind, key, type_, subject, sources)
            if how:
                notes[f"{kind}, {key.keyword}: {how}"] += 1
            if value or type_ == 2:
                elements.append(Element(key.tag, key.vr, value))
    if kind == "SR DOCUMENT":
        elements += _verification(subject, elements)
    if kind == "PRESENTATION" and {_REFERENCED_SERIES, _BLENDING} <= {found.tag for found in elements}:
        other = _REFERENCED_SERIES if subject.sop_class_uid == BlendingSoftcopyPresentationStateStorage else _BLENDING
        elements = [found for found in elements if found.tag != other]  # F.5.23: each has a condition of its own
    if not with_text:
        return encoded(elements, b"")
    found = list(texts(elements))
    term = common_set(found)
    if how := _about_the_set(found, term):
        notes[f"{kind}, SpecificCharacterSet: {how}"] += 1
    return encoded([*declaring(term), *elements], term)


def _value(
    kind: str, key: Key, type_: int, subject: Subject, sources: list[tuple[Dataset, bytes]]
) -> tuple[Value, str]:
    """A key's value from the first header that has one, and what was done for it. `sources`: each header and its
    character set."""
    how, given = "", subject.given.get(key.tag, NO_TEXT)
    for header, terms in sources:
        is_there = given or key.tag in header.keys()  # noqa: SIM118  a data set's own __contains__ is slow
        value, done = value_of(key, header, terms, given) if is_there else ((), "")
        if not value and key.within and (shared := within(key, header, terms)):
            value, done = value_of(key, *shared)
        if value:
            return value, done
        how = how or done
    if type_ == 1:
        return _instead(kind, key, subject)
    return () if key.vr == "SQ" else NO_TEXT, how


def _instead(kind: str, key: Key, subject: Subject) -> tuple[Value, str]:
    """What stands for a type 1 value that no header has."""
    if key.vr == "SQ":
        return (_code(*_TITLES[kind]), FILLED) if kind in _TITLES else (_itself(key, subject), FILLED_WITH_ITSELF)
    if key.vr in BINARY_VRS:
        return number(key.vr, int(key.fill)), FILLED
    for header in subject.headers:
        for tag in key.instead_of:
            if value := conforming(key, text_of(header, tag)).value:
                return value, FILLED
    if key.tag in ORDERED:
        return Text(str(subject.order).encode()), FILLED
    if key.keyword == "MIMETypeOfEncapsulatedDocument":
        return Text(_MIME_TYPES.get(subject.sop_class_uid, key.fill)), FILLED
    return Text(key.fill or subject.sop_instance_uid.encode()), FILLED


def _code(value: bytes, scheme: bytes, meaning: bytes) -> tuple[Item, ...]:
    return ((Element(0x00080100, "SH", value), Element(0x00080102, "SH", scheme), Element(0x00080104, "LO", meaning)),)


def _itself(key: Key, subject: Subject) -> tuple[Item, ...]:
    """References that lead to the instance itself: what names no image must not seem to name one."""
    elements: list[Element] = []
    for inner in key.items:
        if inner.vr == "SQ":
            elements.append(Element(inner.tag, "SQ", _itself(inner, subject)))
        elif inner.meaning == "uid":
            elements.append(Element(inner.tag, "UI", uid_for(subject.given[inner.tag])))
        elif inner.type == 1:
            own = subject.sop_class_uid if inner.keyword == "ReferencedSOPClassUID" else subject.sop_instance_uid
            elements.append(Element(inner.tag, "UI", own.encode()))
    return (tuple(elements),) * key.fewest


def _verification(subject: Subject, elements: list[Element]) -> list[Element]:
    """PS3.3 F.5.25: Verification DateTime, the latest, is required of a verified report."""
    by_tag = {found.tag: found.value for found in elements}
    if str(by_tag[_VERIFICATION_FLAG]) != "VERIFIED":
        return []
    observers = [observer for header in subject.headers for observer in sequence(header, _VERIFYING_OBSERVERS)]
    verified = latest(observers, VERIFICATION_DATE_TIME) or b"".join(
        _bytes(by_tag[tag]) for tag in (_CONTENT_DATE, _CONTENT_TIME)
    )
    return [Element(VERIFICATION_DATE_TIME.tag, VERIFICATION_DATE_TIME.vr, verified)]


def _bytes(value: Value) -> bytes:
    assert isinstance(value, Text)
    return value.value


def _about_the_set(found: list[Text], term: bytes) -> str:
    """What the record's character set says that the images' don't."""
    if term == UNICODE and any(not text.is_plain and text.set_named != UNICODE for text in found):
        return IN_UNICODE
    return UNDEFINED if not term and any(text and text.set_named is None for text in found) else ""
