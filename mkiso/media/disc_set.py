"""A set of discs: complete studies laid out on as many discs as they need, written, and read back. It is one thing; a
part is always a part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mkiso.config.settings import Medium, Settings
from mkiso.errors import ProofFailed, TooLargeForMedium
from mkiso.implementation import program_version
from mkiso.media.iso import master
from mkiso.media.layout import Layout, lay_out
from mkiso.media.names import filename
from mkiso.media.verify import ImageProof, verify_image
from mkiso.media.viewer import bundle_viewer
from mkiso.media.volumes import room_sectors, span, study_sectors
from mkiso.storage.files import sync_file
from mkiso.storage.shelf import Manifest, new_disc_id
from mkiso.study.gate import CompleteStudies, Part
from mkiso.study.models import Volume


@dataclass(frozen=True, slots=True)
class DiscSet:
    """Discs before they are written: together they hold each instance of `studies` once. Raises ProofFailed where they
    don't.
    """

    studies: tuple[CompleteStudies, ...]
    layouts: tuple[Layout, ...]

    def __post_init__(self) -> None:
        laid_out = sorted(
            file.sop_instance_uid for layout in self.layouts for file in layout.files if file.sop_instance_uid
        )
        if laid_out != sorted(
            instance.arrival.sop_instance_uid for each in self.studies for instance in each.instances
        ):
            raise ProofFailed(
                "The layout of the disc doesn't have each image exactly once: nothing was made. Tell who maintains "
                "mkiso."
            )
        if [(layout.volume.number, layout.volume.total) for layout in self.layouts] != [
            (number, len(self.layouts)) for number in range(1, len(self.layouts) + 1)
        ]:
            raise ProofFailed(
                "The discs of the set aren't numbered one after another: nothing was made. Tell who maintains mkiso."
            )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the DICOMDIRs hold that the images lack, each once."""
        return tuple(dict.fromkeys(note for layout in self.layouts for note in layout.notes))


@dataclass(frozen=True, slots=True)
class WrittenSet:
    """A set whose images are written and not proved yet, in the order of its discs."""

    disc_set: DiscSet
    images: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Proven:
    """An image with what was read back of it: it may be shelved, sent and ordered."""

    layout: Layout
    image: Path
    proof: ImageProof


@dataclass(frozen=True, slots=True)
class ProvenSet:
    """A set of which every image was read back, in the order of its discs. Made by `prove` alone."""

    disc_set: DiscSet
    discs: tuple[Proven, ...]

    @property
    def studies(self) -> tuple[CompleteStudies, ...]:
        return self.disc_set.studies


def lay_out_set(
    studies: CompleteStudies, settings: Settings, folder: Path, *, created: datetime, medium: Medium
) -> DiscSet:
    """A patient's disc; what doesn't fit one becomes a set where `disc.span` allows it. The made files of disc n go
    into `folder`/n.

    Raises what lay_out raises.
    """
    whole = Part.whole(studies)
    try:
        return DiscSet((studies,), (lay_out(whole, settings, folder / "1", created=created, medium=medium),))
    except TooLargeForMedium:
        if not settings.disc.span:
            raise
    room = room_sectors(medium, bundle_viewer(settings.viewer, settings.storage.viewer_hashes).files)
    parts = [Part((studies,), instances) for instances in span(whole.instances, room, medium)]
    return _laid_out(
        parts, [("", folder / str(number)) for number in range(1, len(parts) + 1)], settings, created, medium
    )


def divide(studies: Sequence[CompleteStudies], room: int, medium: Medium) -> tuple[Part, ...]:
    """The parts of archive volumes of at most `room` sectors: one, or for a study that none holds as many as it
    needs.
    """
    whole = Part.whole(*studies)
    if study_sectors(whole.instances) <= room:
        return (whole,)
    return tuple(Part(whole.studies, instances) for instances in span(whole.instances, room, medium))


def lay_out_volumes(
    parts: Sequence[Part], places: Sequence[tuple[str, Path]], settings: Settings, *, created: datetime, medium: Medium
) -> DiscSet:
    """Volumes of the archive, which may hold studies of many patients. `places` are each one's label and the folder of
    its made files.
    """
    return _laid_out(parts, places, settings, created, medium)


def write_set(
    disc_set: DiscSet, images: Sequence[Path], *, publisher: str, written: Callable[[Layout], None] = lambda _: None
) -> WrittenSet:
    """Master each disc into its image; `written` hears of each."""
    for layout, image in zip(disc_set.layouts, images, strict=True):
        master(layout.files, layout.volume_id, image, created=layout.created, publisher=publisher)
        written(layout)
    return WrittenSet(disc_set, tuple(images))


def prove(written: WrittenSet, begun: Callable[[Layout], None] = lambda _: None) -> ProvenSet:
    """Read each image back: every file against the SHA-256 taken when it was received or made, in both directions.

    Meanwhile the image goes to the disk, which it must have reached before it is shelved. `begun` hears of each disc.
    Raises ProofFailed.
    """
    discs = []
    for layout, image in zip(written.disc_set.layouts, written.images, strict=True):
        begun(layout)
        with ThreadPoolExecutor(1) as beside:
            synced = beside.submit(sync_file, image)
            discs.append(Proven(layout, image, verify_image(image, layout.files)))
            synced.result()
    return ProvenSet(written.disc_set, tuple(discs))


def manifests_of(proven: ProvenSet, job_id: str, settings: Settings) -> tuple[Manifest, ...]:
    """What each disc of a patient's set is, for the shelf. The fingerprint is of what the set holds, not of what was
    found before.
    """
    [studies] = proven.studies
    fingerprint = disc_fingerprint(studies.fingerprint, settings)
    ids = [new_disc_id() for _ in proven.discs]
    return tuple(
        _manifest(disc, studies, fingerprint, job_id, disc_id, first_disc=ids[0])
        for disc, disc_id in zip(proven.discs, ids, strict=True)
    )


def disc_fingerprint(studies_fingerprint: str, settings: Settings) -> str:
    """Of all that a disc is made from: its studies (mkiso.study.identity.fingerprint), the settings that show on it or
    by which it was let through, and the program, whose next version may know better.
    """
    sections = (settings.disc, settings.viewer, settings.identity)
    parts = (studies_fingerprint, program_version(), *(section.model_dump_json() for section in sections))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _manifest(
    disc: Proven, studies: CompleteStudies, fingerprint: str, job_id: str, disc_id: str, first_disc: str
) -> Manifest:
    layout, volume = disc.layout, disc.layout.volume
    base = studies.accession_numbers[0] if len(studies.accession_numbers) == 1 else studies.patient_name
    return Manifest(
        disc_id=disc_id,
        first_disc=first_disc,
        job_id=job_id,
        filename=f"{filename(base)}.iso",
        fingerprint=fingerprint,
        created=layout.created.isoformat(timespec="seconds"),
        volume_id=layout.volume_id,
        accession_numbers=studies.accession_numbers,
        size=disc.proof.size,
        sha256=disc.proof.sha256,
        instances=layout.instances,
        medium=layout.medium,
        number=volume.number,
        total=volume.total,
        degraded=studies.degraded,
        patient_id=studies.studies[0].patient_id,
        patient_name=studies.patient_name,
        studies={study.study_instance_uid: study.accession_number for study in studies.studies},
        files=tuple(
            {
                "path": str(file.path),
                "size": file.size,
                "sha256": file.sha256,
                "sop_instance_uid": file.sop_instance_uid,
            }
            for file in layout.files
        ),
    )


def _laid_out(
    parts: Sequence[Part], places: Sequence[tuple[str, Path]], settings: Settings, created: datetime, medium: Medium
) -> DiscSet:
    layouts = [
        lay_out(
            part,
            settings,
            folder,
            created=created,
            volume=Volume(number, len(parts)),
            medium=medium,
            volume_id=label,
            elsewhere={other: each for other, each in enumerate(parts, start=1) if other != number},
        )
        for number, (part, (label, folder)) in enumerate(zip(parts, places, strict=True), start=1)
    ]
    return DiscSet(parts[0].studies, tuple(layouts))
