"""Who sends a request, by what a browser says of it (Fetch Metadata, Origin, Referer): no other site's page prints.

A browser says Sec-Fetch-… over https and to its own machine only. Over plain http Origin and Referer are left, and a
page can hide these. What is left then is that a browser sends Accept-Language whatever a page does; programs don't.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request

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


def sender_of(headers: Headers, trusted: Collection[str] = ()) -> Sender:
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
