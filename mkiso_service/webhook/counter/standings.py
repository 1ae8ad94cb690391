"""How the jobs stand whose reports are listed: as Prefect has it, where a report doesn't say how its job ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mkiso.errors import JobStopped, OrchestratorUnavailable
from mkiso.storage.report import JobReport
from mkiso_service.prefect.orchestrator import Orchestrator, Standing
from mkiso_service.webhook.discs.jobs import gone


async def standings_of(reports: Iterable[JobReport], orchestrator: Orchestrator) -> Mapping[str, Standing | None]:
    """Of those whose report doesn't say how they ended; None where nobody can be asked."""
    open_ones = {report.job_id: report for report in reports if _may_change(report)}
    try:
        known = await orchestrator.standings_of(list(open_ones)) if open_ones else {}
    except OrchestratorUnavailable:
        return {job_id: "waiting" if report.stage == "waiting" else None for job_id, report in open_ones.items()}
    return {**{job_id: gone(report) for job_id, report in open_ones.items()}, **known}


def _may_change(report: JobReport) -> bool:
    """Whether Prefect knows more: a job that was stopped may be cancelled, or wait to be taken up again."""
    return report.status == "running" or report.error.get("code") == JobStopped.code
