"""What is cleared away: the folder of a cancelled job, and everything that is older than it is kept."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound

from mkiso.config.in_force import in_force
from mkiso.errors import MkisoError
from mkiso.housekeeping import Standing, forget_cancelled, sweep
from mkiso.publishers.orders import cancel_orders
from mkiso.storage.files import is_uuid
from mkiso.storage.job import Job
from mkiso.storage.report import find_report
from mkiso.storage.reread import reread_shelf
from mkiso.storage.rounds import why_resting
from mkiso.study.accession import parse_accession_numbers
from mkiso.study.selection import Selection, selection_of

log = logging.getLogger("mkiso.cleaning")

BATCH = 200
OURS = "mkiso"
"""The tag that the runs of mkiso's deployments have: a Prefect server of the site's own has others too."""


def forget_cancelled_job(flow: Any, flow_run: FlowRun, state: State) -> None:
    """Prefect's cancellation hook: runs in the worker once the job's process has ended, and removes what the job had
    retrieved.
    """
    forget_cancelled(Job(str(flow_run.id), "download", in_force()))


def drop_cancelled_print(flow: Any, flow_run: FlowRun, state: State) -> None:
    """As forget_cancelled_job; an order that was given already is taken back where the publisher has a way."""
    with _taking_back(flow, flow_run, state) as job:
        selection, asked = selection_of(flow_run.parameters), list(flow_run.parameters["accession_numbers"])
        numbers = parse_accession_numbers(asked, job.settings.server.max_accessions) if asked else ()
        _take_back(job, numbers, selection)


def drop_cancelled_burn(flow: Any, flow_run: FlowRun, state: State) -> None:
    """As drop_cancelled_print, for a study that was sent to an inbox; what was sent stays there as long as it is
    kept.
    """
    with _taking_back(flow, flow_run, state) as job:
        asked = tuple(flow_run.parameters.get("accession_numbers") or ())
        if report := find_report(job.settings.storage, job.id):
            asked = report.accession_numbers
        _take_back(job, asked, Selection((str(flow_run.parameters["study_instance_uid"]),)))


@contextmanager
def _taking_back(flow: Any, flow_run: FlowRun, state: State) -> Iterator[Job]:
    try:
        yield Job(str(flow_run.id), "print", in_force())
    except MkisoError as error:
        log.error("Job %s was cancelled; its order couldn't be taken back: %s", flow_run.id, error.words)
    finally:
        forget_cancelled_job(flow, flow_run, state)


def _take_back(job: Job, asked: tuple[str, ...], selection: Selection) -> None:
    for words, is_left in cancel_orders(job, asked, selection):
        log.log(logging.WARNING if is_left else logging.INFO, "Job %s was cancelled: %s", job.id, words)


def drop_cancelled_archive(flow: Any, flow_run: FlowRun, state: State) -> None:
    """As forget_cancelled_job: studies that waited for their volume go; what is on volumes stays, and the next run
    archives the rest.
    """
    Job(str(flow_run.id), "archive", in_force()).discard()


@task(name="Remove old discs and folders", cache_policy=NO_CACHE, persist_result=False)
def remove_old_files() -> None:
    """Discs, folders of failed jobs, reports and unfinished instances that are older than they are kept; folders of
    active runs stay.
    """
    get_run_logger().info("Removed: %s.", sweep(in_force(), standings))


def standings(job_ids: Collection[str]) -> dict[str, Standing]:
    """What became of the runs of these ids; those that Prefect doesn't know, or that are no run's id, are left out."""
    told: dict[str, Standing] = {}
    asked = [UUID(job_id) for job_id in job_ids if is_uuid(job_id)]
    with get_client(sync_client=True) as client:
        for start in range(0, len(asked), BATCH):
            some = FlowRunFilter.model_validate({"id": {"any_": asked[start : start + BATCH]}})
            for run in client.read_flow_runs(flow_run_filter=some, limit=BATCH):
                told[str(run.id)] = _standing_of(run.state_type)
    return told


def _standing_of(state: StateType | None) -> Standing:
    match state:
        case StateType.COMPLETED | StateType.CANCELLED:
            return "over"
        case StateType.FAILED | StateType.CRASHED:
            return "failed"
    return "active"


@task(name="Remove old runs from Prefect", cache_policy=NO_CACHE, persist_result=False)
def remove_old_runs() -> None:
    """Prefect keeps every run for ever by itself; ended ones older than prefect.keep_runs_days go, with their logs and
    artifacts.
    """
    if words := why_resting(in_force().storage):
        get_run_logger().warning("%s", words)
        return
    oldest = datetime.now(UTC) - timedelta(days=in_force().prefect.keep_runs_days)
    get_run_logger().info("Removed %s runs that ended before %s.", remove_runs(oldest), oldest.date())


def remove_runs(oldest: datetime) -> int:
    """Remove mkiso's own runs that ended before then; how many went."""
    wanted = {
        "state": {"type": {"any_": [*TERMINAL_STATES]}},
        "end_time": {"before_": oldest},
        "tags": {"all_": [OURS]},
    }
    ended, removed = FlowRunFilter.model_validate(wanted), 0
    with get_client(sync_client=True) as client:
        while runs := client.read_flow_runs(flow_run_filter=ended, limit=BATCH):
            for run in runs:
                with suppress(ObjectNotFound):  # Prefect's own round has removed it meanwhile, or another machine
                    client.delete_flow_run(run.id)
                    removed += 1
    return removed


@task(name="Read the shelf again", cache_policy=NO_CACHE, persist_result=False)
def reread_discs() -> None:
    """Discs that nobody has read for hours; where one isn't what was proved, it goes and this run fails, to be seen."""
    found = reread_shelf(in_force().storage)
    get_run_logger().info("Read %s discs again; %s were not what was proved.", found.discs, found.taken_off)
    found.require_all_right()
