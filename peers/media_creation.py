"""A simulated publisher with Media Creation Management (PS3.4 S): it stores, takes requests, makes discs of what they
name, and fails on request.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import evt

from peers.storage_publisher import StoragePublisher

MEDIA_CREATION = UID("1.2.840.10008.5.1.1.33")
Fault = Literal[
    "",
    "refuse request",
    "refuse start",
    "failure",
    "stuck",
    "no answer to request",
    "no answer to start",
    "started before",
    "forget",
    "another's status",
]


@dataclass
class MediaCreationPublisher(StoragePublisher):
    """`requests` maps each request's UID to its execution status; `made` lists the SOP Instance UIDs of each disc, a
    copy each.
    """

    fault: Fault = ""
    step_seconds: float = 0.3
    requests: dict[str, str] = field(default_factory=dict)
    asked: dict[str, Dataset] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)
    made: list[list[str]] = field(default_factory=list)

    def contexts(self) -> list[UID]:
        return [*super().contexts(), MEDIA_CREATION]

    def handlers(self) -> list[Any]:
        return [
            *super().handlers(),
            (evt.EVT_N_CREATE, self._created),
            (evt.EVT_N_ACTION, self._acted),
            (evt.EVT_N_GET, self._asked),
            (evt.EVT_DIMSE_SENT, self._answering),
        ]

    def _answering(self, event: evt.Event) -> None:
        if self.fault == "another's status" and type(event.message).__name__ == "N_GET_RSP":
            event.message.command_set.AffectedSOPInstanceUID = "1.2.3"

    def _created(self, event: evt.Event) -> tuple[int, Dataset | None]:
        attributes = event.attribute_list
        uid = str(_request(event).AffectedSOPInstanceUID)
        held = {file.stem for file in self.files()}
        if (
            self.fault == "refuse request"
            or not {item.ReferencedSOPInstanceUID for item in attributes.ReferencedSOPSequence} <= held
        ):
            return 0x0110, None
        if uid in self.requests:
            return 0x0111, None
        self.requests[uid], self.asked[uid] = "IDLE", attributes
        if self.fault == "no answer to request":
            event.assoc.abort()
        return 0x0000, attributes

    def _acted(self, event: evt.Event) -> tuple[int, Dataset | None]:
        uid = str(_request(event).RequestedSOPInstanceUID)
        if uid not in self.requests:
            return 0x0112, None
        if event.action_type == 2:
            if self._state(uid) == "DONE":
                return 0xC201, None
            self.requests[uid] = "FAILURE"
            return 0x0000, None
        if self.fault == "refuse start":
            return 0xC203, None
        if self.fault == "started before":
            return 0xA510, None
        self.started[uid] = time.monotonic()
        self.requests[uid] = "PENDING"
        self.copies[uid] = int(event.action_information.NumberOfCopies)
        if self.fault == "no answer to start":
            event.assoc.abort()
        return 0x0000, None

    def _asked(self, event: evt.Event) -> tuple[int, Dataset | None]:
        uid = str(_request(event).RequestedSOPInstanceUID)
        if uid not in self.requests or self.fault == "forget":
            return 0x0112, None
        answer = Dataset()
        answer.ExecutionStatus = self._state(uid)
        answer.ExecutionStatusInfo = "MCD_FAILURE" if answer.ExecutionStatus == "FAILURE" else "NORMAL"
        return 0x0000, answer

    def _state(self, uid: str) -> str:
        """The status now: PENDING, CREATING and the end take a step each."""
        if self.requests[uid] not in ("PENDING", "CREATING"):
            return self.requests[uid]
        steps = 0 if self.fault == "stuck" else int((time.monotonic() - self.started[uid]) / self.step_seconds)
        self.requests[uid] = ("PENDING", "CREATING", "FAILURE" if self.fault == "failure" else "DONE")[min(steps, 2)]
        if self.requests[uid] == "DONE":
            self.made += [
                sorted(str(item.ReferencedSOPInstanceUID) for item in self.asked[uid].ReferencedSOPSequence)
            ] * self.copies[uid]
        return self.requests[uid]


def _request(event: evt.Event) -> Any:
    """The request's primitive; which type it has follows from the event."""
    return event.request
