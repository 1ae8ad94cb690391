"""The letter that goes with a job's disc."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from mkiso.config.publishers import Robot
from mkiso.config.settings import Settings
from mkiso.errors import InvalidRequest
from mkiso.languages import Language, language, languages
from mkiso.storage.report import JobReport, numbers_on
from mkiso_service.webhook.answers.errors import job_address
from mkiso_service.webhook.audit import Trail
from mkiso_service.webhook.discs.jobs import Jobs
from mkiso_service.webhook.discs.passwords import Passwords
from mkiso_service.webhook.questions.query import Query

if TYPE_CHECKING:
    from mkiso.letter import Paper


class Letters:
    """Letters of the jobs whose discs are made, or ordered."""

    def __init__(self, settings: Settings, jobs: Jobs, trail: Trail, passwords: Passwords) -> None:
        self._settings = settings
        self._jobs = jobs
        self._trail = trail
        self._passwords = passwords
        self._writing = asyncio.Lock()

    async def show(self, request: Request) -> Response:
        """GET /api/iso/jobs/{job_id}/letter.pdf; by POST with the job's claim it has the password in it, which is then
        told to nobody else.
        """
        query = Query(request.scope["query_string"])
        asked, paper = query.language(), query.paper()
        report = await self._jobs.made(request.path_params["job_id"])
        if report.deidentified:
            raise InvalidRequest("A de-identified copy is no patient's disc: no letter goes with it.")
        await self._trail.listed(request, ", ".join(numbers_on(report)))
        claim = await self._passwords.claim_of(request) if request.method == "POST" else ""
        password = await self._passwords.look(report, claim) if claim else ""
        spoken = self._spoken(asked or report.language)
        async with self._writing:
            content = await asyncio.to_thread(self._written, report, spoken, paper, password)
        if claim:
            await self._passwords.take(report)
        headers = {"cache-control": "private, no-store", "content-disposition": 'inline; filename="letter.pdf"'}
        return Response(content, headers=headers, media_type="application/pdf")

    def _written(self, report: JobReport, spoken: Language, paper: Paper, password: str) -> bytes:
        from mkiso.letter import letter_of, pdf  # a second, and 30 MB, that a webhook without letters needn't have

        address, has_pages = self._address(report), self._has_pages(report)
        letter = letter_of(report, self._settings.disc, address, has_pages=has_pages, password=password)
        return pdf(letter, spoken, paper)

    def _spoken(self, code: str) -> Language:
        """The site's where nothing else is said, or the disc was made by a version that spoke others."""
        return language(code if code in languages() else self._settings.disc.language)

    def _address(self, report: JobReport) -> str:
        """Of the job, as browsers reach it; empty where the site doesn't say how."""
        url = self._settings.server.public_url.rstrip("/")
        return f"{url}{job_address(report.job_id)}" if url else ""

    def _has_pages(self, report: JobReport) -> bool:
        """A publisher that is sent the images makes a disc of its own."""
        return not report.publisher or isinstance(self._settings.publishers.get(report.publisher), Robot)
