"""The steps from complete studies to a disc in a publisher's tray."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mkiso import audit
from mkiso.job import Job
from mkiso.models import Patient, Volume
from mkiso.publishers import Order, Publisher, Receipt, Watch, cancel, follow, give, publisher_of, question_of
from tasks.job_run import JobRun
from tasks.step import step


@step("Order discs from the publisher")
def give_orders(run: JobRun, publisher: Publisher, confirm_reprint: bool) -> None:
    """Give each order once: what an earlier attempt of this job has given is not given again."""
    run.tell(f"ordering from {publisher.name}")
    for order in orders(run, publisher):
        receipt = give(publisher, order, run.job.settings.storage.orders_dir, _watch(run), confirm_reprint=confirm_reprint)
        _note(run, receipt)
        if not receipt.given_before:
            _audit(run, publisher, order)
    run.tell("ordered", proves="queued", written=len(run.job.instances))


@step("Follow the publisher to the end")
def follow_orders(run: JobRun, publisher: Publisher) -> None:
    """Until the publisher has made the discs, as far as it tells."""
    receipts = [follow(publisher, order, run.job.settings.storage.orders_dir, _watch(run)) for order in orders(run, publisher)]
    for warning in (warning for receipt in receipts for warning in receipt.warnings):
        run.log.warning("%s: %s", publisher.name, warning)
    proves = "done" if all(receipt.proves == "done" for receipt in receipts) else "queued"
    made = "reports the disc as made" if proves == "done" else "has everything; it doesn't tell when a disc is made"
    run.words = f"{len(run.job.instances)} images sent: {publisher.name} {made}."
    run.tell("done", proves=proves)


def orders(run: JobRun, publisher: Publisher) -> Iterator[Order]:
    """One order a volume where the publisher takes images, else one for the whole."""
    job = run.job
    study = job.studies[0]
    known = Patient(study.patient_id, job.patient_name, study.patient_birth_date, study.patient_sex)
    whole = replace(
        _order_of(job, publisher.name),
        patient=job.patient or known,
        instances=tuple(instance.arrival for instance in job.instances.values()),
        study_date=study.study_date,
    )
    if not publisher.needs_image:
        yield whole
        return
    for layout, proof in zip(run.layouts, run.proofs, strict=True):
        of_volume = tuple(job.instances[file.sop_instance_uid].arrival for file in layout.files if file.sop_instance_uid)
        yield replace(
            whole,
            instances=of_volume,
            image=job.image(layout.volume.number),
            image_sha256=proof.sha256,
            volume_id=layout.volume_id,
            volume=layout.volume,
        )


def cancel_orders(job: Job, publisher_name: str) -> list[str]:
    """Ask the publisher to drop what this job has ordered, where it has a way; what came of each order in words.

    Raises PublisherUnavailable, PrintUncertain, ConfigurationError.
    """
    publisher = publisher_of(publisher_name, job.settings)
    order = _order_of(job, publisher_name)
    volumes = len(list(job.folder.glob("disc*.iso"))) or 1
    asked = [cancel(publisher, replace(order, volume=Volume(number, volumes)), job.settings.storage.orders_dir) for number in range(1, volumes + 1)]
    dropped = f"the order at {publisher_name} was withdrawn, or asked to be dropped."
    return [dropped if each else f"{publisher_name} can't be asked to drop its order." for each in asked if each is not None]


def _order_of(job: Job, publisher_name: str) -> Order:
    configured = job.settings.publishers[publisher_name]
    return Order(
        job.id,
        question_of(publisher_name, job.accession_numbers),
        Patient(""),
        job.accession_numbers,
        institution=job.settings.disc.institution,
        copies=configured.copies,
        medium=configured.medium,
    )


def _watch(run: JobRun) -> Watch:
    def progress(words: str, done: int, total: int) -> None:
        run.tell_seldom(f"{words} ({done} of {total})" if total else words)

    return Watch(progress=progress)


def _audit(run: JobRun, publisher: Publisher, order: Order) -> None:
    """Write the export down. The order is given: whatever goes wrong here, the job goes on to follow it."""
    job, configured = run.job, run.job.settings.publishers[publisher.name]
    studies = {study.study_instance_uid: study.accession_number for study in job.studies}
    left = audit.Left(job.studies[0].patient_id, job.patient_name, studies, len(order.instances))
    address = configured.host if configured.directory is None else ""
    try:
        audit.exported(job.settings, left, audit.Party(publisher.name, audit.DESTINATION, address), job.id)
    except Exception as fault:
        run.log.error("The audit message of this order couldn't be made: %s", type(fault).__name__)


def _note(run: JobRun, receipt: Receipt) -> None:
    run.log.info("%s: %s", receipt.publisher, receipt.words)
    for warning in receipt.warnings:
        run.log.warning("%s: %s", receipt.publisher, warning)
    if receipt.minutes_since_last is not None:
        run.log.warning("The same was printed %s minutes ago.", round(receipt.minutes_since_last))
