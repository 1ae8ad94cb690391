"""Who made what: everybody who asked for a disc, while the jobs' reports are kept, as JSON, as CSV, or as a page."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC
from typing import NamedTuple

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from mkiso.errors import InvalidRequest
from mkiso.storage.askings import Asking
from mkiso.storage.files import moment_in
from mkiso.storage.kept_reports import KeptReports
from mkiso.storage.report import JobReport, numbers_on
from mkiso_service.api import Made, WhoMade, shown_state
from mkiso_service.prefect.orchestrator import Orchestrator, Standing
from mkiso_service.webhook.answers.errors import is_shown
from mkiso_service.webhook.answers.json_answers import Json
from mkiso_service.webhook.answers.pages import made_page
from mkiso_service.webhook.audit import Trail
from mkiso_service.webhook.counter.standings import standings_of
from mkiso_service.webhook.discs.jobs import state_of, waiting
from mkiso_service.webhook.questions.query import Query

MOST = {"csv": 50_000, "json": 1000, "page": 1000}
"""Rows of each form; `more` says that there are others, and `since` and `until` reach them."""
FORMATS = ("json", "csv")
_ANSWER = TypeAdapter(WhoMade)
_FORMULA = re.compile(r"""(^|[;\t\r\n"])(?=[=+@\t\r-])""")
"""Where a spreadsheet may begin a cell with a formula; of some countries it divides lines at semicolons."""


class MadeReport:
    """For those who answer for what leaves this site."""

    def __init__(self, kept: KeptReports, orchestrator: Orchestrator, trail: Trail) -> None:
        self._kept = kept
        self._orchestrator = orchestrator
        self._trail = trail

    async def show(self, request: Request) -> Response:
        """GET /api/iso/made"""
        query = Query(request.scope["query_string"])
        form = query.one("format") or ("page" if is_shown(request) else "json")
        if form not in MOST or (query.one("format") and form not in FORMATS):
            raise InvalidRequest(f"format is {' or '.join(FORMATS)}.")
        since, until = query.since(), query.until()
        await self._trail.listed(request, "who made what")
        reports, askings = await asyncio.to_thread(self._kept.look, since)
        begin, end = (moment.timestamp() if moment else None for moment in (since, until))
        asked = [
            each
            for each in everybody(askings.items())
            if (begin is None or each.seconds >= begin) and (end is None or each.seconds < end)
        ]
        known = {report.job_id: report for report in reports}
        shown = [(each, known.get(each.job_id) or waiting(*each[:2])) for each in asked[: MOST[form]]]
        standings = await standings_of([report for _, report in shown], self._orchestrator)
        told: WhoMade = {
            "made": [_row(each, report, standings) for each, report in shown],
            "more": len(asked) > MOST[form],
        }
        headers = {"cache-control": "no-store", "vary": "Accept"}
        if form == "csv":
            headers["content-disposition"] = 'attachment; filename="discs.csv"'
            return Response(csv_of(told["made"]), headers=headers, media_type="text/csv; charset=utf-8")
        if form == "page":
            return made_page(request, told)
        return Json(_ANSWER.dump_json(told), headers=headers)


class Asked(NamedTuple):
    """One who asked for a job."""

    job_id: str
    asking: Asking
    seconds: float


def everybody(askings: Iterable[tuple[str, tuple[Asking, ...]]]) -> list[Asked]:
    """Everybody who asked, the newest first; last whose time is none."""
    told = [
        Asked(job_id, asking, moment.timestamp() if (moment := moment_in(asking.time, UTC)) else 0.0)
        for job_id, asked in askings
        for asking in asked
    ]
    return sorted(told, key=lambda each: each.seconds, reverse=True)


def csv_of(rows: Iterable[Made]) -> str:
    """As RFC 4180 has it. A spreadsheet would take some cells for formulas, so an apostrophe stands before these."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(Made.__annotations__)
    for row in rows:
        cells = [" ".join(value) if isinstance(value, tuple) else str(value) for value in row.values()]
        writer.writerow([_FORMULA.sub(r"\1'", cell) for cell in cells])
    return "\N{ZERO WIDTH NO-BREAK SPACE}" + text.getvalue()


def _row(asked: Asked, report: JobReport, standings: Mapping[str, Standing | None]) -> Made:
    job_id, told, _ = asked
    return {
        "time": told.time,
        "user": told.user,
        "name": told.name,
        "address": told.who,
        "by": told.by,
        "kind": told.kind,
        "accession_numbers": told.accession_numbers or numbers_on(report),
        "chosen": replace(told.selection, priors=False).written,
        "priors": told.selection.priors,
        "patient_id": report.patient_id,
        "publisher": told.publisher,
        "state": shown_state(*state_of(standings.get(job_id, "completed"), report, job_id)),
        "proves": report.proves,
        "job_id": job_id,
        "deidentified": told.deidentified or report.deidentified,
    }
