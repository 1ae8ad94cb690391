"""The id under which a request is found again in answers and logs: a client's own where it is sane, else a new one."""

from __future__ import annotations

import re
from uuid import uuid4

from starlette.types import Scope

_SANE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def take_request_id(sent: list[bytes]) -> str:
    """The id for a request that sent these X-Request-ID fields: letters, digits, dots, dashes and underscores only, so
    that no log line can be forged with it.
    """
    if len(sent) == 1 and _SANE.fullmatch(sent[0]):
        return sent[0].decode("ascii")
    return uuid4().hex


def request_id_of(scope: Scope) -> str:
    """The id of a request that has passed the middleware."""
    request_id: str = scope.get("state", {}).get("request_id", "")
    return request_id
