"""What every request passes, outermost first: recovery, request id, logging, one reading, senders, authentication.

Plain ASGI, so that nothing is buffered.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mkiso.config.settings import Server
from mkiso.config.storage import Storage
from mkiso.errors import (
    ForeignRequest,
    InvalidRequest,
    MkisoError,
    NotAllowed,
    ServiceStopping,
    StorageUnreadable,
    Unauthorized,
    UnknownHost,
)
from mkiso.storage.key_use import KeyUse
from mkiso.storage.sessions import PersonSessions
from mkiso_service.host_names import host_is_known
from mkiso_service.log_lines import frames_of
from mkiso_service.webhook.access.callers import (
    PERSON_COOKIE,
    SHARED,
    Keys,
    Sender,
    Sessions,
    sender_of,
    sender_of_request,
    session_of,
    take_request_id,
)
from mkiso_service.webhook.access.rights import ANYBODY, Caller, is_guarded, may, rights_of
from mkiso_service.webhook.answers.errors import answer_mkiso_error, error_answer
from mkiso_service.webhook.audit import MAX_CLIENT, Trail
from mkiso_service.webhook.discs.disc_bytes import STALL_SECONDS, ClientStalled, ImageDamaged
from mkiso_service.webhook.metrics import Metrics

HELP = "ask somebody who may, or the administrator for the right to."
STORAGE_SECONDS = 5.0
STORAGE_LOOK_SECONDS = 1.0
logger = logging.getLogger("mkiso.webhook")


class _Middleware(ABC):
    """What isn't HTTP passes."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.over_http if scope["type"] == "http" else self.app)(scope, receive, send)

    @abstractmethod
    async def over_http(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Recovery(_Middleware):
    """An unexpected exception becomes a 500 in JSON. Its type and place are logged, its text isn't: it could hold a
    patient's name.
    """

    async def over_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except asyncio.CancelledError:  # the webhook ends, and what this waited for doesn't come
            if begun:
                raise
            stopping = ServiceStopping("mkiso is being restarted. Ask again.")
            await (await answer_mkiso_error(Request(scope), stopping))(scope, receive, send)
        except Exception as error:
            request_id = scope.get("state", {}).get("request_id", "")
            if isinstance(error, ClientStalled):
                logger.info("a client took nothing for %g s: given up", STALL_SECONDS, extra={"request_id": request_id})
            elif isinstance(error, ImageDamaged):
                logger.error("a damaged disc: broken off before its first wrong byte", extra={"request_id": request_id})
            else:
                logger.error(
                    "unexpected %s", type(error).__name__, extra={"request_id": request_id, "frames": frames_of(error)}
                )
            if begun:
                # Nothing can be said any more: the connection breaks off, so no client takes a part for the whole.
                raise ConnectionAbortedError("the answer could not be finished") from None
            if isinstance(error, OSError) and error.filename is not None:
                answer = await answer_mkiso_error(Request(scope), _storage_away(os.strerror(error.errno or 0)))
            else:
                words = (
                    "Something went wrong in mkiso, and this request has no answer. Tell the administrator this "
                    "request id."
                )
                answer = error_answer(Request(scope), 500, "internal_error", words, {"x-request-id": request_id})
            await answer(scope, receive, send)


class RequestId(_Middleware):
    """Gives each request its id and each answer the X-Request-ID header and the headers that keep a browser from
    guessing.
    """

    async def over_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = take_request_id([value for name, value in scope["headers"] if name == b"x-request-id"])
        scope.setdefault("state", {})["request_id"] = request_id

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "same-origin"  # our own pages have to show that they are ours
                headers["cross-origin-resource-policy"] = "same-origin"
            await send(message)

        await self.app(scope, receive, stamped)


class StorageGuard(_Middleware):
    """While the storage of the discs is away, or hangs as a share does whose server is away, who asks is told so: it
    would hold the client for as long, and a thread. A look asks what no cache answers.
    """

    def __init__(self, app: ASGIApp, storage: Storage) -> None:
        super().__init__(app)
        self._folder = storage.shared_dir or storage.data_dir
        self._threads = ThreadPoolExecutor(1, "storage")
        self._look: Future[str] | None = None
        self._began = 0.0

    async def over_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path != "/api/health" and not path.startswith("/page/") and (why := await self._why_away()):
            error = _storage_away(why)
            await (await answer_mkiso_error(Request(scope), error))(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _why_away(self) -> str:
        now = time.monotonic()
        if self._look is None or (self._look.done() and now - self._began > STORAGE_LOOK_SECONDS):
            self._look, self._began = self._threads.submit(self._look_at_it), now
        look = self._look  # who comes later may begin the next one meanwhile
        if not look.done():
            await asyncio.wait([asyncio.wrap_future(look)], timeout=max(0.0, self._began + STORAGE_SECONDS - now))
        return look.result() if look.done() else f"no answer for {STORAGE_SECONDS:g} s"

    def _look_at_it(self) -> str:
        """Why it can't be used; empty where it can."""
        try:
            os.statvfs(self._folder)
        except OSError as error:
            return os.strerror(error.errno or 0)
        return ""


def _storage_away(why: str) -> StorageUnreadable:
    """`why`: in the system's own words, and never with the name of a file."""
    words = f"The storage of the discs can't be used now: {why}. Ask again in a minute"
    return StorageUnreadable(f"{words}; if it stays, tell the administrator.")


class AccessLog(_Middleware):
    """One line a request: method, path, status, bytes, seconds, job; never the query, a key or a name. Counts it for
    /metrics as well.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        super().__init__(app)
        self.metrics = metrics

    async def over_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        begin = time.perf_counter()
        status, sent = 500, 0

        async def counted(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            sent += len(message.get("body", b""))

        try:
            await self.app(scope, receive, counted)
        finally:
            seconds = time.perf_counter() - begin
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.count(route, scope["method"], status, seconds, sent)
            fields = {
                "request_id": scope["state"]["request_id"],
                "method": scope["method"][:16],
                "path": scope["path"][:200],
                "status": status,
                "bytes": sent,
                "seconds": round(seconds, 4),
                "client": (scope.get("client") or ("",))[0][:MAX_CLIENT],
                **scope["state"].get("note", {}),
            }
            logger.log(
                logging.DEBUG if route in ("/api/health", "/metrics") and status < 400 else logging.INFO,
                "request",
                extra=fields,
            )


class OneReading(_Middleware):
    """Refuses what a proxy may have read as something else.

    That is a request whose end can be understood in two ways (RFC 9112 6.1), with a close: what follows may be
    smuggled. And an address with a control character: the router's patterns take /metrics and a line break for
    /metrics, and a proxy's rules for /metrics don't.
    """

    async def over_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if any(character < " " or character == "\x7f" for character in scope["path"]):
            answer = error_answer(Request(scope), 404, "not_found", "There is nothing at this address.")
            await answer(scope, receive, send)
            return
        names = {name for name, _ in scope.get("headers", ())}
        if not {b"content-length", b"transfer-encoding"} <= names:
            await self.app(scope, receive, send)
            return
        words = "Content-Length and Transfer-Encoding can't both tell where a request ends."
        answer = error_answer(Request(scope), 400, "invalid_request", words, {"connection": "close"})
        await answer(scope, receive, send)


class Senders(_Middleware):
    """Knows who sends a request, and refuses what neither a person nor a program sends.

    That is a question that another site's page asks by itself, with whatever key; a browser's guess; and what a
    browser sends to a name that isn't ours.
    """

    def __init__(self, app: ASGIApp, server: Server, trail: Trail) -> None:
        super().__init__(app)
        self.trail = trail
        self.server = server

    async def over_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        request.state.sender = sender = sender_of(request.headers, self.server.trusted_origins)
        refused = self._refuses(sender, request)
        if refused is None:
            await self.app(scope, receive, send)
            return
        if isinstance(refused, ForeignRequest):
            await self.trail.refused(request, "A page of another site asked")
        answer = await answer_mkiso_error(request, refused)
        await answer(scope, receive, send)

    def _refuses(self, sender: Sender, request: Request) -> MkisoError | None:
        host = request.headers.get("host", "")
        if sender.kind != "program" and not host_is_known(host, self.server.known_hosts):
            words = "isn't known as a name of this service: an administrator can add it to server.hosts."
            return UnknownHost(f"{host[:100]!r} {words}")
        path = request.scope["path"]
        if not is_guarded(path) or path.startswith("/api/iso/jobs/"):  # looking at a job starts nothing
            return None
        if sender.guess:
            return InvalidRequest("A browser's guess is no question: nothing was asked of anybody.")
        if not sender.may_ask:
            return ForeignRequest("A page of another site asked for this, and no person: nothing was done.")
        return None


class Authentication(_Middleware):
    """Learns who asks, and asks for it on /api: by the key in X-API-Key, or the page's session in its cookie, from our
    own pages only. Then the table of rights says what they may.
    """

    def __init__(
        self, app: ASGIApp, keys: Keys, sessions: Sessions, people: PersonSessions, key_use: KeyUse, trail: Trail
    ) -> None:
        super().__init__(app)
        self.people = people
        self.trail = trail
        self.keys = keys
        self.key_use = key_use
        self.sessions = sessions

    async def over_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, path = Request(scope), scope["path"]
        request.state.caller = caller = await self._caller(request)
        if not is_guarded(path) or (caller is not None and may(caller.rights, path)):
            await self.app(scope, receive, send)
            return
        if caller is not None:
            await self.trail.refused(request, "Not allowed to do this")
            answer = await answer_mkiso_error(request, NotAllowed(f"{caller.name or 'You'} may not do this: {HELP}"))
        else:
            await self.trail.refused(request, "API key absent or wrong")
            words = "Nobody is signed in: sign in on the first page of this service. A program sends X-API-Key."
            if "x-api-key" in request.headers:
                words = (
                    "The API key is wrong: it isn't auth.api_key, nor one of auth.keys, as the service read them when "
                    "it started. At the old addresses nginx adds the key: /etc/mkiso/nginx-key.conf has it."
                )
            elif self.keys.on_page:
                words = "The API key is missing. Programs send X-API-Key, mkiso burn takes --api-key-file."
            told = {"www-authenticate": 'X-API-Key realm="mkiso"'}
            answer = error_answer(request, Unauthorized.http_status, Unauthorized.code, words, told)
        await answer(scope, receive, send)

    async def _caller(self, request: Request) -> Caller | None:
        if not self.keys.needed:
            return ANYBODY
        sent = request.headers.getlist("x-api-key")
        if sent:
            caller = self.keys.caller(sent[0].encode("latin-1")) if len(sent) == 1 else None
            if caller and caller.name and self.key_use.is_due(caller.name):
                await self._note_use(caller.name)
            return caller
        # SameSite=Strict keeps the cookie off other sites' requests; this keeps off sister hosts and other ports too.
        # A link from there may lead to the page itself.
        if sender_of_request(request).kind == "foreign" and is_guarded(request.scope["path"]):
            return None
        if self.keys.on_page:
            return SHARED if self.sessions.valid(session_of(request)) else None
        return await self._person(request)

    async def _person(self, request: Request) -> Caller | None:
        """Who is signed in. What the page asks for by itself keeps nobody signed in."""
        session_id = session_of(request, PERSON_COOKIE)
        path, by_itself = request.scope["path"], b"search=" not in request.scope["query_string"]
        used = path == "/" or (is_guarded(path) and not (path == "/api/iso/jobs" and by_itself))
        found = await asyncio.to_thread(self.people.find, session_id, used=used) if session_id else None
        return Caller(found.user, found.name, rights_of(found.roles), session_id) if found else None

    async def _note_use(self, name: str) -> None:
        try:
            await asyncio.to_thread(self.key_use.note, name)
        except OSError as error:  # no reason to refuse anybody
            logger.warning("The use of the key %s couldn't be written down: %s", name, error.strerror)
