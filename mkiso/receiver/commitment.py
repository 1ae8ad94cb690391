"""Storage commitment as SCP (PS3.4 J): what an inbox says to hold lies on its disk, whole, now and for as long as it is
kept.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import islice

from pydicom import Dataset

from mkiso.config.inboxes import HostPort
from mkiso.dataset.elements import IMPLICIT_LITTLE, Element, each_item, elements, unpadded
from mkiso.errors import DamagedInstance
from mkiso.network import dimse
from mkiso.network.dimse import (
    ACTION_TYPE_ID,
    AFFECTED_SOP_CLASS_UID,
    AFFECTED_SOP_INSTANCE_UID,
    COMMAND_DATA_SET_TYPE,
    COMMAND_FIELD,
    DATA_SET,
    EVENT_TYPE_ID,
)
from mkiso.network.negotiation import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_PUSH,
    Context,
)
from mkiso.network.pdu import AssociationLost, ProtocolError
from mkiso.network.requestor import Address, Requestor
from mkiso.study.selection import is_uid

REQUEST_COMMITMENT = 1  # Action Type ID, PS3.4 J.3.2
ALL_HELD, SOME_NOT_HELD = 1, 2  # Event Type ID, PS3.4 J.3.3
NO_SUCH_INSTANCE, CLASS_CONFLICT = 0x0112, 0x0119  # Failure Reason, PS3.3 C.14
REPORT_PAUSES_SECONDS = (0.0, 5.0, 30.0, 300.0)
LIMIT_SECONDS = 10.0
MAX_CALLS = 16  # at the same time: each has a thread, and its report in memory, for minutes

_TRANSACTION_UID, _REFERENCES = 0x00081195, 0x00081199
_SOP_CLASS_UID, _SOP_INSTANCE_UID = 0x00081150, 0x00081155

COMMITTING = Context(STORAGE_COMMITMENT, IMPLICIT_VR_LITTLE_ENDIAN)

log = logging.getLogger(__name__)
_calls = threading.BoundedSemaphore(MAX_CALLS)


@dataclass(frozen=True, slots=True)
class Request:
    """What an N-ACTION asks about: its Transaction UID, and of each instance SOP Class and SOP Instance UID. Whatever
    is no UID is empty.
    """

    transaction_uid: str
    references: tuple[tuple[str, str], ...]


def request_of(encoded: bytes, most: int) -> Request:
    """Read an N-ACTION's data set (Implicit VR Little Endian), of its items one more than `most` at the most: a sender
    costs us no more than what is read. Raises ProtocolError where it can't be.
    """
    try:
        top = elements(encoded, 0, len(encoded), IMPLICIT_LITTLE, frozenset((_TRANSACTION_UID, _REFERENCES)))
        sequence = top.get(_REFERENCES)
        items = each_item(encoded, sequence, frozenset((_SOP_CLASS_UID, _SOP_INSTANCE_UID))) if sequence else ()
        references = tuple(
            (_uid(encoded, item, _SOP_CLASS_UID), _uid(encoded, item, _SOP_INSTANCE_UID))
            for item, _ in islice(items, most + 1)
        )
    except DamagedInstance:
        raise ProtocolError("sent a malformed data set") from None
    return Request(_uid(encoded, top, _TRANSACTION_UID), references)


def _uid(encoded: bytes, found: Mapping[int, Element], tag: int) -> str:
    if (element := found.get(tag)) is None:
        return ""
    value = unpadded(encoded[element.offset : element.offset + element.length])
    return value if is_uid(value) else ""


def status_of(command: dimse.Command, request: Request, most: int) -> int:
    """What an N-ACTION is answered that may ask about so many instances (PS3.7 C). Pure."""
    if command.number(ACTION_TYPE_ID) != REQUEST_COMMITMENT:
        return dimse.NO_SUCH_ACTION
    if len(request.references) > most:
        return dimse.RESOURCE_LIMITATION
    named = request.references
    return dimse.SUCCESS if request.transaction_uid and named and all(map(all, named)) else dimse.INVALID_ARGUMENT_VALUE


def report_on(request: Request, held: Mapping[str, str]) -> tuple[int, Dataset]:
    """The event's type and the report: of each instance whether it is held. `held` maps SOP Instance UIDs to their SOP
    Class UIDs. Pure.
    """
    report = Dataset()
    report.TransactionUID = request.transaction_uid
    well, failed = [], []
    for class_uid, instance_uid in request.references:
        told = Dataset()
        told.ReferencedSOPClassUID = class_uid
        told.ReferencedSOPInstanceUID = instance_uid
        sop_class = held.get(instance_uid)
        if sop_class == class_uid:
            well.append(told)
            continue
        told.FailureReason = NO_SUCH_INSTANCE if sop_class is None else CLASS_CONFLICT
        failed.append(told)
    if well:
        report.ReferencedSOPSequence = well
    if failed:
        report.FailedSOPSequence = failed
    return SOME_NOT_HELD if failed else ALL_HELD, report


def event(event_type: int) -> dict[int, dimse.Value]:
    """The N-EVENT-REPORT's command set, but for what numbers it."""
    return {
        COMMAND_FIELD: dimse.N_EVENT_REPORT_RQ,
        COMMAND_DATA_SET_TYPE: DATA_SET,
        AFFECTED_SOP_CLASS_UID: STORAGE_COMMITMENT,
        AFFECTED_SOP_INSTANCE_UID: STORAGE_COMMITMENT_PUSH,
        EVENT_TYPE_ID: event_type,
    }


def report_later(inbox: str, calling_ae_title: str, place: HostPort, event_type: int, report: Dataset) -> bool:
    """Call the sender with the report, in a thread of its own, until it has taken it or was called often enough: a
    sender that has heard nothing asks again. False where too many are being called already.
    """
    if not _calls.acquire(blocking=False):
        return False
    limits = (LIMIT_SECONDS, LIMIT_SECONDS, LIMIT_SECONDS)
    address = Address(place.host, place.port, calling_ae_title, inbox, *limits)
    encoded = dimse.encode_data_set(report)

    def call() -> None:
        try:
            call_until_taken()
        finally:
            _calls.release()

    def call_until_taken() -> None:
        for pause in REPORT_PAUSES_SECONDS:
            time.sleep(pause)
            try:
                with Requestor.open(address, [COMMITTING], [STORAGE_COMMITMENT]) as association:
                    if COMMITTING in association.ids:
                        association.ask(COMMITTING, event(event_type), BytesIO(encoded))
                        return
                    log.warning("%s takes no storage commitment of %s.", address, inbox)
            except AssociationLost as error:
                log.warning("%s %s: it hasn't got its storage commitment of %s.", address, error, inbox)

    threading.Thread(target=call, name="storage commitment", daemon=True).start()
    return True
