"""Which pictures a disc shows, and under which names: pure, from the tree of its instances and what was rendered of
them.

Reports are shown with each amount; only a disc that has no room for them beside its instances is without. Amounts of
pictures from most to least; a disc that is too small for one gets the next (docs/decisions/pictures-on-disc.md):
values      every picture and its thumbnail, and of CT and MR the values that were rendered
all         every picture and its thumbnail
key         of each stack of pictures at most KEY_PICTURES, evenly spaced, the first and the last among them; one that
            a presentation state is about in place of its neighbour
thumbnails  of those the thumbnails alone
none        no picture
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Literal

from mkiso.languages import SOURCE
from mkiso.media.file_set import Leaf, PatientBranch, Series, leaves
from mkiso.media.names import component
from mkiso.media.rendering import NO_PICTURES, MadeFile, Pictures
from mkiso.media.reporting import DRAWING, NO_REPORTS, Reports
from mkiso.pictures.names import PICTURE, SCRIPT, THUMBNAIL, picture_name
from mkiso.pictures.stacks import Slice, Stack, evenly_with, stacks_of
from mkiso.pictures.values import PictureFile, Reason
from mkiso.study.models import DiscFile, Instance
from mkiso.study.references import named_in_sequence
from mkiso.study.text import text

Amount = Literal["values", "all", "key", "thumbnails", "none"]
AMOUNTS: tuple[Amount, ...] = ("values", "all", "key", "thumbnails", "none")
KEY_PICTURES = 16
WEB, VIEW, DOCUMENTS = PurePosixPath("IHE_PDI"), PurePosixPath("VIEW"), PurePosixPath("REPORTS")


@dataclass(frozen=True, slots=True)
class Showing:
    """What a disc is to show, on pages in this language: as much as `amount` says of what was rendered, and reports."""

    pictures: Pictures = NO_PICTURES
    amount: Amount = "none"
    reports: Reports = NO_REPORTS
    language: str = SOURCE


NOTHING_SHOWN = Showing()


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture of a series: its number there, and its files by their paths on the disc. `picture` is None where only
    the thumbnail is on it, and is that itself where it is small; `values` is None where a viewer can't window it anew.
    """

    number: int
    slice: Slice
    thumbnail: DiscFile
    picture: DiscFile | None
    values: DiscFile | None


@dataclass(frozen=True, slots=True)
class ShownStack:
    """A stack, and those of its pictures that are on the disc."""

    stack: Stack
    pictures: tuple[ShownPicture, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An object, or one frame of it (0: all of it), that has no picture, and why."""

    leaf: Leaf
    frame: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class ShownSeries:
    """A series as it is shown. `of` is how many pictures there would be of it; `presented`: some are shown as a
    presentation state has them. `not_drawn`: what states and images ask for beyond what is drawn.
    """

    page: PurePosixPath
    leaves: tuple[Leaf, ...] = ()
    stacks: tuple[ShownStack, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    of: int = 0
    presented: bool = False
    not_drawn: tuple[str, ...] = ()

    @property
    def pictures(self) -> tuple[ShownPicture, ...]:
        return tuple(picture for stack in self.stacks for picture in stack.pictures)

    @property
    def files(self) -> Iterator[DiscFile]:
        """In the order of their names: pycdlib's work on a folder grows with its square otherwise."""
        pictures = self.pictures
        yield from (shown.picture for shown in pictures if shown.picture)
        yield from (shown.thumbnail for shown in pictures if shown.thumbnail != shown.picture)
        yield from (shown.values for shown in pictures if shown.values)


@dataclass(frozen=True, slots=True)
class ShownReport:
    """A report: its page in IHE_PDI, and its files, drawings beside the page and documents in REPORTS. `has_newer`:
    another report of the disc takes its place, wholly or in part (PS3.3 C.17.2; a CDA's: HL7 CDA Release 2, 4.2.3.1).
    """

    leaf: Leaf
    page: PurePosixPath
    files: tuple[DiscFile, ...] = ()
    has_newer: bool = False


def study_folders(tree: Collection[PatientBranch]) -> dict[str, PurePosixPath]:
    """The folder in IHE_PDI of each study of a disc, by its Study Instance UID; its page has the same name."""
    studies = [study for patient in tree for study in patient.studies]
    return {study.study_instance_uid: WEB / component("ST", number) for number, study in enumerate(studies, 1)}


def shown_series(tree: Collection[PatientBranch], showing: Showing) -> dict[tuple[str, bytes], ShownSeries]:
    """Every series of a disc but those of reports alone, by its Study and Series Instance UID; none where no picture is
    shown.
    """
    if showing.amount == "none":
        return {}
    folders = study_folders(tree)
    shown = {
        (study.study_instance_uid, series.series_instance_uid): _shown(
            series, folders[study.study_instance_uid] / component("SE", number), showing
        )
        for patient in tree
        for study in patient.studies
        for number, series in enumerate(study.series, 1)
    }
    return {uids: series for uids, series in shown.items() if series.stacks or not of_reports(series.leaves, showing)}


def of_reports(leaves: Collection[Leaf], showing: Showing) -> bool:
    """Whether each of these has a page as a report."""
    return all(leaf.arrival.sha256 in showing.reports.of for leaf in leaves)


def shown_reports(tree: Collection[PatientBranch], showing: Showing) -> dict[str, tuple[ShownReport, ...]]:
    """The reports of each study of a disc, by its Study Instance UID."""
    folders = study_folders(tree)
    older = _replaced(tree, showing.reports)
    return {
        study.study_instance_uid: tuple(
            _report(leaf, number, folders[study.study_instance_uid], showing.reports, older)
            for number, leaf in enumerate(
                (
                    leaf
                    for series in study.series
                    for leaf in series.leaves
                    if leaf.arrival.sha256 in showing.reports.of
                ),
                1,
            )
        )
        for patient in tree
        for study in patient.studies
    }


def _replaced(tree: Collection[PatientBranch], reports: Reports) -> frozenset[str]:
    """The SOP Instance UIDs of what other reports of a disc take the place of."""
    of_disc = tuple(leaves(tree))
    named = (named_in_sequence(leaf.instance.header, "PredecessorDocumentsSequence") for leaf in of_disc)
    documents = {
        leaf.arrival.sop_instance_uid: reports.replaces[leaf.arrival.sha256]
        for leaf in of_disc
        if leaf.arrival.sha256 in reports.replaces
    }
    replaced = frozenset[str]().union(*(others for _, others in documents.values()))
    return frozenset(chain(*named, (uid for uid, (own, _) in documents.items() if own in replaced)))


def _report(leaf: Leaf, number: int, folder: PurePosixPath, reports: Reports, older: Collection[str]) -> ShownReport:
    name = component("RP", number)
    files = []
    for chart, made in enumerate(reports.of[leaf.arrival.sha256], 1):
        if made.path.suffix == DRAWING:
            path = folder / f"R{number:05}{chart:02}{DRAWING}"
        else:
            path = DOCUMENTS / folder.name / f"{name}{made.path.suffix}"
        files.append(DiscFile(path, made.size, made.sha256, made.path))
    return ShownReport(leaf, folder / f"{name}.HTM", tuple(files), leaf.arrival.sop_instance_uid in older)


def key_instances(tree: Collection[PatientBranch], presented: Collection[str] = ()) -> list[Instance]:
    """Those that are rendered where key pictures alone are wanted; `presented`: the SHA-256 of those that a
    presentation state is about.
    """
    return [
        leaf.instance
        for patient in tree
        for study in patient.studies
        for series in study.series
        for leaf in evenly_with(series.leaves, KEY_PICTURES, lambda leaf: leaf.arrival.sha256 in presented)
    ]


def _shown(series: Series, folder: PurePosixPath, showing: Showing) -> ShownSeries:
    pictures, amount = showing.pictures, showing.amount
    rendered = {
        leaf.arrival.sop_instance_uid: (leaf, pictures.of[leaf.arrival.sha256])
        for leaf in series.leaves
        if leaf.arrival.sha256 in pictures.of
    }

    def is_presented(each: tuple[int, Slice]) -> bool:
        return rendered[each[1].sop_instance_uid][1].result.request.presentation is not None

    stacks, number = [], 1
    for stack in stacks_of(made.result for _, made in rendered.values()):
        numbered = list(enumerate(stack.slices, number))
        number += len(numbered)
        chosen = numbered if amount in ("values", "all") else evenly_with(numbered, KEY_PICTURES, is_presented)
        shown = [_picture(at, each, folder, rendered[each.sop_instance_uid][1].files, amount) for at, each in chosen]
        stacks.append(ShownStack(stack, tuple(shown)))
    left_out = tuple(
        LeftOut(leaf, each.frame if made.result.facts.frames > 1 else 0, each.reason)
        for leaf, made in rendered.values()
        if leaf.arrival.sha256 not in showing.reports.of
        for each in made.result.not_shown
    )
    unrendered = [leaf for leaf in series.leaves if leaf.arrival.sha256 not in pictures.of]
    thinned = [made.result.facts for _, made in rendered.values() if made.result.facts.chosen]
    of = number - 1 + sum(map(_frames_said, unrendered))
    of += sum(facts.frames - len(facts.chosen) for facts in thinned)
    by_state = any(made.result.request.presentation for _, made in rendered.values())
    not_drawn = tuple(sorted({thing for _, made in rendered.values() for thing in made.result.facts.left_out}))
    page = folder.with_suffix(".HTM")
    return ShownSeries(page, series.leaves, tuple(stacks), left_out, of, by_state, not_drawn)


def _frames_said(leaf: Leaf) -> int:
    if leaf.record_type != "IMAGE":
        return 0
    said = text(leaf.instance.header, "NumberOfFrames").strip()
    return int(said) if said.isascii() and said.isdigit() and len(said) < 7 else 1


def _picture(
    number: int, slice_: Slice, folder: PurePosixPath, files: Mapping[str, MadeFile], amount: Amount
) -> ShownPicture:
    def on_disc(letter: str, file: PictureFile, place: PurePosixPath = folder) -> DiscFile:
        made = files[file.name]
        return DiscFile(place / picture_name(letter, number), made.size, made.sha256, made.path, offset=made.offset)

    picture, script = slice_.picture, slice_.picture.script
    file = on_disc(PICTURE, picture.file)
    return ShownPicture(
        number,
        slice_,
        file if picture.thumbnail == picture.file else on_disc(THUMBNAIL, picture.thumbnail),
        None if amount == "thumbnails" else file,
        on_disc(SCRIPT, script, VIEW / folder.relative_to(WEB)) if script and amount == "values" else None,
    )
