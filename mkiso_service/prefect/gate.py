"""Who is let through to Prefect's API and UI before Prefect looks at a password: no page of another site, by whatever
name it reaches us.

HTTP and WebSocket alike. Prefect's own CORS answer binds browsers only where a page reads what it gets, and WebSockets
not at all.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from mkiso.config.settings import Settings
from mkiso_service.host_names import host_is_known

NO_SUCH_NAME = "This isn't known as a name of Prefect's server: an administrator can add it to server.hosts."
RUNS = "/runs"
ANOTHER_SITE = "A page of another site asks nothing here."


class Gate:
    """Around an application: refuses with 403 what comes from another origin, or by a name that somebody else can give
    us (DNS rebinding). The UI opens on the runs, which is what an operator comes for.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        words = refusal(Headers(scope=scope), self._hosts) if scope["type"] in ("http", "websocket") else ""
        if not words and scope["type"] == "http" and scope["path"] == "/":
            await RedirectResponse(RUNS, headers={"cache-control": "no-store"})(scope, receive, send)
        elif not words:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await JSONResponse({"exception_message": words}, 403)(scope, receive, send)
        else:
            await WebSocketClose(1008, words)(scope, receive, send)  # before it is accepted: 403


def refusal(headers: Headers, hosts: frozenset[str]) -> str:
    """Why a request with these headers isn't let through; empty where it is. Pure."""
    named, origins = headers.getlist("host"), headers.getlist("origin")
    if len(named) != 1 or not host_is_known(named[0], hosts):
        return NO_SUCH_NAME
    if any(origin.partition("://")[2].lower() != named[0].lower() for origin in origins):
        return ANOTHER_SITE
    return ""


def known_hosts(settings: Settings, listens_on: str) -> frozenset[str]:
    """The names with a dot in them by which Prefect's server is reached: what the configuration names."""
    by_clients = urlsplit(settings.prefect.api_url).hostname or ""
    return settings.server.known_hosts | {name for name in (by_clients.lower(), listens_on.lower()) if name}
