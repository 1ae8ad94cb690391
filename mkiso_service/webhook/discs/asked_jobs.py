"""The job that answers a question: begun or joined, who asked written down, and its end or where that is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from mkiso.config.settings import Settings
from mkiso.errors import DeadlinePassed, ServiceStopping
from mkiso.storage.askings import By, asking, write_asking
from mkiso.storage.report import JobReport
from mkiso.storage.room import require_room
from mkiso.study.question import Question
from mkiso_service.api import Accepted
from mkiso_service.counting import minutes_since
from mkiso_service.prefect.orchestrator import Asked, Orchestrator
from mkiso_service.webhook.access.callers import Kind, request_id_of, sender_of_request
from mkiso_service.webhook.access.rights import caller_of
from mkiso_service.webhook.answers.errors import job_address
from mkiso_service.webhook.answers.json_answers import Json
from mkiso_service.webhook.audit import Trail, client_of
from mkiso_service.webhook.discs.jobs import Jobs
from mkiso_service.webhook.questions.negotiation import preference_of

_BY: Mapping[Kind, By] = {"own": "page", "program": "program"}
log = logging.getLogger("mkiso.webhook")


class AskedJobs:
    """Starts the jobs of questions, or joins those under way."""

    def __init__(self, settings: Settings, orchestrator: Orchestrator, jobs: Jobs, trail: Trail) -> None:
        self._settings = settings
        self._orchestrator = orchestrator
        self._jobs = jobs
        self._trail = trail

    async def ask(self, request: Request, question: Question) -> Asked:
        """The question's job, begun where none is under way."""
        await asyncio.to_thread(require_room, self._settings.storage)
        return await self._orchestrator.ask(question, request_id_of(request.scope))

    async def note(self, request: Request, question: Question, asked: Asked) -> None:
        """Write down who asked."""
        await self._trail.asked(
            request, question.accession_numbers, question.selection, deidentified=question.deidentified
        )
        await asyncio.to_thread(self._note_asking, request, question, asked.job_id)
        request.state.note = {
            "job_id": asked.job_id,
            "accession_numbers": question.accession_numbers,
            "joined": asked.joined,
            **({"selection": question.selection.written} if question.selection.written else {}),
            **({"deidentified": True} if question.deidentified else {}),
        }

    def _note_asking(self, request: Request, question: Question, job_id: str) -> None:
        by = _BY.get(sender_of_request(request).kind, "link")
        caller, disc = caller_of(request), self._settings.as_asked(question.language, question.transfer_syntax).disc
        asks = asking(client_of(request), by, question, disc, user=caller.user, name=caller.name)
        try:
            write_asking(self._settings.storage, job_id, asks)
        except OSError as error:  # a list without a name is no reason for no disc
            log.warning("Who asked for a job couldn't be written down: %s", error.strerror, extra={"job_id": job_id})

    async def end(
        self, request: Request, question: Question, asked: Asked, page_seconds: float | None = None
    ) -> JobReport | None:
        """The job's report; None where the client wants to come back for it, or it isn't there before a page is shown
        (`page_seconds`).

        Raises DeadlinePassed where it would have waited.
        """
        prefers = preference_of(request.headers.getlist("prefer"))
        limit = self._settings.server.request_timeout_seconds
        if prefers.respond_async and not prefers.wait_seconds:
            return None
        seconds = min(limit, prefers.wait_seconds) if prefers.respond_async else limit
        seconds = seconds if page_seconds is None else min(seconds, page_seconds)
        queued_is_enough = question.kind == "print" and self._settings.print.wait_for == "queued"
        try:
            report = await self._jobs.end_of(request, asked.job_id, seconds, queued_is_enough=queued_is_enough)
        except ServiceStopping as stopping:
            if question.kind != "print":
                raise
            words = (
                "mkiso is being restarted; the print goes on. Ask for its state at the address in 'job': asked for "
                "again it may be made twice."
            )
            raise DeadlinePassed(words, **stopping.details) from None
        if report is None and page_seconds is None and not prefers.respond_async:
            words = (
                f"The job takes longer than {limit:g} seconds; it goes on. Ask for its state at the address in 'job'."
            )
            raise DeadlinePassed(words, job_id=asked.job_id, job=job_address(asked.job_id))
        return report


def accepted(request: Request, asked: Asked, claim: str = "") -> Response:
    """202: the job goes on by itself (RFC 7240 4.1, RFC 9110 15.3.3)."""
    address = job_address(asked.job_id)
    applied = preference_of(request.headers.getlist("prefer")).applied
    headers = {"location": address, "preference-applied": applied, "vary": "Prefer", "cache-control": "no-store"}
    body: Accepted = {"job_id": asked.job_id, "job": address, "state": "waiting", "joined": asked.joined}
    if asked.ended_before:
        body["made_before_minutes"] = minutes_since(asked.ended_before.timestamp())
    if claim:
        body["claim"] = claim
    return Json(body, 202, headers)
