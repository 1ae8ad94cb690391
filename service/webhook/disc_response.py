"""A disc's bytes to one client: opened before the answer begins, read in large pieces off the event loop, given up when the client stands still."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mkiso.errors import JobNotFound, ProofFailed
from service.webhook.ranges import Span

MEDIA_TYPE = "application/vnd.efi.iso"
CHUNK_BYTES = 1 << 19  # 2 GB/s over loopback (64 KiB: 0.37, 1 MiB: 2.4), and 200 clients that read slowly hold 330 MiB (1 MiB: 610)
STALL_SECONDS = 300.0  # a client that takes not one piece in this time has gone; with the ETag it can go on later


class ClientStalled(Exception):
    """The client takes nothing any more; the connection is given up."""


def open_image(image: Path, size: int) -> BinaryIO:
    """Open a disc, so that it stays readable when retention removes its name. Raises JobNotFound where it is gone, ProofFailed where its size
    isn't what was proved."""
    try:
        file = image.open("rb", buffering=0)
    except FileNotFoundError:
        raise JobNotFound("This disc isn't kept any more: ask for it anew.") from None
    if os.fstat(file.fileno()).st_size != size:
        file.close()
        raise ProofFailed("The stored image isn't what was read back when it was made. Ask for the disc anew and tell the administrator.")
    return file


class DiscResponse(Response):
    """The bytes of `span` from an open file, which it closes. HEAD gets the head alone."""

    media_type = MEDIA_TYPE

    def __init__(self, file: BinaryIO, span: Span, headers: Mapping[str, str]) -> None:
        super().__init__(status_code=span.status, headers={"content-length": str(span.length), **headers})
        self._file = file
        self._span = span

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body"})
                return
            gone = asyncio.create_task(_gone(receive))
            try:
                await self._stream(send, gone)
            finally:
                gone.cancel()

    async def _stream(self, send: Send, gone: asyncio.Task[None]) -> None:
        position, stop = self._span.start, self._span.stop
        piece = await self._read(position)
        while piece and not gone.done():
            position += len(piece)
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    # The next piece is read while this one is on its way.
                    _, piece = await asyncio.gather(
                        send({"type": "http.response.body", "body": piece, "more_body": position < stop}), self._read(position)
                    )
            except TimeoutError:
                raise ClientStalled from None
        if position < stop and not gone.done():
            raise OSError("the image ended before its length")  # the connection breaks off, so the client knows

    async def _read(self, position: int) -> bytes:
        length = min(CHUNK_BYTES, self._span.stop - position)
        return await asyncio.to_thread(os.pread, self._file.fileno(), length, position) if length > 0 else b""


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
