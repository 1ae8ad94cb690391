"""Errors as JSON: `{"error": words, "code": slug, "request_id": …}` and the headers that go with them, for whatever
went wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from mkiso.errors import JobCancelled, JobCrashed, MkisoError
from mkiso.storage.report import JobReport, after_a_break
from mkiso_service.prefect.orchestrator import Standing
from mkiso_service.webhook.access.callers import request_id_of
from mkiso_service.webhook.answers.advice import must_look
from mkiso_service.webhook.answers.json_answers import Json
from mkiso_service.webhook.answers.pages import error_page

RETRY_AFTER_SECONDS = 30
_HTTP_ERRORS = {
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address doesn't take that method."),
}


class JobFailed(Exception):
    """The job ended as failed, for the reason in its report: the words, code, status and details of the MkisoError that
    ended it.
    """

    def __init__(self, report: JobReport) -> None:
        super().__init__(report.error.get("code", "error"))
        self.report = report


def outcome_of(
    standing: Standing, report: JobReport | None, kind: str = "", why: MkisoError | None = None
) -> JobReport:
    """The report of a job whose run has ended well. `kind`: what was asked for, where no report can say it; `why`: the
    error that its run tells of.

    Raises JobFailed with the report's reason; `why` where a failed job found no room to report; JobCrashed or
    JobCancelled where the run ended without one. A report of an earlier attempt is no reason for a crash of this one.
    """
    if report is not None and report.status == "done":
        return report
    if report is not None and report.status == "failed" and standing in ("completed", "failed"):
        raise JobFailed(report)
    kind = report.kind if report else kind
    if standing == "failed" and why:
        if kind == "download":
            raise why
        # Nobody knows here how far a print came: a program that is told to come back would have a second disc made.
        raise JobCrashed(why.words)
    raise end_without_report(standing, kind)


def end_without_report(standing: Standing, kind: str) -> MkisoError:
    """What is said of a run that ended without a word of its own."""
    if standing == "cancelled":
        return JobCancelled(
            f"The job was cancelled. {after_a_break(kind, 'Nothing was sent; ask again to start from the beginning.')}"
        )
    words = "The job was cut off before it could say why (its process or machine went down)."
    if standing == "failed":  # no worker took it
        words = "The job failed, and why isn't written down here: its run in Prefect says it."
    return JobCrashed(f"{words} {after_a_break(kind, 'Nothing was sent; ask again.')}")


def error_answer(
    request: Request,
    status: int,
    code: str,
    words: str,
    headers: Mapping[str, str] | None = None,
    details: Mapping[str, Any] = MappingProxyType({}),
) -> Response:
    """One error: a page for a person whom a browser has led here, JSON for everybody else. A 503 always says when to
    come back (RFC 9110 10.2.3); a job's address also goes into Location.
    """
    told = {"cache-control": "no-store", **(headers or {})}
    if status == 503:
        told.setdefault("retry-after", str(details.get("retry_after_seconds", RETRY_AFTER_SECONDS)))
    if "job" in details:
        told.setdefault("location", str(details["job"]))
    if is_shown(request):
        page = error_page(request, status, words, code)
        page.headers.update(told)
        return page
    return Json({**details, "error": words, "code": code, "request_id": request_id_of(request.scope)}, status, told)


def is_shown(request: Request) -> bool:
    """Whether a browser shows the answer to a person, as a page."""
    sender = getattr(request.state, "sender", None)
    return bool(sender and sender.navigation) and "text/html" in request.headers.get("accept", "")


async def answer_mkiso_error(request: Request, error: Exception) -> Response:
    """A MkisoError under its own status."""
    assert isinstance(error, MkisoError)
    _note(request, error.code)
    return error_answer(request, error.http_status, error.code, error.words, details=error.details)


async def answer_failed_job(request: Request, error: Exception) -> Response:
    """The reason in a job's report, under the status that it carries."""
    assert isinstance(error, JobFailed)
    told = {**error.report.error, "job_id": error.report.job_id}
    status, code, words = (
        int(told.pop("http_status", 500)),
        str(told.pop("code", "error")),
        str(told.pop("error", "The job failed.")),
    )
    _note(request, code)
    if status == 503 and must_look(error.report.kind, code, error.report.proves):
        status = JobCrashed.http_status  # a program that is told to come back would have a second disc made
    return error_answer(request, status if 400 <= status < 600 else 500, code, words, details=told)


async def answer_http_error(request: Request, error: Exception) -> Response:
    """What the router says: 404, 405 with Allow."""
    assert isinstance(error, HTTPException)
    code, words = _HTTP_ERRORS.get(error.status_code, ("http_error", error.detail))
    return error_answer(request, error.status_code, code, words, error.headers)


def job_address(job_id: str) -> str:
    return f"/api/iso/jobs/{job_id}"


def disc_address(job_id: str, part: int) -> str:
    """Where a disc stays the same: a job makes, or serves, one set once and for all."""
    return f"{job_address(job_id)}/disc?part={part}"


def _note(request: Request, code: str) -> None:
    request.state.note = {**getattr(request.state, "note", {}), "code": code}


HANDLERS = {MkisoError: answer_mkiso_error, JobFailed: answer_failed_job, HTTPException: answer_http_error}
