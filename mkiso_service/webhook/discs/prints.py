"""The question for a disc of a publisher: print, and the page that asks a person first."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from mkiso.config.settings import Settings
from mkiso.errors import ForeignRequest, NotAllowed, PrintUncertain
from mkiso.formats.registry import ISO, require_allowed
from mkiso.publishers.orderbook import Entry, OrderBook, made_before
from mkiso.publishers.protocol import pages_of
from mkiso.storage.report import JobReport
from mkiso.study.question import Question
from mkiso_service.api import Sent
from mkiso_service.counting import minutes_since
from mkiso_service.prefect.orchestrator import Asked
from mkiso_service.webhook.access.callers import sender_of_request
from mkiso_service.webhook.access.rights import caller_of
from mkiso_service.webhook.answers.errors import job_address
from mkiso_service.webhook.answers.json_answers import Json
from mkiso_service.webhook.answers.pages import print_page
from mkiso_service.webhook.discs.asked_jobs import AskedJobs, accepted
from mkiso_service.webhook.discs.jobs import degraded_header
from mkiso_service.webhook.health import Health
from mkiso_service.webhook.questions.preview import Previews
from mkiso_service.webhook.questions.query import MAX_QUERY_BYTES, Query, form_of, print_order


class Prints:
    """Orders a disc where somebody certainly wants it."""

    def __init__(self, settings: Settings, asked: AskedJobs, previews: Previews, health: Health) -> None:
        self._settings = settings
        self._asked = asked
        self._previews = previews
        self._health = health

    async def order(self, request: Request) -> Response:
        """GET or POST /api/iso/print.

        A person is shown whose disc it would be and asked, unless they come from a trusted page, and led on to the
        job's address, so that going back or loading again orders nothing.
        """
        form = await form_of(request, MAX_QUERY_BYTES) if request.method == "POST" else b""
        query = Query(request.scope["query_string"], form)
        require_allowed(ISO, self._settings.disc.encryption, is_printed=True)
        question = print_order(query, self._settings)
        if request.method == "HEAD":  # looking is no order
            return Response(media_type="application/json")
        sender = sender_of_request(request)
        if not sender.may_order(request.method):
            return await self._ask_back(request, question, query)
        question, _ = await self._previews.confirmed(request, question, query)
        asked = await self._asked.ask(request, question)
        asked = await asyncio.to_thread(self._with_order_before, question, asked)
        await self._asked.note(request, question, asked)
        if sender.navigation:
            return RedirectResponse(job_address(asked.job_id), 303, {"cache-control": "no-store"})
        report = await self._asked.end(request, question, asked)
        if report is None:
            return accepted(request, asked)
        return Json(sent_body(report, asked), headers={"cache-control": "no-store", **degraded_header(report.degraded)})

    def _with_order_before(self, question: Question, asked: Asked) -> Asked:
        """The job with when the same was last made: at whichever publisher, also by a run that was resumed."""
        if asked.joined:
            return asked
        pages = pages_of(question.accession_numbers, question.selection)
        mine = Entry(asked.job_id, "asked", 0, selection=question.selection)
        try:
            made = made_before(OrderBook.of(self._settings.storage.orders_dir, pages).pages(), mine)
        except PrintUncertain:  # a damaged page: the job says so itself
            return asked
        moments = [datetime.fromtimestamp(order.time, UTC) for order in made]
        return replace(asked, ended_before=max([*moments, *filter(None, [asked.ended_before])], default=None))

    async def _ask_back(self, request: Request, question: Question, query: Query) -> Response:
        """A page with whose disc it would be, and a button; where this site wants the birth date first, a page that
        asks for that. Raises what a preview raises, NotAllowed, and ForeignRequest in a frame, where nobody sees it.
        """
        if request.headers.get("sec-fetch-dest") in ("iframe", "frame"):
            raise ForeignRequest("A page of another site has this in a frame, which shows nobody anything.")
        if "disc" not in caller_of(request).rights:
            raise NotAllowed("You may order this disc, and may not see whose it is, so no page can ask you.")
        birth_date = query.birth_date()
        if self._settings.identity.confirm_birth_date and not birth_date:
            return print_page(request, question, publishers=self._settings.publishers)
        told = await self._previews.told(request, question, birth_date)
        robot = await self._health.publisher(question.publisher)
        configured = self._settings.publishers[question.publisher]
        return print_page(
            request,
            question,
            told,
            robot,
            birth_date=query.one("birth_date") or "",
            copies=configured.copies,
            publishers=self._settings.publishers,
        )


def sent_body(report: JobReport, asked: Asked) -> Sent:
    """What is told of a print that the publisher has confirmed."""
    body: Sent = {
        "status": "sent",
        "publisher": report.publisher,
        "instances": report.written or report.received,
        "job_id": report.job_id,
        "accession_numbers": report.accession_numbers,
        "proves": report.proves,
        "degraded": report.degraded,
        "joined": asked.joined,
    }
    if asked.ended_before:
        body["made_before_minutes"] = minutes_since(asked.ended_before.timestamp())
    return body
