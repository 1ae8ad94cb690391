"""What reading a report gives: plain frozen values that pages are made from. Text is the object's own, never escaped;
dates, times and names are as DICOM has them (PS3.5 6.2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Lack(StrEnum):
    """Why something of an object can't be shown, or not all of it."""

    DAMAGED = "damaged"
    EMPTY = "empty"
    TOO_MANY = "too_many"
    TOO_DEEP = "too_deep"
    TOO_LONG = "too_long"
    OTHER_KIND = "other_kind"
    NOT_XML = "not_xml"
    ACTIVE = "active"
    SHORTER = "shorter"
    SOUND = "sound"
    FORMAT = "format"
    UNFORESEEN = "unforeseen"


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 8.8)."""

    meaning: str
    value: str = ""
    scheme: str = ""

    def __str__(self) -> str:
        return self.meaning or self.value


@dataclass(frozen=True, slots=True)
class Quantity:
    """A measured value as it was written, and its unit."""

    value: str
    unit: Code | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """An instance that is referred to; `frames`, `segments` and `channels` are empty where all of it is meant.
    `is_presented`: by a presentation state.
    """

    sop_class_uid: str
    sop_instance_uid: str
    frames: tuple[int, ...] = ()
    segments: tuple[int, ...] = ()
    channels: tuple[tuple[int, int], ...] = ()
    is_presented: bool = False


@dataclass(frozen=True, slots=True)
class Graphic:
    """Coordinates or points in time (PS3.3 C.18.6, C.18.7, C.18.9). `points` is how many there are, `first` the numbers
    of the first ones, `unit` what they count.
    """

    kind: str
    points: int
    first: tuple[float, ...]
    unit: str
    closed: bool = False


@dataclass(frozen=True, slots=True)
class ContentItem:
    """One content item (PS3.3 C.17.3). `number` is its place as references name it, such as 1.3.2; `depth` counts from
    0. `refers_to` is the place of another item that stands here by reference.
    """

    number: str
    depth: int
    relationship: str
    value_type: str
    name: Code | None = None
    text: str = ""
    codes: tuple[Code, ...] = ()
    quantities: tuple[Quantity, ...] = ()
    references: tuple[Reference, ...] = ()
    graphic: Graphic | None = None
    refers_to: str = ""
    observed: str = ""
    lack: Lack | None = None


@dataclass(frozen=True, slots=True)
class Observer:
    """Who verified, wrote or took part. `name` is a person's; `device` says that it is a machine's."""

    role: str
    name: str
    organization: str = ""
    when: str = ""
    device: bool = False


@dataclass(frozen=True, slots=True)
class Structured:
    """A structured report. `items` are in the order of reading, each before those that it contains."""

    completion: str
    completion_description: str
    verification: str
    preliminary: str
    observed: str
    title: Code | None
    observers: tuple[Observer, ...]
    items: tuple[ContentItem, ...]


@dataclass(frozen=True, slots=True)
class Encapsulated:
    """A document of another kind. Its bytes are `length` from `offset` on in the encoded data set; `suffix` is what its
    file is called, `mime_type` what the object says that it is. Of a CDA alone: `narrative`, HTML that is safe as it
    stands, the `document_id` (empty: none), and those of the documents that it `replaces`.
    """

    mime_type: str
    suffix: str
    offset: int
    length: int
    narrative: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    document_id: str = ""
    replaces: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel of a recording as it is drawn. `per_mm` units of `unit` are one mm of paper."""

    label: str
    unit: str
    per_mm: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A multiplex group. `svg` is its drawing, empty where it has none because of `lack`; `shown_seconds` of `seconds`
    and `shown_channels` of `channels` are in it.
    """

    label: str
    seconds: float
    hertz: float
    channels: tuple[Channel, ...]
    channel_count: int
    shown_seconds: float
    svg: bytes = b""
    lack: Lack | None = None

    @property
    def is_drawn(self) -> bool:
        return self.lack is None


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a recording says of itself: words, a code, or a measured value."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Recording:
    """Waveforms."""

    charts: tuple[Chart, ...]
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of as many texts as there are columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Radiotherapy:
    """An object of radiotherapy: what is true of it as a whole, and tables."""

    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]


Body = Structured | Encapsulated | Recording | Radiotherapy


@dataclass(frozen=True, slots=True)
class Report:
    """What one instance says. `body` is None where nothing of it can be shown; `lacks` say why, or why not all."""

    title: str = ""
    date: str = ""
    time: str = ""
    institution: str = ""
    body: Body | None = None
    lacks: tuple[Lack, ...] = field(default=())
