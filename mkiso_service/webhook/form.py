"""A form that a client sends: short, and not for ever."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from mkiso.errors import InvalidRequest

FORM_SECONDS = 10.0
FORM_TYPE = "application/x-www-form-urlencoded"


async def form_of(request: Request, max_bytes: int) -> bytes:
    """The bytes of a request's form; empty where it has no body.

    Raises InvalidRequest for a body that is longer, too slow or something else.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > max_bytes:
                    raise InvalidRequest("The form is too long.")
    except TimeoutError:
        raise InvalidRequest("The form didn't arrive in time.") from None
    if body and request.headers.get("content-type", FORM_TYPE).partition(";")[0].strip().lower() != FORM_TYPE:
        raise InvalidRequest(f"Parameters are sent in the address or as {FORM_TYPE}.")
    return bytes(body)
