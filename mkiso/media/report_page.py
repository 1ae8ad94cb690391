"""What the page of one report shows, in words for people: its head, its content in the order of reading, links to what
it refers to on the same disc, and why something is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import hypot
from pathlib import PurePosixPath

from markupsafe import Markup
from pydicom.uid import UID

from mkiso.languages import N_, Language
from mkiso.media.file_set import Leaf
from mkiso.media.shown import ShownReport, ShownSeries
from mkiso.reports.reading import DOCUMENT, KEY_OBJECTS, WAVEFORM
from mkiso.reports.values import (
    Annotation,
    Body,
    Chart,
    Code,
    ContentItem,
    Encapsulated,
    Graphic,
    Lack,
    Quantity,
    Radiotherapy,
    Recording,
    Reference,
    Report,
    Structured,
    Table,
)
from mkiso.study.identity import one_line
from mkiso.study.models import DiscFile
from mkiso.study.text import readable_name, terms_of, text_of

MAX_THUMBNAILS = 200  # of one reference to frames
_DEEPEST_HEADING = 6

_KINDS = {
    "SR DOCUMENT": N_("Report"),
    KEY_OBJECTS: N_("Selected images"),
    DOCUMENT: N_("Document"),
    WAVEFORM: N_("Recording"),
    "RT PLAN": N_("Radiotherapy plan"),
    "RT DOSE": N_("Radiotherapy dose"),
    "RT STRUCTURE SET": N_("Radiotherapy structures"),
    "RT TREAT RECORD": N_("Radiotherapy treatment record"),
}
_WHAT = {KEY_OBJECTS: N_("A note that says which images were picked out, and what for.")}
"""What a kind of report is, where its content alone doesn't tell."""
_LABELS = ("RTPlanLabel", "StructureSetLabel", "DoseSummationType")
LACKS = {
    Lack.DAMAGED: N_("A part of it is damaged and can't be read."),
    Lack.EMPTY: N_("It has no content."),
    Lack.TOO_MANY: N_("It is longer than what is shown here: this is its beginning."),
    Lack.TOO_DEEP: N_("Some of it is nested too deep to be shown here."),
    Lack.TOO_LONG: N_("A text in it is too long to be shown here as a whole."),
    Lack.OTHER_KIND: N_("It has content of a kind that isn't shown here."),
    Lack.NOT_XML: N_("It says that it is XML, and it can't be read as that to its end."),
    Lack.ACTIVE: N_("A browser might run something in it: its file ends in .TXT, so that none does."),
    Lack.SHORTER: N_("It is shorter than it says that it is."),
    Lack.SOUND: N_("It is sound, which isn't played here."),
    Lack.FORMAT: N_("It isn't in the format that it says."),
    Lack.UNFORESEEN: N_("It couldn't be read."),
}
_FILES = {
    "PDF": N_("PDF document"),
    "XML": N_("XML, for programs"),
    "TXT": N_("text"),
    "STL": N_("3D model (STL), for programs that show such"),
    "OBJ": N_("3D model (OBJ), for programs that show such"),
    "MTL": N_("materials of a 3D model (MTL)"),
    "JPG": N_("picture"),
    "PNG": N_("picture"),
    "BIN": N_("file of an unknown kind"),
}
_RELATIONSHIPS = {
    "INFERRED FROM": N_("inferred from"),
    "SELECTED FROM": N_("selected from"),
    "HAS ACQ CONTEXT": N_("acquisition"),
    "HAS OBS CONTEXT": N_("context"),
    "HAS CONCEPT MOD": N_("more precisely"),
}
_ROLES = {
    "VERIFIED": N_("Verified by"),
    "AUTHOR": N_("Written by"),
    "ATTEST": N_("Attested by"),
    "ENT": N_("Entered by"),
}
_TOOK_PART, _PLACE = N_("Took part"), N_("A place")
_CDA = {
    "title": N_("Title"),
    "patient": N_("Patient in the document"),
    "born": N_("Born"),
    "date": N_("Date"),
    "author": N_("Author"),
    "custodian": N_("Kept by"),
    "holds": N_("Holds"),
}
_CDA_MOMENTS = frozenset({"date", "born"})
_RT_DATES, _RT_NAMES = frozenset({"Date", "Reviewed on"}), frozenset({"Reviewer"})
_SHAPES = {
    "POINT": N_("A point"),
    "MULTIPOINT": N_("Points"),
    "POLYLINE": N_("A line"),
    "POLYGON": N_("An outline"),
    "CIRCLE": N_("A circle"),
    "ELLIPSE": N_("An ellipse"),
    "ELLIPSOID": N_("An ellipsoid"),
}
_TIMES = {
    "POINT": N_("A moment"),
    "MULTIPOINT": N_("Moments"),
    "SEGMENT": N_("A time span"),
    "MULTISEGMENT": N_("Time spans"),
    "BEGIN": N_("From a moment on"),
    "END": N_("Up to a moment"),
}


@dataclass(frozen=True, slots=True)
class Link:
    """Where something is found, in words; `page` is None where it isn't on this disc."""

    words: str
    page: PurePosixPath | None = None
    place: str = ""
    thumbnail: DiscFile | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A content item as a list shows it: what it is called, what it says, and what follows it in the list."""

    level: int
    is_heading: bool
    relationship: str
    name: Code | None
    text: str
    codes: tuple[Code, ...]
    quantities: tuple[Quantity, ...]
    links: tuple[Link, ...]
    anchor: str
    observed: str
    lack: str
    after: Markup


@dataclass(frozen=True, slots=True)
class ReportPage:
    """The page of a report. `kind` tells its form: structured, document, recording, radiotherapy, or none; `what` says
    what it is, where that isn't plain.
    """

    page: PurePosixPath
    kind: str
    title: str
    date: str
    time: str
    institution: str
    facts: tuple[tuple[str, str], ...]
    lacks: tuple[str, ...]
    what: str = ""
    title_code: Code | None = None
    notices: tuple[str, ...] = ()
    file: DiscFile | None = None
    file_words: str = ""
    lines: tuple[Line, ...] = ()
    narrative: Markup = Markup()  # noqa: RUF009  immutable
    charts: tuple[ChartOnPage, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True, slots=True)
class ChartOnPage:
    """A recording's chart; `file` is its drawing."""

    label: str
    file: DiscFile | None
    facts: str
    remarks: tuple[str, ...]


class Targets:
    """Where the instances of a disc are seen, by SOP Instance UID: the page of a picture, a series or a report."""

    def __init__(
        self,
        leaves: Iterable[Leaf],
        series: Iterable[tuple[str, ShownSeries]],
        reports: Iterable[ShownReport],
        spoken: Language,
    ) -> None:
        """`series`: each with what it is called."""
        self._spoken = spoken
        self._pictures: dict[tuple[str, int], Link] = {}
        self._pages: dict[str, Link] = {}
        for leaf in leaves:
            words = spoken.gettext(
                "%(kind)s, on this disc in DICOM format only", kind=_kind(leaf.arrival.sop_class_uid, spoken)
            )
            self._pages[leaf.arrival.sop_instance_uid] = Link(words)
        for title, shown in series:
            for leaf in shown.leaves:
                self._pages[leaf.arrival.sop_instance_uid] = Link(title, shown.page)
            for picture in shown.pictures:
                place = f"P{picture.number}" if picture.picture else ""
                words = spoken.gettext("Picture %(number)s of %(series)s", number=picture.number, series=title)
                key = picture.slice.sop_instance_uid, picture.slice.picture.frame
                self._pictures[key] = Link(words, shown.page, place, picture.thumbnail)
        for report in reports:
            self._pages[report.leaf.arrival.sop_instance_uid] = Link(title_of(report, spoken), report.page)

    def links(self, reference: Reference) -> Iterator[Link]:
        """One link for each frame that is referred to, or one in all."""
        uid = reference.sop_instance_uid
        frames = reference.frames[:MAX_THUMBNAILS] or (1,)
        pictures = [self._pictures[uid, frame] for frame in frames if (uid, frame) in self._pictures]
        precisely = _precisely(reference, self._spoken)
        if len(pictures) == len(frames):
            yield from pictures
            left = len(reference.frames) - MAX_THUMBNAILS
            if left > 0:
                yield Link(self._spoken.ngettext("and %(number)s more frame", "and %(number)s more frames", left))
        elif page := self._pages.get(uid):
            yield Link(", ".join((page.words, *precisely)), page.page)
        else:
            kind = _kind(reference.sop_class_uid, self._spoken)
            yield Link(", ".join((kind, *precisely, self._spoken.gettext("not on this disc"))))


def title_of(report: ShownReport, spoken: Language) -> str:
    """What a report is called, by its header alone."""
    header = report.leaf.instance.header
    if title := one_line(str(text_of(header, "DocumentTitle"))):
        return title
    codes = header.get("ConceptNameCodeSequence")
    if codes and (meaning := one_line(str(text_of(codes[0], "CodeMeaning", terms_of(header))))):
        return meaning
    labels = [one_line(str(text_of(header, keyword))) for keyword in _LABELS]
    return reduce(spoken.labelled, labels, kind_title(report, spoken))


def kind_title(report: ShownReport, spoken: Language) -> str:
    """What kind of object it is."""
    if report.leaf.record_type == WAVEFORM:
        return UID(report.leaf.arrival.sop_class_uid).name.removesuffix(" Waveform Storage")
    return spoken.gettext(_KINDS[report.leaf.record_type])


def report_page(shown: ShownReport, report: Report, targets: Targets, spoken: Language) -> ReportPage:
    """What the page of a report shows."""
    body, record_type = report.body, shown.leaf.record_type
    page = ReportPage(
        page=shown.page,
        kind=type(body).__name__.lower() if body else "none",
        title=title_of(shown, spoken),
        date=spoken.da(report.date),
        time=spoken.tm(report.time),
        institution=report.institution,
        facts=_facts(body, spoken),
        lacks=tuple(spoken.gettext(LACKS[lack]) for lack in report.lacks),
        what=spoken.gettext(_WHAT[record_type]) if record_type in _WHAT else "",
        notices=tuple(_notices(body, spoken, has_newer=shown.has_newer)),
    )
    if isinstance(body, Structured):
        return replace(page, title_code=body.title, lines=tuple(_lines(body.items, targets, spoken)))
    if isinstance(body, Encapsulated):
        narrative = Markup(body.narrative)  # noqa: S704  tags of a short list, all else escaped
        file = next(iter(shown.files), None)
        return replace(page, file=file, file_words=_file_words(body, spoken), narrative=narrative)
    if isinstance(body, Recording):
        return replace(page, charts=tuple(_charts(body, shown.files, spoken)), annotations=body.annotations)
    return replace(page, tables=body.tables) if isinstance(body, Radiotherapy) else page


def _facts(body: Body | None, spoken: Language) -> tuple[tuple[str, str], ...]:
    """What stands at the head of the page."""
    facts: Iterable[tuple[str, str]] = ()
    if isinstance(body, Structured):
        facts = _standing(body, spoken)
    elif isinstance(body, Encapsulated):
        facts = (
            (spoken.gettext(_CDA[name]), spoken.dt(value) if name in _CDA_MOMENTS else value)
            for name, value in body.facts
        )
    elif isinstance(body, Radiotherapy):
        facts = ((name, _rt_value(name, value, spoken)) for name, value in body.facts)
    return tuple((name, value) for name, value in facts if value)


def _standing(body: Structured, spoken: Language) -> list[tuple[str, str]]:
    """How far a report has come, and by whom (PS3.3 C.17.2)."""
    completion = {"COMPLETE": spoken.gettext("complete"), "PARTIAL": spoken.gettext("not complete")}.get(
        body.completion, ""
    )
    described = f"{completion} ({body.completion_description})" if body.completion_description else completion
    verification = {"VERIFIED": spoken.gettext("verified"), "UNVERIFIED": spoken.gettext("not verified")}.get(
        body.verification, ""
    )
    facts = [
        (spoken.gettext("Completion"), described),
        (spoken.gettext("Verification"), verification),
        (spoken.gettext("Version"), spoken.gettext("preliminary") if body.preliminary == "PRELIMINARY" else ""),
        (spoken.gettext("Observed"), spoken.dt(body.observed)),
    ]
    for observer in body.observers:
        name = observer.name if observer.device else readable_name(observer.name)
        words = ", ".join(filter(None, (name, observer.organization, spoken.dt(observer.when))))
        facts.append((spoken.gettext(_ROLES.get(observer.role, _TOOK_PART)), words))
    return facts


def _notices(body: Body | None, spoken: Language, *, has_newer: bool) -> Iterator[str]:
    if has_newer:
        yield spoken.gettext("A newer version of this report is on this disc.")
    if not isinstance(body, Structured):
        return
    if body.completion == "PARTIAL":
        yield spoken.gettext("This report isn't complete.")
    if body.preliminary == "PRELIMINARY":
        yield spoken.gettext("This report is preliminary.")
    if body.verification == "UNVERIFIED":
        yield spoken.gettext("Nobody has verified this report.")


def _lines(items: Sequence[ContentItem], targets: Targets, spoken: Language) -> Iterator[Line]:
    names = {item.number: item.name for item in items}
    anchors = {item.refers_to for item in items if item.refers_to in names}
    depths = [item.depth for item in items[1:]] + [-1] * bool(items)
    for item, following in zip(items, depths, strict=True):
        closed = Markup("</li>") + Markup("</ul></li>") * (item.depth - max(following, 0))
        yield Line(
            level=min(_DEEPEST_HEADING, item.depth + 2),
            is_heading=item.value_type == "CONTAINER" and item.name is not None,
            relationship=spoken.gettext(_RELATIONSHIPS[item.relationship])
            if item.relationship in _RELATIONSHIPS
            else "",
            name=item.name,
            text=_text(item, spoken),
            codes=item.codes,
            quantities=item.quantities,
            links=_links(item, names, targets, spoken),
            anchor=f"I{item.number}" if item.number in anchors else "",
            observed=spoken.dt(item.observed),
            lack=spoken.gettext(LACKS[item.lack]) if item.lack else "",
            after=Markup("<ul>") if following > item.depth else closed,
        )


def _text(item: ContentItem, spoken: Language) -> str:
    """What an item says in words; of an outline or a point in time what it is."""
    if item.graphic:
        return _temporal(item.graphic, spoken) if item.value_type == "TCOORD" else _spatial(item.graphic, spoken)
    readable = {"PNAME": readable_name, "DATE": spoken.da, "TIME": spoken.tm, "DATETIME": spoken.dt}
    if item.value_type in readable:
        return readable[item.value_type](one_line(item.text))
    if item.value_type == "NUM" and not item.quantities and not item.codes:
        return spoken.gettext("no value")
    return item.text.strip()


def _links(item: ContentItem, names: Mapping[str, Code | None], targets: Targets, spoken: Language) -> tuple[Link, ...]:
    if not item.refers_to:
        return tuple(link for reference in item.references for link in targets.links(reference))
    if item.refers_to in names:
        name = names[item.refers_to] or item.refers_to
        return (Link(spoken.gettext("see: %(name)s", name=name), PurePosixPath(), f"I{item.refers_to}"),)
    return (Link(spoken.gettext("item %(number)s, which isn't shown here", number=item.refers_to)),)


def _spatial(graphic: Graphic, spoken: Language) -> str:
    """What is drawn, and where: a point and a circle by their numbers, anything else by how many points it has."""
    kind = "POLYGON" if graphic.kind == "POLYLINE" and graphic.closed else graphic.kind
    shape = spoken.gettext(_SHAPES.get(kind, _PLACE))
    numbers = [f"{number:.1f}".removesuffix(".0") for number in graphic.first]
    in_image = graphic.unit == "pixel"
    if in_image and graphic.kind == "CIRCLE" and len(numbers) >= 4:
        x, y, at_x, at_y = graphic.first[:4]
        radius = f"{hypot(at_x - x, at_y - y):.1f}"
        return spoken.gettext(
            "A circle in the image: centre at column %(column)s, row %(row)s, radius %(radius)s pixels",
            column=numbers[0],
            row=numbers[1],
            radius=radius,
        )
    if in_image and graphic.kind == "POINT" and len(numbers) >= 2:
        return spoken.gettext("A point in the image: column %(column)s, row %(row)s", column=numbers[0], row=numbers[1])
    if graphic.kind == "POINT" and len(numbers) >= 3:
        return spoken.gettext(
            "A point in the patient: %(x)s, %(y)s, %(z)s mm", x=numbers[0], y=numbers[1], z=numbers[2]
        )
    where = spoken.gettext("in the image") if in_image else spoken.gettext("in the patient")
    points = spoken.ngettext("%(number)s point", "%(number)s points", graphic.points)
    return spoken.gettext("%(shape)s %(where)s, by %(points)s", shape=shape, where=where, points=points)


def _temporal(graphic: Graphic, spoken: Language) -> str:
    kind = spoken.gettext(_TIMES[graphic.kind] if graphic.kind in _TIMES else N_("A time"))
    if not graphic.first:
        return kind
    first = ", ".join(f"{number:g}" for number in graphic.first)
    if graphic.unit == "sample":
        return spoken.gettext("%(kind)s: sample %(numbers)s", kind=kind, numbers=first)
    return spoken.gettext("%(kind)s: %(numbers)s s", kind=kind, numbers=first)


def _kind(sop_class_uid: str, spoken: Language) -> str:
    """What kind of object a SOP class is, by the standard's name for it."""
    name = UID(sop_class_uid).name if sop_class_uid else ""
    return name.removesuffix(" Storage") if name.endswith(" Storage") else spoken.gettext("An object")


def _precisely(reference: Reference, spoken: Language) -> list[str]:
    """Which part of an instance is meant."""
    said = []
    if reference.frames:
        said.append(spoken.gettext("frame %(number)s", number=", ".join(map(str, reference.frames))))
    if reference.segments:
        said.append(spoken.gettext("segment %(number)s", number=", ".join(map(str, reference.segments))))
    if reference.channels:
        numbers = ", ".join(f"{group}/{channel}" for group, channel in reference.channels)
        said.append(spoken.gettext("channel %(number)s", number=numbers))
    return said + ([spoken.gettext("with a presentation state")] if reference.is_presented else [])


def _charts(body: Recording, files: Sequence[DiscFile], spoken: Language) -> Iterator[ChartOnPage]:
    drawings = iter(files)
    for number, chart in enumerate(body.charts, 1):
        facts = [
            spoken.ngettext("%(number)s channel", "%(number)s channels", chart.channel_count),
            f"{chart.seconds:g} s",
            f"{chart.hertz:g} Hz",
        ]
        if chart.is_drawn:
            facts += ["25 mm/s", *dict.fromkeys(_scale(each.unit, each.per_mm) for each in chart.channels)]
        yield ChartOnPage(
            chart.label or spoken.gettext("Part %(number)s", number=number),
            next(drawings, None) if chart.is_drawn else None,
            " · ".join(facts),
            tuple(_remarks(chart, spoken)),
        )


def _remarks(chart: Chart, spoken: Language) -> Iterator[str]:
    if chart.lack:
        yield spoken.gettext(LACKS[chart.lack])
    elif chart.shown_seconds < chart.seconds - 0.01:
        yield spoken.gettext(
            "The first %(shown)s seconds of %(all)s are shown; all of it is on the disc in DICOM format.",
            shown=spoken.number(round(chart.shown_seconds)),
            all=spoken.number(round(chart.seconds)),
        )
    if chart.is_drawn and len(chart.channels) < chart.channel_count:
        yield spoken.gettext(
            "%(shown)s of %(all)s channels are shown.", shown=len(chart.channels), all=chart.channel_count
        )


def _scale(unit: str, per_mm: float) -> str:
    return f"{1 / per_mm:g} mm/mV" if unit == "mV" else f"1 mm = {per_mm:g} {unit}".strip()


def _file_words(body: Encapsulated, spoken: Language) -> str:
    known = spoken.gettext(_FILES[body.suffix])
    return f"{known} ({body.mime_type})" if body.suffix == "BIN" and body.mime_type else known


def _rt_value(name: str, value: str, spoken: Language) -> str:
    if name in _RT_NAMES:
        return readable_name(value)
    return spoken.da(value) if name in _RT_DATES else value
