"""Laying out a disc: which files it has, under which names, and the ones that mkiso makes for it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from mkiso.config.section import Carrier
from mkiso.config.settings import Settings
from mkiso.errors import PatientMismatch, ProofFailed
from mkiso.implementation import program_version
from mkiso.media import application_profiles
from mkiso.media.capacity import SECTOR_BYTES, fit
from mkiso.media.dicomdir import dicomdir
from mkiso.media.envelopes import Envelopes
from mkiso.media.explicit import AS_ARCHIVED, EXPLICIT_LITTLE_ENDIAN, Conversion
from mkiso.media.file_set import Leaf, PatientBranch, arrange, leaves
from mkiso.media.names import FILE_SET_ID_CHARACTERS, file_set_id, set_suffix
from mkiso.media.pages import Facts, outer_pages, pages
from mkiso.media.shown import NOTHING_SHOWN, Amount, Showing, shown_reports, shown_series
from mkiso.media.viewer import BundledViewer, bundle_viewer
from mkiso.storage.files import private
from mkiso.study.gate import Part, is_unproven
from mkiso.study.models import Arrival, DiscFile, Volume
from mkiso.study.priors import words_of
from mkiso.study.text import text

CHECKSUMS = PurePosixPath("SHA256.TXT")
_LETTERS = 4
"""So many at least tell labels of one word apart: where there is no room for them, the word is shorter."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A disc before it is mastered. `sectors` is the exact size of its image; `notes` say what DICOMDIR holds that the
    images lack, `amount` how much it has of their pictures.
    """

    files: tuple[DiscFile, ...]
    volume_id: str
    volume: Volume
    medium: Carrier
    institution: str
    created: datetime
    sectors: int
    instances: int
    conformance: str
    notes: tuple[str, ...]
    amount: Amount = "none"

    @property
    def size(self) -> int:
        """Of the image in bytes."""
        return self.sectors * SECTOR_BYTES


@dataclass(frozen=True, slots=True)
class LayoutOptions:
    """How discs are laid out: the same for all discs of a set.

    `carrier` is `disc.medium` unless it is given. Of `showing` the pictures of a disc's instances are taken. With
    `envelopes` all DICOM files are encrypted, and a disc has only them and what says how to open them. What is in
    `conversion` lies on a disc in place of what arrived.
    """

    settings: Settings
    created: datetime
    carrier: Carrier | None = None
    showing: Showing = NOTHING_SHOWN
    envelopes: Envelopes | None = None
    conversion: Conversion = AS_ARCHIVED

    @property
    def medium(self) -> Carrier:
        return self.carrier or self.settings.disc.medium

    @property
    def viewer(self) -> BundledViewer:
        """Raises ConfigurationError where the one that is configured can't be put on a disc."""
        if self.envelopes:
            return BundledViewer()
        return bundle_viewer(self.settings.viewer, self.settings.storage.viewer_hashes)


def lay_out(
    part: Part,
    options: LayoutOptions,
    disc_dir: Path,
    *,
    volume: Volume = Volume(),  # noqa: B008  frozen
    volume_id: str = "",
    elsewhere: Mapping[int, Part] | None = None,
) -> Layout:
    """Lay out one disc; the files that mkiso makes are written into `disc_dir`, the instances stay where they are.

    What the patient API knows of the patient is shown on the pages, never written over the images' own data.
    `elsewhere` maps the numbers of a set's other volumes to their parts. A `volume_id` makes it a volume of the
    archive: there alone may be more than one patient. The same arguments give the same disc, but for what is encrypted.
    Raises TooLargeForMedium, InstanceConflict, PatientMismatch, ProofFailed, and ConfigurationError for a viewer that
    can't be put on a disc.
    """
    archive = bool(volume_id)
    settings, showing, envelopes = options.settings, options.showing, options.envelopes
    instances = options.conversion.applied(part.instances)
    tree = arrange(instances, part.told_apart, part.persons)
    _require_allowed(part, tree, archive=archive)
    arrivals = [instance.on_disc for instance in instances]
    if settings.disc.transfer_syntax == "explicit-le" and not archive:
        _require_explicit(arrivals)
    here = options.created.astimezone()  # what people read is by the clocks of this site
    is_neutral = part.is_deidentified or envelopes is not None
    words = ("DEID_", "D") if part.is_deidentified else (f"{here:%Y%m%d}_", f"{here:%m%d}_", "")
    room = FILE_SET_ID_CHARACTERS - len(set_suffix(volume, is_part=part.is_part))
    word = next((word for word in words if len(word) + _LETTERS <= room), words[-1])
    label = _label(part, tree, word, is_neutral=is_neutral)
    volume_id = volume_id or file_set_id(label, volume, is_part=part.is_part)
    viewer = options.viewer
    converted = sum(instance.converted is not None for instance in instances)
    conformance = application_profiles.statement(
        options.medium, arrivals, is_secure=envelopes is not None, converted=converted
    )
    directory, notes = dicomdir(tree, volume_id)
    unnamed = {"institution": "", "contact": ""} if part.is_deidentified else {}
    facts = Facts(
        disc=settings.disc.model_copy(update=unnamed),
        created=here,
        version=program_version(),
        volume_id=volume_id,
        volume=volume,
        conformance=conformance,
        archive=archive,
        is_part=part.is_part,
        chosen=part.chosen,
        priors=part.priors,
        lacks=tuple(words_of(part.degraded)),
        patient=None if archive else part.studies[0].known,
        elsewhere={number: other.instances for number, other in (elsewhere or {}).items()},
        viewer=viewer.executable,
        viewer_names=_root_names(viewer),
        autorun=settings.viewer.autorun,
        is_encrypted=options.medium == "zip-encrypted",
        is_deidentified=part.is_deidentified,
        is_unproven=is_unproven(part.degraded),
    )
    dicom = [_made(disc_dir, PurePosixPath("DICOMDIR"), directory), *map(_instance_file, leaves(tree))]
    if envelopes:
        files = [*envelopes.sealed(dicom, disc_dir / "sealed")]
        files += [_made(disc_dir, path, content) for path, content in outer_pages(facts, showing)]
    else:
        files = _readable(dicom, tree, facts, showing, disc_dir) + list(viewer.files)
    files.append(_made(disc_dir, CHECKSUMS, checksums(files)))
    return Layout(
        tuple(files),
        volume_id,
        volume,
        options.medium,
        facts.disc.institution,
        options.created,
        sectors=fit(files, options.medium),
        instances=len(instances),
        conformance=conformance,
        notes=notes,
        amount=showing.amount,
    )


def _require_allowed(part: Part, tree: Collection[PatientBranch], *, archive: bool) -> None:
    """One patient, or an archive's volume of whole studies. Raises PatientMismatch, ProofFailed."""
    if not archive and (len(part.studies) != 1 or len(tree) != 1):
        raise PatientMismatch(
            "A disc would have more than one patient: nothing was made. Tell the administrator of mkiso."
        )
    if archive and part.is_part:
        raise ProofFailed(
            "A volume of the archive would have less than whole studies: nothing was made. Tell the administrator of "
            "mkiso."
        )


def _readable(
    dicom: Sequence[DiscFile], tree: Sequence[PatientBranch], facts: Facts, showing: Showing, disc_dir: Path
) -> list[DiscFile]:
    """DICOMDIR, the pages, the instances, what is shown of them."""
    shown = shown_series(tree, showing)
    files = [dicom[0], *(_made(disc_dir, path, content) for path, content in pages(tree, facts, showing, shown))]
    files += dicom[1:]
    files += [file for series in shown.values() for file in series.files]
    files += [file for those in shown_reports(tree, showing).values() for report in those for file in report.files]
    return files


def _require_explicit(arrivals: Collection[Arrival]) -> None:
    if any(arrival.transfer_syntax_uid != EXPLICIT_LITTLE_ENDIAN for arrival in arrivals):
        raise ProofFailed(
            "A disc of Explicit VR Little Endian would have an image that isn't: nothing was made. Tell the "
            "administrator of mkiso."
        )


def checksums(files: Iterable[DiscFile]) -> bytes:
    """SHA256.TXT: each file under the name that systems show, as `sha256sum -c` reads it."""
    lines = sorted((str(file.joliet_path or file.path), file.sha256) for file in files)
    return "".join(f"{sha256}  {path}\n" for path, sha256 in lines).encode()


def _made(disc_dir: Path, path: PurePosixPath, content: bytes) -> DiscFile:
    target = disc_dir / path
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(target, "wb", opener=private) as file:
        file.write(content)
    return DiscFile(path, len(content), hashlib.sha256(content).hexdigest(), target)


def _instance_file(leaf: Leaf) -> DiscFile:
    arrival = leaf.instance.on_disc
    return DiscFile(leaf.path, arrival.size, arrival.sha256, arrival.path, sop_instance_uid=arrival.sop_instance_uid)


def _label(part: Part, tree: Collection[PatientBranch], word: str, *, is_neutral: bool) -> str:
    """What a drive shows. Where there is one accession number only, that number, unless the label is to be neutral.
    Else a word, such as the date, and letters that tell this disc, or its set, from others of that word.
    """
    studies = [study for patient in tree for study in patient.studies]
    accession_numbers = {text(study.header, "AccessionNumber") for study in studies}
    if not is_neutral and len(accession_numbers) == 1 and (only := accession_numbers.pop()):
        return only
    uids = sorted(study.study_instance_uid for each in part.studies for study in each.studies)
    digest = hashlib.sha256("".join(uids).encode()).digest()
    return word + "".join(chr(ord("A") + byte % 26) for byte in digest[:6])  # no digits: it's no accession number


def _root_names(viewer: BundledViewer) -> tuple[str, ...]:
    return tuple(sorted({(file.joliet_path or file.path).parts[0] for file in viewer.files}))
