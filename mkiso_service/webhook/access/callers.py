"""Who asks: the API key, the counter page's session, which page, program or person sends a request, and the id under
which it is found again in answers and logs.

A browser says Sec-Fetch-… over https and to its own machine only. Over plain http Origin and Referer are left, and a
page can hide these. What is left then is that a browser sends Accept-Language whatever a page does; programs don't.
No other site's page prints.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope

from mkiso.config.access import KEY_USER, SHARED_USER, Auth
from mkiso_service.webhook.access.rights import ALL, Caller

SESSION_COOKIE = "mkiso_session"
PERSON_COOKIE = "__Host-mkiso"
PENDING_COOKIE = "__Host-mkiso_sign_in"
SESSION_SECONDS = 12 * 3600  # a shift
MAX_ORIGIN = 2048
UNNAMED = "none"
"""In server.trusted_origins: what comes from no page, such as a link that a program opens."""
_GUESSES = ("sec-purpose", "purpose", "x-purpose", "x-moz")
Kind = Literal[
    "program",  # no browser: curl, a script
    "own",  # one of our own pages
    "unnamed",  # a browser that names no page: typed, a bookmark, a program's link, or a page that hides itself
    "foreign",  # another site's page
]
SHARED = Caller(SHARED_USER, "", ALL)
"""Whoever has auth.api_key, by header or in a session of the counter page."""
_SANE_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Keys:
    """Knows the configured keys: the shared one, which may do everything, and those with a name and rights. Where
    authentication is off, none is needed.
    """

    def __init__(self, auth: Auth, *, people_sign_in: bool = False) -> None:
        self.needed = auth.enabled or people_sign_in
        self.on_page = not people_sign_in
        self._key = auth.api_key.get_secret_value().encode()
        self.shared = auth.enabled and bool(self._key)
        self._named = [
            (
                hashlib.sha256(each.key.get_secret_value().encode()).digest(),
                Caller(f"{KEY_USER}{name}", name, frozenset(each.rights)),
            )
            for name, each in auth.keys.items()
        ]

    def right(self, sent: bytes) -> bool:
        """Whether this is the shared key. Digests are compared, since compare_digest tells lengths apart."""
        return self.shared and hmac.compare_digest(hashlib.sha256(sent).digest(), hashlib.sha256(self._key).digest())

    def caller(self, sent: bytes) -> Caller | None:
        """Whose key this is; None where it is nobody's."""
        digest = hashlib.sha256(sent).digest()
        named = [caller for key, caller in self._named if hmac.compare_digest(digest, key)]
        return SHARED if self.right(sent) else next(iter(named), None)

    def sign(self, message: bytes) -> str:
        """A signature that only this key can make, in hexadecimal: sessions end when the key is changed."""
        return hmac.new(b"mkiso session\0" + self._key, message, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Sessions:
    """Makes and checks session cookies: `<end in seconds since 1970>.<nonce>.<signature>`."""

    keys: Keys

    def begin(self) -> str:
        """A new cookie's value."""
        told = f"{int(time.time()) + SESSION_SECONDS}.{secrets.token_hex(8)}"
        return f"{told}.{self.keys.sign(told.encode())}"

    def valid(self, cookie: str) -> bool:
        """Whether we signed this and it hasn't ended. One that ends later than any that begins now was signed while a
        clock was ahead.
        """
        told, _, signature = cookie.rpartition(".")
        if not told or not hmac.compare_digest(signature.encode(), self.keys.sign(told.encode()).encode()):
            return False
        return self.keys.shared and 0 < int(told.partition(".")[0]) - time.time() <= SESSION_SECONDS


def session_of(request: Request, cookie: str = SESSION_COOKIE) -> str:
    """The session cookie's value, empty where there is none. http.cookies may take quadratic time (CVE-2024-7592)."""
    for field in request.headers.getlist("cookie"):
        for pair in field.split(";"):
            name, _, value = pair.partition("=")
            if name.strip() == cookie:
                return value.strip()
    return ""


@dataclass(frozen=True, slots=True)
class Sender:
    """`navigation`: a browser shows the answer to a person, as a page or as a download.

    `trusted`: by server.trusted_origins. `guess`: nobody has asked for it yet (prefetch).
    """

    kind: Kind
    navigation: bool = False
    trusted: bool = False
    guess: bool = False

    @property
    def may_ask(self) -> bool:
        """Whether a question is taken at all. Another site may lead a person to one, and ask none itself."""
        return self.navigation or self.trusted or self.kind in ("program", "own")

    def may_order(self, method: str) -> bool:
        """Whether an order for paper or plastic is taken without a person's press of a button on our own page.

        A browser completes addresses and brings tabs back by itself, so an address alone is no order, not even our own.
        """
        own = self.kind == "own" and (method == "POST" or not self.navigation)
        return own or self.trusted or self.kind == "program"


def sender_of(headers: Headers, trusted: Collection[str]) -> Sender:
    """Who sent a request with these headers. A sister host or another port of this one (same-site) is another site."""
    site, mode, page = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode"), _page_of(headers)
    guess = any("prefetch" in headers.get(name, "")[:MAX_ORIGIN].lower() for name in _GUESSES)
    if site is None and mode is None and page is None and "accept-language" not in headers:
        return Sender("program", guess=guess)
    kind, navigation = _kind(site, page, headers.get("host", "")), _is_navigation(headers, site, mode)
    known = (kind == "unnamed" and UNNAMED in trusted) or (kind == "foreign" and navigation and page in trusted)
    return Sender(kind, navigation, known, guess)


def sender_of_request(request: Request) -> Sender:
    """The sender of a request that has passed the middleware."""
    sender: Sender = request.state.sender
    return sender


def _is_navigation(headers: Headers, site: str | None, mode: str | None) -> bool:
    """A browser going on with a broken download counts too: it says `none`, or If-Range, which no page can."""
    if site is None and mode is None:
        return "text/html" in headers.get("accept", "") or "if-range" in headers
    place = headers.get("sec-fetch-dest", "document")
    return site == "none" or (mode == "navigate" and place in ("document", "iframe", "frame"))


def _kind(site: str | None, page: str | None, host: str) -> Kind:
    if site == "same-origin" or (site is None and page is not None and page.partition("://")[2] == host.lower() != ""):
        return "own"
    return "unnamed" if site == "none" or (site is None and page is None) else "foreign"


def _page_of(headers: Headers) -> str | None:
    """The origin of the page that a request comes from; None where nothing is said of it, "null" where it is hidden."""
    named = headers.get("origin", headers.get("referer"))
    if named is None:
        return None
    try:
        parts = urlsplit(named[:MAX_ORIGIN])
    except ValueError:
        return "null"
    return f"{parts.scheme}://{parts.netloc}".lower() if parts.scheme and parts.netloc else "null"


def take_request_id(sent: list[bytes]) -> str:
    """The id for a request that sent these X-Request-ID fields: letters, digits, dots, dashes and underscores only, so
    that no log line can be forged with it.
    """
    if len(sent) == 1 and _SANE_ID.fullmatch(sent[0]):
        return sent[0].decode("ascii")
    return uuid4().hex


def request_id_of(scope: Scope) -> str:
    """The id of a request that has passed the middleware."""
    request_id: str = scope.get("state", {}).get("request_id", "")
    return request_id
