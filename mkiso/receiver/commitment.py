"""Storage commitment as SCP (PS3.4 J): what an inbox says to hold lies on its disk, whole, now and for as long as it is
kept.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from io import BytesIO

from pydicom import Dataset

from mkiso.config.inboxes import HostPort
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

REQUEST_COMMITMENT = 1  # Action Type ID, PS3.4 J.3.2
ALL_HELD, SOME_NOT_HELD = 1, 2  # Event Type ID, PS3.4 J.3.3
NO_SUCH_INSTANCE, CLASS_CONFLICT = 0x0112, 0x0119  # Failure Reason, PS3.3 C.14
REPORT_PAUSES_SECONDS = (0.0, 5.0, 30.0, 300.0)
LIMIT_SECONDS = 10.0
MAX_CALLS = 16  # at the same time: each has a thread, and its report in memory, for minutes

COMMITTING = Context(STORAGE_COMMITMENT, IMPLICIT_VR_LITTLE_ENDIAN)

log = logging.getLogger(__name__)
_calls = threading.BoundedSemaphore(MAX_CALLS)


def request_of(encoded: bytes) -> Dataset:
    """What an N-ACTION asks about, every value read. Raises ProtocolError where it can't be."""
    request = dimse.decode_data_set(encoded)
    try:
        for _ in request.iterall():
            pass
    except Exception:  # pydicom reads items and values on first use, and raises many types
        raise ProtocolError("sent a malformed data set") from None
    return request


def status_of(command: dimse.Command, request: Dataset) -> int:
    """What an N-ACTION is answered. Pure."""
    if command.number(ACTION_TYPE_ID) != REQUEST_COMMITMENT:
        return dimse.NO_SUCH_ACTION
    named = [(item.get("ReferencedSOPClassUID"), item.get("ReferencedSOPInstanceUID")) for item in _references(request)]
    return (
        dimse.SUCCESS
        if request.get("TransactionUID") and named and all(map(all, named))
        else dimse.INVALID_ARGUMENT_VALUE
    )


def report_on(request: Dataset, held: Mapping[str, str]) -> tuple[int, Dataset]:
    """The event's type and the report: of each instance whether it is held. `held` maps SOP Instance UIDs to their SOP
    Class UIDs. Pure.
    """
    report = Dataset()
    report.TransactionUID = request.TransactionUID
    well, failed = [], []
    for item in _references(request):
        told = Dataset()
        told.ReferencedSOPClassUID = item.ReferencedSOPClassUID
        told.ReferencedSOPInstanceUID = item.ReferencedSOPInstanceUID
        sop_class = held.get(str(item.ReferencedSOPInstanceUID))
        if sop_class == item.ReferencedSOPClassUID:
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


def _references(request: Dataset) -> list[Dataset]:
    return list(request.get("ReferencedSOPSequence") or [])
