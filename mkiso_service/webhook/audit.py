"""The webhook's part of the audit trail: who asked from where, what they were given, who came without the key."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from starlette.requests import Request

from mkiso.audit import messages as audit
from mkiso.config.settings import Settings
from mkiso.storage.report import JobReport
from mkiso.storage.shelf import Manifest
from mkiso.study.models import Study
from mkiso.study.selection import EVERYTHING, Selection
from mkiso_service.webhook.access import request_id_of
from mkiso_service.webhook.rights import caller_of

MAX_CLIENT = 100
"""Of a client's address: a trusted proxy may say what is none."""


class Trail:
    """Writes nothing unless audit.enabled; a slow syslog server holds up nobody but its own request."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def asked(
        self, request: Request, accession_numbers: tuple[str, ...], selection: Selection = EVERYTHING
    ) -> None:
        """A question was accepted."""
        if self._settings.audit.enabled:
            who, request_id = _who(request), request_id_of(request.scope)
            await asyncio.to_thread(audit.asked, self._settings, accession_numbers, who, request_id, selection)

    async def listed(self, request: Request, search: str) -> None:
        """Somebody sees whose discs were made here: today's, or those that a search finds."""
        if self._settings.audit.enabled:
            await asyncio.to_thread(audit.listed, self._settings, search, _who(request), request_id_of(request.scope))

    async def searched(self, request: Request, keys: Mapping[str, str]) -> None:
        """Somebody looks for patients; `keys` by DICOM keyword."""
        if self._settings.audit.enabled:
            await asyncio.to_thread(audit.searched, self._settings, keys, _who(request), request_id_of(request.scope))

    async def shown(self, request: Request, studies: Sequence[Study]) -> None:
        """Somebody is shown whose studies these are."""
        if self._settings.audit.enabled:
            await asyncio.to_thread(audit.shown, self._settings, studies, _who(request), request_id_of(request.scope))

    async def leaves(self, request: Request, disc: Manifest) -> None:
        """A disc, or a part of it, begins to leave."""
        if self._settings.audit.enabled:
            left = audit.Left(disc.patient_id, disc.patient_name, disc.studies, disc.instances)
            to = _who(request).party(audit.DESTINATION)
            await asyncio.to_thread(audit.exported, self._settings, left, to, disc.job_id)

    async def cancelled(
        self, request: Request, job_id: str, accession_numbers: Sequence[str], report: JobReport | None
    ) -> None:
        """Somebody cancelled a job."""
        if self._settings.audit.enabled:
            patient = (report.patient_id, report.patient_name) if report else ("", "")
            who = _who(request)
            await asyncio.to_thread(audit.cancelled, self._settings, job_id, accession_numbers, patient, who)

    async def signed(self, request: Request, user: str, name: str, kind: audit.Code, *, well: bool = True) -> None:
        """Somebody signed in or out, or couldn't."""
        if self._settings.audit.enabled:
            client = audit.Client(client_of(request), user, name)
            await asyncio.to_thread(partial(audit.signed, self._settings, client, kind, well=well))

    async def refused(self, request: Request, why: str) -> None:
        """Somebody came without the right key, or a page of another site did."""
        if self._settings.audit.enabled:
            path, request_id = request.scope["path"], request_id_of(request.scope)
            await asyncio.to_thread(audit.alert, self._settings, _who(request), path, request_id, why)


def client_of(request: Request) -> str:
    return request.client.host[:MAX_CLIENT] if request.client else "unknown"


def _who(request: Request) -> audit.Client:
    caller = caller_of(request)
    return audit.Client(client_of(request), caller.user, caller.name)
