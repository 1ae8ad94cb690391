"""QIDO-RS (PS3.18 10.6): a question page by page, and its JSON (PS3.18 F) as answers like those of a C-FIND."""

from __future__ import annotations

import json
import struct
import time
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import httpx
from pydicom.datadict import tag_for_keyword

from mkiso.config.sources import DicomWeb
from mkiso.errors import PacsRefused, PacsSilent
from mkiso.network.dimse import Response
from mkiso.sources.answers import CANCELLED, SUCCESS, Answers
from mkiso.sources.find import MAX_ANSWER_BYTES, MAX_ANSWERS
from mkiso.sources.protocol import Query
from mkiso.sources.web import Lost, asking, named, no_answers, pieces_of

PAGE = 1000
MAX_OBJECT_CHARACTERS = 1024 * 1024
"""Of one answer; a study's has about 3,000, and takes a hundred times as many bytes at most."""
_USUAL_CHARACTERS = 16 * 1024
_READ_BYTES = 64 * 1024
_SPACES = 64
_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()
MAX_SECONDS_TIMEOUTS = 60
UNABLE = 0xC000
_PENDING = 0xFF00
_CHARACTER_SET = (0x00080005, b"ISO_IR 192")
_UID_OF = {"STUDY": "0020000D", "SERIES": "0020000E", "IMAGE": "00080018"}


class Cut(ValueError):
    """An array without its end: who relays it may end its answer in order, and not say that it got no more."""


def ask(
    client: httpx.Client, settings: DicomWeb, until: float | None, query: Query, most: int | None = None, /
) -> Answers:
    """Ask one question. Pages are asked for until one is empty: a server that cuts its answers doesn't always say so.

    One that ignores `offset` sends the same again; its answers may be cut then. Raises what
    mkiso.sources.web.asking does.
    """
    path, parameters = _address(query)
    wanted, uid = most or MAX_ANSWERS, _UID_OF[query.level]
    ends = time.monotonic() + settings.response_timeout_seconds * MAX_SECONDS_TIMEOUTS
    ends = ends if until is None else min(ends, until)
    responses: list[Response] = []
    seen: set[str] = set()
    size = 0
    while len(responses) < wanted:
        if time.monotonic() > ends:
            raise PacsSilent(f"The answer of {named(settings)} to one question takes too long. Look at its log.")
        limit = min(PAGE, wanted - len(responses))
        asked = [*parameters, ("limit", str(limit)), ("offset", str(len(responses)))]
        uids, identifiers = [], []
        with _page(client, settings, path, asked, ends) as page:
            if page is None:
                return Answers([], UNABLE)
            for each in islice(page, wanted - len(responses)):
                uids.append(_text(each.get(uid)))
                identifiers.append(_identifier(query, each))
                size += len(identifiers[-1])
                if size > MAX_ANSWER_BYTES:
                    break
        if not uids:
            return Answers(responses, SUCCESS, settings.find_limit)
        if responses and seen.issuperset(uids):
            return Answers(responses, SUCCESS, len(responses))
        seen.update(uids)
        responses += [Response(0, _PENDING, identifier=identifier) for identifier in identifiers]
        if size > MAX_ANSWER_BYTES:
            break
    return Answers(responses, CANCELLED, settings.find_limit, endless=True)


def _address(query: Query) -> tuple[str, list[tuple[str, str]]]:
    keys = dict(query.keys)
    path = "/studies"
    if query.level != "STUDY":
        path += f"/{keys.pop('StudyInstanceUID')}/series"
    if query.level == "IMAGE":
        path += f"/{keys.pop('SeriesInstanceUID')}/instances"
    return path, [("includefield", keyword) if not value else (keyword, value) for keyword, value in keys.items()]


@contextmanager
def _page(
    client: httpx.Client, settings: DicomWeb, path: str, parameters: Sequence[tuple[str, str]], ends: float
) -> Iterator[Iterator[Mapping[str, Any]] | None]:
    """The answers of one page, each received when it is taken: a server may send all that it has, whatever `limit`
    says. None where there is nothing at this address below the studies.
    """
    with asking(client, settings, path, "application/dicom+json", parameters) as answer:
        if answer.status_code == 204 or (answer.status_code == 200 and answer.headers.get("content-length") == "0"):
            yield iter(())
        elif answer.status_code == 404 and path != "/studies":
            yield None
        elif answer.status_code in (200, 206):
            yield _read(pieces_of(answer, ends), settings)
        else:
            raise no_answers(settings, answer.status_code)


def _read(pieces: Iterator[bytes], settings: DicomWeb) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON array, one after another: all together a small body can take a hundred times its memory.
    Raises Lost, PacsRefused.
    """
    try:
        yield from objects_of(_decoded(pieces))
    except Cut:
        raise Lost(
            f"The answer of {named(settings)} has no end. Try again; if it stays, look at its log, and at that of the "
            "proxy before it."
        ) from None
    except (ValueError, RecursionError):
        raise PacsRefused(
            f"The QIDO-RS service of {named(settings)} answers with no DICOM JSON. Check {settings.section}.base_url."
        ) from None


def _decoded(pieces: Iterator[bytes]) -> Iterator[str]:
    """In pieces that are worth looking at. Raises ValueError."""
    decoder, held = getincrementaldecoder("utf-8")(), bytearray()
    for piece in pieces:
        held += piece
        if len(held) >= _READ_BYTES:
            yield decoder.decode(held)
            held.clear()
    yield decoder.decode(held)
    if decoder.getstate()[0]:  # it ends within a letter
        raise Cut


def objects_of(pieces: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON array (RFC 8259), each of at most MAX_OBJECT_CHARACTERS; of its text no more is taken than
    they need. Raises ValueError.
    """
    text = _Text(pieces)
    text.take("[")
    more = text.next_mark() != "]"
    while more:
        text.next_mark()
        for most in (_USUAL_CHARACTERS, MAX_OBJECT_CHARACTERS):
            ahead = text.ahead(most)
            try:
                found, length = _DECODER.raw_decode(ahead)
                break
            except ValueError:
                if len(ahead) < most and not ahead.rstrip(_SPACE).endswith("]"):
                    raise Cut from None
                if len(ahead) < most or most == MAX_OBJECT_CHARACTERS:
                    raise
        if not isinstance(found, dict):
            raise ValueError("no object")
        text.skip(length)
        yield found
        more = text.next_mark() != "]"
        if more:
            text.take(",")
    text.take("]")
    if text.next_mark():
        raise ValueError("more than an array")


class _Text:
    """Text that comes in pieces, and of which only what is ahead is kept."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces, self._held, self._at = iter(pieces), "", 0

    def ahead(self, most: int) -> str:
        """The next characters; fewer than `most` at the end alone."""
        while len(self._held) - self._at < most and (piece := next(self._pieces, None)) is not None:
            self._held, self._at = self._held[self._at :] + piece, 0
        return self._held[self._at : self._at + most]

    def skip(self, count: int) -> None:
        self._at += count

    def next_mark(self) -> str:
        """The next character that is no space; empty at the end."""
        while ahead := self.ahead(_SPACES):
            behind = ahead.lstrip(_SPACE)
            self.skip(len(ahead) - len(behind))
            if behind:
                return behind[0]
        return ""

    def take(self, mark: str) -> None:
        if (found := self.next_mark()) != mark:
            raise ValueError(f"no {mark}") if found else Cut
        self.skip(1)


def _identifier(query: Query, answer: Mapping[str, Any]) -> bytes:
    """An answer in Implicit VR Little Endian, as a C-FIND would have it."""
    values: dict[int, bytes] = dict((_CHARACTER_SET,))
    for keyword in query.keys:
        tag = tag_for_keyword(keyword)
        if tag is None:
            continue
        text = _text(answer.get(f"{tag:08X}"))
        # A UID that the address names needn't be told.
        told = text or (query.keys[keyword] if keyword.endswith("InstanceUID") else "")
        values[tag] = told.encode(errors="replace")  # JSON may hold half a surrogate pair
    return b"".join(
        struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) + len(value) % 2) + value + b" " * (len(value) % 2)
        for tag, value in sorted(values.items())
    )


def _text(element: object) -> str:
    """The value of a DICOM JSON attribute as DICOM writes it (PS3.18 F.2.2)."""
    values = element.get("Value") if isinstance(element, dict) else None
    if not isinstance(values, list):
        return ""
    return "\\".join(map(_one, values))


def _one(value: object) -> str:
    if isinstance(value, dict):  # PN: F.2.2
        groups = [value.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(group if isinstance(group, str) else "" for group in groups).rstrip("=")
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
