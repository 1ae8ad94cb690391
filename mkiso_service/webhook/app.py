"""The webhook's application, put together from what it is handed: addresses, middleware, errors."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import cache, partial

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mkiso.config.settings import Settings
from mkiso.errors import OrchestratorUnavailable, OtherSet, SeveralDiscs
from mkiso.storage.kept_reports import KeptReports
from mkiso.storage.key_use import KeyUse
from mkiso.storage.sessions import PersonSessions
from mkiso_service.prefect.orchestrator import Orchestrator
from mkiso_service.webhook.access.callers import Keys, Sessions, session_of
from mkiso_service.webhook.access.rights import require_rows
from mkiso_service.webhook.answers.errors import HANDLERS
from mkiso_service.webhook.answers.json_answers import Json
from mkiso_service.webhook.answers.pages import job_page
from mkiso_service.webhook.audit import Trail
from mkiso_service.webhook.counter.inboxes import Inboxes
from mkiso_service.webhook.counter.keys import KeyReport
from mkiso_service.webhook.counter.listing import JobList
from mkiso_service.webhook.counter.made import MadeReport
from mkiso_service.webhook.counter.page import CounterPage
from mkiso_service.webhook.counter.signing_in import SigningIn
from mkiso_service.webhook.description import description_of, docs_page
from mkiso_service.webhook.discs.asked_jobs import AskedJobs
from mkiso_service.webhook.discs.disc_sets import answer_several
from mkiso_service.webhook.discs.downloads import Downloads
from mkiso_service.webhook.discs.jobs import ClientGone, Jobs
from mkiso_service.webhook.discs.letters import Letters
from mkiso_service.webhook.discs.passwords import CLAIM_COOKIE, Passwords
from mkiso_service.webhook.discs.prints import Prints
from mkiso_service.webhook.health import Health
from mkiso_service.webhook.metrics import CONTENT_TYPE, Metrics
from mkiso_service.webhook.middleware import (
    AccessLog,
    Authentication,
    OneReading,
    Recovery,
    RequestId,
    Senders,
    StorageGuard,
)
from mkiso_service.webhook.questions.preview import Previews
from mkiso_service.webhook.questions.query import Query
from mkiso_service.webhook.questions.searching import Searches


def build_app(settings: Settings, orchestrator: Orchestrator, closing: asyncio.Event | None = None) -> Starlette:
    """The application. `closing` is set when it is about to stop: whoever waits for a job is then told where to ask
    again.
    """
    people = PersonSessions(settings.storage, settings.sign_in)
    keys = Keys(settings.auth, people_sign_in=bool(settings.sign_in.issuer))
    sessions = Sessions(keys)
    key_use = KeyUse(settings.storage)
    kept = KeptReports(settings.storage)
    metrics = Metrics(kept)
    trail = Trail(settings)
    jobs = Jobs(settings, orchestrator, trail, closing or asyncio.Event())
    job_list = JobList(kept, orchestrator, jobs, trail, tells_birth_date=not settings.identity.confirm_birth_date)
    passwords = Passwords(settings.storage, jobs, trail)
    letters = Letters(settings, jobs, trail, passwords)
    made = MadeReport(kept, orchestrator, trail)
    previews = Previews(settings, trail)
    searches = Searches(settings, trail)
    health_of = Health(settings, orchestrator)
    asked = AskedJobs(settings, orchestrator, jobs, trail)
    downloads = Downloads(settings, kept, jobs, asked, previews, passwords)
    prints = Prints(settings, asked, previews, health_of)
    page = CounterPage(settings, keys)
    signing_in = SigningIn(settings, people, keys, sessions, trail)
    described = cache(partial(description_of, settings))  # when somebody asks: it takes ten times all else
    measuring = asyncio.Lock()

    async def health(request: Request) -> Response:
        return Json(await health_of.answer(), headers={"cache-control": "no-store"})

    async def openapi(request: Request) -> Response:
        return Json(await asyncio.to_thread(described))

    async def docs(request: Request) -> Response:
        return docs_page(request, await asyncio.to_thread(described))

    async def measured(request: Request) -> Response:
        health = await health_of.answer()
        well = {name: each["ok"] for name, each in health["dependencies"].items()}
        try:
            queued: int | None = await orchestrator.queued()
        except OrchestratorUnavailable:
            queued = None
        async with measuring:  # the first look may take minutes: who comes meanwhile waits for it without a thread
            told = await asyncio.to_thread(metrics.text, settings.storage, queued, well)
        return Response(told, headers={"content-type": CONTENT_TYPE})

    async def job(request: Request) -> Response:
        told = await jobs.describe(request.path_params["job_id"])
        if "text/html" in request.headers.get("accept", ""):
            take = Query(request.scope["query_string"]).yes("take")
            is_ordered = told.proves == "queued" and told.publisher in settings.publishers
            robot = await health_of.publisher(told.publisher) if is_ordered else None
            return job_page(request, told, robot, take=take, has_claim=bool(session_of(request, CLAIM_COOKIE)))
        return Json(asdict(told), headers={"cache-control": "no-store", "vary": "Accept"})

    async def cancel(request: Request) -> Response:
        return Json(asdict(await jobs.cancel(request)), headers={"cache-control": "no-store"})

    async def disc(request: Request) -> Response:
        part = Query(request.scope["query_string"]).part()
        return await jobs.disc(request, await jobs.finished(request.path_params["job_id"]), part)

    app = Starlette(
        routes=[
            Route("/", page.show),
            Route("/page/{name}", page.asset),
            Route("/session", signing_in.by_key, methods=["POST"]),
            Route("/docs", docs),
            Route("/session/begin", signing_in.begin),
            Route("/session/callback", signing_in.finish),
            Route("/session/end", signing_in.end, methods=["POST"]),
            Route("/metrics", measured),
            Route("/api/health", health),
            Route("/api/openapi.json", openapi),
            Route("/api/studies", searches.show),
            Route("/api/keys", KeyReport(settings.auth, key_use).show),
            Route("/api/inboxes", Inboxes(settings).show),
            Route("/api/iso/preview", previews.show),
            Route("/api/iso/download", downloads.one),
            Route("/api/iso/download-multiple", downloads.several),
            Route("/api/iso/print", prints.order, methods=["GET", "POST"]),
            Route("/api/iso/jobs", job_list.show),
            Route("/api/iso/made", made.show),
            Route("/api/iso/jobs/{job_id}", job),
            Route("/api/iso/jobs/{job_id}/cancel", cancel, methods=["POST"]),
            Route("/api/iso/jobs/{job_id}/disc", disc),
            Route("/api/iso/jobs/{job_id}/letter.pdf", letters.show, methods=["GET", "POST"]),
            Route("/api/iso/jobs/{job_id}/password", passwords.show, methods=["POST"]),
        ],
        middleware=[
            Middleware(Recovery),
            Middleware(RequestId),
            Middleware(AccessLog, metrics=metrics),
            Middleware(OneReading),
            Middleware(Senders, server=settings.server, trail=trail),
            Middleware(StorageGuard, storage=settings.storage),
            Middleware(Authentication, keys=keys, sessions=sessions, people=people, key_use=key_use, trail=trail),
        ],
        exception_handlers={
            **HANDLERS,
            SeveralDiscs: answer_several,
            OtherSet: answer_several,
            ClientGone: _nobody,
            ClientDisconnect: _nobody,
        },
    )
    require_rows(app.routes)
    app.state.language = settings.disc.language
    app.router.redirect_slashes = False  # such a Location is made of whatever Host the client has named
    return app


async def _nobody(request: Request, error: Exception) -> Response:
    """Nobody reads this; 499 stands in the log (nginx's word for a client that went away)."""
    return Response(status_code=499)
