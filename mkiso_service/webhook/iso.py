"""The three questions of the API: download, download-multiple, print."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from mkiso.config.settings import Settings
from mkiso.deidentify.profile import require_copies
from mkiso.errors import (
    DeadlinePassed,
    ForeignRequest,
    InvalidRequest,
    JobNotFound,
    MkisoError,
    NotAllowed,
    OtherSet,
)
from mkiso.formats.proven_set import disc_fingerprint
from mkiso.formats.registry import FORMATS, ISO, require_allowed
from mkiso.storage.askings import By, asking, write_asking
from mkiso.storage.handover import new_claim, seal_of
from mkiso.storage.report import JobReport, read_report, sets_told
from mkiso.storage.room import require_room
from mkiso.storage.shelf import Manifest, is_young, manifests, whole_sets
from mkiso.study.identity import same_as_shown
from mkiso.study.question import Question
from mkiso.study.values import Found
from mkiso_service.api import Accepted, See, Sent
from mkiso_service.webhook.access import request_id_of, sender_of_request
from mkiso_service.webhook.answers import disc_address, is_shown, job_address
from mkiso_service.webhook.audit import Trail, client_of
from mkiso_service.webhook.disc_sets import ToldSet, chosen, led_to, of_named_set, set_entry
from mkiso_service.webhook.health import Health
from mkiso_service.webhook.jobs import Jobs
from mkiso_service.webhook.negotiation import preference_of
from mkiso_service.webhook.orchestrator import Asked, Orchestrator, minutes_since
from mkiso_service.webhook.pages import print_page
from mkiso_service.webhook.passwords import CLAIM_COOKIE, Passwords
from mkiso_service.webhook.preview import Previews
from mkiso_service.webhook.query import MAX_QUERY_BYTES, Query, form_of, one_study, print_order, several_studies
from mkiso_service.webhook.rights import caller_of

PAGE_SECONDS = 3.0
"""How long a browser waits for a disc before it shows how the job stands."""
LOOK_SECONDS = 5.0
"""How long the PACS has to say that a disc on the shelf is still right, before a job asks it."""
log = logging.getLogger("mkiso.webhook")


class Questions:
    """The endpoints that start jobs or join them."""

    def __init__(
        self,
        settings: Settings,
        orchestrator: Orchestrator,
        jobs: Jobs,
        trail: Trail,
        previews: Previews,
        passwords: Passwords,
        health: Health,
    ) -> None:
        self._settings = settings
        self._orchestrator = orchestrator
        self._jobs = jobs
        self._trail = trail
        self._previews = previews
        self._passwords = passwords
        self._health = health

    async def download(self, request: Request) -> Response:
        """GET /api/iso/download"""
        query = Query(request.scope["query_string"])
        return await self._disc(request, one_study(query, self._settings, _accept(request)), query)

    async def download_multiple(self, request: Request) -> Response:
        """GET /api/iso/download-multiple"""
        query = Query(request.scope["query_string"])
        question = several_studies(query, self._settings, _accept(request))
        return await self._disc(request, question, query)

    async def print(self, request: Request) -> Response:
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
        asked = await self._ask(request, question)
        await self._note(request, question, asked)
        if sender.navigation:
            return RedirectResponse(job_address(asked.job_id), 303, {"cache-control": "no-store"})
        report = await self._answer(request, question, asked)
        if report is None:
            return accepted(request, asked)
        return JSONResponse(sent_body(report, asked), headers={"cache-control": "no-store", **_degraded(report)})

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

    async def _disc(self, request: Request, question: Question, query: Query) -> Response:
        """The disc; of a set the way to it, since the discs of a set have their set's address and no other."""
        part, named = query.part(), query.set()
        form = FORMATS[question.format]
        require_allowed(form, self._settings.disc.encryption)
        if question.deidentified:
            require_copies(self._settings.deidentified, question.selection)
            if "deidentify" not in caller_of(request).rights:
                raise NotAllowed("You may have discs made, and no de-identified copies: an operator may.")
        if named is not None:
            return await self._of_named_set(question, named, part)
        if not form.is_encrypted:
            return await self._answered(request, question, query)
        return await self._with_password(request, question, query)

    async def _with_password(self, request: Request, question: Question, query: Query) -> Response:
        """The answer of a question for an encrypted disc, and the claim by which its password is told, or the password
        itself where the asker says that it will be read there.
        """
        in_header = query.password_in_header()
        is_async = preference_of(request.headers.getlist("prefer")).respond_async
        if request.method != "HEAD" and not (in_header or is_async or is_shown(request)):
            raise InvalidRequest(
                "Nobody would read the password: ask with password=header and read X-Mkiso-Password, or with Prefer: "
                "respond-async and ask for it at the job's address."
            )
        if in_header and query.part() is not None:  # which would lead on to where no password is told
            raise InvalidRequest(
                "Each question for an encrypted disc makes discs of its own: ask without 'part', and take every disc "
                "at the job's address."
            )
        claim = new_claim()
        try:
            return await self._answered(request, replace(question, seal=seal_of(claim)), query, claim)
        except MkisoError as error:
            if "job_id" in error.details:
                error.details["claim"] = claim
            raise

    async def _answered(self, request: Request, question: Question, query: Query, claim: str = "") -> Response:
        """The disc; of a set the way to it. `claim`: of an encrypted one's password."""
        part = query.part()
        known = await asyncio.to_thread(self._sets_told, question) if part else {}
        if request.method == "HEAD":
            report = await asyncio.to_thread(self._young, question)
            if report is None:
                headers = {"accept-ranges": "bytes", "cache-control": "private, no-store"}
                return Response(headers=headers, media_type=FORMATS[question.format].media_type)
        else:
            question, found = await self._previews.confirmed(request, question, query)
            report = await self._still_right(request, question, found)
            asked = Asked(report.job_id) if report else await self._ask(request, question)
            await self._note(request, question, asked)
            waits = is_shown(request) and (part is None or bool(claim)) and "range" not in request.headers
            if report is None or preference_of(request.headers.getlist("prefer")).respond_async:
                report = await self._answer(request, question, asked, PAGE_SECONDS if waits else None)
            if waits and (report is None or claim):  # a person sees how far it is, and gets the disc from there
                return _to_the_job(request, asked, claim)
            if report is None or (claim and not query.password_in_header()):
                return accepted(request, asked, claim)
        discs = await self._jobs.discs(report)
        if part is None or len(discs) == part == 1:
            answer = await self._jobs.disc(request, report, part, just_made=True, by_us=bool(claim))
            if claim and request.method != "HEAD":
                answer.headers["x-mkiso-password"] = await self._passwords.tell(report, claim)
            return answer
        try:
            disc = led_to(discs, part, known, request.headers)
        except OtherSet as error:
            shelf = await asyncio.to_thread(self._sets, question)
            raise OtherSet(error.words, sets=[set_entry(*each) for each in shelf]) from None
        return _see(disc_address(report.job_id, disc.number))

    async def _of_named_set(self, question: Question, named: str, part: int | None) -> Response:
        """The way to a set, or to a disc of it; nothing is made for who has discs of a set already."""
        shelf = await asyncio.to_thread(self._sets, question)
        try:
            discs, job_id = of_named_set(shelf, named, part)
        except OtherSet as error:
            raise OtherSet(error.words, sets=[set_entry(*each) for each in shelf]) from None
        if part is None:
            return _see(job_address(job_id))
        return _see(disc_address(job_id, chosen(discs, part, job_id).number))

    def _sets(self, question: Question) -> list[ToldSet]:
        """The sets of a question that can be had, the newest first, each with a job that serves it."""
        told = self._sets_told(question)
        shelf = whole_sets(manifests(self._settings.storage))
        return [(discs, told[discs[0].set_id]) for discs in shelf if discs[0].set_id in told]

    def _sets_told(self, question: Question) -> dict[str, str]:
        settings, copied = self._asked(question), question.deidentified
        numbers, form, stored = question.accession_numbers, question.format, settings.disc.transfer_syntax
        return sets_told(settings.storage, numbers, form, stored, question.selection, deidentified=copied)

    def _asked(self, question: Question) -> Settings:
        """The settings of a question's disc."""
        return self._settings.as_asked(question.language, question.transfer_syntax)

    async def _ask(self, request: Request, question: Question) -> Asked:
        """The question's job, begun where none is under way."""
        await asyncio.to_thread(require_room, self._settings.storage)
        return await self._orchestrator.ask(question, request_id_of(request.scope))

    async def _still_right(self, request: Request, question: Question, found: Found | None) -> JobReport | None:
        """The job whose discs are on the shelf and hold just what the PACS has now, so that no other one has to find
        that out. None where anything speaks against it: a job then says what.
        """
        young = await asyncio.to_thread(self._young_sets, question)
        if not young:
            return None
        try:
            found = found or await self._previews.look(request, question, "", LOOK_SECONDS)
            if question.shown:
                same_as_shown(found.named, question.shown)
        except MkisoError:
            return None
        fingerprint = disc_fingerprint(found.fingerprint, self._asked(question), FORMATS[question.format])
        discs = next((each for each in young if all(disc.fingerprint == fingerprint for disc in each)), None)
        if discs is None:
            return None
        try:
            report = await asyncio.to_thread(read_report, self._settings.storage, discs[0].job_id)
        except JobNotFound:
            return None
        is_whole = report.is_on_the_shelf and report.disc_ids == tuple(disc.disc_id for disc in discs)
        return report if is_whole else None

    async def _note(self, request: Request, question: Question, asked: Asked) -> None:
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
        by: By = {"own": "page", "program": "program"}.get(sender_of_request(request).kind, "link")  # type: ignore[assignment]
        caller, numbers = caller_of(request), question.accession_numbers
        client = client_of(request)
        who = {"user": caller.user, "name": caller.name}
        asks = asking(client, by, question.kind, numbers, question.publisher, **who, selection=question.selection)
        try:
            write_asking(self._settings.storage, job_id, asks)
        except OSError as error:  # a list without a name is no reason for no disc
            log.warning("Who asked for a job couldn't be written down: %s", error.strerror, extra={"job_id": job_id})

    async def _answer(
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
        report = await self._jobs.end_of(request, asked.job_id, seconds, queued_is_enough=queued_is_enough)
        if report is None and page_seconds is None and not prefers.respond_async:
            words = (
                f"The job takes longer than {limit:g} seconds; it goes on. Ask for its state at the address in 'job'."
            )
            raise DeadlinePassed(words, job_id=asked.job_id, job=job_address(asked.job_id))
        return report

    def _young(self, question: Question) -> JobReport | None:
        """A job that has made a set which is young enough to be served again; None where there is none.

        Download managers, browsers and link checkers send HEAD before GET or instead of it, and none of them asked for
        a job. RFC 9110 9.3.2 lets a server leave out what it would know only by generating the content.
        """
        if question.language:  # nothing tells which language a disc on the shelf is in
            return None
        for discs in self._young_sets(question):
            if self._is_of_inbox(discs[0].job_id):  # no GET gives it
                continue
            ids = tuple(disc.disc_id for disc in discs)
            numbers, chosen = question.accession_numbers, question.selection
            return JobReport(discs[0].job_id, "download", numbers, disc_ids=ids, selection=chosen)
        return None

    def _is_of_inbox(self, job_id: str) -> bool:
        with suppress(JobNotFound):
            return bool(read_report(self._settings.storage, job_id).inbox)
        return False

    def _young_sets(self, question: Question) -> list[tuple[Manifest, ...]]:
        """The sets that were made for these accession numbers a short while ago, the youngest first; none that is
        encrypted, since its password was somebody else's, and none that is de-identified.
        """
        if FORMATS[question.format].is_encrypted or question.deidentified:
            return []
        storage, minutes = self._settings.storage, self._settings.disc.reuse_minutes
        return [
            discs
            for discs in whole_sets(manifests(storage))
            if not discs[0].deidentified
            and set(discs[0].accession_numbers) == set(question.accession_numbers)
            and discs[0].selection == question.selection
            and discs[0].format == question.format
            and discs[0].transfer_syntax == self._asked(question).disc.transfer_syntax
            and all(is_young(storage, disc, minutes) for disc in discs)
        ]


def _accept(request: Request) -> str:
    return ",".join(request.headers.getlist("accept"))


def _see(address: str) -> Response:
    """303: what was asked for is there (RFC 9110 15.4.4). Whoever doesn't follow has no disc, but a body that
    says so.
    """
    body: See = {"see": address}
    return JSONResponse(body, 303, {"location": address, "cache-control": "private, no-store"})


def _to_the_job(request: Request, asked: Asked, claim: str) -> Response:
    """A browser is led to the job's page, where the disc is taken as soon as it is there; with its claim in a cookie of
    that address alone; Lax, since a link on another site's page may lead here, and its password is told to ours alone.
    """
    address = job_address(asked.job_id)
    answer = RedirectResponse(f"{address}?take=true", 303, {"cache-control": "no-store", "vary": "Accept"})
    if claim:
        secure = request.scope["scheme"] == "https"
        answer.set_cookie(CLAIM_COOKIE, claim, path=address, httponly=True, samesite="lax", secure=secure)
    return answer


def accepted(request: Request, asked: Asked, claim: str = "") -> Response:
    """202: the job goes on by itself (RFC 7240 4.1, RFC 9110 15.3.3)."""
    address = job_address(asked.job_id)
    applied = preference_of(request.headers.getlist("prefer")).applied
    headers = {"location": address, "preference-applied": applied, "vary": "Prefer", "cache-control": "no-store"}
    body: Accepted = {"job_id": asked.job_id, "job": address, "state": "waiting", "joined": asked.joined}
    if asked.ended_before:
        body["made_before_minutes"] = minutes_since(asked.ended_before)
    if claim:
        body["claim"] = claim
    return JSONResponse(body, 202, headers)


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
        body["made_before_minutes"] = minutes_since(asked.ended_before)
    return body


def _degraded(report: JobReport) -> dict[str, str]:
    return {"x-mkiso-degraded": ", ".join(report.degraded)} if report.degraded else {}
