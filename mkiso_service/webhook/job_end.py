"""How a job ended, from what Prefect knows of its run and what its report says: a pure decision."""

from __future__ import annotations

from typing import Literal

from mkiso.errors import JobCancelled, JobCrashed, MkisoError
from mkiso.storage.report import JobReport, after_a_break

Standing = Literal["waiting", "running", "completed", "failed", "crashed", "cancelled"]
ENDED: frozenset[Standing] = frozenset(("completed", "failed", "crashed", "cancelled"))


class JobFailed(Exception):
    """The job ended as failed, for the reason in its report: the words, code, status and details of the MkisoError that
    ended it.
    """

    def __init__(self, report: JobReport) -> None:
        super().__init__(report.error.get("code", "error"))
        self.report = report


def outcome_of(standing: Standing, report: JobReport | None) -> JobReport:
    """The report of a job whose run has ended well.

    Raises JobFailed with the report's reason; JobCrashed or JobCancelled where the run ended without one. A report of
    an earlier attempt is no reason for a crash of this one.
    """
    if report is not None and report.status == "done":
        return report
    if report is not None and report.status == "failed" and standing in ("completed", "failed"):
        raise JobFailed(report)
    raise end_without_report(standing, report.kind if report else "")


def end_without_report(standing: Standing, kind: str) -> MkisoError:
    """What is said of a run that ended without a word of its own."""
    if standing == "cancelled":
        return JobCancelled(
            "The job was cancelled by an operator. "
            f"{after_a_break(kind, 'Nothing was sent; ask again to start it anew.')}"
        )
    words = "The job was cut off before it could say why (its process or machine went down)."
    return JobCrashed(f"{words} {after_a_break(kind, 'Nothing was sent; ask again.')}")
