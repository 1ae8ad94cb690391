"""A set of discs on its way out: written, then read back. Only what is proven is shelved, sent or ordered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from mkiso.config.settings import Settings
from mkiso.errors import ProofFailed
from mkiso.formats.proof import ImageProof, verify_image
from mkiso.formats.protocol import Format
from mkiso.formats.registry import ISO
from mkiso.implementation import program_version
from mkiso.media.disc_set import DiscSet
from mkiso.media.layout import Layout
from mkiso.media.names import PART, filename, set_suffix
from mkiso.storage.files import sync_file
from mkiso.storage.shelf import Manifest, new_disc_id
from mkiso.study.gate import CompleteStudies
from mkiso.study.models import sop_classes_of
from mkiso.study.selection import numbers_of


@dataclass(frozen=True, slots=True)
class WrittenSet:
    """A set whose images are written and not proved yet, in the order of its discs."""

    disc_set: DiscSet
    form: Format
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
    form: Format
    discs: tuple[Proven, ...]

    @property
    def studies(self) -> tuple[CompleteStudies, ...]:
        return self.disc_set.studies


def write_set(
    disc_set: DiscSet, form: Format, images: Sequence[Path], written: Callable[[Layout], None] = lambda _: None
) -> WrittenSet:
    """Write each disc's image; `written` hears of each."""
    for layout, image in zip(disc_set.layouts, images, strict=True):
        form.write(layout, image)
        written(layout)
    return WrittenSet(disc_set, form, tuple(images))


def prove(written: WrittenSet, begun: Callable[[Layout], None] = lambda _: None) -> ProvenSet:
    """Read each image back: every file against the SHA-256 taken when it was received or made, in both directions.

    Meanwhile the image goes to the disk, which it must have reached before it is shelved. `begun` hears of each disc.
    Raises ProofFailed.
    """
    discs = []
    for layout, image in zip(written.disc_set.layouts, written.images, strict=True):
        begun(layout)
        with ThreadPoolExecutor() as beside:
            synced = beside.submit(sync_file, image)
            proof = verify_image(image, layout.files, written.form)
            discs.append(Proven(layout, image, proof))
            synced.result()
        if proof.size != (size := written.form.size(layout)):
            raise ProofFailed(f"The image has {proof.size} bytes and not {size}. It is not used.")
    return ProvenSet(written.disc_set, written.form, tuple(discs))


def manifests_of(proven: ProvenSet, job_id: str, settings: Settings, inbox: str = "") -> tuple[Manifest, ...]:
    """What each disc of a patient's set is, for the shelf. The fingerprint is of what the set holds, not of what was
    found before; where that was sent to an `inbox` it is like no other, since the PACS may have sent other bytes.
    """
    [studies] = proven.studies
    fingerprint = disc_fingerprint(studies.fingerprint, settings, proven.form, inbox)
    if studies.is_deidentified:  # like no other: nothing that is asked for gives it
        fingerprint = f"de-identified {fingerprint}"
    named = [(disc, new_disc_id()) for disc in proven.discs]
    _, first_disc = named[0]
    return tuple(
        replace(
            _manifest(disc, proven.form, studies, fingerprint, job_id, disc_id, first_disc),
            transfer_syntax=settings.disc.transfer_syntax,
        )
        for disc, disc_id in named
    )


def disc_fingerprint(studies_fingerprint: str, settings: Settings, form: Format = ISO, inbox: str = "") -> str:
    """Of all that a disc is made from: its studies (mkiso.study.identity.fingerprint), the settings that show on it or
    by which it was let through, its format, and the program, whose next version may know better.
    """
    sections = (settings.disc, settings.viewer, settings.identity)
    parts = (
        studies_fingerprint,
        program_version(),
        form.name,
        *(section.model_dump_json() for section in sections),
        inbox,
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _base(studies: CompleteStudies, otherwise: str) -> str:
    """The accession number where one was asked for, or stands on all studies that were asked for by UID."""
    numbers = studies.accession_numbers or numbers_of(studies.asked)
    return numbers[0] if len(numbers) == 1 else otherwise


def _manifest(
    disc: Proven, form: Format, studies: CompleteStudies, fingerprint: str, job_id: str, disc_id: str, first_disc: str
) -> Manifest:
    layout, volume = disc.layout, disc.layout.volume
    there = {file.sop_instance_uid for file in layout.files}
    on_disc = (each.on_disc for each in studies.instances if each.arrival.sop_instance_uid in there)
    label = layout.volume_id.removesuffix(set_suffix(volume, is_part=studies.is_part))
    several = label if form.is_encrypted else studies.patient_name
    return Manifest(
        disc_id=disc_id,
        first_disc=first_disc,
        job_id=job_id,
        filename=f"{filename(_base(studies, several))}{PART * studies.is_part}{form.suffix}",
        format=form.name,
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
        selection=studies.selection,
        is_part=studies.is_part,
        deidentified=studies.is_deidentified,
        sop_classes=sop_classes_of(on_disc),
        patient_id=studies.studies[0].patient_id,
        patient_name=studies.patient_name,
        studies={study.study_instance_uid: study.accession_number for study in studies.studies},
        sources={each.study_instance_uid: each.origin.source for each in studies.studies if each.origin.source},
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
