"""The counter page: what it is told of the site and of who looks, with its styles, scripts and pictures."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from mkiso.config.section import TransferSyntax
from mkiso.config.settings import Settings
from mkiso.formats.registry import FORMATS
from mkiso.languages import N_
from mkiso_service.webhook.access.callers import Keys
from mkiso_service.webhook.access.onward import HOME, leads_to
from mkiso_service.webhook.access.rights import caller_of
from mkiso_service.webhook.answers.advice import LOOK_FIRST, advices
from mkiso_service.webhook.answers.job_words import STAGES
from mkiso_service.webhook.answers.pages import POLICY, language_of, page_of, sign_in_page

MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_SCRIPTS = "mkiso_service/webhook/page"


class Stored(NamedTuple):
    """What the images of a disc are stored as, and how a clerk is offered it."""

    value: TransferSyntax
    title: str


STORED = (
    Stored("as-archived", N_("With the images as they are archived")),
    Stored("explicit-le", N_("With uncompressed images, for older programs")),
)


class CounterPage:
    """The page for the clerk, shown to whoever may use it; else the door before it."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        prints = settings.disc.encryption != "required"
        publishers = settings.publishers if prints else ()
        names = sorted(publishers, key=lambda name: name != settings.print.publisher)
        self._site = {
            "publishers": names,
            "priors": "ticked" if settings.priors.default else "offered" if settings.priors.count else "",
            "formats": [
                form
                for form in FORMATS.values()
                if (form.is_encrypted or settings.disc.encryption == "allowed")
                and (settings.disc.recipients or not form.has_envelopes)  # which a patient can't open
            ],
            "otherwise": next(each for each in STORED if each.value != settings.disc.transfer_syntax),
            "signs_out": keys.needed,
            "inboxes": bool(settings.inboxes),
            "action": settings.print.default_action if names else "file",
            "asks_birth_date": settings.identity.confirm_birth_date,
        }
        self._keys = keys
        self._has_keys = bool(settings.auth.keys)
        self._files = {
            file.name: file.read_bytes()
            for file in files("mkiso_service.webhook").joinpath("page").iterdir()
            if file.name.rpartition(".")[2] in MEDIA_TYPES
        }

    async def show(self, request: Request) -> Response:
        """GET /"""
        caller = caller_of(request)
        if "list" not in caller.rights:
            return sign_in_page(request, people=not self._keys.on_page)
        address = leads_to(request) if self._keys.needed else HOME
        if address != HOME or "ended" in request.query_params:  # led here by another site, or back; still signed in
            return RedirectResponse(address, 303, {"cache-control": "no-store"})
        spoken = language_of(request)
        told = {
            "words": spoken.words_of(_SCRIPTS),
            "calendar": spoken.calendar,
            "advice": advices(spoken),
            "lookFirst": sorted(LOOK_FIRST),
            "stages": {stage: spoken.gettext(words) for stage, words in STAGES.items()},
        }
        return page_of(
            request,
            "counter.html",
            POLICY,
            "no-cache",
            told=told,
            name=caller.name,
            sees_report=self._keys.needed and "report" in caller.rights,
            sees_keys=self._has_keys and "keys" in caller.rights,
            searches=self._keys.needed and {"search", "disc"} <= caller.rights,
            **self._site,
        )

    async def asset(self, request: Request) -> Response:
        """GET /page/{name}: a style, a script or a picture."""
        name = request.path_params["name"]
        if name not in self._files:
            raise HTTPException(404)
        headers = {"content-security-policy": POLICY, "cache-control": "no-cache", "x-frame-options": "DENY"}
        return Response(self._files[name], headers=headers, media_type=MEDIA_TYPES[name.rpartition(".")[2]])
