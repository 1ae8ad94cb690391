"""The kinds of source that there are, and the sources that are configured."""

from __future__ import annotations

from mkiso.config.settings import Settings
from mkiso.config.sources import CGet, CMove, DicomWeb
from mkiso.sources.cget import CGetSource
from mkiso.sources.cmove import CMoveSource
from mkiso.sources.dicomweb import DicomWebSource
from mkiso.sources.protocol import Source


def sources_of(settings: Settings, *, until: float | None = None) -> tuple[Source, ...]:
    """The configured sources in order; `until` (of the monotonic clock) their questions end, answered or not."""
    return tuple(source_of(settings, each.name, until=until) for each in settings.all_sources)


def source_of(settings: Settings, name: str = "", *, until: float | None = None) -> Source:
    """The source of this name, or the only one."""
    receiver, receiver_socket = settings.receiver, settings.storage.receiver_socket
    match settings.source(name):
        case CMove() as pacs:
            others = [each for each in settings.all_sources if isinstance(each, CMove) and each.name != name]
            return CMoveSource(pacs, receiver, receiver_socket, until, tuple(others))
        case CGet() as pacs:
            return CGetSource(pacs, receiver, settings.storage, until)
        case DicomWeb() as server:
            return DicomWebSource(server, receiver, settings.storage, until)
