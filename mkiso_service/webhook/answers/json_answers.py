"""Answers in JSON, which end with a line break: on a terminal the prompt stands on a line of its own."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response


class Json(Response):
    """What json.dumps takes, or bytes that are JSON already."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        told: bytes = content
        if not isinstance(content, bytes):
            told = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        return told + b"\n"
