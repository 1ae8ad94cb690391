"""One instance as a report."""

from __future__ import annotations

import logging
from pathlib import Path

from mkiso.dataset.items import Item, keywords, opened
from mkiso.errors import DamagedInstance
from mkiso.reports import encapsulated, radiotherapy, structured, waveforms
from mkiso.reports.values import Body, Lack, Report

log = logging.getLogger("mkiso.reports")

STRUCTURED, KEY_OBJECTS, DOCUMENT, WAVEFORM = "SR DOCUMENT", "KEY OBJECT DOC", "ENCAP DOC", "WAVEFORM"
RADIOTHERAPY = ("RT PLAN", "RT DOSE", "RT STRUCTURE SET", "RT TREAT RECORD")
KINDS = frozenset({STRUCTURED, KEY_OBJECTS, DOCUMENT, WAVEFORM, *RADIOTHERAPY})
"""The directory record types (PS3.3 F.5) that become reports."""

_COMMON = keywords(
    "SOPClassUID ContentDate ContentTime AcquisitionDateTime StudyDate StudyTime InstitutionName DocumentTitle"
)
_KEYWORDS = _COMMON | structured.KEYWORDS | encapsulated.KEYWORDS | waveforms.KEYWORDS | radiotherapy.KEYWORDS


def read_report(path: Path, kind: str) -> Report:
    """What an instance of one of KINDS says. A file that can't be read gives a report that says so. Raises OSError
    where the file isn't there.
    """
    try:
        with opened(path, _KEYWORDS) as document:
            body, lacks = _body(document, kind)
            acquired = document.line("AcquisitionDateTime") if kind == WAVEFORM else ""
            return Report(
                title=document.line("DocumentTitle") or structured.title_of(document),
                date=acquired[:8] or document.line("ContentDate") or document.line("StudyDate"),
                time=acquired[8:14] or document.line("ContentTime"),
                institution=document.line("InstitutionName"),
                body=body,
                lacks=lacks,
            )
    except DamagedInstance:
        return Report(lacks=(Lack.DAMAGED,))
    except OSError:
        raise
    except Exception:
        log.exception("A report can't be read")
        return Report(lacks=(Lack.UNFORESEEN,))


def _body(document: Item, kind: str) -> tuple[Body | None, tuple[Lack, ...]]:
    if kind == DOCUMENT:
        return encapsulated.read_encapsulated(document)
    if kind == WAVEFORM:
        return waveforms.read_recording(document)
    if kind in RADIOTHERAPY:
        return radiotherapy.read_radiotherapy(document)
    return structured.read_structured(document)
