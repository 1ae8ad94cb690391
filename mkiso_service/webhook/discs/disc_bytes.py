"""A disc's bytes to one client: which of them (RFC 9110 13 and 14), under what name (RFC 6266, RFC 8187), proved piece
by piece off the event loop, and given up when the client stands still.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mkiso.config.storage import Storage
from mkiso.errors import ProofFailed
from mkiso.formats.registry import FORMATS, ISO
from mkiso.media.names import PART
from mkiso.storage.marks import ProvedPiece, ProvedSpan
from mkiso.storage.report import JobReport
from mkiso.storage.shelf import Manifest, open_image

_RANGE = re.compile(r"bytes=[ \t]*(\d{0,20})-(\d{0,20})[ \t]*", re.ASCII | re.IGNORECASE)
_ENTITY_TAG = re.compile(r'(W/)?"([\x21\x23-\x7E]*)"')
_ATTR_CHAR = "!#$&+-.^_`|~"  # RFC 8187 3.2.1, besides letters and digits
_MAX_LENGTH = 120
MAX_NAME = 1000
"""What is read of a name: normalizing takes quadratic time for some."""
STALL_SECONDS = 300.0  # a client that takes not one piece in this time has gone; with the ETag it can go on later
MOST_AHEAD = 64
"""Pieces that are read for all clients together before they can take them: 36 MB, however many stand still."""
_AHEAD = set[asyncio.Task[bytes]]()


@dataclass(frozen=True, slots=True)
class Span:
    """What is answered: the status and the bytes `start` up to, not including, `stop`."""

    status: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


def span_of(headers: Mapping[str, str], etag: str, size: int) -> Span:
    """The answer to a GET or HEAD for a representation of `size` bytes with the strong entity tag `etag` (quoted).

    In the order of RFC 9110 13.2.2: 412, 304, 416, 206, 200. Several ranges in one request are answered with the whole
    (14.2 lets a server ignore Range): nobody needs two pieces of an image, and a multipart answer is a way to be kept
    busy.
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
    # A date can't match: there is no Last-Modified (13.1.5).
    if asked is None or (condition is not None and condition.strip() != etag):
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
    return Span(206, start, stop)


def is_rest(headers: Mapping[str, str], size: int) -> bool:
    """Whether the rest of something is asked for, without saying of what: a range beyond zero and no If-Range.

    Who asks so by a question, whose answer changes, may have the beginning of an older disc, and gets neither a rest
    nor the whole: wget glues the end of either to what it has, and takes 416 for a download that is complete.
    """
    asked = headers.get("range")
    if asked is None or "if-range" in headers:
        return False
    span = span_of({"range": asked}, "", size)
    return span.status == 416 or (span.status == 206 and span.start > 0)


def _listed(field: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags holds ours, by weak or by strong comparison (RFC 9110 8.8.3.2)."""
    return any(f'"{tag}"' == etag and (weak or not weakness) for weakness, tag in _ENTITY_TAG.findall(field))


def content_disposition(name: str, suffix: str = ISO.suffix) -> str:
    """The header's value for a file of this name; whatever could be a path, a quote, a line break or a hidden file is
    replaced.
    """
    safe = _safe(name, suffix)
    ascii_name = re.sub(
        r"[^A-Za-z0-9._-]+", "_", unicodedata.normalize("NFKD", safe).encode("ascii", "ignore").decode()
    ).strip("._")
    if not re.search(r"[A-Za-z0-9]", ascii_name.removesuffix(suffix).removesuffix(suffix[1:])):
        ascii_name = f"disc{suffix}"
    return f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(safe, safe=_ATTR_CHAR)}"


def name_of(report: JobReport, manifest: Manifest) -> str:
    """What a disc is saved as: its accession number, or, for several, what the manifest says (the patient's name).
    Where it doesn't hold whole studies, it says so; a de-identified one has its pseudonym.

    In a set n of N and the beginning of the set's id, so that anybody sees which discs belong together.
    """
    suffix = FORMATS[manifest.format].suffix
    stem = manifest.filename.removesuffix(suffix)
    if len(report.accession_numbers) == 1 and not manifest.deidentified:
        stem = report.accession_numbers[0] + PART * manifest.is_part
    part = f"-{manifest.number}of{manifest.total}-{short(manifest.set_id)}" if manifest.total > 1 else ""
    return f"{stem}{part}{suffix}"


def short(set_id: str) -> str:
    """A set's id as people see it."""
    return set_id[:8]


def _safe(name: str, suffix: str) -> str:
    stem = name[:MAX_NAME].removesuffix(suffix)
    printable = "".join(
        "_" if unicodedata.category(mark)[0] in "CZ" and mark != " " else mark
        for mark in unicodedata.normalize("NFC", stem)
    )
    cleaned = re.sub(r"_{2,}", "_", re.sub(r'[/\\:*?"<>|%;]', "_", printable)).strip(" ._")
    return f"{cleaned[:_MAX_LENGTH] or 'disc'}{suffix}"


class ClientStalled(Exception):
    """The client takes nothing any more; the connection is given up."""


class ImageDamaged(Exception):
    """What comes next isn't what was proved; the connection is broken off before it."""


def prepared(storage: Storage, disc: Manifest, span: Span, *, begin: bool) -> ProvedSpan:
    """What is to be sent of a disc, open; `begin`: the first piece is proved. Raises JobNotFound, ProofFailed."""
    image = open_image(storage, disc)
    proved = ProvedSpan(image, span.start, span.stop)
    try:
        if begin:
            proved.begin()
    except BaseException:
        image.close()
        raise
    return proved


class DiscResponse(Response):
    """The bytes of `proved`, whose image it closes. HEAD gets the head alone. `damaged` is called at a wrong byte."""

    def __init__(
        self,
        proved: ProvedSpan,
        span: Span,
        headers: Mapping[str, str],
        media_type: str,
        damaged: Callable[[], Awaitable[None]],
    ) -> None:
        length = {"content-length": str(span.length)}
        super().__init__(status_code=span.status, headers={**length, **headers}, media_type=media_type)
        self._proved = proved
        self._damaged = damaged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._proved.image:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body"})
                return
            gone = asyncio.create_task(client_gone(receive))
            try:
                await self._stream(send, gone)
            except ProofFailed:  # the connection breaks off, so the client knows
                await self._damaged()
                raise ImageDamaged from None
            finally:
                gone.cancel()

    async def _stream(self, send: Send, gone: asyncio.Task[None]) -> None:
        """The next piece is read and proved while one is on its way; while the client waits for it, another one too.
        Where as much is read ahead for all as may be, it is read once the client has taken the one before it.
        """
        pieces = deque([asyncio.create_task(_begun(self._proved))])

        def begin_another(*, is_awaited: bool) -> None:
            if (is_awaited or len(_AHEAD) < MOST_AHEAD) and (following := self._proved.next_piece()):
                pieces.append(asyncio.create_task(_proved(following, pieces[-1] if pieces else None)))
                _AHEAD.add(pieces[-1])

        try:
            while not gone.done():
                piece = await pieces[0]
                if len(pieces) == 1:
                    begin_another(is_awaited=False)
                more = len(pieces) > 1 or self._proved.goes_on
                async with asyncio.timeout(STALL_SECONDS):
                    await send({"type": "http.response.body", "body": piece, "more_body": more})
                    if not more:
                        return
                    piece = b""
                    _AHEAD.discard(pieces.popleft())
                    if not pieces:
                        await send({"type": "http.response.body", "more_body": True})  # once it has taken the last one
                if not pieces or not pieces[0].done():
                    begin_another(is_awaited=not pieces)
        except TimeoutError:
            raise ClientStalled from None
        finally:
            _AHEAD.difference_update(pieces)
            for task in pieces:
                task.cancel()


async def _begun(proved: ProvedSpan) -> bytes:
    """The first piece, which is proved before the head of the answer leaves."""
    return proved.read()


async def _proved(piece: ProvedPiece, before: asyncio.Task[bytes] | None) -> bytes:
    """The bytes of a piece; where it goes on with a chain, once the one before it is proved."""
    if before and not piece.begins_chain:
        await asyncio.wait([before])
    return await asyncio.to_thread(piece.read)


async def client_gone(receive: Receive) -> None:
    """Ends when the client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass
