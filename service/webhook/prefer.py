"""The Prefer header: whether a client would rather have an answer now than a disc later (RFC 7240)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PREFERENCE = re.compile(r'\s*([!#$%&\'*+.^_`|~\w-]+)\s*(?:=\s*("?)([^",;]*)\2)?\s*(?:;[^,]*)?', re.ASCII)


@dataclass(frozen=True, slots=True)
class Preference:
    """`respond_async`: 202 instead of waiting (RFC 7240 4.1); `wait_seconds`: how long the client would wait before that (4.3)."""

    respond_async: bool = False
    wait_seconds: int = 0

    @property
    def applied(self) -> str:
        """The Preference-Applied header's value."""
        return f"respond-async, wait={self.wait_seconds}" if self.wait_seconds else "respond-async"


def preference_of(fields: list[str]) -> Preference:
    """Read the Prefer fields of a request; the first of a repeated preference counts (RFC 7240 2), what can't be read is no preference."""
    found: dict[str, str] = {}
    for field in fields:
        for item in field.split(","):
            if match := _PREFERENCE.fullmatch(item):
                found.setdefault(match[1].lower(), (match[3] or "").strip())
    wait = found.get("wait", "")
    return Preference("respond-async" in found, int(wait) if wait.isascii() and wait.isdigit() and len(wait) < 6 else 0)
