"""multipart/related as a stream (RFC 2046 5.1, RFC 2387): part after part, in constant memory and linear time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

MAX_HEAD_BYTES = 16 * 1024
MAX_PREAMBLE_BYTES = 64 * 1024
MAX_LENGTH_DIGITS = 19
_BOUNDARY = re.compile(r'boundary=(?:"([^"\\\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)  # RFC 2046 5.1.1


class Broken(Exception):
    """The stream ended before its last delimiter, or a part before its end."""


class Malformed(Exception):
    """It is no multipart stream."""


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names. Raises Malformed."""
    found = _BOUNDARY.search(content_type[:1000])
    if not content_type.lower().startswith("multipart/related") or found is None:
        raise Malformed("answers with no multipart/related")
    return (found[1] or found[2]).encode("latin-1", "replace")


class Multipart:
    """The parts of a stream, each read to its end before the next. `ended`: the last delimiter was seen."""

    def __init__(self, chunks: Iterator[bytes], boundary: bytes) -> None:
        self._chunks = chunks
        self._delimiter = b"\r\n--" + boundary
        self._rest = b"\r\n"  # a delimiter at the very beginning has no line before it
        self._within = True
        self._left: int | None = None
        self.ended = False

    def next_part(self) -> Mapping[str, str] | None:
        """The header fields of the next part, by name in lower case; None after the last. Raises Broken, Malformed."""
        if self.ended:
            return None
        skipped = 0
        for piece in self.pieces():
            skipped += len(piece)
            if skipped > MAX_PREAMBLE_BYTES:
                raise Malformed("sends a multipart stream with another boundary than it names")
        if self.ended:
            return None
        fields: dict[str, str] = {}
        size = 0
        while line := self._line():
            size += len(line)
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or size > MAX_HEAD_BYTES:
                raise Malformed("sends a part with no header that can be read")
            fields[name.strip().lower()] = value.strip()
        self._within = True
        self._left = _length_of(fields)
        return fields

    def pieces(self) -> Iterator[bytes]:
        """What is left of this part, as it comes. It is whole when they have ended: a delimiter has followed, and it is
        as long as it says. Raises Broken, Malformed.
        """
        keep = len(self._delimiter) - 1
        while self._within:
            at = self._rest.find(self._delimiter)
            if at >= 0:
                piece, self._rest = self._rest[:at], self._rest[at + len(self._delimiter) :]
                self._within = False
            else:
                piece, self._rest = self._rest[:-keep], self._rest[-keep:]
                if not piece:
                    self._rest += self._more()
                    continue
            if piece:
                if self._left is not None:
                    self._left -= len(piece)
                yield piece
            if at >= 0:
                self._delimited()

    def _delimited(self) -> None:
        after = self._line()
        self.ended = after.startswith(b"--")
        if not self.ended and after.strip(b" \t"):
            raise Malformed("sends a multipart stream with another boundary than it names")
        if self._left:
            raise Broken

    def _line(self) -> bytes:
        while b"\r\n" not in self._rest:
            if self._rest.startswith(b"--"):  # nothing has to follow the last delimiter
                return self._rest
            if len(self._rest) > MAX_HEAD_BYTES:
                raise Malformed("sends a part whose header doesn't end")
            self._rest += self._more()
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line

    def _more(self) -> bytes:
        for chunk in self._chunks:
            if chunk:
                return chunk
        raise Broken


def _length_of(fields: Mapping[str, str]) -> int | None:
    length = fields.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < MAX_LENGTH_DIGITS else None
