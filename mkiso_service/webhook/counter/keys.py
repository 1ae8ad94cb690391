"""The named keys, their rights, and when each was used last; as JSON, or as a page."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from mkiso.config.access import Auth
from mkiso.storage.key_use import KeyUse
from mkiso_service.api import NamedKeys
from mkiso_service.webhook.answers.errors import is_shown
from mkiso_service.webhook.answers.json_answers import Json
from mkiso_service.webhook.answers.pages import keys_page


class KeyReport:
    """For those who give keys to programs."""

    def __init__(self, auth: Auth, key_use: KeyUse) -> None:
        self._auth = auth
        self._key_use = key_use

    async def show(self, request: Request) -> Response:
        """GET /api/keys"""
        used = await asyncio.to_thread(self._key_use.last_used, self._auth.keys)
        told: NamedKeys = {
            "keys": [
                {"name": name, "rights": list(key.rights), "last_used": used[name]}
                for name, key in self._auth.keys.items()
            ]
        }
        if is_shown(request):
            return keys_page(request, told)
        return Json(told, headers={"cache-control": "no-store", "vary": "Accept"})
