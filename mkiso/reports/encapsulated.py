"""Encapsulated documents: which bytes are the document, and what kind of file they are (PS3.3 A.45, C.24.2).

What a browser would run is never given a suffix by which it runs.
"""

from __future__ import annotations

from pathlib import Path

from mkiso.dataset.items import Item, opened
from mkiso.reports.cda import MAX_XML_BYTES, read_cda
from mkiso.reports.values import Encapsulated, Lack

KEYWORDS = frozenset({"EncapsulatedDocument", "EncapsulatedDocumentLength", "MIMETypeOfEncapsulatedDocument"})

PDF, XML, TEXT, OTHER = "PDF", "XML", "TXT", "BIN"
_SUFFIXES = {
    "application/pdf": PDF,
    **dict.fromkeys(("text/xml", "application/xml", "application/hl7-v3+xml", "application/hl7-cda+xml"), XML),
    **dict.fromkeys(("model/stl", "model/x.stl-binary", "application/sla"), "STL"),
    "model/obj": "OBJ",
    "model/mtl": "MTL",
    **dict.fromkeys(("text/plain", "text/html", "application/xhtml+xml", "text/rtf"), TEXT),
    "image/jpeg": "JPG",
    "image/png": "PNG",
}
_BEGINNINGS = {PDF: b"%PDF-", "JPG": b"\xff\xd8\xff", "PNG": b"\x89PNG"}
_BEGINNING_BYTES = 1024  # within which readers of PDF look for it
_CHUNK_BYTES = 1024 * 1024
_NEVER_END_IN_NUL = frozenset({PDF, XML, TEXT, "OBJ", "MTL"})


def read_encapsulated(document: Item) -> tuple[Encapsulated | None, tuple[Lack, ...]]:
    """The document in an object, and why it isn't shown as what it says that it is."""
    place = document.place("EncapsulatedDocument")
    if place is None or not place[1]:
        return None, (Lack.EMPTY,)
    lacks: list[Lack] = []
    offset, length = place
    mime_type = document.line("MIMETypeOfEncapsulatedDocument")[:100]
    suffix = _SUFFIXES.get(mime_type.partition(";")[0].strip().lower(), OTHER)
    beginning = document.value(offset, min(length, _BEGINNING_BYTES))
    if suffix in _BEGINNINGS and _BEGINNINGS[suffix] not in beginning:
        suffix = OTHER
        lacks.append(Lack.FORMAT)
    length, is_short = _unpadded(document, offset, length, suffix)
    if is_short:
        lacks.append(Lack.SHORTER)
    if suffix != XML:
        return Encapsulated(mime_type, suffix, offset, length), tuple(lacks)
    cda = read_cda(document.value(offset, min(length, MAX_XML_BYTES + 1)))
    suffix = TEXT if cda.is_active else XML
    told = cda.narrative, cda.facts, cda.document_id, frozenset(cda.replaces)
    return Encapsulated(mime_type, suffix, offset, length, *told), (*lacks, *cda.lacks)


def _unpadded(document: Item, offset: int, length: int, suffix: str) -> tuple[int, bool]:
    """The length of the document itself, and whether that is less than the object says. Where the object doesn't say
    it, one NUL at the end is padding in what can't end in one.
    """
    said = document.integer("EncapsulatedDocumentLength")
    if said is not None and said in (length, length - 1):
        return said, False
    if suffix in _NEVER_END_IN_NUL and document.value(offset + length - 1, 1) == b"\0":
        length -= 1
    return length, said is not None and said > length


def copy_document(path: Path, document: Encapsulated, target: Path) -> None:
    """Write an encapsulated document's bytes into a file. Raises DamagedInstance, OSError."""
    with opened(path, KEYWORDS) as item, target.open("wb") as file:
        end = document.offset + document.length
        for offset in range(document.offset, end, _CHUNK_BYTES):
            file.write(item.value(offset, min(_CHUNK_BYTES, end - offset)))
