"""What reports take to a disc beside their pages: encapsulated documents as files and recordings as drawings, made in
the job's folder.

documents/<SHA-256 of the instance's file>/R.PDF      an encapsulated document
                                           R01.SVG …  a recording's charts
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mkiso.media.record_types import record_type
from mkiso.media.rendering import MadeFile
from mkiso.reports.encapsulated import copy_document
from mkiso.reports.reading import DOCUMENT, KINDS, WAVEFORM, read_report
from mkiso.reports.values import Encapsulated, Recording
from mkiso.study.models import Instance

DRAWING = ".SVG"


@dataclass(frozen=True, slots=True)
class Reports:
    """The files of each report, by the SHA-256 of its instance's file; a report without files has none of them."""

    of: Mapping[str, tuple[MadeFile, ...]] = field(default_factory=dict)


NO_REPORTS = Reports()


def prepare_reports(instances: Collection[Instance], folder: Path) -> Reports:
    """Make the files of every report among these instances. One that can't be read has none, and its page says why."""
    return Reports(
        {
            instance.arrival.sha256: _made(instance, kind, folder / instance.arrival.sha256)
            for instance in instances
            if (kind := kind_of(instance)) in KINDS
        }
    )


def kind_of(instance: Instance) -> str:
    return record_type(instance.arrival.sop_class_uid, instance.header)


def _made(instance: Instance, kind: str, folder: Path) -> tuple[MadeFile, ...]:
    if kind not in (DOCUMENT, WAVEFORM):
        return ()
    path = instance.arrival.path
    body = read_report(path, kind).body
    files: list[Path] = []
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if isinstance(body, Encapsulated):
        target = folder / f"R.{body.suffix}"
        copy_document(path, body, target)
        files.append(target)
    elif isinstance(body, Recording):
        for number, chart in enumerate(body.charts, 1):
            if chart.svg:
                files.append(folder / f"R{number:02}{DRAWING}")
                files[-1].write_bytes(chart.svg)
    return tuple(map(MadeFile.of, files))
