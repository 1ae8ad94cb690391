"""The webhook's part of the audit trail: who asked from where, what they were given, who came without the key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Concatenate, ParamSpec

from starlette.requests import Request

from mkiso.audit import messages as audit
from mkiso.config.settings import Settings
from mkiso.storage.report import JobReport
from mkiso.storage.shelf import Manifest
from mkiso.study.models import Study
from mkiso.study.selection import EVERYTHING, Selection
from mkiso_service.webhook.access.callers import request_id_of
from mkiso_service.webhook.access.rights import caller_of

P = ParamSpec("P")
MAX_CLIENT = 100
"""Of a client's address: a trusted proxy may say what is none."""
MAX_PATH = 200
ALERTS_A_MINUTE = 120
"""Whoever has no key can't fill the disk with alerts; the next one that is written says how many weren't."""


class Alerts:
    """Which alerts are written down: so many a minute, and of the others their number."""

    def __init__(self) -> None:
        self._began = float("-inf")
        self._written = self._left_out = 0

    def admit(self, now: float) -> int | None:
        """How many alerts before this one weren't written down; None where this one isn't either. `now` in seconds of
        a clock that never goes back.
        """
        if now - self._began >= 60:
            self._began, self._written = now, 0
        if self._written >= ALERTS_A_MINUTE:
            self._left_out += 1
            return None
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        return left_out


class Trail:
    """Writes nothing unless audit.enabled; a slow syslog server holds up nobody but its own request."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._alerts = Alerts()

    async def asked(
        self,
        request: Request,
        accession_numbers: tuple[str, ...],
        selection: Selection = EVERYTHING,
        *,
        deidentified: bool = False,
    ) -> None:
        """A question was accepted."""
        asker = _who(request), request_id_of(request.scope)
        await self._tell(audit.asked, accession_numbers, *asker, selection, deidentified=deidentified)

    async def listed(self, request: Request, search: str) -> None:
        """Somebody sees whose discs were made here: today's, or those that a search finds."""
        await self._tell(audit.listed, search, _who(request), request_id_of(request.scope))

    async def searched(self, request: Request, keys: Mapping[str, str]) -> None:
        """Somebody looks for patients; `keys` by DICOM keyword."""
        await self._tell(audit.searched, keys, _who(request), request_id_of(request.scope))

    async def shown(self, request: Request, studies: Sequence[Study]) -> None:
        """Somebody is shown whose studies these are."""
        await self._tell(audit.shown, studies, _who(request), request_id_of(request.scope))

    async def leaves(self, request: Request, disc: Manifest) -> None:
        """A disc, or a part of it, begins to leave."""
        left = audit.Left({disc.patient_id: disc.patient_name}, disc.studies, disc.instances, disc.sop_classes)
        to, path = _who(request).party(audit.DESTINATION), request.scope["path"][:MAX_PATH]
        media = audit.Party(path, audit.DESTINATION_MEDIA, to.address, media_type=audit.BY_ADDRESS)
        await self._tell(audit.exported, left, to, media, disc.job_id)

    async def cancelled(
        self, request: Request, job_id: str, accession_numbers: Sequence[str], report: JobReport | None
    ) -> None:
        """Somebody cancelled a job."""
        patient = (report.patient_id, report.patient_name) if report else ("", "")
        await self._tell(audit.cancelled, job_id, accession_numbers, patient, _who(request))

    async def signed(self, request: Request, user: str, name: str, kind: audit.Code, *, well: bool = True) -> None:
        """Somebody signed in or out, or couldn't."""
        await self._tell(audit.signed, audit.Client(client_of(request), user, name), kind, well=well)

    async def refused(self, request: Request, why: str) -> None:
        """Somebody came without the right key, or a page of another site did."""
        if self._settings.audit.enabled and (left_out := self._alerts.admit(time.monotonic())) is not None:
            path, request_id = request.scope["path"][:MAX_PATH], request_id_of(request.scope)
            why += f"; before it {left_out} alerts too many for one minute weren't written down" if left_out else ""
            await self._tell(audit.alert, _who(request), path, request_id, why)

    async def _tell(
        self, write: Callable[Concatenate[Settings, P], None], *arguments: P.args, **named: P.kwargs
    ) -> None:
        if self._settings.audit.enabled:
            await asyncio.to_thread(write, self._settings, *arguments, **named)


def client_of(request: Request) -> str:
    return request.client.host[:MAX_CLIENT] if request.client else "unknown"


def _who(request: Request) -> audit.Client:
    caller = caller_of(request)
    return audit.Client(client_of(request), caller.user, caller.name)
