"""QIDO-RS (PS3.18 10.6): a question page by page, and its JSON (PS3.18 F) as answers like those of a C-FIND."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
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
from mkiso.sources.web import asking, body_of, named

PAGE = 1000
MAX_OBJECT_CHARACTERS = 1024 * 1024
"""Of one answer; a study's has about 3,000, and takes a hundred times as many bytes at most."""
_USUAL_CHARACTERS = 16 * 1024
_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()
MAX_SECONDS_TIMEOUTS = 60
UNABLE = 0xC000
_PENDING = 0xFF00
_CHARACTER_SET = (0x00080005, b"ISO_IR 192")
_UID_OF = {"STUDY": "0020000D", "SERIES": "0020000E", "IMAGE": "00080018"}


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
        page = _page(client, settings, path, asked, ends)
        if page is None:
            return Answers([], UNABLE)
        uids, identifiers = [], []
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


def _page(
    client: httpx.Client, settings: DicomWeb, path: str, parameters: Sequence[tuple[str, str]], ends: float
) -> Iterator[Mapping[str, Any]] | None:
    """The answers of one page, each read when it is taken; None where there is nothing at this address below the
    studies.
    """
    with asking(client, settings, path, "application/dicom+json", parameters) as answer:
        if answer.status_code == 204:
            return iter(())
        if answer.status_code == 404 and path != "/studies":
            return None
        if answer.status_code not in (200, 206):
            raise PacsRefused(
                f"The QIDO-RS service of {named(settings)} answers with HTTP {answer.status_code}. Check "
                f"{settings.section}.base_url, and look at its log."
            )
        body = body_of(answer, ends)
    return _read(body, settings)


def _read(body: bytes, settings: DicomWeb) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON array, one after another: all together a small body can take a hundred times its memory.
    Raises PacsRefused.
    """
    try:
        yield from objects_of(body.decode())
    except (ValueError, RecursionError):
        raise PacsRefused(
            f"The QIDO-RS service of {named(settings)} answers with no DICOM JSON. Check {settings.section}.base_url."
        ) from None


def objects_of(text: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON array (RFC 8259), each of at most MAX_OBJECT_CHARACTERS. Raises ValueError."""
    if not text.strip(_SPACE):
        return
    at = _behind(text, 0, "[")
    if text[at : at + 1] == "]":
        _end(text, at + 1)
        return
    while True:
        for most in (_USUAL_CHARACTERS, MAX_OBJECT_CHARACTERS):
            try:
                found, length = _DECODER.raw_decode(text[at : at + most])
                break
            except ValueError:
                if at + most >= len(text) or most == MAX_OBJECT_CHARACTERS:
                    raise
        if not isinstance(found, dict):
            raise ValueError("no object")
        yield found
        at = _skipped(text, at + length)
        if text[at : at + 1] == "]":
            _end(text, at + 1)
            return
        at = _behind(text, at, ",")


def _behind(text: str, at: int, mark: str) -> int:
    at = _skipped(text, at)
    if text[at : at + 1] != mark:
        raise ValueError(f"no {mark}")
    return _skipped(text, at + 1)


def _end(text: str, at: int) -> None:
    if _skipped(text, at) != len(text):
        raise ValueError("more than an array")


def _skipped(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _SPACE:
        at += 1
    return at


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
