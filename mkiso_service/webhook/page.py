"""The counter page at / and its sign-in: package data, served with a policy that lets nothing else in."""

from __future__ import annotations

import asyncio
import json
from html import escape
from importlib.resources import files
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from mkiso.config.settings import Settings
from mkiso.errors import InvalidRequest
from mkiso_service.webhook.form import form_of
from mkiso_service.webhook.keys import Keys
from mkiso_service.webhook.sender import sender_of_request
from mkiso_service.webhook.session import SESSION_COOKIE, SESSION_SECONDS, Sessions, session_of

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
MAX_FORM_BYTES = 4096
WRONG_KEY_SECONDS = 1.0  # slows down guessing


class CounterPage:
    """The page for the clerk, shown to whoever may use it, and the door before it."""

    def __init__(self, settings: Settings, keys: Keys, sessions: Sessions) -> None:
        first = settings.print.publisher
        names = [first, *(name for name in settings.publishers if name != first)]
        self._state = f'data-publishers="{escape(json.dumps(names))}"' + (' data-sign-out="yes"' if keys.needed else "")
        self._keys = keys
        self._sessions = sessions
        self._files = {
            file.name: file.read_bytes()
            for file in files("mkiso_service.webhook").joinpath("page").iterdir()
            if file.is_file()
        }

    async def show(self, request: Request) -> Response:
        """GET /"""
        signed_in = not self._keys.needed or self._sessions.valid(session_of(request))
        return self._file("counter.html", state=self._state) if signed_in else self._file("sign-in.html")

    async def asset(self, request: Request) -> Response:
        """GET /page/{name}: a style, a script or a picture."""
        return self._file(request.path_params["name"])

    async def sign_in(self, request: Request) -> Response:
        """POST /session with `key`: the cookie and back to the page. No other site's form gets this far
        (Sec-Fetch-Site, Origin).
        """
        if not _own(request):
            raise InvalidRequest("Signing in works from this service's own page only.")
        key = parse_qs((await form_of(request, MAX_FORM_BYTES)).decode("utf-8", "replace")).get("key", [""])[0].strip()
        if not self._keys.right(key.encode()):
            await asyncio.sleep(WRONG_KEY_SECONDS)
            return self._file("sign-in.html", status=401, state='data-wrong="yes"')
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            SESSION_COOKIE,
            self._sessions.begin(),
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.scope["scheme"] == "https",
        )
        return answer

    async def sign_out(self, request: Request) -> Response:
        """POST /session/end"""
        answer = RedirectResponse("/", 303)
        if _own(request):
            answer.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
        return answer

    def _file(self, name: str, *, status: int = 200, state: str = "") -> Response:
        content = self._files.get(name)
        ending = name.rpartition(".")[2]
        if content is None or ending not in MEDIA_TYPES:
            raise HTTPException(404)
        if ending == "html":
            content = content.replace(b"<!--state-->", state.encode())
        headers = {"content-security-policy": POLICY, "cache-control": "no-cache", "x-frame-options": "DENY"}
        return Response(content, status, headers, MEDIA_TYPES[ending])


def _own(request: Request) -> bool:
    return sender_of_request(request).kind != "foreign"
