"""Signing in and out again, by the shared key or at the site's provider (mkiso_service.openid): cookies, pages that
lead on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from mkiso.audit import messages as audit
from mkiso.config.settings import Settings
from mkiso.errors import InvalidRequest, SignInFailed
from mkiso.storage.sessions import PersonSessions, Session
from mkiso_service.openid import NoRole, Pending, Provider
from mkiso_service.webhook.access.callers import (
    PENDING_COOKIE,
    PERSON_COOKIE,
    SESSION_COOKIE,
    SESSION_SECONDS,
    Keys,
    Sessions,
    sender_of_request,
    session_of,
)
from mkiso_service.webhook.access.onward import HOME, MAX_ADDRESS, folded, leads_to, unfolded
from mkiso_service.webhook.access.rights import caller_of
from mkiso_service.webhook.answers.errors import is_shown
from mkiso_service.webhook.answers.pages import error_page, onward_page, sign_in_page
from mkiso_service.webhook.audit import Trail
from mkiso_service.webhook.questions.query import Query, field_of

AT_ONCE = 4
"""Sign-ins that ask the provider at the same time: a slow one takes no thread from a download."""
WRONG_KEY_SECONDS = 1.0  # slows down guessing
PENDING_SECONDS = 900
MAX_COOKIE = 512 + 4 * MAX_ADDRESS // 3
T = TypeVar("T")


class SigningIn:
    """The door for people. Where the site has no provider there is nothing at its addresses, and a session is the
    key's.
    """

    def __init__(
        self, settings: Settings, people: PersonSessions, keys: Keys, sessions: Sessions, trail: Trail
    ) -> None:
        sign_in = settings.sign_in
        self._provider = Provider(sign_in, settings.server.public_url) if sign_in.issuer else None
        self._people = people
        self._keys = keys
        self._sessions = sessions
        self._trail = trail
        self._threads = ThreadPoolExecutor(AT_ONCE, "sign-in")

    async def by_key(self, request: Request) -> Response:
        """POST /session with `key`: the cookie and on to what was asked for. No other site's form gets this far
        (Sec-Fetch-Site, Origin).
        """
        if sender_of_request(request).kind == "foreign":
            raise InvalidRequest("Signing in works from this service's own page only.")
        if not self._keys.on_page:
            raise InvalidRequest("This page takes no key: people sign in at the site's provider.")
        key = (await field_of(request, "key")).strip()
        if not self._keys.right(key.encode()):
            await asyncio.sleep(WRONG_KEY_SECONDS)
            return sign_in_page(request, wrong=True)
        address = leads_to(request)
        # Of a redirect to a disc the browser keeps this page, with the key in it.
        answer: Response = RedirectResponse(HOME, 303) if address == HOME else onward_page(request, address)
        answer.set_cookie(
            SESSION_COOKIE,
            self._sessions.begin(),
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.scope["scheme"] == "https",
        )
        return answer

    async def begin(self, request: Request) -> Response:
        """GET /session/begin: to the provider; `?anew` for another account than the one that it knows. The cookie is
        Lax: the provider leads the browser back.
        """
        provider = self._needed()
        pending, anew = Pending.new(), "anew" in request.query_params
        address = await self._ask(lambda: provider.begin(pending, anew=anew))
        answer = RedirectResponse(address, 303, {"cache-control": "no-store"})
        told = ".".join((pending.state, pending.nonce, pending.verifier, folded(leads_to(request))))
        answer.set_cookie(PENDING_COOKIE, told, PENDING_SECONDS, secure=True, httponly=True, samesite="lax")
        return answer

    async def finish(self, request: Request) -> Response:
        """GET /session/callback: a new session, and on to what was asked for."""
        provider = self._needed()
        query = Query(request.scope["query_string"])
        state, code, issuer = (query.one(name) or "" for name in ("state", "code", "iss"))
        try:
            pending, address = _pending(session_of(request, PENDING_COOKIE))
            if query.one("error") is not None:
                raise SignInFailed("The provider has signed nobody in. Sign in again, or ask its administrator.")
            person = await self._ask(lambda: provider.finish(pending, state, code, issuer))
        except (SignInFailed, NoRole) as error:
            await self._trail.signed(request, "", "", audit.LOGIN, well=False)
            if isinstance(error, NoRole) and is_shown(request):
                # The provider knows them still, and would lead them back here at once.
                id_token = error.id_token
                other = await self._ask(lambda: provider.end(id_token)) or "/session/begin?anew"
                return error_page(request, error.http_status, error.words, error.code, other=other)
            raise
        before = session_of(request, PERSON_COOKIE)
        if before:
            await asyncio.to_thread(self._people.end, before)
        session = Session(person.user, person.name, person.roles, time.time(), person.id_token)
        session_id = await asyncio.to_thread(self._people.begin, session)
        await self._trail.signed(request, person.user, person.name, audit.LOGIN)
        answer = onward_page(request, address)
        answer.set_cookie(PERSON_COOKIE, session_id, secure=True, httponly=True, samesite="strict")
        answer.delete_cookie(PENDING_COOKIE, secure=True, httponly=True, samesite="lax")
        return answer

    async def end(self, request: Request) -> Response:
        """POST /session/end: the session is none any more, here and, where the provider offers it, there."""
        answer: Response = RedirectResponse("/", 303)
        if sender_of_request(request).kind == "foreign":
            return answer
        if self._provider is None:
            answer.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
            return answer
        caller = caller_of(request)
        if not caller.session:
            return answer
        found = await asyncio.to_thread(self._people.find, caller.session)
        await asyncio.to_thread(self._people.end, caller.session)
        await self._trail.signed(request, caller.user, caller.name, audit.LOGOUT)
        provider, id_token = self._provider, found.id_token if found else ""
        address = await self._ask(lambda: provider.end(id_token))
        answer = onward_page(request, address) if address else answer
        answer.delete_cookie(PERSON_COOKIE, secure=True, httponly=True, samesite="strict")
        return answer

    def _needed(self) -> Provider:
        if self._provider is None:
            raise HTTPException(404)
        return self._provider

    async def _ask(self, what: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, what)


def _pending(cookie: str) -> tuple[Pending, str]:
    """A sign-in that has begun, and where it leads on."""
    parts = cookie.split(".") if len(cookie) <= MAX_COOKIE else []
    if len(parts) != 4 or not all(parts):
        raise SignInFailed("This browser has begun no sign-in, or it took too long. Sign in again.")
    return Pending(*parts[:3]), unfolded(parts[3])
