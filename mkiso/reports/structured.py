"""SR documents of every class, from Basic Text to dose reports and Key Object Selection: they share one tree of content
items (PS3.3 A.35, C.17).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from mkiso.dataset.items import Item, keywords
from mkiso.errors import DamagedInstance
from mkiso.reports.codes import QUANTITIES, code_in, code_of, quantity_of
from mkiso.reports.values import Code, ContentItem, Graphic, Lack, Observer, Quantity, Reference, Structured

MAX_ITEMS = 20_000
MAX_DEPTH = 40
MAX_CHARACTERS = 4_000_000
MAX_REFERENCES = 2_000  # of one item
MAX_NUMBERS = 1_000  # frames, segments and channels of one reference
MAX_OBSERVERS = 50
_MAX_WALKED_BYTES = 64 * 1024 * 1024  # an item is walked once for each that it lies in

KEYWORDS = QUANTITIES | keywords("""
    ContentSequence RelationshipType ValueType ConceptNameCodeSequence TextValue ConceptCodeSequence
    MeasuredValueSequence NumericValueQualifierCodeSequence DateTime Date Time PersonName UID
    ReferencedSOPSequence ReferencedSOPClassUID ReferencedSOPInstanceUID ReferencedFrameNumber ReferencedSegmentNumber
    ReferencedWaveformChannels GraphicType GraphicData TemporalRangeType ReferencedSamplePositions ReferencedTimeOffsets
    ReferencedDateTime ReferencedContentItemIdentifier ObservationDateTime
    CompletionFlag CompletionFlagDescription VerificationFlag PreliminaryFlag
    VerifyingObserverSequence VerifyingObserverName VerifyingOrganization VerificationDateTime
    AuthorObserverSequence ParticipantSequence ObserverType StationName InstitutionName ParticipationType
    ParticipationDateTime PersonIdentificationCodeSequence
    """)
_PLAIN = {"TEXT": "TextValue", "DATETIME": "DateTime", "DATE": "Date", "TIME": "Time", "PNAME": "PersonName"}
_PLAIN["UIDREF"] = "UID"
_REFERRING = ("IMAGE", "COMPOSITE", "WAVEFORM")
_COORDINATES = {"SCOORD": ("pixel", 2), "SCOORD3D": ("mm", 3)}
_TIMES = (("ReferencedSamplePositions", "sample"), ("ReferencedTimeOffsets", "s"), ("ReferencedDateTime", "time"))


def read_structured(document: Item) -> tuple[Structured, tuple[Lack, ...]]:
    """A structured report, and why not all of it is there. Raises DamagedInstance where nothing can be read."""
    tree = _Tree(document)
    items = tuple(tree.items())
    report = Structured(
        completion=document.line("CompletionFlag"),
        completion_description=document.line("CompletionFlagDescription"),
        verification=document.line("VerificationFlag"),
        preliminary=document.line("PreliminaryFlag"),
        observed=document.line("ObservationDateTime"),
        title=code_in(document, "ConceptNameCodeSequence"),
        observers=tuple(islice(_observers(document), MAX_OBSERVERS)),
        items=items,
    )
    return report, tuple(dict.fromkeys(tree.lacks if items or tree.lacks else [Lack.EMPTY]))


def title_of(document: Item) -> str:
    """What the root of the tree is called."""
    return str(code_in(document, "ConceptNameCodeSequence") or "")


class _Tree:
    """Walks the content items by a stack of its own."""

    def __init__(self, document: Item) -> None:
        self._document = document
        self._left = _MAX_WALKED_BYTES
        self._characters = MAX_CHARACTERS
        self.lacks: list[Lack] = []

    def items(self) -> Iterator[ContentItem]:
        """Each item before those that it contains."""
        levels = [(enumerate(self._document.items("ContentSequence"), 1), "1")]
        given = 0
        while levels:
            inside, number = levels[-1]
            try:
                place, item = next(inside)
                given += 1
                if given > MAX_ITEMS or self._left < 0 or self._characters < 0:
                    self.lacks.append(Lack.TOO_MANY)
                    return
                self._left -= item.size
                yield self._counted(_content_item(item, f"{number}.{place}", len(levels) - 1))
                if "ContentSequence" in item:
                    if len(levels) >= MAX_DEPTH:
                        self.lacks.append(Lack.TOO_DEEP)
                    else:
                        levels.append((enumerate(item.items("ContentSequence"), 1), f"{number}.{place}"))
            except StopIteration:
                levels.pop()
            except DamagedInstance:
                self.lacks.append(Lack.DAMAGED)
                levels.pop()

    def _counted(self, item: ContentItem) -> ContentItem:
        codes = (*item.codes, *(each.unit for each in item.quantities), item.name)
        self._characters -= len(item.text) + 64
        self._characters -= sum(len(code.meaning) + len(code.value) + len(code.scheme) for code in codes if code)
        self._characters -= sum(64 + 8 * (len(each.frames) + len(each.segments)) for each in item.references)
        if item.lack:
            self.lacks.append(item.lack)
        return item


def _content_item(item: Item, number: str, depth: int) -> ContentItem:
    value_type = item.line("ValueType").upper()
    relationship = item.line("RelationshipType").upper()
    observed = item.line("ObservationDateTime")
    if "ReferencedContentItemIdentifier" in item:
        refers_to = ".".join(str(int(part)) for part in item.numbers("ReferencedContentItemIdentifier")[:MAX_DEPTH])
        return ContentItem(number, depth, relationship, value_type, refers_to=refers_to)
    name = code_in(item, "ConceptNameCodeSequence")
    said = _said(item, value_type)
    return ContentItem(number, depth, relationship, value_type, name, observed=observed, **said)


def _said(item: Item, value_type: str) -> dict[str, Any]:
    """The fields of ContentItem that hold what an item of this value type says."""
    if keyword := _PLAIN.get(value_type):
        return {"text": item.text(keyword), "lack": Lack.TOO_LONG if item.is_cut(keyword) else None}
    if value_type == "CODE":
        return {"codes": _codes(item, "ConceptCodeSequence")}
    if value_type == "NUM":
        qualifiers = _codes(item, "NumericValueQualifierCodeSequence")
        return {"quantities": _quantities(item), "codes": qualifiers}
    if value_type in _REFERRING:
        return {"references": tuple(map(_reference, islice(item.items("ReferencedSOPSequence"), MAX_REFERENCES)))}
    if value_type in _COORDINATES:
        return {"graphic": _coordinates(item, *_COORDINATES[value_type])}
    if value_type == "TCOORD":
        return {"graphic": _times(item)}
    return {} if value_type == "CONTAINER" else {"lack": Lack.OTHER_KIND}


def _codes(item: Item, keyword: str) -> tuple[Code, ...]:
    return tuple(map(code_of, islice(item.items(keyword), 20)))


def _quantities(item: Item) -> tuple[Quantity, ...]:
    return tuple(map(quantity_of, islice(item.items("MeasuredValueSequence"), 20)))


def _reference(item: Item) -> Reference:
    channels = item.numbers("ReferencedWaveformChannels")[:MAX_NUMBERS]
    return Reference(
        item.line("ReferencedSOPClassUID"),
        item.line("ReferencedSOPInstanceUID"),
        tuple(map(int, item.numbers("ReferencedFrameNumber")[:MAX_NUMBERS])),
        tuple(map(int, item.numbers("ReferencedSegmentNumber")[:MAX_NUMBERS])),
        tuple((int(group), int(channel)) for group, channel in zip(channels[::2], channels[1::2], strict=False)),
        item.first("ReferencedSOPSequence") is not None,
    )


def _coordinates(item: Item, unit: str, dimensions: int) -> Graphic:
    numbers = item.numbers("GraphicData")
    _, length = item.place("GraphicData") or (0, 0)
    points = length // 4 // dimensions  # FL
    last = numbers[(points - 1) * dimensions : points * dimensions]
    closed = points > 2 and numbers[:dimensions] == last
    return Graphic(item.line("GraphicType").upper(), points, numbers[:12], unit, closed)


def _times(item: Item) -> Graphic:
    for keyword, unit in _TIMES:
        if keyword in item:
            numbers = item.numbers(keyword)
            points = len(numbers) or len(item.text(keyword).split("\\"))
            return Graphic(item.line("TemporalRangeType").upper(), points, numbers[:4], unit)
    return Graphic(item.line("TemporalRangeType").upper(), 0, (), "")


def _observers(document: Item) -> Iterator[Observer]:
    try:
        for item in document.items("VerifyingObserverSequence"):
            name, organization = item.line("VerifyingObserverName"), item.line("VerifyingOrganization")
            yield Observer("VERIFIED", name, organization, item.line("VerificationDateTime"))
        for keyword, role in (("AuthorObserverSequence", "AUTHOR"), ("ParticipantSequence", "")):
            for item in document.items(keyword):
                device = item.line("ObserverType").upper() == "DEV"
                name = item.line("PersonName") or item.line("StationName")
                person = code_in(item, "PersonIdentificationCodeSequence")
                yield Observer(
                    role or item.line("ParticipationType").upper(),
                    name or str(person or ""),
                    item.line("InstitutionName"),
                    item.line("ParticipationDateTime"),
                    device,
                )
    except DamagedInstance:
        return
