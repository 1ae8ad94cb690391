"""What a client prefers of the answers that there are: now or later (RFC 7240), in which format (RFC 9110 12.5.1)."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from mkiso.formats.registry import FORMATS, ISO

MAX_PREFER = 1000
"""Of all Prefer fields together; what comes behind is no preference."""
MAX_ACCEPT = 1000
_WEIGHT = re.compile(r"(?:^|;)[ \t]*[qQ]=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)[ \t]*(?:;|$)", re.ASCII)  # RFC 9110 12.4.2
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
    for item in ",".join(fields)[:MAX_PREFER].split(","):
        name, _, value = item.partition(";")[0].partition("=")
        name, value = name.strip().lower(), value.strip()
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1].strip()
        if name and _TOKEN.issuperset(name) and '"' not in value:
            found.setdefault(name, value)
    wait = found.get("wait", "")
    return Preference("respond-async" in found, int(wait) if wait.isascii() and wait.isdigit() and len(wait) < 6 else 0)


def accepted_format(accept: str) -> str:
    """The name of the format that an Accept field prefers.

    What names no format of ours, such as */*, has no say: it is what every old client sends."""
    weights: dict[str, float] = {}
    for item in accept[:MAX_ACCEPT].split(","):
        media_type, _, parameters = item.partition(";")
        weight = _WEIGHT.search(parameters)
        weights.setdefault(media_type.strip().lower(), float(weight[1]) if weight else 1.0)
    named = [form for form in FORMATS.values() if weights.get(form.media_type, 0) > 0]
    return max(named, key=lambda form: weights[form.media_type], default=ISO).name
