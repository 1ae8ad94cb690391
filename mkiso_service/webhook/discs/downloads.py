"""The questions for a disc file, download and download-multiple, with the sets and passwords that come of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from mkiso.config.settings import Settings
from mkiso.deidentify.profile import require_copies
from mkiso.errors import InvalidRequest, MkisoError, NotAllowed, OtherSet
from mkiso.formats.registry import FORMATS, require_allowed
from mkiso.formats.reuse import kept_sets, right_report, sets_told_of, young_report, young_sets
from mkiso.storage.handover import new_claim, seal_of
from mkiso.storage.kept_reports import KeptReports
from mkiso.storage.report import JobReport
from mkiso.study.question import Question
from mkiso.study.values import Found
from mkiso_service.api import See
from mkiso_service.prefect.orchestrator import Asked
from mkiso_service.webhook.access.rights import caller_of
from mkiso_service.webhook.answers.errors import disc_address, is_shown, job_address
from mkiso_service.webhook.answers.json_answers import Json
from mkiso_service.webhook.answers.pages import birth_date_page
from mkiso_service.webhook.discs.asked_jobs import AskedJobs, accepted
from mkiso_service.webhook.discs.disc_sets import chosen, led_to, of_named_set, refuse_rest, set_entry
from mkiso_service.webhook.discs.jobs import Jobs
from mkiso_service.webhook.discs.passwords import CLAIM_COOKIE, Passwords
from mkiso_service.webhook.questions.negotiation import preference_of
from mkiso_service.webhook.questions.preview import Previews
from mkiso_service.webhook.questions.query import Query, one_study, several_studies

PAGE_SECONDS = 3.0
"""How long a browser waits for a disc before it shows how the job stands."""
LOOK_SECONDS = 5.0
"""How long the PACS has to say that a disc on the shelf is still right, before a job asks it."""
_ONES_OWN = "Each question for {} makes discs of its own: ask without 'part', and take every disc at the job's address."


class Downloads:
    """Answers with a disc, with the way to one, or with the job that makes it."""

    def __init__(
        self,
        settings: Settings,
        kept: KeptReports,
        jobs: Jobs,
        asked: AskedJobs,
        previews: Previews,
        passwords: Passwords,
    ) -> None:
        self._settings = settings
        self._kept = kept
        self._jobs = jobs
        self._asked = asked
        self._previews = previews
        self._passwords = passwords

    async def one(self, request: Request) -> Response:
        """GET /api/iso/download"""
        query = Query(request.scope["query_string"])
        return await self._disc(request, one_study(query, self._settings, _accept(request)), query)

    async def several(self, request: Request) -> Response:
        """GET /api/iso/download-multiple"""
        query = Query(request.scope["query_string"])
        question = several_studies(query, self._settings, _accept(request))
        return await self._disc(request, question, query)

    async def _disc(self, request: Request, question: Question, query: Query) -> Response:
        """The disc; of a set the way to it, since the discs of a set have their set's address and no other."""
        part, named = query.part(), query.set()
        form = FORMATS[question.format]
        require_allowed(form, self._settings.disc.encryption)
        if question.deidentified:
            require_copies(self._settings.deidentified, question.selection)
            if "deidentify" not in caller_of(request).rights:
                raise NotAllowed("You may have discs made, and no de-identified copies: an operator may.")
            if part is not None and named is None:
                raise InvalidRequest(_ONES_OWN.format("a de-identified copy"))
        if is_shown(request) and self._settings.identity.confirm_birth_date and not query.birth_date():
            return birth_date_page(request, question, [pair for pair in query.pairs if pair[0] != "birth_date"])
        if named is not None or request.method == "HEAD":  # what is on the shelf has addresses that lead to it
            await self._previews.confirmed(request, question, query)
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
            raise InvalidRequest(_ONES_OWN.format("an encrypted disc"))
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
        known = await asyncio.to_thread(sets_told_of, self._settings, self._kept, question) if part else {}
        if request.method == "HEAD":  # starts no job: RFC 9110 9.3.2 lets us leave out what a job would tell
            report = await asyncio.to_thread(young_report, self._settings, question)
            if report is None:
                headers = {"accept-ranges": "bytes", "cache-control": "private, no-store"}
                bare = Response(headers=headers, media_type=FORMATS[question.format].media_type)
                del bare.headers["content-length"]  # nobody knows it yet, and it isn't 0 (RFC 9110 8.6)
                return bare
        else:
            question, found = await self._previews.confirmed(request, question, query)
            report = await self._still_right(request, question, found)
            asked = Asked(report.job_id) if report else await self._asked.ask(request, question)
            await self._asked.note(request, question, asked)
            waits = is_shown(request) and (part is None or bool(claim)) and "range" not in request.headers
            if report is None or preference_of(request.headers.getlist("prefer")).respond_async:
                report = await self._asked.end(request, question, asked, PAGE_SECONDS if waits else None)
            if waits and (report is None or claim):  # a person sees how far it is, and gets the disc from there
                return _to_the_job(request, asked, claim)
            if report is None or (claim and not query.password_in_header()):
                return accepted(request, asked, claim)
        discs = await self._jobs.discs(report)
        alone = part is None or len(discs) == part == 1
        try:
            disc = chosen(discs, part, report.job_id) if part is None or alone else led_to(discs, part, known)
            refuse_rest(request.headers, disc)
        except OtherSet as error:
            shelf = await asyncio.to_thread(kept_sets, self._settings, self._kept, question)
            raise OtherSet(error.words, sets=[set_entry(*each) for each in shelf]) from None
        if not alone:
            return _see(disc_address(report.job_id, disc.number))
        answer = await self._jobs.disc(request, report, part, by_us=bool(claim))
        if claim and request.method != "HEAD":
            answer.headers["x-mkiso-password"] = await self._passwords.tell(report, claim)
        return answer

    async def _of_named_set(self, question: Question, named: str, part: int | None) -> Response:
        """The way to a set, or to a disc of it; nothing is made for who has discs of a set already."""
        shelf = await asyncio.to_thread(kept_sets, self._settings, self._kept, question)
        try:
            discs, job_id = of_named_set(shelf, named, part)
        except OtherSet as error:
            raise OtherSet(error.words, sets=[set_entry(*each) for each in shelf]) from None
        if part is None:
            return _see(job_address(job_id))
        return _see(disc_address(job_id, chosen(discs, part, job_id).number))

    async def _still_right(self, request: Request, question: Question, found: Found | None) -> JobReport | None:
        """The job whose discs are on the shelf and hold just what the PACS has now, so that no other one has to find
        that out. None where anything speaks against it: a job then says what.
        """
        young = await asyncio.to_thread(young_sets, self._settings, question)
        if not young:
            return None
        try:
            found = found or await self._previews.look(request, question, "", LOOK_SECONDS)
        except MkisoError:
            return None
        return await asyncio.to_thread(right_report, self._settings, question, found, young)


def _accept(request: Request) -> str:
    return ",".join(request.headers.getlist("accept"))


def _see(address: str) -> Response:
    """303: what was asked for is there (RFC 9110 15.4.4). Whoever doesn't follow has no disc, but a body that
    says so.
    """
    body: See = {"see": address}
    return Json(body, 303, {"location": address, "cache-control": "private, no-store"})


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
