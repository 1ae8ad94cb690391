"""A small PACS to try mkiso with: C-ECHO, C-FIND at STUDY, SERIES and IMAGE, C-MOVE over one storage association, C-GET
(PS3.4 C.6.2, C.4.2, C.4.3).

Each instance goes out in its own transfer syntax with the dataset as it lies in its file. It can be told to misbehave:
see Faults.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
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

SUCCESS, PENDING, CANCEL = 0x0000, 0xFF00, 0xFE00
REFUSED_OUT_OF_RESOURCES, IDENTIFIER_DOES_NOT_MATCH = 0xA701, 0xA900
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


@dataclass(frozen=True)
class Faults:
    """How this PACS misbehaves; nothing of it by default.

    `omit`: SOP Instance UIDs that C-FIND tells and C-MOVE leaves out without a word. `omit_once`: only in the first
    C-MOVE. `drop_after`: abort the association of the first C-MOVE after so many images. `no_images`, `no_counts`: what
    C-FIND can't answer. `move_status`: answer C-MOVE with this status and send nothing. `silent`: never answer a
    C-MOVE. `pause_seconds`: before each image.
    """

    omit: frozenset[str] = frozenset()
    omit_once: bool = False
    drop_after: int | None = None
    no_images: bool = False
    no_counts: bool = False
    move_status: int | None = None
    silent: bool = False
    pause_seconds: float = 0


@dataclass
class DemoPacs:
    """`destinations` maps an AE title that C-MOVE may name to its (host, port). A context manager; `asked` lists what
    it was asked, in order.
    """

    files: Iterable[Path]
    destinations: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    ae_title: str = "ABPACS"
    host: str = "127.0.0.1"
    port: int = 0
    faults: Faults = Faults()
    asked: list[tuple[str, Dataset]] = field(default_factory=list)

    def start(self) -> Self:
        """Listen; with `port` 0 on a free port, which stands in `port` afterwards."""
        self._holdings = [holding(path) for path in self.files]
        self._moves = 0
        self._stopping = False
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

    def stop(self) -> None:
        """Stop listening and end what is under way."""
        self._stopping = True
        for association in list(self._server.active_associations):
            association.abort()
        self._server.shutdown()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        identifier = event.identifier
        self.asked.append(("C-FIND", identifier))
        level = identifier.get("QueryRetrieveLevel", "")
        if level not in UNIQUE_KEYS or (level == "IMAGE" and self.faults.no_images):
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
                if not self.faults.no_counts:
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
        self.asked.append(("C-MOVE", event.identifier))
        self._moves += 1
        while self.faults.silent and not self._stopping:
            time.sleep(0.05)
        destination = self.destinations.get(event.move_destination)
        if destination is None:
            yield None, None  # pynetdicom answers A801
            return
        found = list(matching(self._holdings, event.identifier))
        if not self.faults.omit_once or self._moves == 1:
            found = [one for one in found if one.header.SOPInstanceUID not in self.faults.omit]
        yield (*destination, {"contexts": contexts(found), "evt_handlers": [(evt.EVT_CONN_OPEN, _send_at_once)]})
        if self.faults.move_status is not None:
            yield 1
            yield self.faults.move_status, None
            return
        yield len(found)
        for number, one in enumerate(found):
            if event.is_cancelled:
                yield CANCEL, None
                return
            if self.faults.drop_after == number and self._moves == 1:
                event.assoc.abort()
                return
            time.sleep(self.faults.pause_seconds)
            yield PENDING, dcmread(one.path)

    def _get(self, event: Any) -> Iterator[Any]:
        self.asked.append(("C-GET", event.identifier))
        found = list(matching(self._holdings, event.identifier))
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


def _send_at_once(event: Any) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
