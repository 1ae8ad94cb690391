"""How each inbox stands: what came, what was refused, what waits, the last disc; as JSON, or as a page."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from mkiso.config.settings import Settings
from mkiso.errors import ReceiverUnavailable
from mkiso.receiver.client import receiver_status
from mkiso.receiver.pushed import Ask, studies_in
from mkiso.storage.files import moment_of
from mkiso_service.api import InboxState, InboxStates
from mkiso_service.webhook.answers.errors import is_shown
from mkiso_service.webhook.answers.json_answers import Json
from mkiso_service.webhook.answers.pages import inboxes_page

ASK_SECONDS = 2.0
"""How long the receiver may take to tell what came."""


class Inboxes:
    """For those who send, and those who answer for what comes of it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def show(self, request: Request) -> Response:
        """GET /api/inboxes"""
        told = await asyncio.to_thread(inbox_states, self._settings)
        if is_shown(request):
            return inboxes_page(request, told)
        return Json(told, headers={"cache-control": "no-store", "vary": "Accept"})


def inbox_states(settings: Settings) -> InboxStates:
    """Each inbox as it stands on the disk, and by what the receiver has counted."""
    counts: dict[str, Any] = {}
    with suppress(ReceiverUnavailable):
        counts = receiver_status(settings.storage.receiver_socket, ASK_SECONDS)["inboxes"]
    told: list[InboxState] = []
    for name, rules in settings.inboxes.items():
        count = counts.get(name, {})
        studies = [(study.asked, study.seconds_quiet is not None) for study in studies_in(settings.storage, name)]
        last = last_disc(asked for asked, _ in studies)
        told.append(
            {
                "name": name,
                "publisher": rules.publisher,
                "images": count.get("stored"),
                "refused": count.get("refused"),
                "last_refusal": count.get("last_refusal"),
                "last_refusal_sender": count.get("last_refusal_sender", ""),
                "last_refusal_cause": count.get("last_refusal_cause", ""),
                "last_refusal_time": moment_of(refused) if (refused := count.get("last_refusal_time")) else "",
                "waiting": sum(not asked and lies for asked, lies in studies),
                "running": sum(bool(asked) and not asked[-1].ended for asked, _ in studies),
                "failed": sum(bool(asked) and asked[-1].ended == "failed" for asked, _ in studies),
                "last_disc": last.job_id if last else "",
                "last_disc_time": moment_of(last.ended_time or last.time) if last else "",
            }
        )
    return {"inboxes": told}


def last_disc(studies: Iterable[tuple[Ask, ...]]) -> Ask | None:
    """The newest job that made a disc. Pure."""
    made = (each for asked in studies for each in asked if each.ended == "done")
    return max(made, key=lambda each: each.ended_time or each.time, default=None)
