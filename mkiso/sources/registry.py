"""The kinds of source that there are."""

from __future__ import annotations

from mkiso.config.settings import Settings
from mkiso.config.sources import CGet, CMove, DicomWeb
from mkiso.sources.cget import CGetSource
from mkiso.sources.cmove import CMoveSource
from mkiso.sources.dicomweb import DicomWebSource
from mkiso.sources.protocol import Source


def source_of(settings: Settings, *, until: float | None = None) -> Source:
    """The configured source; `until` (of the monotonic clock) its questions end, answered or not."""
    receiver, receiver_socket = settings.receiver, settings.storage.receiver_socket
    match settings.pacs:
        case CMove() as pacs:
            return CMoveSource(pacs, receiver, receiver_socket, until)
        case CGet() as pacs:
            return CGetSource(pacs, receiver, settings.storage, until)
        case DicomWeb() as server:
            return DicomWebSource(server, receiver, settings.storage, until)
