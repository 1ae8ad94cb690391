"""The pages: the counter page at / with its sign-in, and pages without a script for a person whom a link has led to the
API. Each is in the browser's language, and served with a policy that lets nothing else in.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode

from jinja2 import Environment
from markupsafe import Markup, escape
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from mkiso.config.section import TransferSyntax
from mkiso.config.settings import Settings
from mkiso.errors import InvalidRequest, ProviderUnavailable, SignInFailed, Unauthorized, kinds
from mkiso.formats.registry import FORMATS
from mkiso.languages import N_, Language, language, languages, wanted
from mkiso.languages.templates import environment
from mkiso.storage.report import numbers_on
from mkiso.study.identity import iso_date
from mkiso.study.priors import WORDS, words_of
from mkiso.study.question import Question
from mkiso_service.api import Dependency, InboxStates, Job, Ordered, Preview, WhoMade
from mkiso_service.counting import ago, counted
from mkiso_service.display import size_words
from mkiso_service.webhook.access import (
    SESSION_COOKIE,
    SESSION_SECONDS,
    Keys,
    Sessions,
    request_id_of,
    sender_of_request,
)
from mkiso_service.webhook.advice import LOOK_FIRST, advice, advices, must_look
from mkiso_service.webhook.orchestrator import SUSPENDED
from mkiso_service.webhook.query import form_of
from mkiso_service.webhook.rights import caller_of, right_of

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
MAX_FORM_BYTES = 4096
WRONG_KEY_SECONDS = 1.0  # slows down guessing
PLAIN_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
REFRESH_SECONDS = 2
_STATES = {"waiting": N_("Waiting"), "running": N_("Working"), "done": N_("Ready"), "failed": N_("Failed")}
STAGES = MappingProxyType(
    {
        "waiting": N_("Waiting for its turn"),
        SUSPENDED: N_("Halted by an operator; it goes on when they resume it"),
        "starting": N_("Starting"),
        "found": N_("Studies found"),
        "retrieving": N_("Fetching images"),
        "complete": N_("All images are here"),
        "converting images": N_("Converting images"),
        "de-identifying": N_("De-identifying"),
        "making pictures": N_("Making pictures for viewing"),
        "laying out": N_("Putting the disc together"),
        "mastering": N_("Writing the disc file"),
        "reading back": N_("Checking the disc file"),
    }
)
"""What a job does, by the name of its stage in the service."""
_OF_SIGN_IN = (Unauthorized.code, SignInFailed.code, ProviderUnavailable.code)
_SEXES = MappingProxyType({"F": N_("female"), "M": N_("male"), "O": N_("other")})
_LACKS = MappingProxyType(
    {
        "patient_api": N_("The hospital's patient data wasn't available; the disc has the name from the PACS."),
        "counts_unknown": N_("The PACS doesn't say how many images there are: check that none is missing."),
        "completeness_not_proven": N_("No PACS was asked how many images there are: check that none is missing."),
        "source_down": N_("The PACS %(source)s couldn't be asked: it may have more images."),
        "sources_differ": N_(
            "The PACS %(source)s has other images or other data of a study; the disc has what the most complete PACS "
            "has."
        ),
    }
)
"""What a disc is made without; some are followed by a colon and the source's name."""
_SCRIPTS = "mkiso_service/webhook/page"


def language_of(request: Request) -> Language:
    """The language that the asker's browser wants, else the site's discs'."""
    accepted = request.headers.get("accept-language", "")
    return language(wanted(accepted, languages(), request.app.state.language))


class Stored(NamedTuple):
    """What the images of a disc are stored as, and how a clerk is offered it."""

    value: TransferSyntax
    title: str


STORED = (
    Stored("as-archived", N_("With the images as they are archived")),
    Stored("explicit-le", N_("With uncompressed images, for older programs")),
)


class CounterPage:
    """The page for the clerk, shown to whoever may use it, and the door before it."""

    def __init__(self, settings: Settings, keys: Keys, sessions: Sessions) -> None:
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
        self._sessions = sessions
        self._files = {
            file.name: file.read_bytes()
            for file in files("mkiso_service.webhook").joinpath("page").iterdir()
            if file.name.rpartition(".")[2] in MEDIA_TYPES
        }

    async def show(self, request: Request) -> Response:
        """GET /"""
        caller = caller_of(request)
        if "list" not in caller.rights:
            return _sign_in_page(request, people=not self._keys.on_page)
        spoken = language_of(request)
        told = {
            "words": spoken.words_of(_SCRIPTS),
            "advice": advices(spoken),
            "lookFirst": sorted(LOOK_FIRST),
            "stages": {stage: spoken.gettext(words) for stage, words in STAGES.items()},
        }
        return _page(
            request,
            "counter.html",
            POLICY,
            "no-cache",
            told=told,
            name=caller.name,
            sees_report=self._keys.needed and "report" in caller.rights,
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

    async def sign_in(self, request: Request) -> Response:
        """POST /session with `key`: the cookie and back to the page. No other site's form gets this far
        (Sec-Fetch-Site, Origin).
        """
        if not _own(request):
            raise InvalidRequest("Signing in works from this service's own page only.")
        if not self._keys.on_page:
            raise InvalidRequest("This page takes no key: people sign in at the site's provider.")
        key = parse_qs((await form_of(request, MAX_FORM_BYTES)).decode("utf-8", "replace")).get("key", [""])[0].strip()
        if not self._keys.right(key.encode()):
            await asyncio.sleep(WRONG_KEY_SECONDS)
            return _sign_in_page(request, wrong=True)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            SESSION_COOKIE,
            self._sessions.begin(),
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.scope["scheme"] == "https",
        )
        return answer

    async def sign_out(self, request: Request) -> Response:
        """POST /session/end"""
        answer = RedirectResponse("/", 303)
        if _own(request):
            answer.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
        return answer


def _own(request: Request) -> bool:
    return sender_of_request(request).kind != "foreign"


def _sign_in_page(request: Request, *, wrong: bool = False, people: bool = False) -> HTMLResponse:
    answer = _page(request, "sign-in.html", POLICY, "no-cache", wrong=wrong, people=people)
    answer.status_code = 401 if wrong else 200
    return answer


def onward_page(request: Request, address: str) -> HTMLResponse:
    """Leads on at once. A redirect would be the other site's doing, and the browser would keep our cookie to itself
    (SameSite=Strict); and from a form it would be held back (form-action).
    """
    answer = _page(request, "onward.html", address=address)
    answer.headers["refresh"] = f"0; url={address}"
    return answer


def print_page(
    request: Request,
    question: Question,
    told: Preview | None = None,
    robot: Dependency | None = None,
    *,
    birth_date: str = "",
    copies: int = 1,
    publishers: Collection[str] = (),
) -> HTMLResponse:
    """Whose disc it would be, and whether to have it made; without `told` it asks for the birth date first. Its button
    posts to the page's address, since nginx may add the key there, and orders a disc of who is on it and of nobody
    else. Of `publishers` the others have links to a page like this.
    """
    order = {"accession_number": ",".join(question.accession_numbers), "publisher": question.publisher}
    order |= {"language": question.language} if question.language else {}
    order |= {"transfer_syntax": question.transfer_syntax} if question.transfer_syntax else {}
    order |= {"confirm_reprint": "true"} if question.confirm_reprint else {}
    if told:
        order["shown"] = told["shown"]
    pairs = [
        *order.items(),
        *(("study_uid", uid) for uid in question.selection.studies),
        *(("series_uid", uid) for uid in question.selection.series),
        ("priors", str(question.selection.priors).lower()),
    ]
    kept = [(name, value) for name, value in pairs if name not in ("publisher", "confirm_reprint", "shown")]
    others = {name: urlencode([*kept, ("publisher", name)]) for name in publishers if name != question.publisher}
    spoken = language_of(request)
    ordered = told["ordered"] if told else None
    return _page(
        request,
        "print.html",
        question=question,
        told=told,
        before=ordered and _ordered_before(ordered, spoken),
        robot=robot,
        label=told["labels"].get(question.publisher) if told else None,
        pairs=pairs,
        query=urlencode(pairs),
        birth_date=birth_date,
        copies=copies,
        others=others,
        counted=counted,
        iso_date=iso_date,
        sexes=_SEXES,
        without=_without(told["degraded"] if told else (), spoken),
    )


def _without(degraded: Sequence[str], spoken: Language) -> list[str]:
    """What a disc is made without, in words."""
    others = [lack.partition(":") for lack in degraded if lack not in WORDS]
    return [
        *map(spoken.gettext, words_of(degraded)),
        *(
            spoken.gettext(_LACKS[kind], source=source)
            if kind in _LACKS
            else spoken.gettext("Made without %(lack)s.", lack=kind.replace("_", " "))
            for kind, _, source in others
        ),
    ]


def _ordered_before(ordered: Ordered, spoken: Language) -> str:
    return spoken.ngettext(
        "This disc was ordered %(number)s time before: %(facts)s.",
        "This disc was ordered %(number)s times before, last: %(facts)s.",
        ordered["orders"],
        facts=", ".join((ago(ordered["minutes"], spoken), ordered["publisher"], *ordered["who"])),
    )


def error_page(request: Request, status: int, words: str, code: str) -> HTMLResponse:
    """What went wrong, for a person whom a link or an address has led here."""
    request_id, signs_in = request_id_of(request.scope), code in _OF_SIGN_IN
    spoken = language_of(request)
    path = request.scope["path"]
    told = {
        "title": spoken.gettext(_error_title(path, signs_in=signs_in)),
        "advice": advice(code, spoken, look=right_of(path) == "print" and must_look("print", code)),
        "words": words,
    }
    answer = _page(request, "error.html", **told, code=code, request_id=request_id, signs_in=signs_in)
    answer.status_code = status
    answer.headers["vary"] = "Accept, Accept-Language"
    return answer


def _error_title(path: str, *, signs_in: bool) -> str:
    if signs_in:
        return N_("Not signed in")
    return N_("No disc") if right_of(path) in ("disc", "print") else N_("That didn't work")


def docs_page(request: Request, description: Mapping[str, Any]) -> HTMLResponse:
    """The OpenAPI description for people: each address, what it takes, and what it answers."""
    return _page(request, "docs.html", cache_control="no-cache", **_operations(description))


def _operations(description: Mapping[str, Any]) -> dict[str, Any]:
    def resolved(part: Any) -> Any:
        while isinstance(part, Mapping) and "$ref" in part:
            at: Any = description
            for step in part["$ref"].removeprefix("#/").split("/"):
                at = at[step]
            part = at
        return part

    operations = [
        {
            "method": method.upper(),
            "path": path,
            "summary": _marked(told.get("summary", "")),
            "description": _marked(told.get("description", "")),
            "parameters": [
                _parameter(each, resolved(each.get("schema", {})))
                for each in map(resolved, [*methods.get("parameters", ()), *told.get("parameters", ())])
            ],
            "answers": {
                status: _marked(resolved(answer)["description"]) for status, answer in told["responses"].items()
            },
        }
        for path, methods in description["paths"].items()
        for method, told in methods.items()
        if method in ("get", "post")
    ]
    about = _marked(description["info"]["description"])
    return {"about": about, "operations": operations, "codes": kinds()}


def _marked(words: str) -> Markup:
    """Text in which what stands between back quotes is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(words))))  # noqa: S704  escaped before


def _parameter(told: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    marks = ["needed"] * bool(told.get("required")) + ["header"] * (told["in"] == "header")
    words = [told.get("description", "").rstrip(".")]
    if "enum" in schema:
        words.append(f"One of {', '.join(map(str, schema['enum']))}")
    if "maxLength" in schema:
        words.append(f"At most {schema['maxLength']} characters")
    return {
        "name": told["name"],
        "marks": marks,
        "words": _marked(". ".join(filter(None, words))),
        "pattern": schema.get("pattern", ""),
    }


def choice_page(
    request: Request,
    status: int,
    words: str,
    *,
    discs: Sequence[str] = (),
    sets: Sequence[tuple[str, int, str]] = (),
) -> HTMLResponse:
    """The discs of a set, by their addresses; or sets: the address of each, its discs, and when it was made."""
    answer = _page(request, "choice.html", words=words, discs=discs, sets=sets)
    answer.status_code = status
    answer.headers["vary"] = "Accept, Accept-Language"
    return answer


def password_page(request: Request, password: str) -> HTMLResponse:
    """The password of an encrypted disc, this once."""
    return _page(request, "password.html", password=password)


def job_page(
    request: Request, job: Job, robot: Dependency | None = None, *, take: bool = False, has_claim: bool = False
) -> HTMLResponse:
    """How a job stands; it asks again by itself until the job has ended. `robot`: how the publisher is that has its
    order. `take`: the disc is wanted, so its download begins as soon as it is there. `has_claim`: the browser may ask
    for the disc's password.
    """
    spoken = language_of(request)
    moving = job.state in ("waiting", "running")
    answer = _page(
        request,
        "job.html",
        job=job,
        numbers=numbers_on(job),
        state=spoken.gettext(_STATES[job.state]),
        words=_words(job, spoken, robot),
        advice=_advice(job, spoken),
        moving=moving,
        without=_without(job.degraded, spoken),
        has_password=has_claim and job.state == "done",
        size_words=size_words,
    )
    answer.headers["vary"] = "Accept, Accept-Language"
    if moving:
        answer.headers["refresh"] = str(REFRESH_SECONDS)
    elif take and len(job.discs) == 1:
        answer.headers["refresh"] = f"0; url={job.job_id}/disc?part={job.discs[0].part}"
    return answer


def made_page(request: Request, told: WhoMade) -> HTMLResponse:
    """Who made what."""
    spoken = language_of(request)
    answer = _page(request, "made.html", states={key: spoken.gettext(words) for key, words in _STATES.items()}, **told)
    answer.headers["vary"] = "Accept, Accept-Language"
    return answer


def inboxes_page(request: Request, told: InboxStates) -> HTMLResponse:
    """How each inbox stands."""
    answer = _page(request, "inboxes.html", **told)
    answer.headers["vary"] = "Accept, Accept-Language"
    return answer


def _words(job: Job, spoken: Language, robot: Dependency | None) -> str:
    if job.state == "failed":
        error = job.error or {"error": "The job failed.", "code": "error"}
        return f"{error['error']} ({error['code']})"
    moved, expected = job.written or job.received, job.expected
    modalities = {modality for study in job.studies for modality in study.modalities}
    images = counted(moved, modalities, expected if expected and moved != expected else None, spoken)
    if job.proves == "done":
        return spoken.gettext("%(publisher)s has made the disc: %(images)s.", publisher=job.publisher, images=images)
    if job.proves and robot and not robot["ok"]:
        words = "%(publisher)s has the order (%(images)s), but something is wrong there: %(detail)s"
        return spoken.gettext(words, publisher=job.publisher, images=images, detail=robot["detail"])
    if job.proves:
        return spoken.gettext("%(publisher)s has everything: %(images)s.", publisher=job.publisher, images=images)
    if job.state == "running":
        return spoken.gettext("%(stage)s: %(images)s.", stage=_stage(job, spoken), images=images)
    return spoken.gettext("The disc is ready.") if job.state == "done" else spoken.gettext("Waiting for its turn.")


def _advice(job: Job, spoken: Language) -> str:
    """What to do about a failed job."""
    if job.state != "failed" or not job.error:
        return ""
    code = job.error["code"]
    return advice(code, spoken, look=must_look(job.kind, code, job.proves))


def _stage(job: Job, spoken: Language) -> str:
    """A stage names what it is from or how far it is: retrieving from MRI."""
    name = re.split(r" from | \(", job.stage)[0]
    return spoken.gettext(STAGES[name]) if name in STAGES else f"{job.stage[:1].upper()}{job.stage[1:]}"


def _page(
    request: Request, template: str, policy: str = PLAIN_POLICY, cache_control: str = "no-store", **facts: Any
) -> HTMLResponse:
    headers = {
        "cache-control": cache_control,
        "content-security-policy": policy,
        "x-frame-options": "DENY",
        "vary": "Accept-Language",
    }
    page = _templates().get_template(template).render(language=language_of(request), **facts)
    return HTMLResponse(page, headers=headers)


@cache
def _templates() -> Environment:
    return environment("mkiso_service.webhook", "page", trim_blocks=True)
