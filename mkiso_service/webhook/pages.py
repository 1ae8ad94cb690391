"""The pages: the counter page at / with its sign-in, and pages without a script for a person whom a link has led to the
API. Each is served with a policy that lets nothing else in.
"""

from __future__ import annotations

import asyncio
import json
from html import escape
from importlib.resources import files
from urllib.parse import parse_qs, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from mkiso.config.settings import Settings
from mkiso.errors import InvalidRequest
from mkiso_service.api import Job
from mkiso_service.counting import counted
from mkiso_service.display import size_words
from mkiso_service.webhook.access import SESSION_COOKIE, SESSION_SECONDS, Keys, Sessions, sender_of_request, session_of
from mkiso_service.webhook.question import Question, form_of

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
MAX_FORM_BYTES = 4096
WRONG_KEY_SECONDS = 1.0  # slows down guessing
PLAIN_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
REFRESH_SECONDS = 2
_STATES = {"waiting": "Waiting", "running": "Working", "done": "Ready", "failed": "Failed"}


class CounterPage:
    """The page for the clerk, shown to whoever may use it, and the door before it."""

    def __init__(self, settings: Settings, keys: Keys, sessions: Sessions) -> None:
        names = sorted(settings.publishers, key=lambda name: name != settings.print.publisher)
        self._state = f'data-publishers="{escape(json.dumps(names))}"' + (' data-sign-out="yes"' if keys.needed else "")
        self._state += f' data-action="{settings.print.default_action if names else "file"}"'
        if settings.identity.confirm_birth_date:
            self._state += ' data-birth-date="yes"'
        self._keys = keys
        self._sessions = sessions
        self._files = {
            file.name: file.read_bytes()
            for file in files("mkiso_service.webhook").joinpath("page").iterdir()
            if file.is_file()
        }

    async def show(self, request: Request) -> Response:
        """GET /"""
        signed_in = not self._keys.needed or self._sessions.valid(session_of(request))
        return self._file("counter.html", state=self._state) if signed_in else self._file("sign-in.html")

    async def asset(self, request: Request) -> Response:
        """GET /page/{name}: a style, a script or a picture."""
        return self._file(request.path_params["name"])

    async def sign_in(self, request: Request) -> Response:
        """POST /session with `key`: the cookie and back to the page. No other site's form gets this far
        (Sec-Fetch-Site, Origin).
        """
        if not _own(request):
            raise InvalidRequest("Signing in works from this service's own page only.")
        key = parse_qs((await form_of(request, MAX_FORM_BYTES)).decode("utf-8", "replace")).get("key", [""])[0].strip()
        if not self._keys.right(key.encode()):
            await asyncio.sleep(WRONG_KEY_SECONDS)
            return self._file("sign-in.html", status=401, state='data-wrong="yes"')
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

    def _file(self, name: str, *, status: int = 200, state: str = "") -> Response:
        content = self._files.get(name)
        ending = name.rpartition(".")[2]
        if content is None or ending not in MEDIA_TYPES:
            raise HTTPException(404)
        if ending == "html":
            content = content.replace(b"<!--state-->", state.encode())
        headers = {"content-security-policy": POLICY, "cache-control": "no-cache", "x-frame-options": "DENY"}
        return Response(content, status, headers, MEDIA_TYPES[ending])


def _own(request: Request) -> bool:
    return sender_of_request(request).kind != "foreign"


def print_page(question: Question) -> HTMLResponse:
    """Asks whether to print. Its button posts to the page's address: nginx may add the key there."""
    order = {"accession_number": ",".join(question.accession_numbers), "publisher": question.publisher}
    order |= {name: text for name, text in (("shown", question.shown), ("language", question.language)) if text}
    remark = ""
    if question.confirm_reprint:
        order["confirm_reprint"] = "true"
        remark = '<p class="remark">It prints although an earlier print ended unclear: look at the publisher first.</p>'
    numbers = f'<strong class="numbers">{escape(", ".join(question.accession_numbers))}</strong>'
    return _page(
        "Print a disc?",
        f'<form method="post" action="?{escape(urlencode(order))}">'
        f"<p>A link asks for a disc of {numbers} from the publisher {escape(question.publisher)}.</p>{remark}"
        '<div class="buttons"><button type="submit">Print the disc</button></div></form>',
    )


def error_page(status: int, words: str, code: str, request_id: str) -> HTMLResponse:
    """What went wrong, for a person whom a link or an address has led here."""
    cause = f"Code {escape(code)}, request {escape(request_id)}." if request_id else f"Code {escape(code)}."
    answer = _page(
        "No disc",
        f'<div class="job failed"><p class="words">{escape(words)}</p>'
        f'<details class="cause"><summary>For the administrator</summary><p>{cause}</p></details></div>',
    )
    answer.status_code = status
    answer.headers["vary"] = "Accept"
    return answer


def job_page(job: Job, *, take: bool = False) -> HTMLResponse:
    """How a job stands; it asks again by itself until the job has ended. `take`: the disc is wanted, so its download
    begins as soon as it is there.
    """
    links = "".join(
        f'<li><a href="{escape(job.job_id)}/disc?part={disc.part}">Download {escape(disc.filename)} '
        f"({size_words(disc.size)})</a></li>"
        for disc in job.discs
    )
    moving = job.state in ("waiting", "running")
    bar = f'<progress max="1" value="{job.progress}" aria-label="Progress"></progress>' if moving else ""
    answer = _page(
        "Patient disc",
        f'<div class="job {job.state}">'
        f'<div class="head"><strong class="numbers">{escape(", ".join(job.accession_numbers))}</strong>'
        f'<span class="state">{_STATES[job.state]}</span></div>'
        f'<p class="words">{escape(_words(job))}</p>{bar}<ul class="discs">{links}</ul></div>',
    )
    answer.headers["vary"] = "Accept"
    if moving:
        answer.headers["refresh"] = str(REFRESH_SECONDS)
    elif take and len(job.discs) == 1:
        answer.headers["refresh"] = f"0; url={job.job_id}/disc?part={job.discs[0].part}"
    return answer


def _words(job: Job) -> str:
    moved, expected = job.written or job.received, job.expected
    modalities = {modality for study in job.studies for modality in study.modalities}
    images = counted(moved, modalities, expected if expected and moved != expected else None)
    if job.state == "failed":
        error = job.error or {"error": "The job failed.", "code": "error"}
        return f"{error['error']} ({error['code']})"
    if job.proves:
        has = "has made the disc" if job.proves == "done" else "has everything"
        return f"{job.publisher} {has}: {images}."
    if job.state == "running":
        return f"{job.stage[:1].upper()}{job.stage[1:]}: {images}."
    return "The disc is ready." if job.state == "done" else "It waits for its turn."


def _page(title: str, body: str) -> HTMLResponse:
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="/page/disc.svg"><link rel="stylesheet" href="/page/counter.css"></head>'
        f"<body><header><h1>{title}</h1></header><main>{body}</main></body></html>"
    )
    headers = {"cache-control": "no-store", "content-security-policy": PLAIN_POLICY, "x-frame-options": "DENY"}
    return HTMLResponse(page, headers=headers)
