"""What reports take to a disc beside their pages: encapsulated documents as files and recordings as drawings, made in
the job's folder.

documents/<SHA-256 of the instance's file>/R.PDF      an encapsulated document
                                           R01.SVG …  a recording's charts
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mkiso.media.record_types import record_type
from mkiso.media.rendering import MadeFile
from mkiso.reports.encapsulated import copy_document
from mkiso.reports.reading import DOCUMENT, KINDS, WAVEFORM, read_report
from mkiso.reports.values import Body, Encapsulated, Recording, Report
from mkiso.study.models import Instance

DRAWING = ".SVG"


LONG_CHARACTERS = 100_000
"""A longer narrative isn't kept from one reading to the page: reports together may be far more than one."""


@dataclass(frozen=True, slots=True)
class Reports:
    """The files of each report, by the SHA-256 of its instance's file; a report without files has none of them. `read`:
    what was read for the files already, without its drawings. `replaces`: of a CDA its own document ID and those of
    the documents whose place it takes.
    """

    of: Mapping[str, tuple[MadeFile, ...]] = field(default_factory=dict)
    read: Mapping[str, Report] = field(default_factory=dict)
    replaces: Mapping[str, tuple[str, frozenset[str]]] = field(default_factory=dict)


NO_REPORTS = Reports()


def has_reports(instances: Collection[Instance]) -> bool:
    """Whether there is a report among these instances."""
    return any(kind_of(instance) in KINDS for instance in instances)


def prepare_reports(instances: Collection[Instance], folder: Path) -> Reports:
    """Make the files of every report among these instances. One that can't be read has none, and its page says why."""
    files: dict[str, tuple[MadeFile, ...]] = {}
    read: dict[str, Report] = {}
    replaces: dict[str, tuple[str, frozenset[str]]] = {}
    for instance in instances:
        kind, sha256 = kind_of(instance), instance.arrival.sha256
        if kind not in KINDS:
            continue
        files[sha256] = ()
        if kind in (DOCUMENT, WAVEFORM):
            report = read_report(instance.arrival.path, kind)
            files[sha256] = _made(instance.arrival.path, report.body, folder / sha256)
            if kept := _kept(report):
                read[sha256] = kept
            if isinstance(report.body, Encapsulated) and report.body.document_id:
                replaces[sha256] = report.body.document_id, report.body.replaces
    return Reports(files, read, replaces)


def kind_of(instance: Instance) -> str:
    return record_type(instance.arrival.sop_class_uid, instance.header)


def _made(path: Path, body: Body | None, folder: Path) -> tuple[MadeFile, ...]:
    files: list[Path] = []
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if isinstance(body, Encapsulated):
        target = folder / f"R.{body.suffix}"
        copy_document(path, body, target)
        files.append(target)
    elif isinstance(body, Recording):
        for number, chart in enumerate(body.charts, 1):
            if chart.is_drawn:
                files.append(folder / f"R{number:02}{DRAWING}")
                files[-1].write_bytes(chart.svg)
    return tuple(map(MadeFile.of, files))


def _kept(report: Report) -> Report | None:
    """What a page needs of it; None where that is long."""
    body = report.body
    if isinstance(body, Recording):
        return replace(report, body=replace(body, charts=tuple(replace(chart, svg=b"") for chart in body.charts)))
    return None if isinstance(body, Encapsulated) and len(body.narrative) > LONG_CHARACTERS else report
