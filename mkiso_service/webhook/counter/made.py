"""Who made what: everybody who asked for a disc, while the jobs' reports are kept, as JSON, as CSV, or as a page."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterable
from datetime import datetime

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from mkiso.errors import InvalidRequest
from mkiso.storage.askings import Asking
from mkiso.storage.kept_reports import KeptReports
from mkiso.storage.report import JobReport, numbers_on
from mkiso_service.api import Made, WhoMade
from mkiso_service.webhook.answers.errors import is_shown
from mkiso_service.webhook.answers.pages import made_page
from mkiso_service.webhook.audit import Trail
from mkiso_service.webhook.questions.query import Query

MOST = {"csv": 50_000, "json": 1000, "page": 1000}
"""Rows of each form; `more` says that there are others, and `since` and `until` reach them."""
FORMATS = ("json", "csv")
_ANSWER = TypeAdapter(WhoMade)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class MadeReport:
    """For those who answer for what leaves this site."""

    def __init__(self, kept: KeptReports, trail: Trail) -> None:
        self._kept = kept
        self._trail = trail

    async def show(self, request: Request) -> Response:
        """GET /api/iso/made"""
        query = Query(request.scope["query_string"])
        form = query.one("format") or ("page" if is_shown(request) else "json")
        if form not in MOST or (query.one("format") and form not in FORMATS):
            raise InvalidRequest(f"format is {' or '.join(FORMATS)}.")
        since, until = query.since(), query.until()
        await self._trail.listed(request, "who made what")
        reports, askings = await asyncio.to_thread(lambda: (self._kept.reports(), self._kept.askings()))
        begin, end = (moment.timestamp() if moment else None for moment in (since, until))
        rows = [
            row
            for row in made(reports, askings.items())
            if (begin is None or seconds_of(row) >= begin) and (end is None or seconds_of(row) < end)
        ]
        told: WhoMade = {"made": rows[: MOST[form]], "more": len(rows) > MOST[form]}
        headers = {"cache-control": "no-store", "vary": "Accept"}
        if form == "csv":
            headers["content-disposition"] = 'attachment; filename="discs.csv"'
            return Response(csv_of(told["made"]), headers=headers, media_type="text/csv; charset=utf-8")
        if form == "page":
            return made_page(request, told)
        return Response(_ANSWER.dump_json(told), headers=headers, media_type="application/json")


def made(reports: Iterable[JobReport], askings: Iterable[tuple[str, tuple[Asking, ...]]]) -> list[Made]:
    """A row for everybody who asked, the newest first."""
    known = {report.job_id: report for report in reports}
    rows = [_row(job_id, asked, known.get(job_id)) for job_id, told in askings for asked in told]
    return sorted(rows, key=seconds_of, reverse=True)


def seconds_of(row: Made) -> float:
    """When it was asked for, in seconds since 1970; 0 where what is written down is no time."""
    try:
        return datetime.fromisoformat(row["time"]).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def csv_of(rows: Iterable[Made]) -> str:
    """As RFC 4180 has it. A spreadsheet would take some cells for formulas, so these begin with an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(Made.__annotations__)
    for row in rows:
        cells = [" ".join(value) if isinstance(value, tuple) else str(value) for value in row.values()]
        writer.writerow([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells])
    return "\N{ZERO WIDTH NO-BREAK SPACE}" + text.getvalue()


def _row(job_id: str, asked: Asking, report: JobReport | None) -> Made:
    return {
        "time": asked.time,
        "user": asked.user,
        "name": asked.name,
        "address": asked.who,
        "by": asked.by,
        "kind": asked.kind,
        "accession_numbers": asked.accession_numbers or (numbers_on(report) if report else ()),
        "chosen": asked.selection.written,
        "patient_id": report.patient_id if report else "",
        "publisher": asked.publisher,
        "state": report.status if report else "waiting",
        "job_id": job_id,
    }
