"""A small PACS to try mkiso with: C-ECHO, C-FIND at STUDY, SERIES and IMAGE, C-MOVE over one storage association, C-GET
(PS3.4 C.6.2, C.4.2, C.4.3).

Each instance goes out in its own transfer syntax with the dataset as it lies in its file.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue
from pynetdicom import AE, build_context, evt
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from mkiso.demo.library import Holding, holding
from mkiso.demo.steady import steady

PENDING, CANCEL, IDENTIFIER_DOES_NOT_MATCH = 0xFF00, 0xFE00, 0xA900
UNIQUE_KEYS = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
COUNTS = (
    "NumberOfStudyRelatedInstances",
    "NumberOfStudyRelatedSeries",
    "NumberOfSeriesRelatedInstances",
    "ModalitiesInStudy",
)


@dataclass
class DemoPacs:
    """`destinations` maps an AE title that C-MOVE may name to its (host, port). A context manager; with `port` 0 it
    listens on a free one, which stands in `port` afterwards.
    """

    files: Iterable[Path]
    destinations: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    ae_title: str = "ABPACS"
    host: str = "127.0.0.1"
    port: int = 0

    def __enter__(self) -> Self:
        self._holdings = [holding(path) for path in self.files]
        ae = AE(ae_title=self.ae_title)
        ae.maximum_pdu_size = 131_072
        ae.network_timeout = ae.dimse_timeout = ae.acse_timeout = 60
        ae.supported_contexts = [
            build_context(model)
            for model in (
                Verification,
                PatientRootQueryRetrieveInformationModelFind,
                PatientRootQueryRetrieveInformationModelGet,
                PatientRootQueryRetrieveInformationModelMove,
                StudyRootQueryRetrieveInformationModelFind,
                StudyRootQueryRetrieveInformationModelGet,
                StudyRootQueryRetrieveInformationModelMove,
            )
        ]
        syntaxes: dict[str, set[str]] = {}
        for held in self._holdings:
            syntaxes.setdefault(str(held.header.SOPClassUID), set()).add(held.transfer_syntax_uid)
        for sop_class, of_class in syntaxes.items():  # what C-GET sends goes to who asked (PS3.7 D.3.3.4)
            ae.add_supported_context(sop_class, sorted(of_class), scu_role=False, scp_role=True)
        handlers: Any = [
            (evt.EVT_CONN_OPEN, _send_at_once),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_MOVE, self._move),
            (evt.EVT_C_GET, self._get),
        ]
        server: Any = ae.start_server((self.host, self.port), block=False, evt_handlers=handlers)
        self._server, self.port = server, server.socket.getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        for association in list(self._server.active_associations):
            association.abort()
        self._server.shutdown()

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        identifier = event.identifier
        level = identifier.get("QueryRetrieveLevel", "")
        if level not in UNIQUE_KEYS:
            yield IDENTIFIER_DOES_NOT_MATCH, None
            return
        answered = set()
        for found in matching(self._holdings, identifier):
            unique = found.header.get(UNIQUE_KEYS[level])
            if unique not in answered:
                answered.add(unique)
                if event.is_cancelled:
                    yield CANCEL, None
                    return
                yield PENDING, self._answer(found, identifier)

    def _answer(self, found: Holding, identifier: Dataset) -> Dataset:
        answer = Dataset()
        answer.SpecificCharacterSet = found.header.get("SpecificCharacterSet", "ISO_IR 6")
        for element in identifier:
            if element.keyword in COUNTS:
                setattr(answer, element.keyword, self._count(element.keyword, found.header))
            elif element.keyword in ("QueryRetrieveLevel", "SpecificCharacterSet"):
                continue
            else:
                setattr(answer, element.keyword, found.header.get(element.keyword))
        answer.QueryRetrieveLevel, answer.RetrieveAETitle = identifier.QueryRetrieveLevel, self.ae_title
        return answer

    def _count(self, keyword: str, header: Dataset) -> int | list[str]:
        study = [other.header for other in self._holdings if other.header.StudyInstanceUID == header.StudyInstanceUID]
        if keyword == "ModalitiesInStudy":
            return sorted({str(other.Modality) for other in study})
        if keyword == "NumberOfStudyRelatedSeries":
            return len({other.SeriesInstanceUID for other in study})
        if keyword == "NumberOfSeriesRelatedInstances":
            return len([other for other in study if other.SeriesInstanceUID == header.SeriesInstanceUID])
        return len(study)

    def _move(self, event: Any) -> Iterator[Any]:
        destination = self.destinations.get(event.move_destination)
        if destination is None:
            yield None, None  # pynetdicom answers A801
            return
        found = list(matching(self._holdings, event.identifier))
        yield (*destination, {"contexts": contexts(found), "evt_handlers": [(evt.EVT_CONN_OPEN, _send_steadily)]})
        yield from _sent(found, event)

    def _get(self, event: Any) -> Iterator[Any]:
        yield from _sent(list(matching(self._holdings, event.identifier)), event)


def _sent(found: Collection[Holding], event: Any) -> Iterator[Any]:
    """How many there are, and each of them until the asker cancels it."""
    yield len(found)
    for one in found:
        if event.is_cancelled:
            yield CANCEL, None
            return
        yield PENDING, dcmread(one.path)


def matching(holdings: Iterable[Holding], identifier: Dataset) -> Iterator[Holding]:
    """The files whose header matches every key of a C-FIND or C-MOVE identifier (PS3.4 C.2.2.2)."""
    no_keys = (*COUNTS, "QueryRetrieveLevel", "SpecificCharacterSet")
    keys = {element.keyword: element.value for element in identifier if element.keyword not in no_keys}
    return (
        held
        for held in holdings
        if all(matches(keyword, key, held.header.get(keyword)) for keyword, key in keys.items())
    )


def matches(keyword: str, key: Any, value: Any) -> bool:
    """One attribute: universal, list of UIDs, range of dates, wildcard, single value."""
    if key is None or key == "":
        return True
    if isinstance(key, MultiValue):
        return str(value) in {str(one) for one in key}
    wanted, held = str(key), "" if value is None else str(value)
    if keyword.endswith("Date") and "-" in wanted:
        earliest, _, latest = wanted.partition("-")
        return bool(held) and earliest <= held and (not latest or held <= latest)
    if keyword.endswith("UID"):
        return wanted == held
    return fnmatchcase(held, wanted.replace("[", "[[]"))


def contexts(holdings: Iterable[Holding]) -> list[PresentationContext]:
    """A presentation context of its own for each pair of SOP class and transfer syntax, so that each file goes out as
    it is.
    """
    pairs = sorted({(str(held.header.SOPClassUID), held.transfer_syntax_uid) for held in holdings})
    return [build_context(sop_class, syntax) for sop_class, syntax in pairs]


def _send_steadily(event: Any) -> None:
    steady(event.assoc)
    _send_at_once(event)


def _send_at_once(event: Any) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
