"""The counter page's own sign-in: the key once, then a signed cookie that no script can read. No state: two webhooks
know each other's sessions.
"""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass

from starlette.requests import Request

from mkiso_service.webhook.keys import Keys

SESSION_COOKIE = "mkiso_session"
SESSION_SECONDS = 12 * 3600  # a shift


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
        return 0 < int(told.partition(".")[0]) - time.time() <= SESSION_SECONDS


def session_of(request: Request) -> str:
    """The session cookie's value, empty where there is none. http.cookies may take quadratic time (CVE-2024-7592)."""
    for field in request.headers.getlist("cookie"):
        for pair in field.split(";"):
            name, _, value = pair.partition("=")
            if name.strip() == SESSION_COOKIE:
                return value.strip()
    return ""
