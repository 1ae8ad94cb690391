"""A job as the webhook's clients see it: waiting for its end, its state in JSON, its discs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import cast

from starlette.requests import Request
from starlette.responses import Response

from mkiso.config.settings import Settings
from mkiso.errors import (
    ForeignRequest,
    JobNotFound,
    JobRunning,
    MkisoError,
    NotAllowed,
    OrchestratorUnavailable,
    ProofFailed,
    ServiceStopping,
)
from mkiso.formats.registry import FORMATS, require_allowed
from mkiso.storage.askings import Asking, askings_of
from mkiso.storage.report import JobReport, readable_report
from mkiso.storage.reread import require_right
from mkiso.storage.shelf import Manifest, manifest_of, take_off
from mkiso_service.api import Disc, Job, JobError, State
from mkiso_service.prefect.orchestrator import ENDED, SUSPENDED, Orchestrator, Standing
from mkiso_service.webhook.access.callers import sender_of_request
from mkiso_service.webhook.access.rights import caller_of, may_cancel
from mkiso_service.webhook.answers.errors import JobFailed, disc_address, error_answer, job_address, outcome_of
from mkiso_service.webhook.audit import Trail
from mkiso_service.webhook.discs.disc_bytes import (
    DiscResponse,
    Span,
    client_gone,
    content_disposition,
    name_of,
    prepared,
    span_of,
)
from mkiso_service.webhook.discs.disc_sets import chosen

REPORT_POLL_SECONDS = 0.05
ACCEL_OFFERED = "x-mkiso-accel"
CONDITIONS = {"range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"}


class ClientGone(Exception):
    """The client went away; its job goes on."""


class Jobs:
    """Jobs by id. `closing` is set when the webhook stops: whoever waits then is told where to ask again."""

    def __init__(self, settings: Settings, orchestrator: Orchestrator, trail: Trail, closing: asyncio.Event) -> None:
        self._storage = settings.storage
        self._server = settings.server
        self._encryption = settings.disc.encryption
        self._trail = trail
        self._orchestrator = orchestrator
        self._closing = closing

    async def end_of(
        self, request: Request, job_id: str, timeout_seconds: float, *, queued_is_enough: bool
    ) -> JobReport | None:
        """The report of a job that ended well, None where it hasn't ended in time. Raises JobFailed, JobCrashed,
        JobCancelled, ClientGone.

        `queued_is_enough`: the report of a print already when the publisher has everything, while the job goes on
        following it.
        """
        ended = asyncio.create_task(self._orchestrator.wait(job_id, timeout_seconds))
        told = asyncio.create_task(self._told(job_id, queued_is_enough=queued_is_enough))
        gone, closing = asyncio.create_task(client_gone(request.receive)), asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait((ended, told, gone, closing), return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                return told.result()
            if not ended.done():
                if gone.done():
                    raise ClientGone
                raise ServiceStopping(
                    "mkiso is being restarted; the job goes on. Ask again.",
                    job_id=job_id,
                    job=job_address(job_id),
                )
            standing = ended.result()
        finally:
            for task in (ended, told, gone, closing):
                task.cancel()
        if standing is None:
            return None
        try:
            return await self._outcome(job_id, standing, await self._report(job_id))
        except MkisoError as error:
            error.details.setdefault("job_id", job_id)
            raise

    async def describe(self, job_id: str) -> Job:
        """A job as it stands now. Raises JobNotFound."""
        report = await self._report(job_id)
        standing: Standing | None = None
        try:
            standing = await self._orchestrator.standing(job_id)
        except JobNotFound:
            if report is None:
                raise
            standing = gone(report)
        except OrchestratorUnavailable:
            if report is None:
                raise
        asked = () if report else await asyncio.to_thread(askings_of, self._storage, job_id)
        kind, why = await self._failure(job_id, standing, report)
        state, error = state_of(standing, report, job_id, kind or (asked[0].kind if asked else ""), why)
        report = report or (waiting(job_id, asked[0]) if asked else JobReport(job_id, "", ()))
        return await self.told(as_it_stands(report, standing), state, error)

    async def cancel(self, request: Request) -> Job:
        """End a job that hasn't ended, as everybody who has asked for it or an operator wants it; how it stands then.
        Raises ForeignRequest, NotAllowed, JobNotFound, OrchestratorUnavailable.
        """
        if not sender_of_request(request).may_order("POST"):
            raise ForeignRequest("A page of another site wants this job cancelled, and no person: nothing was done.")
        job_id, caller = request.path_params["job_id"], caller_of(request)
        job = await self.describe(job_id)
        asked = await asyncio.to_thread(askings_of, self._storage, job_id)
        if not may_cancel(caller, [each.user for each in asked]):
            raise NotAllowed("Others have asked for this disc, too, or you haven't: an operator can cancel it.")
        if job.state in ("waiting", "running"):
            await self._orchestrator.cancel(job_id)
            report = await self._report(job_id)
            numbers = job.accession_numbers or (asked[0].accession_numbers if asked else ())
            await self._trail.cancelled(request, job_id, numbers, report)
        return await self.describe(job_id)

    async def told(self, report: JobReport, state: State, error: JobError | None) -> Job:
        """A job of which this is known."""
        discs = await asyncio.to_thread(self._manifests, report) if state == "done" else []
        report = replace(report, degraded=report.degraded or (discs[0].degraded if discs else ()))
        return Job.of(report, state, error, tuple(_disc_entry(report, manifest) for manifest in discs))

    async def finished(self, job_id: str) -> JobReport:
        """The report of a job that has ended well. Raises JobRunning while it hasn't ended, else as `end_of`."""
        report = await self._report(job_id)
        if report is not None and report.status == "done":
            return report
        standing = await self._orchestrator.standing(job_id)
        if standing not in ENDED:
            raise JobRunning(
                "The job has not ended yet: ask for its state and come back.", job_id=job_id, job=job_address(job_id)
            )
        return await self._outcome(job_id, standing, report)

    async def made(self, job_id: str) -> JobReport:
        """The report of a job that has ended well, or of a print that the publisher has everything of. Raises as
        `finished`.
        """
        report = await self._report(job_id)
        is_ordered = report is not None and report.status == "running" and report.proves
        return report if report is not None and is_ordered else await self.finished(job_id)

    async def disc(self, request: Request, report: JobReport, part: int | None, *, by_us: bool = False) -> Response:
        """The image of a finished job, or of the `part` of its set. `by_us`: nginx doesn't send it, which passes on
        no header but those that it knows. Raises SeveralDiscs where a part has to be named, EncryptionRequired where
        the site hands it out no more.
        """
        manifest = chosen(await self.discs(report), part, report.job_id)
        require_allowed(FORMATS[manifest.format], self._encryption)
        headers = disc_headers(report, manifest)
        span = span_of(request.headers, headers["etag"], manifest.size)
        if span.status in (200, 206):
            return await self._bytes(request, manifest, span, headers, by_us=by_us)
        if span.status == 304:
            return Response(status_code=304, headers=headers)
        if span.status == 412:
            return error_answer(
                request, 412, "precondition_failed", "The disc is another one by now: download it from the beginning."
            )
        words = f"The disc has {manifest.size} bytes; the range that was asked for lies outside."
        return error_answer(request, 416, "range_not_satisfiable", words, {"content-range": f"bytes */{manifest.size}"})

    async def discs(self, report: JobReport) -> list[Manifest]:
        """The discs of a finished job, which are one whole set. Raises JobNotFound where they aren't kept any more."""
        return await asyncio.to_thread(self._manifests, report)

    async def _bytes(
        self, request: Request, disc: Manifest, span: Span, headers: dict[str, str], *, by_us: bool
    ) -> Response:
        """A disc's bytes, sent by nginx or by us. Raises ProofFailed, JobNotFound; its set has then left the shelf."""
        storage, form = self._storage, FORMATS[disc.format]
        try:
            if prefix := "" if by_us else self._accel(request, span.status):
                await asyncio.to_thread(require_right, storage, disc)
            else:
                proved = await asyncio.to_thread(prepared, storage, disc, span, begin=request.method != "HEAD")
        except (ProofFailed, JobNotFound):
            await self._take_off(disc)
            raise
        if request.method != "HEAD":
            await self._trail.leaves(request, disc)
        if prefix:
            del headers["accept-ranges"]  # nginx says so itself
            headers["x-accel-redirect"] = f"{prefix}{disc.disc_id}/{disc.image_name}"
            return Response(headers=headers, media_type=form.media_type)
        if span.status == 206:
            headers["content-range"] = f"bytes {span.start}-{span.stop - 1}/{disc.size}"
        return DiscResponse(proved, span, headers, form.media_type, partial(self._take_off, disc))

    async def _take_off(self, disc: Manifest) -> None:
        await asyncio.to_thread(take_off, self._storage, disc)

    def _accel(self, request: Request, status: int) -> str:
        """nginx sends whole discs where it says that it can; what has a condition is ours, since nginx would judge it
        without knowing our ETag.
        """
        plain = request.method == "GET" and status == 200 and not CONDITIONS & set(request.headers)
        return self._server.accel_redirect if plain and request.headers.get(ACCEL_OFFERED) == "1" else ""

    async def _told(self, job_id: str, *, queued_is_enough: bool) -> JobReport:
        """A download's report as soon as it turns to done, which is before Prefect has written down the run's end and
        the job's folder has gone.

        One that is done from the beginning may be an earlier attempt's: what the run says then is Prefect's to tell. So
        is the end of a print, since the same order again must find that run ended, or it would join it and make no
        second disc.
        """
        begun = False
        while True:
            report = await self._report(job_id)
            if report is not None:
                if begun and report.is_on_the_shelf:
                    return report
                if queued_is_enough and report.status == "running" and report.proves:
                    return report
            begun = begun or report is None or report.status != "done"
            await asyncio.sleep(REPORT_POLL_SECONDS)

    async def _outcome(self, job_id: str, standing: Standing, report: JobReport | None) -> JobReport:
        """As outcome_of, by what was asked for where there is no report, or a damaged one."""
        asked = () if report else await asyncio.to_thread(askings_of, self._storage, job_id)
        kind, why = await self._failure(job_id, standing, report)
        return outcome_of(standing, report, kind or (asked[0].kind if asked else ""), why)

    async def _failure(
        self, job_id: str, standing: Standing | None, report: JobReport | None
    ) -> tuple[str, MkisoError | None]:
        """What a run says itself of a job that failed and couldn't write down why; nothing where it can't be asked."""
        if is_unheard(standing, report):
            with suppress(JobNotFound, OrchestratorUnavailable):
                return await self._orchestrator.failure_of(job_id)
        return "", None

    async def _report(self, job_id: str) -> JobReport | None:
        return await asyncio.to_thread(readable_report, self._storage, job_id)

    def _manifests(self, report: JobReport) -> list[Manifest]:
        return [manifest_of(self._storage, disc_id) for disc_id in report.disc_ids]


def disc_headers(report: JobReport, manifest: Manifest) -> dict[str, str]:
    """What is said of a disc beside its bytes: RFC 9110 8.8.3 (ETag), 14.3 (Accept-Ranges), 8.7 (Content-Location:
    where it stays the same).
    """
    return {
        "etag": f'"{manifest.sha256}"',
        "accept-ranges": "bytes",
        "content-disposition": content_disposition(name_of(report, manifest), FORMATS[manifest.format].suffix),
        "content-location": disc_address(report.job_id, manifest.number),
        "cache-control": "private, no-store",
        **degraded_header(manifest.degraded or report.degraded),
    }


def degraded_header(degraded: Sequence[str]) -> dict[str, str]:
    """What is said of a disc that was made without something."""
    return {"x-mkiso-degraded": ", ".join(degraded)} if degraded else {}


def _disc_entry(report: JobReport, manifest: Manifest) -> Disc:
    return Disc(
        href=disc_address(report.job_id, manifest.number),
        set=manifest.set_id,
        filename=name_of(report, manifest),
        size=manifest.size,
        sha256=manifest.sha256,
        instances=manifest.instances,
        part=manifest.number,
        total=manifest.total,
        medium=manifest.medium,
    )


def gone(report: JobReport) -> Standing:
    """How a job stands whose run isn't there any more: it was cut off, unless its report says that it was stopped."""
    return "failed" if report.error else "crashed"


def is_unheard(standing: Standing | None, report: JobReport | None) -> bool:
    """Whether a job failed and couldn't write down why."""
    return standing == "failed" and (report is None or report.status == "running")


def waiting(job_id: str, told: Asking) -> JobReport:
    """Of a job that has been asked for and that no report tells of yet."""
    return JobReport(
        job_id,
        told.kind,
        told.accession_numbers,
        publisher=told.publisher,
        format=told.format,
        language=told.language,
        transfer_syntax=told.transfer_syntax,
        selection=told.selection,
        updated=told.time,
        deidentified=told.deidentified,
    )


def as_it_stands(report: JobReport, standing: Standing | None) -> JobReport:
    """A job's report, which says nothing itself of an operator who has halted its run."""
    return replace(report, stage=SUSPENDED) if standing == SUSPENDED else report


def state_of(
    standing: Standing | None,
    report: JobReport | None,
    job_id: str,
    kind: str = "",
    why: MkisoError | None = None,
) -> tuple[State, JobError | None]:
    """waiting, running, done or failed, and the error of a failed job; without Prefect, by the report alone. `kind`,
    `why`: as of outcome_of.
    """
    if standing in ("running", SUSPENDED) and report is not None and report.is_on_the_shelf:
        return "done", None
    if standing == SUSPENDED:
        return "running", None
    if standing in ("waiting", "running"):
        return standing, None
    if standing is None and report is not None and report.status == "running":
        return "running", None
    try:
        outcome_of(standing or "completed", report, kind, why)
    except JobFailed as failed:
        return "failed", cast(JobError, failed.report.error)
    except MkisoError as error:
        return "failed", {"error": error.words, "code": error.code, "http_status": error.http_status, "job_id": job_id}
    return "done", None
