"""Pages without a script, for a person whom a link has led to the API: one question back, and how a job stands."""

from __future__ import annotations

from html import escape
from typing import Any
from urllib.parse import urlencode

from starlette.responses import HTMLResponse

from mkiso_service.webhook.question import Question

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
REFRESH_SECONDS = 2
_STATES = {"waiting": "Waiting", "running": "Working", "done": "Ready", "failed": "Failed"}


def print_page(question: Question) -> HTMLResponse:
    """Asks whether to print. Its button posts to the page's address: nginx may add the key there."""
    order = {"accession_number": ",".join(question.accession_numbers), "publisher": question.publisher}
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


def job_page(told: dict[str, Any]) -> HTMLResponse:
    """How the job of Jobs.describe stands; it asks again by itself until the job has ended."""
    state = str(told["state"])
    links = "".join(
        f'<li><a href="{escape(told["job_id"])}/disc?part={disc["part"]}">'
        f"Download disc {disc['part']} of {disc['total']}</a></li>"
        for disc in told["discs"]
    )
    answer = _page(
        "Patient disc",
        f'<div class="job {escape(state)}">'
        f'<div class="head"><strong class="numbers">{escape(", ".join(told["accession_numbers"]))}</strong>'
        f'<span class="state">{escape(_STATES.get(state, state))}</span></div>'
        f'<p class="words">{escape(_words(state, told))}</p><ul class="discs">{links}</ul></div>',
    )
    answer.headers["vary"] = "Accept"
    if state in ("waiting", "running"):
        answer.headers["refresh"] = str(REFRESH_SECONDS)
    return answer


def _words(state: str, told: dict[str, Any]) -> str:
    moved, expected = told["written"] or told["received"], told["expected"]
    images = f"{moved} of {expected} images" if expected and moved != expected else f"{moved} images"
    if state == "failed":
        error = told["error"] or {}
        return f"{error.get('error', 'The job failed.')} ({error.get('code', 'error')})"
    if told["proves"]:
        made = told["proves"] == "done"
        publisher = told["publisher"]
        return f"{publisher} has made the disc: {images}." if made else f"{publisher} has everything: {images}."
    if state == "running":
        return f"{told['stage'][:1].upper()}{told['stage'][1:]}: {images}."
    return "The disc is ready." if state == "done" else "It waits for its turn."


def _page(title: str, body: str) -> HTMLResponse:
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<link rel="icon" href="/page/disc.svg"><link rel="stylesheet" href="/page/counter.css"></head>'
        f"<body><header><h1>{title}</h1></header><main>{body}</main></body></html>"
    )
    headers = {"cache-control": "no-store", "content-security-policy": POLICY, "x-frame-options": "DENY"}
    return HTMLResponse(page, headers=headers)
