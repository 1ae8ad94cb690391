"""The steps from complete studies to proven discs on the shelf."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from mkiso.deidentify.copies import deidentified
from mkiso.errors import InvalidRequest, JobNotFound
from mkiso.formats.proven_set import ProvenSet, WrittenSet, manifests_of, prove, write_set
from mkiso.formats.reuse import finished_discs
from mkiso.media.disc_set import DiscSet, lay_out_set
from mkiso.media.explicit import AS_ARCHIVED, Conversion, convert, convert_studies
from mkiso.media.file_set import arrange
from mkiso.media.presented import states_of
from mkiso.media.rendering import NO_PICTURES, Pictures
from mkiso.media.reporting import Reports, has_reports, prepare_reports
from mkiso.media.shown import key_instances
from mkiso.pictures.pyav import HOW_TO_GET_IT
from mkiso.pictures.values import Reason
from mkiso.storage.shelf import Manifest, manifest_of, shelve_set
from mkiso.study.gate import CompleteStudies
from mkiso.study.values import Found
from tasks.job_run import JobRun
from tasks.step import step


@step("Look for the discs of an earlier attempt")
def resume_discs(run: JobRun) -> tuple[Manifest, ...]:
    """What this job has made already, where an earlier attempt was cut off after it had told of its discs.

    A job makes one set: somebody may have the first of its discs and come to its address for the second. That holds
    too where somebody has changed what the run asks for since. Raises JobNotFound, InvalidRequest.
    """
    try:
        discs = tuple(manifest_of(run.settings.storage, disc_id) for disc_id in run.report.disc_ids)
    except JobNotFound:
        raise JobNotFound("The discs of this job were made and aren't kept any more: ask for them again.") from None
    if not all(map(run.is_answered_by, discs)):
        run.keep_question_of(discs[0])
        raise InvalidRequest(
            "This job has made its discs, and its run asks for something else by now. A job makes one set of discs: "
            "ask for the other one as a job of its own."
        )
    return discs


@step("Look for a disc of the same content")
def look_for_finished_disc(run: JobRun, found: Found) -> tuple[Manifest, ...]:
    """A set of discs made a short while ago is served again where it holds just what the PACS still says; empty where
    there is none.
    """
    return tuple(finished_discs(run.settings, found, run.form, deidentified=run.report.deidentified))


@step("De-identify")
def deidentify(run: JobRun, studies: CompleteStudies) -> CompleteStudies:
    """Copies that don't say whose they are, which pass the gate under their pseudonyms."""
    run.tell("de-identifying")
    count = len(studies.instances)
    return deidentified(
        studies,
        run.job.copies_dir,
        run.settings.deidentified,
        lambda arrivals: convert(arrivals, run.job.converted_dir, fork_server=run.settings.storage.pictures_socket).of,
        lambda done: run.tell_seldom(f"de-identifying ({done} of {count})"),
    )


@step("Convert images", idle=lambda run, studies: run.settings.disc.transfer_syntax == "as-archived")
def convert_images(run: JobRun, studies: CompleteStudies) -> tuple[CompleteStudies, Conversion]:
    """What the disc holds in place of what was archived, where it is to be Explicit VR Little Endian
    (disc.transfer_syntax); without earlier studies that can't be.
    """
    if run.settings.disc.transfer_syntax == "as-archived":
        return studies, AS_ARCHIVED
    run.tell("converting images")
    kept, conversion, refused = convert_studies(
        studies,
        run.job.converted_dir,
        lambda done, of: run.tell_seldom(f"converting images ({done} of {of})"),
        fork_server=run.settings.storage.pictures_socket,
    )
    for uid, error in refused.items():
        run.log.warning("Going on without the earlier study %s: %s", uid, error.words)
    if refused:
        run.tell_complete(kept)
    return kept, conversion


@step("Finish pictures", idle=lambda run, studies: run.renderer is None)
def finish_pictures(run: JobRun, studies: CompleteStudies) -> Pictures:
    """The pictures of the instances that passed the gate; most were made while others still arrived."""
    if run.renderer is None:
        return NO_PICTURES
    run.tell("making pictures")
    states, is_all = states_of(studies.instances), run.settings.disc.pictures == "all"
    wanted = studies.instances if is_all else key_instances(arrange(studies.instances), states)
    arrivals = [instance.arrival for instance in wanted]
    pictures = run.renderer.finish(
        arrivals,
        lambda done: run.tell_seldom(f"making pictures ({done} of {len(arrivals)})"),
        states=states,
    )
    for reason, count in pictures.not_shown.items():
        remedy = f" {HOW_TO_GET_IT}" if reason is Reason.VIDEO else ""
        run.log.info("%d without a picture: %s%s", count, reason.words, remedy)
    return pictures


@step("Read reports", idle=lambda run, studies: not has_reports(studies.instances))
def read_reports(run: JobRun, studies: CompleteStudies) -> Reports:
    """What instances without images say: their documents and drawings as files, for the pages to lead to."""
    return prepare_reports(studies.instances, run.job.documents_dir)


@step("Lay out disc")
def lay_out_discs(
    run: JobRun, studies: CompleteStudies, conversion: Conversion, pictures: Pictures, reports: Reports
) -> DiscSet:
    """Names, DICOMDIR, pages, pictures, viewer; what doesn't fit one disc becomes a set where `disc.span` allows it."""
    run.tell("laying out")
    disc_set = lay_out_set(
        studies,
        run.settings,
        run.job.disc_dir,
        created=datetime.now(UTC),
        medium=run.carrier,
        pictures=pictures,
        reports=reports,
        envelopes=run.envelopes,
        conversion=conversion,
    )
    for note in disc_set.notes:
        run.log.info("%s", note)
    return disc_set


@step("Master image")
def master_images(run: JobRun, disc_set: DiscSet) -> WrittenSet:
    """In the format that was asked for."""
    run.tell("mastering")
    images = [run.job.image(layout.volume.number, run.form.suffix) for layout in disc_set.layouts]
    return write_set(disc_set, run.form, images, lambda layout: run.tell_written(layout.instances))


@step("Read image back")
def read_back(run: JobRun, written: WrittenSet) -> ProvenSet:
    """Every file of the finished image against the SHA-256 taken when it was received or made, in both directions."""
    return prove(written, lambda _: run.tell("reading back"))


@step("Put disc on the shelf")
def shelve_discs(run: JobRun, proven: ProvenSet) -> tuple[Manifest, ...]:
    """The set's images and manifests into the disc store, all or none."""
    manifests = manifests_of(proven, run.job.id, run.settings, run.report.inbox)
    if run.report.deidentified:  # which question they answer is kept here, and isn't on them
        numbers, chosen = run.report.accession_numbers, run.report.selection
        manifests = tuple(replace(each, accession_numbers=numbers, selection=chosen) for each in manifests)
    pairs = zip(proven.discs, manifests, strict=True)
    return shelve_set(run.settings.storage, ((disc.image, manifest, disc.proof.marks) for disc, manifest in pairs))


@step("Leave the password for who asked", idle=lambda run: not run.form.is_encrypted)
def leave_password(run: JobRun) -> None:
    """Sealed, so that nobody else can open it; nothing where the disc isn't encrypted."""
    run.hand_over_password()
