"""Errors as JSON: `{"error": words, "code": slug, "request_id": …}` and the headers that go with them, for whatever
went wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from mkiso.errors import MkisoError
from mkiso_service.webhook.job_end import JobFailed
from mkiso_service.webhook.request_id import request_id_of

RETRY_AFTER_SECONDS = 30
_HTTP_ERRORS = {
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address doesn't take that method."),
}


def error_answer(
    request: Request,
    status: int,
    code: str,
    words: str,
    headers: Mapping[str, str] | None = None,
    details: Mapping[str, Any] = MappingProxyType({}),
) -> JSONResponse:
    """One error. A 503 always says when to come back (RFC 9110 10.2.3); a job's address also goes into Location."""
    told = {"cache-control": "no-store", **(headers or {})}
    if status == 503:
        told.setdefault("retry-after", str(details.get("retry_after_seconds", RETRY_AFTER_SECONDS)))
    if "job" in details:
        told.setdefault("location", str(details["job"]))
    return JSONResponse(
        {**details, "error": words, "code": code, "request_id": request_id_of(request.scope)}, status, told
    )


async def answer_mkiso_error(request: Request, error: Exception) -> JSONResponse:
    """A MkisoError under its own status."""
    assert isinstance(error, MkisoError)
    _note(request, error.code)
    return error_answer(request, error.http_status, error.code, error.words, details=error.details)


async def answer_failed_job(request: Request, error: Exception) -> JSONResponse:
    """The reason in a job's report, under the status that it carries."""
    assert isinstance(error, JobFailed)
    told = {**error.report.error, "job_id": error.report.job_id}
    status, code, words = (
        int(told.pop("http_status", 500)),
        str(told.pop("code", "error")),
        str(told.pop("error", "The job failed.")),
    )
    _note(request, code)
    return error_answer(request, status if 400 <= status < 600 else 500, code, words, details=told)


async def answer_http_error(request: Request, error: Exception) -> JSONResponse:
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
