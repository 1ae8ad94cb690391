"""The archive: what the days before brought goes onto volumes, complete and each instance once."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from pydantic import Field

from tasks.cleaning import drop_cancelled_archive

FirstDate = Annotated[
    date | None,
    Field(
        title="First StudyDate", description="Empty, as the last one: what the schedule owes, missed nights included."
    ),
]
LastDate = Annotated[date | None, Field(title="Last StudyDate", description="Empty: only the first one.")]
DryRun = Annotated[bool, Field(title="Dry run", description="Say what would be archived, and archive nothing.")]


def _name() -> str:
    asked = flow_run.parameters
    dates = " to ".join(str(asked[key]) for key in ("date_from", "date_to") if asked.get(key))
    return f"{'Dry run of the archive' if asked.get('dry_run') else 'Archive'} {dates or 'by schedule'}"


@flow(name="nightly_archive", flow_run_name=_name, on_cancellation=[drop_cancelled_archive])
def nightly_archive(date_from: FirstDate = None, date_to: LastDate = None, dry_run: DryRun = False) -> State:
    """Archive the studies of a range of dates, or without dates those that the schedule owes."""
    # SQLAlchemy comes with the ledger, and no other job needs it: else it would lie in the memory of each.
    from tasks.archive import (
        close_night,
        find,
        finish_left_overs,
        follow_orders,
        make_volume,
        plan_night,
        retrieve_study,
    )
    from tasks.archive_run import ArchiveRun

    with ArchiveRun(date_from, date_to, dry_run=dry_run) as run:
        run.start()
        if not dry_run:
            finish_left_overs(run)
        find(run)
        plan_night(run)
        for study in run.studies():
            with run.attempt(study):
                retrieve_study(run, study, study.label)
            for volume in run.full_volumes():
                make_volume(run, volume, len(volume))
        for volume in run.last_volumes():
            make_volume(run, volume, len(volume))
        if not dry_run:
            follow_orders(run)
            close_night(run)
    return run.state
