"""The password of an encrypted disc, told once to who asked for the disc: to whoever has the job's claim."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from mkiso.config.storage import Storage
from mkiso.errors import ForeignRequest, InvalidRequest
from mkiso.formats.registry import FORMATS
from mkiso.storage.handover import claimed, taken
from mkiso.storage.report import JobReport
from mkiso_service.api import ToldPassword
from mkiso_service.webhook.access.callers import sender_of_request, session_of
from mkiso_service.webhook.answers.errors import is_shown
from mkiso_service.webhook.answers.json_answers import Json
from mkiso_service.webhook.answers.pages import password_page
from mkiso_service.webhook.audit import Trail
from mkiso_service.webhook.discs.jobs import Jobs
from mkiso_service.webhook.questions.query import field_of

CLAIM_COOKIE = "mkiso-claim"


class Passwords:
    """Passwords that jobs have left. No address, log or answer but the one has a claim or a password in it."""

    def __init__(self, storage: Storage, jobs: Jobs, trail: Trail) -> None:
        self._storage = storage
        self._jobs = jobs
        self._trail = trail

    async def show(self, request: Request) -> Response:
        """POST /api/iso/jobs/{job_id}/password with `claim`, in a form or in the cookie of the job's page."""
        claim = await self.claim_of(request)
        report = await self._jobs.finished(request.path_params["job_id"])
        password = await self.tell(report, claim)
        await self._trail.listed(request, ", ".join(report.accession_numbers))
        if is_shown(request):
            return password_page(request, password)
        told: ToldPassword = {"password": password}
        return Json(told, headers={"cache-control": "no-store"})

    async def tell(self, report: JobReport, claim: str) -> str:
        """The password of a finished job's disc, for the last time. Raises WrongClaim, PasswordGone."""
        password = await self.look(report, claim)
        await self.take(report)
        return password

    async def look(self, report: JobReport, claim: str) -> str:
        """The password, which has to be taken before it is told. Raises InvalidRequest, WrongClaim, PasswordGone."""
        if not FORMATS[report.format].is_encrypted:
            raise InvalidRequest("This disc isn't encrypted: it has no password.")
        return await asyncio.to_thread(claimed, self._storage, report.job_id, claim)

    async def take(self, report: JobReport) -> None:
        """Nobody is told the password any more. Raises PasswordGone where somebody was told it meanwhile."""
        await asyncio.to_thread(taken, self._storage, report.job_id)

    async def claim_of(self, request: Request) -> str:
        """The claim that a request brings. Raises ForeignRequest, InvalidRequest."""
        if not sender_of_request(request).may_order("POST"):
            raise ForeignRequest("A page of another site asks for the password, and no person: nothing was told.")
        claim = await field_of(request, "claim") or session_of(request, CLAIM_COOKIE)
        if not claim:
            raise InvalidRequest("The claim is missing: it was told with the job.")
        return claim
