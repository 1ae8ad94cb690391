"""A disc's bytes to one client, proved piece by piece off the event loop; given up when the client stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mkiso.config.settings import Storage
from mkiso.errors import ProofFailed
from mkiso.storage.marks import ProvedSpan
from mkiso.storage.shelf import Manifest, open_image
from mkiso_service.webhook.ranges import Span

STALL_SECONDS = 300.0  # a client that takes not one piece in this time has gone; with the ETag it can go on later


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
        self._length = span.length
        self._damaged = damaged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._proved.image:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body"})
                return
            gone = asyncio.create_task(_gone(receive))
            try:
                await self._stream(send, gone)
            except ProofFailed:  # the connection breaks off, so the client knows
                await self._damaged()
                raise ImageDamaged from None
            finally:
                gone.cancel()

    async def _stream(self, send: Send, gone: asyncio.Task[None]) -> None:
        left, piece = self._length, self._proved.read()
        while not gone.done():
            left -= len(piece)
            # The next piece is read and proved while this one is on its way.
            following = asyncio.create_task(asyncio.to_thread(self._proved.read)) if left else None
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
                if following is None:
                    return
                piece = await following
            except TimeoutError:
                raise ClientStalled from None
            finally:
                if following:
                    following.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
