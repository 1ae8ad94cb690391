"""The steps from complete studies to proven discs on the shelf."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from mkiso.config import Medium
from mkiso.errors import ProofFailed, TooLargeForMedium
from mkiso.files import sync_file
from mkiso.media.iso import master
from mkiso.media.layout import Layout, lay_out
from mkiso.media.names import filename
from mkiso.media.verify import verify_image
from mkiso.media.viewer import bundle_viewer
from mkiso.media.volumes import room_sectors, span
from mkiso.models import Instance, Volume
from mkiso.store import Manifest, new_disc_id, reusable, shelve
from tasks.job_run import JobRun
from tasks.step import step


@step("Look for a disc of the same content")
def look_for_finished_disc(run: JobRun) -> None:
    """A disc made a short while ago is served again where the PACS still says exactly the same."""
    settings = run.job.settings
    discs = reusable(settings.storage, _fingerprint(run), settings.disc.reuse_minutes)
    if discs:
        run.finish(discs, f"Served again: the disc of {discs[0].created[:16].replace('T', ' ')} UTC; the PACS has nothing else since.")


@step("Lay out disc")
def lay_out_discs(run: JobRun) -> None:
    """Names, DICOMDIR, pages, viewer; what doesn't fit one disc becomes a set where `disc.span` allows it."""
    run.tell("laying out")
    settings, created = run.job.settings, datetime.now(UTC)
    medium = settings.publishers[run.report.publisher].medium if run.report.publisher else settings.disc.medium
    instances = list(run.job.instances.values())
    try:
        run.layouts = [_lay_out(run, [instances], 1, medium, created)]
    except TooLargeForMedium:
        if not settings.disc.span:
            raise
        room = room_sectors(medium, bundle_viewer(settings.viewer, settings.storage.viewer_hashes).files)
        parts = span(instances, room, medium)
        run.layouts = [_lay_out(run, parts, number, medium, created) for number in range(1, len(parts) + 1)]
    laid_out = sorted(file.sop_instance_uid for layout in run.layouts for file in layout.files if file.sop_instance_uid)
    if laid_out != sorted(run.job.instances):
        raise ProofFailed("The layout of the disc doesn't have each image exactly once: nothing was made. Tell who maintains mkiso.")
    for note in dict.fromkeys(note for layout in run.layouts for note in layout.notes):
        run.log.info("%s", note)


def _lay_out(run: JobRun, parts: Sequence[Collection[Instance]], number: int, medium: Medium, created: datetime) -> Layout:
    return lay_out(
        parts[number - 1],
        run.job.settings,
        run.job.disc_dir / str(number),
        created=created,
        patient=run.job.patient,
        volume=Volume(number, len(parts)),
        medium=medium,
        elsewhere={other: part for other, part in enumerate(parts, start=1) if other != number},
    )


@step("Master image")
def master_images(run: JobRun) -> None:
    """ISO 9660 level 1 with Joliet."""
    institution = run.job.settings.disc.institution
    run.tell("mastering")
    for layout in run.layouts:
        master(layout.files, layout.volume_id, run.job.image(layout.volume.number), created=layout.created, publisher=institution)
        run.tell("mastering", written=run.report.written + layout.instances)


@step("Read image back")
def read_back(run: JobRun) -> None:
    """Every file of the finished image against the SHA-256 taken when it was received or made, in both directions.

    Meanwhile the image goes to the disk, which it must have reached before it is shelved.
    """
    for layout in run.layouts:
        run.tell("reading back")
        image = run.job.image(layout.volume.number)
        with ThreadPoolExecutor(1) as beside:
            written = beside.submit(sync_file, image)
            run.proofs.append(verify_image(image, layout.files))
            written.result()


@step("Put disc on the shelf")
def shelve_discs(run: JobRun) -> None:
    """Image and manifest into the disc store, whole or not at all."""
    discs = [_manifest(run, layout, proof.size, proof.sha256) for layout, proof in zip(run.layouts, run.proofs, strict=True)]
    for layout, disc in zip(run.layouts, discs, strict=True):
        shelve(run.job.settings.storage, run.job.image(layout.volume.number), disc)
    studies = len(run.job.studies)
    run.finish(discs, f"{len(run.job.instances)} images of {studies} {'study' if studies == 1 else 'studies'}, proved complete.")


def _manifest(run: JobRun, layout: Layout, size: int, sha256: str) -> Manifest:
    job = run.job
    base = job.accession_numbers[0] if len(job.accession_numbers) == 1 else job.patient_name
    part = f" {layout.volume.number} of {layout.volume.total}" if layout.volume.total > 1 else ""
    return Manifest(
        disc_id=new_disc_id(),
        job_id=job.id,
        created=layout.created.isoformat(timespec="seconds"),
        volume_id=layout.volume_id,
        filename=f"{filename(base + part)}.iso",
        accession_numbers=job.accession_numbers,
        fingerprint=_fingerprint(run),
        size=size,
        sha256=sha256,
        instances=layout.instances,
        medium=layout.medium,
        number=layout.volume.number,
        total=layout.volume.total,
        degraded=tuple(job.degraded),
        patient_id=job.studies[0].patient_id,
        patient_name=job.patient_name,
        studies={study.study_instance_uid: study.accession_number for study in job.studies},
        files=tuple(
            {"path": str(file.path), "size": file.size, "sha256": file.sha256, "sop_instance_uid": file.sop_instance_uid} for file in layout.files
        ),
    )


def _fingerprint(run: JobRun) -> str:
    """Of all that a disc is made from: what the PACS says, and the settings that show on the disc."""
    settings = run.job.settings
    parts = (run.job.fingerprint, settings.disc.model_dump_json(), settings.viewer.model_dump_json())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
