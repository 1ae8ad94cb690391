"""A disc image for download."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State

from flows.collect import find, lay_out, retrieve
from flows.parameters import (
    AccessionNumbers,
    Deidentified,
    DiscFormat,
    DiscLanguage,
    DiscTransferSyntax,
    PasswordSeal,
    Priors,
    SeriesUids,
    ShownPatient,
    StudyUids,
    named,
)
from mkiso.study.selection import Selection
from tasks.cleaning import forget_cancelled_job
from tasks.disc import (
    deidentify,
    leave_password,
    look_for_finished_disc,
    master_images,
    read_back,
    resume_discs,
    shelve_discs,
)
from tasks.job_run import JobRun


@flow(name="make_disc", flow_run_name=named("download"), on_cancellation=[forget_cancelled_job])
def make_disc(
    accession_numbers: AccessionNumbers,
    shown: ShownPatient = "",
    language: DiscLanguage = "",
    format: DiscFormat = "iso",
    seal: PasswordSeal = "",
    study_uids: StudyUids = (),
    series_uids: SeriesUids = (),
    priors: Priors = False,
    transfer_syntax: DiscTransferSyntax = "",
    deidentified: Deidentified = False,
) -> State:
    """Make a disc image of one patient's studies."""
    asked = {"language": language, "form": format, "seal": seal, "transfer_syntax": transfer_syntax}
    chosen = Selection(study_uids, series_uids, priors)
    with JobRun("download", accession_numbers, **asked, selection=chosen, deidentified=deidentified) as run:
        question = run.start()
        discs = resume_discs(run) if run.report.disc_ids else ()
        if not discs:
            found = find(run, question, shown)
            discs = look_for_finished_disc(run, found)
        if not discs:
            if not deidentified:
                run.begin_pictures()
            studies = retrieve(run, found)
            if deidentified:
                studies = deidentify(run, studies)
                run.begin_pictures()
            proven = read_back(run, master_images(run, lay_out(run, studies)))
            discs = shelve_discs(run, proven)
            leave_password(run)
        run.finish(discs)
    return run.state
