"""The Prefer header: whether a client would rather have an answer now than a disc later (RFC 7240)."""

from __future__ import annotations

import string
from dataclasses import dataclass

MAX_CHARACTERS = 1000
"""Of all Prefer fields together; what comes behind is no preference."""
_TOKEN = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")  # RFC 9110 5.6.2


@dataclass(frozen=True, slots=True)
class Preference:
    """`respond_async`: 202 instead of waiting (RFC 7240 4.1); `wait_seconds`: how long the client would wait before
    that (4.3).
    """

    respond_async: bool = False
    wait_seconds: int = 0

    @property
    def applied(self) -> str:
        """The Preference-Applied header's value."""
        return f"respond-async, wait={self.wait_seconds}" if self.wait_seconds else "respond-async"


def preference_of(fields: list[str]) -> Preference:
    """Read the Prefer fields of a request; the first of a repeated preference counts (RFC 7240 2), what can't be read
    is no preference.
    """
    found: dict[str, str] = {}
    for item in ",".join(fields)[:MAX_CHARACTERS].split(","):
        name, _, value = item.partition(";")[0].partition("=")
        name, value = name.strip().lower(), value.strip()
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1].strip()
        if name and _TOKEN.issuperset(name) and '"' not in value:
            found.setdefault(name, value)
    wait = found.get("wait", "")
    return Preference("respond-async" in found, int(wait) if wait.isascii() and wait.isdigit() and len(wait) < 6 else 0)
