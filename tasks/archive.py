"""The steps of a night: their names, their retries."""

from __future__ import annotations

from mkiso.archive import delivery, making, retrieval, search
from mkiso.study.models import Study
from tasks.archive_run import ArchiveRun
from tasks.step import step

finish_left_overs = step("Finish what earlier runs left")(delivery.finish_left_overs)
find = step("Find the studies of the night", patient=True)(search.find)
plan_night = step("Plan the night", patient=True)(search.plan_night)
follow_orders = step("Follow the publisher to the end")(delivery.follow_orders)
close_night = step("Close the night")(delivery.close_night)


@step("Retrieve study", "Retrieve {name}", patient=True)
def retrieve_study(run: ArchiveRun, study: Study, name: str) -> None:
    """`name` is what an operator knows it by."""
    retrieval.retrieve(run, study)


@step("Make volume", "Make volume of {studies} studies")
def make_volume(run: ArchiveRun, uids: tuple[str, ...], studies: int) -> None:
    """Of the studies of these UIDs."""
    making.make_volumes(run, uids)
