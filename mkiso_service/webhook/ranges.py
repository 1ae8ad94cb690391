"""Which bytes of a disc a request is answered with: conditional and range requests as RFC 9110 13 and 14 have them, as
pure decisions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=[ \t]*(\d{0,20})-(\d{0,20})[ \t]*", re.ASCII | re.IGNORECASE)
_ENTITY_TAG = re.compile(r'(W/)?"([\x21\x23-\x7E]*)"')


@dataclass(frozen=True, slots=True)
class Span:
    """What is answered: the status and the bytes `start` up to, not including, `stop`."""

    status: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


def span_of(headers: Mapping[str, str], etag: str, size: int, *, just_made: bool = False) -> Span:
    """The answer to a GET or HEAD for a representation of `size` bytes with the strong entity tag `etag` (quoted).

    In the order of RFC 9110 13.2.2: 412, 304, 416, 206, 200. Several ranges in one request are answered with the whole
    (14.2 lets a server ignore Range): nobody needs two pieces of an image, and a multipart answer is a way to be kept
    busy.

    `just_made`: this very request asked for the disc by its question, and what answers the question changes. A range
    that begins beyond zero and has no If-Range may be the rest of an older disc: it gets the whole, since the end of
    one disc glued to the beginning of another is a disc that nobody proved.
    """
    whole = Span(200, 0, size)
    if (match := headers.get("if-match")) is not None and match.strip() != "*" and not _listed(match, etag, weak=False):
        return Span(412, 0, 0)
    if (none_match := headers.get("if-none-match")) is not None and (
        none_match.strip() == "*" or _listed(none_match, etag, weak=True)
    ):
        return Span(304, 0, 0)
    asked = headers.get("range")
    condition = headers.get("if-range")
    if asked is None or (
        condition is not None and condition.strip() != etag
    ):  # a date can't match: there is no Last-Modified (13.1.5)
        return whole
    parsed = _RANGE.fullmatch(asked)
    if parsed is None or parsed.groups() == ("", ""):
        return whole
    first, last = parsed.groups()
    if first and last and int(first) > int(last):  # invalid, therefore ignored (14.1.1)
        return whole
    start, stop = (
        (int(first), min(int(last) + 1, size) if last else size) if first else (max(size - int(last), 0), size)
    )
    if start >= size or stop <= start:
        return Span(416, 0, 0)
    if just_made and condition is None and start > 0:
        return whole
    return Span(206, start, stop)


def is_rest(headers: Mapping[str, str], size: int) -> bool:
    """Whether the rest of something is asked for, without saying of what: a range beyond zero and no If-Range."""
    asked = headers.get("range")
    if asked is None or "if-range" in headers:
        return False
    span = span_of({"range": asked}, "", size)
    return span.status == 416 or (span.status == 206 and span.start > 0)


def _listed(field: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags holds ours, by weak or by strong comparison (RFC 9110 8.8.3.2)."""
    return any(f'"{tag}"' == etag and (weak or not weakness) for weakness, tag in _ENTITY_TAG.findall(field))
