"""What people read on a disc: README.TXT, INDEX.HTM, the pages in IHE_PDI, AUTORUN.INF (IHE RAD TF-2 4.47, Portable
Data for Imaging).

Text of an image gets into a page by Jinja's autoescaping alone, which serves text and quoted attributes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache, partial
from importlib.resources import files
from pathlib import PurePosixPath
from textwrap import fill
from typing import Any
from urllib.parse import quote

from jinja2 import Environment

from mkiso.config.disc import Disc
from mkiso.languages import N_, SOURCE, Language, language
from mkiso.languages.templates import environment
from mkiso.media.file_set import PatientBranch, arrange, leaves
from mkiso.media.names import HOWTO
from mkiso.media.report_page import Targets, report_page
from mkiso.media.shown import (
    NOTHING_SHOWN,
    VIEW,
    WEB,
    Showing,
    ShownSeries,
    shown_reports,
    shown_series,
)
from mkiso.media.states_page import states_on_page
from mkiso.media.study_page import PatientOnPage, StudyOnPage, contents_words, patients_on_page
from mkiso.media.viewer_data import study_script
from mkiso.reports.reading import read_report
from mkiso.study.models import Instance, Patient, Volume

INDEX, INFO = PurePosixPath("INDEX.HTM"), WEB / "INFO.HTM"
TITLE, ARCHIVE_TITLE = N_("Medical images"), N_("Archive of medical images")
_README_WIDTH = 76
_JOINED_PIECES = 1000  # of a page: those of a large series are more than all that is known of it


@dataclass(frozen=True, slots=True)
class Facts:
    """What the pages tell beside the tree. `archive`: it is a volume of the archive, of whichever patients; any other
    disc is one patient's. `elsewhere` maps the other volumes' numbers to their instances; `viewer` is the executable on
    the disc. `is_unproven`: nobody could say whether these are all images. `is_part`: it lacks something of its studies
    or accession numbers; `chosen` maps Study Instance UIDs to how many series are chosen of how many (0: not known).
    `priors` are the Study Instance UIDs of earlier studies beside those that were asked for; `lacks` says in English
    which of them aren't there. `is_deidentified`: it is a copy that doesn't say whose it is.
    """

    disc: Disc
    created: datetime
    version: str
    volume_id: str
    volume: Volume
    conformance: str
    archive: bool = False
    is_part: bool = False
    chosen: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    priors: Collection[str] = ()
    lacks: tuple[str, ...] = ()
    patient: Patient | None = None
    elsewhere: Mapping[int, Collection[Instance]] | None = None
    viewer: PurePosixPath | None = None
    viewer_names: tuple[str, ...] = ()
    autorun: bool = False
    is_encrypted: bool = False
    is_unproven: bool = False
    is_deidentified: bool = False


def pages(
    tree: Collection[PatientBranch],
    facts: Facts,
    showing: Showing = NOTHING_SHOWN,
    shown: Mapping[tuple[str, bytes], ShownSeries] | None = None,
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Every page by its path on the disc, in the language that `showing` names; `shown` are its series, where the
    caller has them.

    README.TXT is in that language and in English, for a colleague elsewhere. It has CRLF and, where it isn't plain
    ASCII, the byte order mark by which old Notepad and macOS know UTF-8.
    """
    codes = dict.fromkeys((showing.language, SOURCE))
    if shown is None:
        shown = shown_series(tree, showing)
    context, *others = [_context(tree, facts, replace(showing, language=code), shown) for code in codes]
    readme = "\n\n".join(_rendered("readme.txt.j2", each) for each in (context, *others))
    yield PurePosixPath("README.TXT"), _for_notepad(readme)
    if facts.is_encrypted:
        yield from _howto(context)
    patients = context["patients"]
    studies = [(patient, study) for patient in patients for study in patient.studies]
    yield INDEX, _page("index.html.j2", INDEX, context, viewer_link=quote(str(facts.viewer)) if facts.viewer else "")
    yield INFO, _page("info.html.j2", INFO, context)
    yield WEB / "STYLE.CSS", _static("STYLE.CSS")
    if any(study.viewer for _, study in studies):
        for name in ("PIXELS.JS", "PANE.JS", "VIEW.JS", "VIEW.CSS"):
            yield VIEW / name, _static(name)
    targets = cache(partial(_targets, tree, studies, showing))  # most discs need none
    for patient, study in studies:
        yield study.page, _page("study.html.j2", study.page, context, patient=patient, study=study)
        if study.viewer:
            yield from _viewer(study, study.viewer, context | {"patient": patient, "study": study})
        stack = 1  # as the viewer counts them
        for series in study.series:
            if series.shown:
                page = series.shown.page
                states = states_on_page(series.shown.shown.leaves, targets, context["language"])
                here = {"patient": patient, "study": study, "series": series, "stack": stack, "states": states}
                yield page, _page("series.html.j2", page, context, **here)
                stack += len(series.shown.stacks) if series.shown.has_pictures else 0
    yield from _reports(tree, studies, context, showing, targets)
    if facts.viewer and facts.autorun:
        executable = str(facts.viewer).replace("/", "\\")
        yield PurePosixPath("AUTORUN.INF"), _for_notepad(_rendered("autorun.inf.j2", {"executable": executable}))


def outer_pages(facts: Facts, showing: Showing) -> Iterator[tuple[PurePosixPath, bytes]]:
    """README.TXT and INDEX.HTM of a disc of which all DICOM files are encrypted: how they are opened, and nothing of
    the patient.
    """
    context = {**_of_any_disc(facts), "language": language(showing.language), "created": facts.created}
    text, page = PurePosixPath("README.TXT"), INDEX
    yield from _in_two_languages(context, "secure", text, page)


def _of_any_disc(facts: Facts) -> dict[str, Any]:
    """What anybody who holds a disc may know: nothing about the patient."""
    return {
        "institution": facts.disc.institution,
        "contact": facts.disc.contact,
        "version": facts.version,
        "volume_id": facts.volume_id,
        "volume": facts.volume,
        "conformance": facts.conformance,
        "is_part": facts.is_part,
        "lacks": facts.lacks,
        "is_unproven": facts.is_unproven,
        "is_deidentified": facts.is_deidentified,
    }


def _context(
    tree: Collection[PatientBranch], facts: Facts, showing: Showing, shown: Mapping[tuple[str, bytes], ShownSeries]
) -> dict[str, Any]:
    """What every page is made from."""
    spoken = language(showing.language)
    patients = patients_on_page(tree, facts.patient, showing, shown, facts.chosen, facts.priors)
    studies = [study for patient in patients for study in patient.studies]
    return {
        **_of_any_disc(facts),
        "language": spoken,
        "title": spoken.gettext(ARCHIVE_TITLE if facts.archive else TITLE),
        "archive": facts.archive,
        "created": spoken.moment(facts.created),
        "created_day": spoken.date(facts.created),
        "patients": patients,
        "chosen_words": partial(_chosen_words, spoken),
        "contents": contents_words(leaves(tree), spoken),
        "pictures": sum(study.pictures for study in studies),
        "reports": sum(len(study.reports) for study in studies),
        "documents": any(report.files for those in shown_reports(tree, showing).values() for report in those),
        "amount": showing.amount,
        "info": INFO,
        "viewer": facts.viewer,
        "autorun": bool(facts.viewer and facts.autorun),
        "is_encrypted": facts.is_encrypted,
        "viewer_names": facts.viewer_names,
        "elsewhere": [
            {"number": number, "lines": _elsewhere(instances, spoken)}
            for number, instances in sorted((facts.elsewhere or {}).items())
        ],
    }


def _howto(context: Mapping[str, Any]) -> Iterator[tuple[PurePosixPath, bytes]]:
    """How an encrypted file is opened: what anybody reads who has it, so nothing of the patient is in it."""
    yield from _in_two_languages(context, "howto", *HOWTO)


def _in_two_languages(
    context: Mapping[str, Any], template: str, text: PurePosixPath, page: PurePosixPath
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """A text in the disc's language and in English, and a page in the disc's."""
    codes = dict.fromkeys((context["language"].code, SOURCE))
    texts = [_rendered(f"{template}.txt.j2", {**context, "language": language(code)}) for code in codes]
    yield text, _for_notepad("\n\n".join(texts))
    yield page, _rendered(f"{template}.html.j2", context).encode()


def _chosen_words(spoken: Language, chosen: tuple[int, int]) -> str:
    """How many series of a study are on the disc, of how many."""
    number, of_series = chosen
    if of_series < number:  # nobody knows
        return spoken.ngettext(
            "%(number)s chosen series is on this disc.", "%(number)s chosen series are on this disc.", number
        )
    return spoken.ngettext(
        "%(number)s of %(all)s series is on this disc.",
        "%(number)s of %(all)s series are on this disc.",
        number,
        all=spoken.number(of_series),
    )


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


def _reports(
    tree: Collection[PatientBranch],
    studies: Collection[tuple[PatientOnPage, StudyOnPage]],
    context: Mapping[str, Any],
    showing: Showing,
    targets: Callable[[], Targets],
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """The pages of reports; what is long is read when its page is made, so that no more than one is in memory."""
    spoken: Language = context["language"]
    for (patient, study), those in zip(studies, shown_reports(tree, showing).values(), strict=True):
        for each in those:
            arrival = each.leaf.arrival
            found = showing.reports.read.get(arrival.sha256) or read_report(arrival.path, each.leaf.record_type)
            made = report_page(each, found, targets(), spoken)
            yield each.page, _page("report.html.j2", each.page, context, patient=patient, study=study, report=made)


def _targets(
    tree: Collection[PatientBranch], studies: Collection[tuple[PatientOnPage, StudyOnPage]], showing: Showing
) -> Targets:
    """Where each instance of the disc is seen."""
    series = [(each.title, each.shown.shown) for _, study in studies for each in study.series if each.shown]
    reports = (report for those in shown_reports(tree, showing).values() for report in those)
    return Targets(leaves(tree), series, reports, language(showing.language))


def _from(page: PurePosixPath, target: PurePosixPath) -> PurePosixPath:
    return PurePosixPath(os.path.relpath(target, page.parent))


def _static(name: str) -> bytes:
    return (files("mkiso.media") / "web" / name).read_bytes()


def _elsewhere(instances: Collection[Instance], spoken: Language) -> list[str]:
    """What another disc of the set holds, a line a study, without the patient's name."""
    return [
        spoken.gettext(
            "accession number %(number)s, %(date)s, %(modalities)s: %(objects)s",
            number=study.accession_number or "–",
            date=study.date or spoken.gettext("no date"),
            modalities=study.modalities or "–",
            objects=study.contents,
        )
        for patient in patients_on_page(arrange(instances), None, Showing(language=spoken.code), {})
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
        *folders, name = target.parts
        return f"{way_to(tuple(folders))}{quote(name)}"

    @cache
    def way_to(folders: tuple[str, ...]) -> str:
        way = _from(path, PurePosixPath(*folders))
        return f"{quote(str(way))}/" if way.parts else ""

    values = {**context, **more, "root": "../" * (len(path.parts) - 1), "link": link}
    stream = _environment().get_template(template).stream(values)
    stream.enable_buffering(_JOINED_PIECES)
    return b"".join(part.encode() for part in stream)


def _rendered(template: str, context: Mapping[str, Any]) -> str:
    return _environment().get_template(template).render(context)


@cache
def _environment() -> Environment:
    templates = environment("mkiso.media", "templates", keep_trailing_newline=True)
    templates.filters["fill"] = lambda words: fill(words, _README_WIDTH, break_long_words=False)
    return templates
