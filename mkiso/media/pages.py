"""What people read on a disc: README.TXT, INDEX.HTM, the pages in IHE_PDI, AUTORUN.INF (IHE RAD TF-2 4.47, Portable
Data for Imaging).

Text of an image gets into a page by Jinja's autoescaping alone, which serves text and quoted attributes.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from textwrap import fill
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context, select_autoescape
from jinja2.runtime import Context
from pydicom import Dataset

from mkiso.config.settings import Disc
from mkiso.languages import N_, SOURCE, Language, language
from mkiso.media.file_set import PatientBranch, Series, StudyBranch, arrange
from mkiso.media.series_page import SeriesPage, series_page
from mkiso.media.shown import NOTHING_SHOWN, VIEW, WEB, Showing, ShownSeries, shown_series, study_folders
from mkiso.media.viewer_data import study_script
from mkiso.study.identity import one_line
from mkiso.study.models import Instance, Patient, Volume
from mkiso.study.text import readable_name, text

INDEX, INFO = PurePosixPath("INDEX.HTM"), WEB / "INFO.HTM"
TITLE, ARCHIVE_TITLE = N_("Medical images"), N_("Archive of medical images")
_SEXES = {"F": N_("female"), "M": N_("male"), "O": N_("other")}
_README_WIDTH = 76

Shown = Mapping[tuple[str, bytes], ShownSeries]


@dataclass(frozen=True, slots=True)
class SeriesOnPage:
    """A series as the pages show it; `shown` is None where the disc has no pages of pictures."""

    title: str
    modality: str
    body_part: str
    instances: int
    shown: SeriesPage | None


@dataclass(frozen=True, slots=True)
class StudyOnPage:
    """A study as the pages show it; `page` is its file in IHE_PDI."""

    page: PurePosixPath
    date: str
    description: str
    accession_number: str
    modalities: str
    instances: int
    series: tuple[SeriesOnPage, ...]

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


@dataclass(frozen=True, slots=True)
class Facts:
    """What the pages tell beside the tree. `archive`: it is a volume of the archive, of whichever patients; any other
    disc is one patient's. `elsewhere` maps the other volumes' numbers to their instances; `viewer` is the executable on
    the disc.
    """

    disc: Disc
    created: datetime
    version: str
    volume_id: str
    volume: Volume
    conformance: str
    archive: bool = False
    patient: Patient | None = None
    elsewhere: Mapping[int, Collection[Instance]] | None = None
    viewer: PurePosixPath | None = None
    viewer_names: tuple[str, ...] = ()
    autorun: bool = False


def pages(
    tree: Collection[PatientBranch], facts: Facts, showing: Showing = NOTHING_SHOWN
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Every page by its path on the disc, in the language that `showing` names.

    README.TXT is in that language and in English, for a colleague elsewhere. It has CRLF and, where it isn't plain
    ASCII, the byte order mark by which old Notepad and macOS know UTF-8.
    """
    yield PurePosixPath("README.TXT"), _for_notepad(_readme(tree, facts, showing))
    context = _context(tree, facts, showing)
    patients = context["patients"]
    studies = [(patient, study) for patient in patients for study in patient.studies]
    yield INDEX, _page("index.html.j2", INDEX, context, viewer_link=quote(str(facts.viewer)) if facts.viewer else "")
    yield INFO, _page("info.html.j2", INFO, context)
    yield WEB / "STYLE.CSS", _static("STYLE.CSS")
    if any(study.viewer for _, study in studies):
        for name in ("PIXELS.JS", "PANE.JS", "VIEW.JS", "VIEW.CSS"):
            yield VIEW / name, _static(name)
    for patient, study in studies:
        yield study.page, _page("study.html.j2", study.page, context, patient=patient, study=study)
        if study.viewer:
            yield from _viewer(study, study.viewer, context | {"patient": patient, "study": study})
        stack = 1  # as the viewer counts them
        for series in study.series:
            if series.shown:
                page = series.shown.page
                here = {"patient": patient, "study": study, "series": series, "stack": stack}
                yield page, _page("series.html.j2", page, context, **here)
                stack += len(series.shown.stacks) if series.shown.has_pictures else 0
    if facts.viewer and facts.autorun:
        executable = str(facts.viewer).replace("/", "\\")
        yield PurePosixPath("AUTORUN.INF"), _for_notepad(_rendered("autorun.inf.j2", {"executable": executable}))


def _context(tree: Collection[PatientBranch], facts: Facts, showing: Showing) -> dict[str, Any]:
    """What every page is made from."""
    spoken = language(showing.language)
    patients = _patients(tree, facts.patient, showing)
    studies = [study for patient in patients for study in patient.studies]
    return {
        "language": spoken,
        "title": spoken.gettext(ARCHIVE_TITLE if facts.archive else TITLE),
        "archive": facts.archive,
        "institution": facts.disc.institution,
        "contact": facts.disc.contact,
        "created": spoken.moment(facts.created),
        "created_day": spoken.date(facts.created),
        "version": facts.version,
        "volume_id": facts.volume_id,
        "volume": facts.volume,
        "conformance": facts.conformance,
        "patients": patients,
        "instances": sum(study.instances for study in studies),
        "pictures": sum(study.pictures for study in studies),
        "amount": showing.amount,
        "info": INFO,
        "objects": lambda number: _objects(spoken, number),
        "viewer": facts.viewer,
        "autorun": bool(facts.viewer and facts.autorun),
        "viewer_names": facts.viewer_names,
        "elsewhere": [
            {"number": number, "lines": _contents(instances, spoken)}
            for number, instances in sorted((facts.elsewhere or {}).items())
        ],
    }


def _readme(tree: Collection[PatientBranch], facts: Facts, showing: Showing) -> str:
    return "\n\n".join(
        _rendered("readme.txt.j2", _context(tree, facts, replace(showing, language=code)))
        for code in dict.fromkeys((showing.language, SOURCE))
    )


def _series_title(number: str, description: str, spoken: Language) -> str:
    """What a series is called: its number and description."""
    title = spoken.gettext("Series %(number)s", number=number) if number else spoken.gettext("Series")
    return f"{title}: {description}" if description else title


def _objects(spoken: Language, number: int) -> str:
    return spoken.ngettext("%(number)s object", "%(number)s objects", number)


def _viewer(
    study: StudyOnPage, page: PurePosixPath, context: Mapping[str, Any]
) -> Iterator[tuple[PurePosixPath, bytes]]:
    data = page.with_suffix(".JS")
    yield page, _page("view.html.j2", page, context, data=data.name)
    told = []
    for series in study.series:
        if series.shown:
            folder = series.shown.page.with_suffix("")
            values = VIEW / folder.relative_to(WEB)
            told.append((series.title, _from(page, folder), _from(page, values), series.shown.shown.stacks))
    yield data, study_script(told, context["language"])


def _from(page: PurePosixPath, target: PurePosixPath) -> PurePosixPath:
    return PurePosixPath(os.path.relpath(target, page.parent))


def _static(name: str) -> bytes:
    return (files("mkiso.media") / "web" / name).read_bytes()


def _patients(
    tree: Collection[PatientBranch], known: Patient | None, showing: Showing = NOTHING_SHOWN
) -> list[PatientOnPage]:
    folders, shown, spoken = study_folders(tree), shown_series(tree, showing), language(showing.language)
    return [_patient(branch, known if len(tree) == 1 else None, folders, shown, spoken) for branch in tree]


def _patient(
    branch: PatientBranch,
    known: Patient | None,
    folders: Mapping[str, PurePosixPath],
    shown: Shown,
    spoken: Language,
) -> PatientOnPage:
    header = branch.header
    return PatientOnPage(
        patient_id=one_line((known and known.patient_id) or str(branch.patient_id)),
        name=readable_name(one_line((known and known.name) or str(branch.name))),
        birth_date=spoken.da((known and known.birth_date) or _line(header, "PatientBirthDate")),
        sex=_SEXES.get((known and known.sex) or _line(header, "PatientSex"), ""),
        studies=tuple(_study(study, folders[study.study_instance_uid], shown, spoken) for study in branch.studies),
    )


def _study(branch: StudyBranch, folder: PurePosixPath, shown: Shown, spoken: Language) -> StudyOnPage:
    header = branch.header
    series = tuple(
        _series(entry, shown.get((branch.study_instance_uid, entry.series_instance_uid)), spoken)
        for entry in branch.series
    )
    return StudyOnPage(
        page=folder.with_suffix(".HTM"),
        date=spoken.da(_line(header, "StudyDate")),
        description=_line(header, "StudyDescription"),
        accession_number=_line(header, "AccessionNumber"),
        modalities=", ".join(sorted({entry.modality for entry in series} - {""})),
        instances=sum(entry.instances for entry in series),
        series=series,
    )


def _series(branch: Series, shown: ShownSeries | None, spoken: Language) -> SeriesOnPage:
    header = branch.header
    return SeriesOnPage(
        title=_series_title(_line(header, "SeriesNumber"), _line(header, "SeriesDescription"), spoken),
        modality=_line(header, "Modality"),
        body_part=_line(header, "BodyPartExamined").capitalize(),
        instances=len(branch.leaves),
        shown=series_page(shown, spoken) if shown else None,
    )


def _line(header: Dataset, keyword: str) -> str:
    """A header's text as one line: a line end in it could add a line to README.TXT."""
    return one_line(text(header, keyword))


def _contents(instances: Collection[Instance], spoken: Language) -> list[str]:
    """What another disc of the set holds, a line a study, without the patient's name."""
    return [
        spoken.gettext(
            "accession number %(number)s, %(date)s, %(modalities)s: %(objects)s",
            number=study.accession_number or "–",
            date=study.date or spoken.gettext("no date"),
            modalities=study.modalities,
            objects=_objects(spoken, study.instances),
        )
        for patient in _patients(arrange(instances), None, Showing(language=spoken.code))
        for study in patient.studies
    ]


def _for_notepad(content: str) -> bytes:
    lines = "\r\n".join(content.splitlines()) + "\r\n"
    return lines.encode("ascii" if lines.isascii() else "utf-8-sig")


def compile_templates() -> None:
    """Compile them before the first disc needs them: 20 ms, which a process that forks for every disc spends once."""
    for name in _environment().list_templates():
        _environment().get_template(name)


def _page(template: str, path: PurePosixPath, context: Mapping[str, Any], **more: Any) -> bytes:
    """A page; `root` leads from it to the disc's root, and `link` to any of its files."""

    def link(target: PurePosixPath) -> str:
        return quote(str(_from(path, target)))

    return _rendered(template, {**context, **more, "root": "../" * (len(path.parts) - 1), "link": link}).encode()


def _rendered(template: str, context: Mapping[str, Any]) -> str:
    return _environment().get_template(template).render(context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mkiso.media", "templates"),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.install_gettext_callables(_gettext, _ngettext, newstyle=True)  # type: ignore[attr-defined]
    environment.filters["fill"] = lambda words: fill(words, _README_WIDTH, break_long_words=False)
    return environment


@pass_context
def _gettext(context: Context, message: str) -> str:
    spoken: Language = context["language"]
    return spoken.gettext(message)


@pass_context
def _ngettext(context: Context, singular: str, plural: str, number: int) -> str:
    spoken: Language = context["language"]
    return spoken.ngettext(singular, plural, number)
