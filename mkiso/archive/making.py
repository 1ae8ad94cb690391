"""From complete studies to volumes that are mastered, proved and written down."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime

from mkiso.archive.delivery import deliver
from mkiso.archive.job import ArchiveJob
from mkiso.archive.manifest import MANIFEST, new_manifest, write_down_whose
from mkiso.archive.volumes import VOLUMES, ArchiveVolume, MasteredVolume, StudyOnVolume
from mkiso.errors import ProofFailed
from mkiso.formats.proven_set import Proven, prove, write_set
from mkiso.media.disc_set import DiscSet, divide, lay_out_volumes
from mkiso.media.filling import volume_sectors
from mkiso.media.layout import Layout
from mkiso.storage.files import write_whole
from mkiso.storage.room import size_words
from mkiso.study.gate import Part


def make_volumes(run: ArchiveJob, uids: tuple[str, ...]) -> None:
    """Lay out, master, read back, write down, deliver the volume of these studies; a study that no volume holds becomes
    a set of them, written down in one step.
    """
    settings, archive = run.job.settings, run.job.settings.archive
    pooled = [run.pool[uid] for uid in uids]
    parts = divide([each.complete() for each in pooled], run.room, archive.medium)
    planned = run.night.plan(archive.medium, archive.output, run.today, total=len(parts))
    places = [(volume.label, volume.folder / "disc") for volume in planned]
    disc_set = lay_out_volumes(parts, places, settings, created=datetime.now(UTC), medium=archive.medium)
    require_size(disc_set, archive.volume_mib)
    proven = prove(write_set(disc_set, VOLUMES, [volume.image for volume in planned]))
    finished = [_finish(volume, disc, part) for volume, disc, part in zip(planned, proven.discs, parts, strict=True)]
    run.night.mastered(finished)
    run.outcome = replace(run.outcome, archived=run.outcome.archived + len(uids))
    run.night.release(uids)
    for each in pooled:
        each.job.discard()
        del run.pool[each.study.study_instance_uid]
    for made in finished:
        volume = as_mastered(made)
        run.made(volume)
        deliver(run, volume)


def require_size(disc_set: DiscSet, volume_mib: int) -> None:
    """Raise ProofFailed where a volume is larger than it was counted."""
    for layout in disc_set.layouts:
        if layout.sectors > volume_sectors(layout.medium, volume_mib):
            raise ProofFailed(
                f"{layout.volume_id} turned out larger than it was counted ({size_words(layout.size)}): it isn't "
                "used. Tell the administrator of mkiso."
            )


def _finish(volume: ArchiveVolume, disc: Proven, part: Part) -> MasteredVolume:
    """What the ledger is told of a volume; its manifest lies beside the image from now on."""
    sha256 = disc.proof.sha256
    write_whole(volume.folder / MANIFEST, new_manifest(disc.layout, sha256), durable=True)
    shutil.rmtree(volume.folder / "disc")
    write_down_whose(volume, part)
    others = [file for file in disc.layout.files if not file.sop_instance_uid]
    return MasteredVolume(volume, sha256, studies_on(disc.layout, part), others)


def studies_on(layout: Layout, part: Part) -> list[StudyOnVolume]:
    """Which files of a volume are of which study. Pure."""
    study_of = {instance.arrival.sop_instance_uid: instance.arrival.study_instance_uid for instance in part.instances}
    on_volume = [
        StudyOnVolume(
            study.study_instance_uid,
            study.accession_number,
            study.study_date,
            [file for file in layout.files if study_of.get(file.sop_instance_uid) == study.study_instance_uid],
        )
        for each in part.studies
        for study in each.studies
    ]
    return [study for study in on_volume if study.files]


def as_mastered(made: MasteredVolume) -> ArchiveVolume:
    """The volume as the ledger has it once it is mastered."""
    return replace(
        made.volume,
        state="mastered",
        sha256=made.sha256,
        size=made.volume.image.stat().st_size,
        instances=sum(len(study.files) for study in made.studies),
    )
