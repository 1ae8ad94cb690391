"""A disc of a study that was sent to an inbox."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from pydantic import Field

from flows.collect import lay_out
from flows.parameters import AccessionNumber, Uid
from mkiso.study.selection import numbers_of
from tasks.cleaning import drop_cancelled_burn
from tasks.collect import check_complete, check_one_patient, find_beside, look_up_patient, resume
from tasks.disc import master_images, read_back, resume_discs, shelve_discs
from tasks.inbox import InboxRun, find_sent_study, look_into_inbox, take_sent_study, write_down_sent
from tasks.order import check_label, follow_orders, give_orders, orders_of_images, orders_of_studies

InboxName = Annotated[
    str,
    Field(
        title="Inbox",
        description="The AE title that the study was sent to.",
        min_length=1,
        max_length=16,
        examples=["BURN_CT"],
    ),
]
StudyInstanceUid = Annotated[Uid, Field(title="Study Instance UID", description="Which study of the inbox is meant.")]
SentNumbers = Annotated[
    list[AccessionNumber],
    Field(
        title="Accession numbers",
        description="As the images say; for the run's name.",
        max_length=1,
        examples=[["A100234"]],
    ),
]
MadeBefore = Annotated[
    str,
    Field(
        title="Made before",
        description="The job that has made a disc of this study before more of it came; empty: none has.",
        pattern=r"^([0-9a-f-]{36})?$",
    ),
]


def _name() -> str:
    asked = flow_run.parameters
    numbers = ", ".join(map(str, asked.get("accession_numbers") or ())) or f"study {asked['study_instance_uid']}"
    return f"{asked['inbox']} {numbers}"


@flow(name="burn_sent", flow_run_name=_name, on_cancellation=[drop_cancelled_burn])
def burn_sent(
    inbox: InboxName, study_instance_uid: StudyInstanceUid, accession_numbers: SentNumbers, after: MadeBefore = ""
) -> State:
    """Make a disc of a study that was sent to an inbox, or have a publisher make it."""
    with InboxRun(inbox, study_instance_uid, accession_numbers, after) as run:
        _burn(run)
    return run.state


def _burn(run: InboxRun) -> None:
    run.open()
    discs = resume_discs(run) if run.report.disc_ids else ()
    if discs:
        run.finish(discs)
        return
    maker = run.publisher if run.report.publisher else None
    if maker:
        write_down_sent(run, run.report.accession_numbers)
    sent = look_into_inbox(run)
    told = find_sent_study(run, sent)
    numbers = numbers_of(told.studies)
    looked_up = [look_up_patient(run, number) for number in numbers]
    beside = [find_beside(run, [told])] if run.rules.ask == "pacs" else []
    found = check_one_patient(run, numbers, [told, *beside], looked_up, "", run.without)
    if maker:
        check_label(run, maker, found)
        write_down_sent(run, found.accession_numbers)
    if maker is None or maker.needs_image:
        run.begin_pictures()
    resume(run, found)
    complete = check_complete(run, found, [take_sent_study(run, found, sent)])
    if maker and not maker.needs_image:
        orders = orders_of_studies(run, maker, complete)
    else:
        proven = read_back(run, master_images(run, lay_out(run, complete)))
        if maker is None:
            run.finish(shelve_discs(run, proven))
            return
        orders = orders_of_images(run, maker, proven)
    give_orders(run, maker, complete, orders)
    follow_orders(run, maker, orders)
