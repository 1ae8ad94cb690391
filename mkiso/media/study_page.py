"""Patients, studies, series and reports as the pages show them: their text on one line each, in the page's language."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from types import MappingProxyType

from pydicom import Dataset

from mkiso.languages import N_, Language, language
from mkiso.media.contents import RECORDED, contents_of, in_words
from mkiso.media.file_set import Leaf, PatientBranch, Series, StudyBranch
from mkiso.media.report_page import kind_title, title_of
from mkiso.media.series_page import SeriesPage, series_page
from mkiso.media.shown import (
    VIEW,
    Showing,
    ShownReport,
    ShownSeries,
    of_reports,
    shown_reports,
    study_folders,
)
from mkiso.reports.reading import KINDS
from mkiso.study.identity import one_line
from mkiso.study.models import Patient
from mkiso.study.text import SEXES, readable_name, text

Shown = Mapping[tuple[str, bytes], ShownSeries]


@dataclass(frozen=True, slots=True)
class ReportOnPage:
    """A report as the study's page lists it; `kind` is empty where the title says it."""

    page: PurePosixPath
    title: str
    kind: str
    date: str
    standing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SeriesOnPage:
    """A series as the pages show it; `shown` is None where it has no page of pictures. `contents` says what it holds,
    in words.
    """

    title: str
    modality: str
    body_part: str
    instances: int
    contents: str
    shown: SeriesPage | None


@dataclass(frozen=True, slots=True)
class StudyOnPage:
    """A study as the pages show it; `page` is its file in IHE_PDI. `series` has all but those of reports alone;
    `unread` reports have no page. `chosen`: of how many series (0: not known) how many are on the disc, None: of all.
    `is_prior`: it is an earlier one beside those that were asked for.
    """

    page: PurePosixPath
    title: str
    date: str
    accession_number: str
    modalities: str
    contents: str
    series: tuple[SeriesOnPage, ...]
    reports: tuple[ReportOnPage, ...]
    unread: int
    chosen: tuple[int, int] | None = None
    is_prior: bool = False

    @property
    def viewer(self) -> PurePosixPath | None:
        """The page of the viewer; None where there is no picture for it."""
        found = any(series.shown.has_pictures for series in self.series if series.shown)
        return VIEW / self.page.name if found else None

    @property
    def pictures(self) -> int:
        return sum(series.shown.count for series in self.series if series.shown)


@dataclass(frozen=True, slots=True)
class PatientOnPage:
    """A patient as the pages show them."""

    patient_id: str
    name: str
    birth_date: str
    sex: str
    studies: tuple[StudyOnPage, ...]


def patients_on_page(
    tree: Collection[PatientBranch],
    known: Patient | None,
    showing: Showing,
    shown: Shown,
    chosen: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    priors: Collection[str] = (),
) -> list[PatientOnPage]:
    """The patients of a disc. `known`: the only one, as the patient API has them; `shown`: the series that are shown;
    `chosen`, `priors`: as in Facts.
    """
    folders, reports = study_folders(tree), shown_reports(tree, showing)

    def study(branch: StudyBranch) -> StudyOnPage:
        uid = branch.study_instance_uid
        on_page = _study(branch, folders[uid], shown, reports[uid], showing)
        return replace(on_page, chosen=chosen.get(uid), is_prior=uid in priors)

    return [
        _patient(branch, known if len(tree) == 1 else None, map(study, branch.studies), language(showing.language))
        for branch in tree
    ]


def _patient(
    branch: PatientBranch, known: Patient | None, studies: Iterable[StudyOnPage], spoken: Language
) -> PatientOnPage:
    def told(keyword: str) -> str:
        return next(filter(None, (_line(header, keyword) for header in branch.persons)), "")

    return PatientOnPage(
        patient_id=one_line((known and known.patient_id) or str(branch.patient_id)),
        name=readable_name(one_line((known and known.name) or str(branch.name))),
        birth_date=spoken.da((known and known.birth_date) or told("PatientBirthDate")),
        sex=SEXES.get((known and known.sex) or told("PatientSex"), ""),
        studies=tuple(studies),
    )


def _study(
    branch: StudyBranch,
    folder: PurePosixPath,
    shown: Shown,
    reports: Sequence[ShownReport],
    showing: Showing,
) -> StudyOnPage:
    header, spoken = branch.header, language(showing.language)
    held = [leaf for entry in branch.series for leaf in entry.leaves]
    others = [entry for entry in branch.series if not of_reports(entry.leaves, showing)]
    otherwise = spoken.gettext("Examination") if others else spoken.gettext("Report")
    return StudyOnPage(
        page=folder.with_suffix(".HTM"),
        title=_line(header, "StudyDescription") or otherwise,
        date=spoken.da(_line(header, "StudyDate")),
        accession_number=_line(header, "AccessionNumber"),
        modalities=", ".join(sorted({_modality(entry) for entry in branch.series} - {""})),
        contents=contents_words(held, spoken),
        series=tuple(
            _series(entry, shown.get((branch.study_instance_uid, entry.series_instance_uid)), spoken)
            for entry in others
        ),
        reports=tuple(_report(report, spoken) for report in reports),
        unread=sum(leaf.record_type in KINDS for leaf in held) - len(reports),
    )


def _series(branch: Series, shown: ShownSeries | None, spoken: Language) -> SeriesOnPage:
    header = branch.header
    return SeriesOnPage(
        title=_series_title(_line(header, "SeriesNumber"), _line(header, "SeriesDescription"), spoken),
        modality=_modality(branch),
        body_part=_line(header, "BodyPartExamined").capitalize(),
        instances=len(branch.leaves),
        contents=contents_words(branch.leaves, spoken),
        shown=series_page(shown, spoken) if shown else None,
    )


def _modality(branch: Series) -> str:
    """That of what was recorded; none of reports, selections and the like, whose code (SR, KO, PR) says nothing to a
    patient that the counted contents don't say in words.
    """
    kinds = contents_of(leaf.record_type for leaf in branch.leaves)
    return _line(branch.header, "Modality") if kinds.keys() & RECORDED else ""


def _report(shown: ShownReport, spoken: Language) -> ReportOnPage:
    header = shown.leaf.instance.header
    title, kind = title_of(shown, spoken), kind_title(shown, spoken)
    standing = {
        N_("not complete"): _line(header, "CompletionFlag") == "PARTIAL",
        N_("not verified"): _line(header, "VerificationFlag") == "UNVERIFIED",
        N_("a newer version is on this disc"): shown.has_newer,
    }
    return ReportOnPage(
        page=shown.page,
        title=title,
        kind="" if kind in title else kind,
        date=spoken.da(_line(header, "ContentDate") or _line(header, "AcquisitionDateTime")[:8]),
        standing=tuple(spoken.gettext(words) for words, holds in standing.items() if holds),
    )


def _line(header: Dataset, keyword: str) -> str:
    """A header's text as one line: a line end in it could add a line to README.TXT."""
    return one_line(text(header, keyword))


def _series_title(number: str, description: str, spoken: Language) -> str:
    """What a series is called: its number and description."""
    title = spoken.gettext("Series %(number)s", number=number) if number else spoken.gettext("Series")
    return spoken.labelled(title, description)


def contents_words(held: Iterable[Leaf], spoken: Language) -> str:
    """What these are: 3 images, 1 report."""
    return in_words(contents_of(leaf.record_type for leaf in held), spoken)
