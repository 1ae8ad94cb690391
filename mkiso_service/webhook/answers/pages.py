"""Pages without a script, for a person whom a link has led to the API or to the door. Each is in the browser's
language, and served with a policy that lets nothing else in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache, partial
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse

from mkiso.config.access import SHARED_USER
from mkiso.errors import ProviderUnavailable, SignInFailed, Unauthorized
from mkiso.languages import N_, Language, language, languages, wanted
from mkiso.languages.templates import environment
from mkiso.storage.files import moment_in
from mkiso.storage.report import numbers_on
from mkiso.study.question import Question
from mkiso.study.text import SEXES
from mkiso_service.api import Dependency, InboxStates, Job, NamedKeys, Preview, WhoMade, shown_state
from mkiso_service.counting import counted
from mkiso_service.webhook.access.callers import request_id_of
from mkiso_service.webhook.access.onward import HOME, asked_for, leads_to, with_address
from mkiso_service.webhook.access.rights import right_of
from mkiso_service.webhook.answers.advice import advice, must_look
from mkiso_service.webhook.answers.job_words import (
    advice_of_job,
    ordered_before,
    state_words,
    unclear_before,
    without,
    words_of_job,
)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PLAIN_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
REFRESH_SECONDS = 2
_ENDED = f"{HOME}?ended"
"""The way back for somebody who is signed in: if the session has ended by then, the page says so. A request with a key,
which nginx adds to the old addresses, has no session."""
_REFUSALS = {
    "unknown_sender": N_("this sender isn't known here"),
    "no_room": N_("there is no room for what it sends"),
    "two_versions": N_("an image came once more, with other contents"),
    "unusable": N_("what it sends can't be used"),
}
_RIGHTS: Mapping[str, str] = MappingProxyType(
    {
        "disc": N_("have disc files made"),
        "search": N_("search for patients"),
        "deidentify": N_("have de-identified copies made"),
        "print": N_("have discs made by the robot"),
        "list": N_("see everybody's discs"),
        "cancel": N_("cancel its own discs"),
        "cancel_any": N_("cancel anybody's discs"),
        "report": N_("see who made what"),
        "keys": N_("see these keys"),
    }
)
_OF_SIGN_IN = (Unauthorized.code, SignInFailed.code, ProviderUnavailable.code)


def language_of(request: Request) -> Language:
    """The language that the asker's browser wants, else the site's discs'."""
    accepted = request.headers.get("accept-language", "")
    return language(wanted(accepted, languages(), request.app.state.language))


def sign_in_page(request: Request, *, wrong: bool = False, people: bool = False) -> HTMLResponse:
    """The door: for a key, or for `people` the way to the site's provider. `wrong`: that was no key. Where a page that
    only who is signed in gets has led here (`?ended`), it says that the session is over.
    """
    ended = not wrong and "ended" in request.query_params
    door = with_address("/session/begin" if people else "/session", leads_to(request))
    answer = page_of(request, "sign-in.html", POLICY, "no-cache", wrong=wrong, people=people, ended=ended, door=door)
    answer.status_code = 401 if wrong else 200
    return answer


def onward_page(request: Request, address: str) -> HTMLResponse:
    """Leads on at once. A redirect would be the other site's doing, and the browser would keep our cookie to itself
    (SameSite=Strict); and from a form it would be held back (form-action).
    """
    answer = page_of(request, "onward.html", address=address)
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
    publishers: Collection[str],
) -> HTMLResponse:
    """Whose disc it would be, and whether to have it made; without `told` it asks for the birth date first. Its
    button posts to the page's address, since nginx may add the key there, and orders a disc of who is on it and of
    nobody else; where an order of it ended unclear, it says that somebody has looked. Of `publishers` the others have
    links to a page like this.
    """
    order = {"accession_number": ",".join(question.accession_numbers), "publisher": question.publisher}
    order |= {"language": question.language} if question.language else {}
    order |= {"transfer_syntax": question.transfer_syntax} if question.transfer_syntax else {}
    ordered, unclear = (told["ordered"], told["unclear"]) if told else (None, None)
    order |= {"confirm_reprint": "true"} if question.confirm_reprint or unclear else {}
    if told:
        order |= {"shown": told["shown"], "orders_told": str(ordered["orders"] if ordered else 0)}
    pairs = [
        *order.items(),
        *(("study_uid", uid) for uid in question.selection.studies),
        *(("series_uid", uid) for uid in question.selection.series),
        ("priors", str(question.selection.priors).lower()),
    ]
    kept = [
        (name, value) for name, value in pairs if name not in ("publisher", "confirm_reprint", "shown", "orders_told")
    ]
    others = {name: urlencode([*kept, ("publisher", name)]) for name in publishers if name != question.publisher}
    spoken = language_of(request)
    return page_of(
        request,
        "print.html",
        question=question,
        told=told,
        before=ordered and ordered_before(ordered, spoken),
        unclear=unclear and unclear_before(unclear, spoken),
        robot=robot,
        label=told["labels"].get(question.publisher) if told else None,
        pairs=pairs,
        query=urlencode(pairs),
        birth_date=birth_date,
        copies=copies,
        others=others,
        counted=counted,
        sexes=SEXES,
        without=without(told["degraded"] if told else (), spoken),
    )


def birth_date_page(request: Request, question: Question, pairs: Sequence[tuple[str, str]]) -> HTMLResponse:
    """Asks for the birth date that a link to a disc hasn't said; with it the same question, of these parameters, is
    asked again.
    """
    return _in_place_of_json(request, "birth-date.html", numbers=question.accession_numbers, pairs=pairs)


def error_page(request: Request, status: int, words: str, code: str, *, other: str = "") -> HTMLResponse:
    """What went wrong, for a person whom a link or an address has led here. `other`: where they can sign in as somebody
    else.
    """
    request_id, spoken, path = request_id_of(request.scope), language_of(request), request.scope["path"]
    keyed = "x-api-key" in request.headers  # added by a proxy, and in the way of each session
    signs_in = code in _OF_SIGN_IN and not keyed
    advised = "configuration" if keyed and code == Unauthorized.code else code
    told = {
        "title": spoken.gettext(_error_title(path, signs_in=signs_in)),
        "advice": advice(advised, spoken, look=right_of(path) == "print" and must_look("print", code)),
        "words": words,
    }
    told |= {"door": with_address(HOME, asked_for(request)) if signs_in else "", "other": other}
    return _in_place_of_json(request, "error.html", status, **told, code=code, request_id=request_id)


def _error_title(path: str, *, signs_in: bool) -> str:
    if signs_in:
        return N_("Not signed in")
    return N_("No disc") if right_of(path) in ("disc", "print") else N_("That didn't work")


def choice_page(
    request: Request,
    status: int,
    words: str,
    numbers: Sequence[str],
    *,
    discs: Sequence[tuple[str, int]] = (),
    sets: Sequence[tuple[str, int, str]] = (),
) -> HTMLResponse:
    """The discs of a set: the address and the size of each; or sets: the address of each, its discs, and when it was
    made. `numbers`: the accession numbers that they are of.
    """
    return _in_place_of_json(request, "choice.html", status, words=words, numbers=numbers, discs=discs, sets=sets)


def password_page(request: Request, password: str) -> HTMLResponse:
    """The password of an encrypted disc, this once."""
    return page_of(request, "password.html", password=password)


def job_page(request: Request, job: Job, robot: Dependency | None, *, take: bool, has_claim: bool) -> HTMLResponse:
    """How a job stands; it asks again by itself until the job has ended. `robot`: how the publisher is that has its
    order. `take`: the disc is wanted, so its download begins as soon as it is there. `has_claim`: the browser may ask
    for the disc's password.
    """
    spoken = language_of(request)
    moving, shown = job.state in ("waiting", "running"), shown_state(job.state, job.error)
    answer = _in_place_of_json(
        request,
        "job.html",
        job=job,
        numbers=numbers_on(job),
        shown=shown,
        state=state_words(shown, job.kind, job.proves, spoken),
        words=words_of_job(job, spoken, robot),
        advice=advice_of_job(job, spoken),
        trouble=robot["detail"] if robot and not robot["ok"] and job.state != "failed" else "",
        moving=moving,
        without=without(job.degraded, spoken),
        has_password=has_claim and job.state == "done",
    )
    if moving:
        answer.headers["refresh"] = str(REFRESH_SECONDS)
    elif take and len(job.discs) == 1:
        answer.headers["refresh"] = f"0; url={job.job_id}/disc?part={job.discs[0].part}"
    return answer


def made_page(request: Request, told: WhoMade) -> HTMLResponse:
    """Who made what."""
    spoken = language_of(request)
    in_words = partial(state_words, spoken=spoken)
    return _in_place_of_json(request, "made.html", state_words=in_words, shared_user=SHARED_USER, **told)


def inboxes_page(request: Request, told: InboxStates) -> HTMLResponse:
    """How each inbox stands."""
    return _in_place_of_json(request, "inboxes.html", causes=_REFUSALS, **told)


def keys_page(request: Request, told: NamedKeys) -> HTMLResponse:
    """The named keys."""
    spoken = language_of(request)
    return _in_place_of_json(
        request, "keys.html", spoken_rights=lambda rights: [spoken.gettext(_RIGHTS[each]) for each in rights], **told
    )


def _in_place_of_json(request: Request, template: str, status: int = 200, **facts: Any) -> HTMLResponse:
    """A page under an address where programs get JSON."""
    answer = page_of(request, template, **facts)
    answer.status_code = status
    answer.headers["vary"] = "Accept, Accept-Language"
    return answer


def page_of(
    request: Request, template: str, policy: str = PLAIN_POLICY, cache_control: str = "no-store", **facts: Any
) -> HTMLResponse:
    """A page of this template, made of these facts."""
    headers = {
        "cache-control": cache_control,
        "content-security-policy": policy,
        "x-frame-options": "DENY",
        "vary": "Accept-Language",
    }
    spoken, home = language_of(request), HOME if "x-api-key" in request.headers else _ENDED
    told = {"language": spoken, "clock": partial(_clock, spoken), "home": home}
    page = _templates().get_template(template).render(**told, **facts)
    return HTMLResponse(page, headers=headers)


def _clock(spoken: Language, moment: str) -> str:
    """A moment (ISO 8601) as the clocks of this machine show it; what is none is left as it is."""
    local = moment_in(moment)
    return f"{spoken.date(local)}, {local:%H:%M}" if local else moment


@cache
def _templates() -> Environment:
    return environment("mkiso_service.webhook", "page", trim_blocks=True)
