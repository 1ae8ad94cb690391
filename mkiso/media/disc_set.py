"""A set of discs: complete studies laid out on as many discs as they need. It is one thing; a part is always a part of
it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf
from pathlib import Path

from mkiso.config.section import Carrier
from mkiso.config.settings import Settings
from mkiso.errors import ProofFailed, TooLargeForMedium
from mkiso.media.capacity import LARGEST_FILE_BYTES
from mkiso.media.envelopes import Envelopes
from mkiso.media.explicit import AS_ARCHIVED, Conversion, reckoned
from mkiso.media.layout import Layout, LayoutOptions, lay_out
from mkiso.media.rendering import NO_PICTURES, Pictures
from mkiso.media.reporting import NO_REPORTS, Reports
from mkiso.media.shown import AMOUNTS, Showing
from mkiso.media.viewer import BundledViewer, bundle_viewer
from mkiso.media.volumes import room_sectors, span, study_sectors
from mkiso.study.gate import CompleteStudies, Part, without_priors
from mkiso.study.models import Instance, Volume
from mkiso.study.priors import NO_ROOM

_MOST = {"all": AMOUNTS.index("values"), "key": AMOUNTS.index("key"), "none": AMOUNTS.index("none")}


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
                "The layout of the disc doesn't have each image exactly once: nothing was made. Tell the "
                "administrator of mkiso."
            )
        if [(layout.volume.number, layout.volume.total) for layout in self.layouts] != [
            (number, len(self.layouts)) for number in range(1, len(self.layouts) + 1)
        ]:
            raise ProofFailed(
                "The discs of the set aren't numbered one after another: nothing was made. Tell the administrator of "
                "mkiso."
            )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the DICOMDIRs hold that the images lack, each once."""
        return tuple(dict.fromkeys(note for layout in self.layouts for note in layout.notes))


def lay_out_set(
    studies: CompleteStudies,
    settings: Settings,
    folder: Path,
    *,
    created: datetime,
    medium: Carrier,
    pictures: Pictures = NO_PICTURES,
    reports: Reports = NO_REPORTS,
    envelopes: Envelopes | None = None,
    conversion: Conversion = AS_ARCHIVED,
) -> DiscSet:
    """A patient's disc; what doesn't fit one becomes a set where `disc.span` allows it. The made files of disc n go
    into `folder`/n.

    Pictures are thinned, from `disc.pictures` on, and reports left without pages at last, until they make no set where
    there need be none, and no set of more discs. Where all is encrypted (`envelopes`) there are none. What is in
    `conversion` lies on the discs in place of what arrived, and takes the room that it needs. Raises what lay_out
    raises.
    """
    whole = Part.whole(studies)
    spoken = settings.disc.language
    options = LayoutOptions(settings, created, medium, Showing(language=spoken), envelopes, conversion)
    if envelopes:
        return _lay_out_encrypted(whole, options, folder)
    amounts = AMOUNTS[_MOST[settings.disc.pictures] :] if pictures.of else AMOUNTS[-1:]
    showings = [Showing(pictures, amount, reports, spoken) for amount in amounts]
    if reports.of:
        showings.append(Showing(language=spoken))
    for showing in showings:
        try:
            disc = lay_out(whole, replace(options, showing=showing), folder / "1")
            return DiscSet((studies,), (disc,))
        except TooLargeForMedium:
            if showing is showings[-1] and not settings.disc.span:
                raise
    room = room_sectors(medium, options.viewer.files)
    instances = conversion.applied(whole.instances)
    divided, chosen = span(instances, room, medium, showings[-1]), showings[-1]
    for showing in showings[:-1]:
        with suppress(TooLargeForMedium):  # one instance with pictures of all its frames
            with_pictures = span(instances, room, medium, showing)
            if len(with_pictures) == len(divided):
                divided, chosen = with_pictures, showing
                break
    return _laid_out(_parts(whole, divided), replace(options, showing=chosen), folder)


def _parts(whole: Part, divided: Sequence[Sequence[Instance]]) -> list[Part]:
    """The same instances, as they passed the gate."""
    passed = {instance.arrival.sop_instance_uid: instance for instance in whole.instances}
    return [Part(whole.studies, tuple(passed[each.arrival.sop_instance_uid] for each in those)) for those in divided]


def within_medium(
    studies: CompleteStudies, settings: Settings, medium: Carrier, envelopes: Envelopes | None = None
) -> CompleteStudies:
    """Without the oldest priors, as many as one medium has no room for, unless they may make a set (`priors.span`), or
    have a file that no medium can hold. Says so in `degraded`.

    By the upper bound of what the studies take with the least pages. Raises what CompleteStudies raises.
    """
    if not studies.priors:
        return studies
    may_span = settings.priors.span and settings.disc.span
    viewer = BundledViewer() if envelopes else bundle_viewer(settings.viewer, settings.storage.viewer_hashes)
    room = inf if may_span else room_sectors(medium, viewer.files)
    of_study: dict[str, list[Instance]] = defaultdict(list)
    instances = studies.instances
    if settings.disc.transfer_syntax == "explicit-le":
        instances = reckoned(instances)
    for instance in _grown(instances, envelopes):
        of_study[instance.arrival.study_instance_uid].append(instance)
    asked = [instance for study in studies.asked for instance in of_study[study.study_instance_uid]]
    used = study_sectors(asked, medium=medium)
    kept = 0
    for study in studies.priors:
        of_prior = of_study[study.study_instance_uid]
        used += study_sectors(of_prior, medium=medium)
        if used > room or any(each.on_disc.size > LARGEST_FILE_BYTES for each in of_prior):
            break
        kept += 1
    if kept == len(studies.priors):
        return studies
    return CompleteStudies(without_priors(studies.retrieved, studies.priors[kept:], NO_ROOM), studies.rules)


def _grown(instances: Sequence[Instance], envelopes: Envelopes | None) -> list[Instance]:
    """With the sizes that they have on the disc."""
    if envelopes is None:
        return list(instances)
    return [
        replace(each, converted=replace(each.on_disc, size=envelopes.size_of(each.on_disc.size))) for each in instances
    ]


def _lay_out_encrypted(whole: Part, options: LayoutOptions, folder: Path) -> DiscSet:
    """Instances are divided by what their envelopes take."""
    try:
        return DiscSet(whole.studies, (lay_out(whole, options, folder / "1"),))
    except TooLargeForMedium:
        if not options.settings.disc.span:
            raise
    grown = _grown(options.conversion.applied(whole.instances), options.envelopes)
    divided = span(grown, room_sectors(options.medium, ()), options.medium, options.showing)
    return _laid_out(_parts(whole, divided), options, folder)


def divide(studies: Sequence[CompleteStudies], room: int, medium: Carrier) -> tuple[Part, ...]:
    """The parts of archive volumes of at most `room` sectors: one, or for a study that none holds as many as it
    needs.
    """
    whole = Part.whole(*studies)
    if study_sectors(whole.instances, medium=medium) <= room:
        return (whole,)
    return tuple(Part(whole.studies, instances) for instances in span(whole.instances, room, medium))


def lay_out_volumes(
    parts: Sequence[Part], places: Sequence[tuple[str, Path]], settings: Settings, *, created: datetime, medium: Carrier
) -> DiscSet:
    """Volumes of the archive, which may hold studies of many patients and have no pictures. `places` are each one's
    label and the folder of its made files.
    """
    return _set_of(parts, places, LayoutOptions(settings, created, medium))


def _laid_out(parts: Sequence[Part], options: LayoutOptions, folder: Path) -> DiscSet:
    return _set_of(parts, [("", folder / str(number)) for number in range(1, len(parts) + 1)], options)


def _set_of(parts: Sequence[Part], places: Sequence[tuple[str, Path]], options: LayoutOptions) -> DiscSet:
    layouts = [
        lay_out(
            part,
            options,
            folder,
            volume=Volume(number, len(parts)),
            volume_id=label,
            elsewhere={other: each for other, each in enumerate(parts, start=1) if other != number},
        )
        for number, (part, (label, folder)) in enumerate(zip(parts, places, strict=True), start=1)
    ]
    return DiscSet(parts[0].studies, tuple(layouts))
