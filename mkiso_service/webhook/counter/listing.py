"""The discs of everybody at this site: today's, or those of a number or a patient while their reports are kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from mkiso.errors import JobNotFound, MkisoError, OrchestratorUnavailable, StorageUnreadable
from mkiso.storage.askings import Asking
from mkiso.storage.files import moment_in
from mkiso.storage.kept_reports import Kept, KeptReports
from mkiso.storage.report import JobReport, numbers_on
from mkiso.study.text import readable_name
from mkiso_service.api import Asker, Listed, Listing
from mkiso_service.prefect.orchestrator import Orchestrator, Standing
from mkiso_service.webhook.access.rights import Caller, caller_of, may_cancel
from mkiso_service.webhook.answers.json_answers import Json
from mkiso_service.webhook.audit import Trail
from mkiso_service.webhook.counter.standings import standings_of
from mkiso_service.webhook.discs.jobs import Jobs, as_it_stands, is_unheard, state_of, waiting
from mkiso_service.webhook.questions.query import Query

MOST = 200
LOOK_SECONDS = 0.5
"""How old what is known of the files may be: many pages ask at once."""
AUDIT_SECONDS = 3600.0
MAX_VIEWERS = 1000
_LISTING = TypeAdapter(Listing)


class JobList:
    """Jobs as everybody at this site sees them, with the patients' names: for those who may have the discs.
    `tells_birth_date`: false where a clerk has to type it to ask for a disc.
    """

    def __init__(
        self, kept: KeptReports, orchestrator: Orchestrator, jobs: Jobs, trail: Trail, *, tells_birth_date: bool
    ) -> None:
        self._tells_birth_date = tells_birth_date
        self._kept = kept
        self._orchestrator = orchestrator
        self._jobs = jobs
        self._trail = trail
        self._reading = asyncio.Lock()
        self._known: dict[datetime | None, tuple[float, Kept]] = {}
        self._told: dict[str, float] = {}

    async def show(self, request: Request) -> Response:
        """GET /api/iso/jobs"""
        query = Query(request.scope["query_string"])
        search, since = query.search(), query.since() or datetime.now(UTC) - timedelta(days=1)
        await self._audit(request, search)
        reports, askings = await self._read(None if search else since)
        wanted = await asyncio.to_thread(_wanted, reports, askings, search, since)  # of hundreds of thousands
        standings = await standings_of([report for report, _ in wanted[:MOST]], self._orchestrator)
        failures = await self._failures([report for report, _ in wanted[:MOST]], standings)
        caller = caller_of(request)
        shown = [await self._listed(report, told, standings, failures, caller) for report, told in wanted[:MOST]]
        body: Listing = {"jobs": shown, "more": len(wanted) > MOST}
        return Json(_LISTING.dump_json(body), headers={"cache-control": "no-store"})

    async def _read(self, since: datetime | None) -> Kept:
        """What is known of the files, of all of them or of those since the beginning of an hour."""
        hour = since and since.replace(minute=0, second=0, microsecond=0)
        async with self._reading:
            now = time.monotonic()
            self._known = {asked: each for asked, each in self._known.items() if now - each[0] <= LOOK_SECONDS}
            if hour not in self._known:
                kept = await asyncio.to_thread(self._kept.look, hour)
                self._known[hour] = (time.monotonic(), kept)
            return self._known[hour][1]

    async def _failures(
        self, reports: Sequence[JobReport], standings: Mapping[str, Standing | None]
    ) -> Mapping[str, MkisoError]:
        """What the runs say of jobs that failed and couldn't write down why; nothing where they can't be asked."""
        unheard = [report.job_id for report in reports if is_unheard(standings.get(report.job_id), report)]
        try:
            return await self._orchestrator.failures_of(unheard) if unheard else {}
        except OrchestratorUnavailable:
            return {}

    async def _listed(
        self,
        report: JobReport,
        told: tuple[Asking, ...],
        standings: Mapping[str, Standing | None],
        failures: Mapping[str, MkisoError],
        caller: Caller,
    ) -> Listed:
        user, standing = caller.user, standings.get(report.job_id, "completed")
        state, error = state_of(standing, report, report.job_id, why=failures.get(report.job_id))
        report = as_it_stands(report, standing)
        try:
            job = await self._jobs.told(report, state, error)
        except (JobNotFound, StorageUnreadable):  # its discs went before its report did, or their disk fails
            job = await self._jobs.told(replace(report, disc_ids=()), state, error)
        askers: list[Asker] = [
            {"time": each.time, "who": each.who, "by": each.by, "name": each.name, "you": each.user == user != ""}
            for each in told
        ]
        return {
            "job": job,
            "begun": _begun(report, told).isoformat(timespec="milliseconds"),
            "asked": askers,
            "may_cancel": may_cancel(caller, [each.user for each in told]),
            "patient_id": report.patient_id,
            "patient_name": readable_name(report.patient_name),
            "patient_birth_date": report.patient_birth_date if self._tells_birth_date else "",
        }

    async def _audit(self, request: Request, search: str) -> None:
        """A search each time; who only has the page open once an hour."""
        address, now = request.client.host if request.client else "", time.monotonic()
        who = f"{caller_of(request).user} {address}"
        if not search and now - self._told.get(who, float("-inf")) < AUDIT_SECONDS:
            return
        if len(self._told) >= MAX_VIEWERS:
            self._told.clear()
        if not search:
            self._told[who] = now
        await self._trail.listed(request, search)


def _wanted(
    reports: Sequence[JobReport], askings: Mapping[str, tuple[Asking, ...]], search: str, since: datetime
) -> list[tuple[JobReport, tuple[Asking, ...]]]:
    """The jobs to list, and who asked for them; what was asked for last comes first."""
    found = [(report, askings.get(report.job_id, ())) for report in reports if report.kind in ("download", "print")]
    known = {report.job_id for report in reports}
    found += [(waiting(job_id, told[0]), told) for job_id, told in askings.items() if job_id not in known]
    wanted = [each for each in found if _fits(*each, search, since)]
    wanted.sort(key=lambda each: _asked_last(*each), reverse=True)
    return wanted


def _fits(report: JobReport, told: tuple[Asking, ...], search: str, since: datetime) -> bool:
    """A search goes over everything that is kept; without one only what was asked for lately counts."""
    if not search:
        return _asked_last(report, told) >= since
    name = readable_name(report.patient_name).casefold()
    numbers = [number.casefold() for number in numbers_on(report)]
    of_the_name = name != "" and all(word in name for word in search.split())
    return search in numbers or search == report.patient_id.casefold() or of_the_name


def _begun(report: JobReport, told: tuple[Asking, ...]) -> datetime:
    """When it was asked for first."""
    return _askings(report, told)[0]


def _asked_last(report: JobReport, told: tuple[Asking, ...]) -> datetime:
    """An earlier disc that answers a question of now is as new as the question: it mustn't lie below another
    patient's.
    """
    return max(_askings(report, told))


def _askings(report: JobReport, told: tuple[Asking, ...]) -> list[datetime]:
    """When it was asked for; a run that was begun in Prefect has only its report."""
    moments = [moment for each in told if (moment := moment_in(each.time, UTC))]
    return moments or [moment_in(report.updated, UTC) or datetime.now(UTC)]
