"""A disc made by a publisher."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from flows.collect import find, lay_out, retrieve
from flows.parameters import (
    AccessionNumbers,
    DiscLanguage,
    DiscTransferSyntax,
    Priors,
    SeriesUids,
    ShownPatient,
    StudyUids,
    named,
)
from mkiso.study.selection import Selection
from tasks.cleaning import drop_cancelled_print
from tasks.disc import master_images, read_back
from tasks.job_run import JobRun
from tasks.order import (
    check_label,
    follow_orders,
    give_orders,
    orders_of_images,
    orders_of_studies,
    write_down,
    write_down_found,
)

PublisherName = Annotated[
    str,
    Field(
        title="Publisher",
        description="A name under `publishers` of the configuration; empty: print.publisher.",
        max_length=64,
    ),
]
ConfirmReprint = Annotated[
    bool,
    Field(
        title="Print again",
        description="Only after somebody has looked at the robot: an earlier attempt ended unclear, and no disc of it "
        "lies there.",
    ),
]
OrdersTold = Annotated[
    int,
    Field(
        title="Orders told",
        description="Of how many earlier orders of this disc the person was told who asks; if there are more, none is "
        "given. -1: nobody was told.",
        ge=-1,
    ),
]


@flow(name="print_disc", flow_run_name=named("print"), on_cancellation=[drop_cancelled_print])
def print_disc(
    accession_numbers: AccessionNumbers,
    publisher: PublisherName = "",
    confirm_reprint: ConfirmReprint = False,
    shown: ShownPatient = "",
    language: DiscLanguage = "",
    study_uids: StudyUids = (),
    series_uids: SeriesUids = (),
    priors: Priors = False,
    transfer_syntax: DiscTransferSyntax = "",
    orders_told: OrdersTold = -1,
) -> State:
    """Have a disc of one patient's studies made by a disc publisher."""
    asked = {"language": language, "transfer_syntax": transfer_syntax}
    selection = Selection(study_uids, series_uids, priors)
    with JobRun("print", accession_numbers, publisher, **asked, selection=selection, deidentified=False) as run:
        question = run.question()
        write_down(run, question, confirm_reprint, orders_told)
        run.start()
        maker = run.publisher  # an unknown one ends the job before the PACS is asked
        found = find(run, question, shown)
        check_label(run, maker, found)
        write_down_found(run, found, confirm_reprint, orders_told)
        if maker.needs_image:
            run.begin_pictures()
        studies = retrieve(run, found)
        if maker.needs_image:
            proven = read_back(run, master_images(run, lay_out(run, studies)))
            [studies], orders = proven.studies, orders_of_images(run, maker, proven)
        else:
            orders = orders_of_studies(run, maker, studies)
        give_orders(run, maker, studies, orders)
        follow_orders(run, maker, orders)
    return run.state
