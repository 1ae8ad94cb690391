"""Where a sign-in leads on: to the page that was asked for without one, which is of this service's API and nowhere
else.
"""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from urllib.parse import parse_qs, quote

from starlette.requests import Request

from mkiso_service.openid import CALLBACK
from mkiso_service.webhook.access.callers import PENDING_COOKIE, session_of

HOME = "/"
PARAMETER = "to"
MAX_ADDRESS = 2000
MAX_PARAMETERS = 50
_OWN = re.compile(r"/api/[!-\[\]-~]*")  # what can be seen, without the backslash, which a browser takes for a slash


def own_address(address: str) -> str:
    """The address where it is one of ours, else the first page's."""
    return address if len(address) <= MAX_ADDRESS and _OWN.fullmatch(address) else HOME


def leads_to(request: Request) -> str:
    """Where a page of the sign-in leads on, as its own address says."""
    with suppress(ValueError):
        query = request.scope["query_string"].decode("ascii")
        [address] = parse_qs(query, errors="strict", max_num_fields=MAX_PARAMETERS).get(PARAMETER, [HOME])
        return own_address(address)
    return HOME


def asked_for(request: Request) -> str:
    """The address of a request, or where it leads on itself."""
    path, query = request.scope["raw_path"].decode("latin-1"), request.scope["query_string"].decode("latin-1")
    if path == CALLBACK:
        return unfolded(session_of(request, PENDING_COOKIE).rpartition(".")[2])
    asked = own_address(f"{path}?{query}" if query else path)
    return asked if asked != HOME else leads_to(request)


def with_address(page: str, address: str) -> str:
    """The address of a page of the sign-in that leads on to this one."""
    return page if address == HOME else f"{page}?{PARAMETER}={quote(address, safe='')}"


def folded(address: str) -> str:
    """An address as a cookie's value can have it."""
    return base64.urlsafe_b64encode(address.encode()).decode().rstrip("=")


def unfolded(text: str) -> str:
    """The address that was folded; the first page's where it is none of ours."""
    with suppress(ValueError):
        return own_address(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii"))
    return HOME
