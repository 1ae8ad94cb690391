"""The narrative of a CDA document as HTML that can do nothing (HL7 CDA Release 2, 4.3.5): tags of a short list, without
attributes but for the numbers of a cell's columns and rows, all else as text.

Expat reads it event by event; a DOCTYPE, and with it every entity, ends the reading.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.parsers import expat

from markupsafe import escape

from mkiso.reports.values import Lack

MAX_XML_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 100
MAX_ELEMENTS = 200_000
MAX_CHARACTERS = 2_000_000  # of HTML

_INERT = frozenset({"", "urn:hl7-org:v3", "urn:hl7-org:sdtc"})
_TAGS = {
    "paragraph": "div", "content": "span", "list": "ul", "item": "li", "table": "table", "thead": "thead",
    "tbody": "tbody", "tfoot": "tfoot", "tr": "tr", "th": "th", "td": "td", "sub": "sub", "sup": "sup",
    "footnote": "small", "caption": "p",
}  # fmt: skip
_SPAN = re.compile(r"[1-9]\d?", re.ASCII)
_FACTS: dict[tuple[str, ...], str] = {
    ("ClinicalDocument", "title"): "title",
    ("patientRole", "patient", "name"): "patient",
    ("assignedAuthor", "assignedPerson", "name"): "author",
    ("assignedCustodian", "representedCustodianOrganization", "name"): "custodian",
}
_TIMES: dict[tuple[str, ...], str] = {("ClinicalDocument", "effectiveTime"): "date", ("patient", "birthTime"): "born"}
_MAX_FACTS, _MAX_FACT = 50, 500
_DEEPEST_HEADING = 6
_UNREAD = frozenset({Lack.NOT_XML, Lack.ACTIVE, Lack.TOO_DEEP, Lack.TOO_MANY, Lack.TOO_LONG})


class _Refused(Exception):
    """The document isn't read on, and why."""

    def __init__(self, lack: Lack) -> None:
        super().__init__(lack.value)
        self.lack = lack


@dataclass(slots=True)
class Cda:
    """`facts` are name and value of what stands in the header: title, patient, author, custodian, date, born, holds.
    `is_active`: a browser might run something of it, or it couldn't be read to its end. `document_id` is its own,
    `replaces` those of the documents whose place it takes (4.2.3.1).
    """

    narrative: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    is_active: bool = False
    document_id: str = ""
    replaces: list[str] = field(default_factory=list)
    lacks: list[Lack] = field(default_factory=list)


def read_cda(xml: bytes) -> Cda:
    """A CDA document as far as it can be read."""
    if len(xml) > MAX_XML_BYTES:
        return Cda(is_active=True, lacks=[Lack.TOO_LONG, Lack.ACTIVE])
    reader = _Reader()
    try:
        reader.read(xml)
    except _Refused as refusal:
        reader.lacks.append(refusal.lack)
    except (expat.ExpatError, ValueError, LookupError):  # malformed, or in an encoding that there isn't
        reader.lacks.append(Lack.NOT_XML)
    is_active = reader.is_active or bool(_UNREAD.intersection(reader.lacks))
    if is_active:
        reader.lacks.append(Lack.ACTIVE)
    lacks = list(dict.fromkeys(reader.lacks))
    return Cda(reader.html, tuple(reader.facts), is_active, reader.document_id, reader.replaces, lacks)


class _Reader:
    """The handlers of expat. `_opened` has for each open element inside of a narrative what will close it."""

    def __init__(self) -> None:
        self.is_active = False
        self.facts: list[tuple[str, str]] = []
        self.lacks: list[Lack] = []
        self.document_id = ""
        self.replaces: list[str] = []
        self._is_replacing = False  # the document that comes is one whose place this one takes
        self._html: list[str] = []
        self._characters = self._elements = 0
        self._path: list[str] = []
        self._opened: list[str] = []
        self._label = ""  # of the fact or heading whose text is gathered
        self._gathered: list[str] = []
        self._ends_at = 0  # the depth of its element

    @property
    def html(self) -> str:
        """What was read, every tag closed."""
        return "".join((*self._html, *reversed(self._opened)))

    def read(self, xml: bytes) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = self._refuse
        parser.ProcessingInstructionHandler = self._instruction
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._text
        parser.Parse(xml, True)

    def _refuse(self, *_: object) -> None:
        raise _Refused(Lack.ACTIVE)

    def _instruction(self, target: str, _: str) -> None:
        if target.lower() == "xml-stylesheet":
            self.is_active = True

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        self._elements += 1
        if len(self._path) >= MAX_DEPTH:
            raise _Refused(Lack.TOO_DEEP)
        if self._elements > MAX_ELEMENTS:
            raise _Refused(Lack.TOO_MANY)
        if namespace not in _INERT:
            self.is_active = True  # XHTML, SVG, XSLT
        self._path.append(local)
        if self._opened:
            self._start_narrative(local, attributes)
        elif self._path[-2:] == ["section", "text"]:
            self._open("<div>", "</div>")
        elif self._path[-2:] == ["section", "title"]:
            self._gather("heading")
        elif self._path[-2:] == ["nonXMLBody", "text"]:
            self._fact("holds", attributes.get("mediaType", "text/plain"))
            self.lacks.append(Lack.OTHER_KIND)
        elif local == "relatedDocument":
            self._is_replacing = attributes.get("typeCode") == "RPLC"
        elif self._path == ["ClinicalDocument", "id"]:
            self.document_id = _id(attributes)
        elif self._path[1:] == ["relatedDocument", "parentDocument", "id"] and self._is_replacing:
            self.replaces += filter(None, [_id(attributes)][: _MAX_FACTS - len(self.replaces)])
        elif label := self._named(_FACTS):
            self._gather(label)
        elif label := self._named(_TIMES):
            self._fact(label, attributes.get("value", ""))

    def _start_narrative(self, local: str, attributes: dict[str, str]) -> None:
        tag = _TAGS.get(local, "")
        if tag == "ul" and attributes.get("listType") == "ordered":
            tag = "ol"
        if tag in ("td", "th"):
            spans = {name: attributes.get(name, "") for name in ("colspan", "rowspan")}
            numbers = "".join(f' {name}="{value}"' for name, value in spans.items() if _SPAN.fullmatch(value))
            self._open(f"<{tag}{numbers}>", f"</{tag}>")
        elif tag == "table":
            self._open('<div class="scroll"><table>', "</table></div>")
        elif local in ("br", "renderMultiMedia"):
            self._open("<br />" if local == "br" else " [&#8230;] ", "")
        else:
            self._open(f"<{tag}>" if tag else "", f"</{tag}>" if tag else "")

    def _end(self, _: str) -> None:
        if self._opened:
            self._write(self._opened.pop())
        elif self._label and len(self._path) == self._ends_at:
            text = " ".join("".join(self._gathered).split())
            if self._label == "heading":
                level = min(_DEEPEST_HEADING, 1 + self._path.count("section"))
                self._write(f"<h{level}>{escape(text)}</h{level}>")
            else:
                self._fact(self._label, text)
            self._label = ""
        self._path.pop()

    def _text(self, text: str) -> None:
        if self._opened:
            self._write(str(escape(text)))
        elif self._label and sum(map(len, self._gathered)) < _MAX_FACT:
            self._gathered += [text, " "]

    def _named(self, places: dict[tuple[str, ...], str]) -> str:
        return next((label for end, label in places.items() if tuple(self._path[-len(end) :]) == end), "")

    def _gather(self, label: str) -> None:
        self._label, self._gathered, self._ends_at = label, [], len(self._path)

    def _fact(self, label: str, value: str) -> None:
        if value and len(self.facts) < _MAX_FACTS:
            self.facts.append((label, value[:_MAX_FACT]))

    def _open(self, opening: str, closing: str) -> None:
        self._write(opening)
        self._opened.append(closing)

    def _write(self, html: str) -> None:
        self._characters += len(html)
        if self._characters > MAX_CHARACTERS:
            raise _Refused(Lack.TOO_LONG)
        self._html.append(html)


def _id(attributes: dict[str, str]) -> str:
    """An instance identifier (II) as one text; empty without a root."""
    root, extension = attributes.get("root", ""), attributes.get("extension", "")
    return f"{root}^{extension}".casefold() if root else ""
