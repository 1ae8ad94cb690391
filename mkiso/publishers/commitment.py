"""Storage commitment: the publisher says for each instance that it holds it (PS3.4 J)."""

from __future__ import annotations

import queue
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from time import monotonic
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID, generate_uid

from mkiso.config.publishers import CStore
from mkiso.errors import PrintUncertain, PublisherRefused
from mkiso.network import dimse, pdu
from mkiso.network.association import Association, Message, accept
from mkiso.network.negotiation import (
    ABSTRACT_SYNTAX_NOT_SUPPORTED,
    STORAGE_COMMITMENT_PUSH,
    TRANSFER_SYNTAXES_NOT_SUPPORTED,
    Acceptance,
    Offer,
)
from mkiso.network.pdu import AssociationLost, Connection, ProtocolError, Stalled, Stopping
from mkiso.network.requestor import MAX_PDU_BYTES, NO_ANSWER, Address, Requestor
from mkiso.publishers.dicom import reference_to
from mkiso.publishers.protocol import Order, Watch
from mkiso.receiver.admission import Admission, Place
from mkiso.receiver.commitment import COMMITTING, REQUEST_COMMITMENT
from mkiso.study.models import Arrival, instances_words

POLL_SECONDS = 0.5
PDU_TIMEOUT_SECONDS = 10.0  # of a publisher that calls us
MAX_CONNECTIONS, MAX_CONNECTIONS_PER_PEER = 16, 4  # at once; each may hold as much as a data set has

Take = Callable[[bytes], None]


def commit(publisher: str, settings: CStore, address: Address, order: Order, watch: Watch) -> None:
    """Ask for the commitment of every instance and wait for the report, on this association or on one that the
    publisher opens to `commitment_port`.

    By now the publisher has every instance, so whatever goes wrong here is PrintUncertain or, where it names instances
    it lacks, PublisherRefused.
    """
    transaction_uid = generate_uid()
    reports: queue.SimpleQueue[Dataset] = queue.SimpleQueue()

    def take(encoded: bytes) -> None:
        if transaction_uid.encode() not in encoded:  # nobody's, and not worth to be decoded: anybody may send some
            return
        report = dimse.decode_data_set(encoded)
        if report.get("TransactionUID") == transaction_uid:
            reports.put(report)

    def unclear(reason: str) -> PrintUncertain:
        accepted = f"{publisher} accepted {instances_words(len(order.instances))}"
        return PrintUncertain(
            f"{accepted} and {reason}: it may make the disc. Look at the robot.", accepted=len(order.instances)
        )

    report = None
    try:
        with (
            _listening(settings.commitment_port, publisher, take),
            Requestor.open(address, [COMMITTING]) as association,
        ):
            status = _ask(association, transaction_uid, order.instances, take, address.response_timeout_seconds)
            if status == dimse.SUCCESS:
                report = _awaited(association, reports, take, settings, watch)
    except AssociationLost as error:
        raise unclear(f"{error} before it had committed itself to them") from None
    if status != dimse.SUCCESS:
        raise unclear(f"answers the request for storage commitment with {status:04X}")
    if report is None:
        raise unclear(f"sent no storage commitment within {settings.silent_minutes:g} minutes")
    missing = uncommitted(report, order.instances)
    if missing:
        total = len(order.instances)
        words = (
            f"{publisher} accepted {instances_words(total)} and commits itself to only {total - len(missing)} of them"
        )
        raise PublisherRefused(
            f"{words}: it may make a disc of a part.", accepted=len(order.instances), missing=sorted(missing)[:20]
        )


def uncommitted(report: Dataset, instances: tuple[Arrival, ...]) -> set[str]:
    """The SOP Instance UIDs that the report doesn't list as held (PS3.4 J.3.3.1.3); what it lists under Failed SOP
    Sequence isn't held. An item that names none says nothing.
    """
    held, failed = (
        {str(item.get("ReferencedSOPInstanceUID", "")) for item in report.get(name, [])}
        for name in ("ReferencedSOPSequence", "FailedSOPSequence")
    )
    return {arrival.sop_instance_uid for arrival in instances} - (held - failed)


def _ask(
    association: Requestor, transaction_uid: UID, instances: tuple[Arrival, ...], take: Take, limit_seconds: float
) -> int:
    """N-ACTION (PS3.4 J.3.2); the status of its response. Raises AssociationLost."""
    if COMMITTING not in association.ids:
        raise ProtocolError("offers no storage commitment")
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = [reference_to(arrival) for arrival in instances]
    command: dict[int, dimse.Value] = {
        dimse.COMMAND_FIELD: dimse.N_ACTION_RQ,
        dimse.REQUESTED_SOP_CLASS_UID: COMMITTING.abstract_syntax,
        dimse.REQUESTED_SOP_INSTANCE_UID: STORAGE_COMMITMENT_PUSH,
        dimse.ACTION_TYPE_ID: REQUEST_COMMITMENT,
    }
    association.request(COMMITTING, command, BytesIO(dimse.encode_data_set(request)))
    deadline = monotonic() + limit_seconds
    while (message := association.receive(deadline - monotonic())) is not None:
        if message.command.field == dimse.N_ACTION_RQ | dimse.RESPONSE:
            return message.command.status
        _take_report(association, message, take)
    raise Stalled(NO_ANSWER)


def _awaited(
    association: Requestor, reports: queue.SimpleQueue[Dataset], take: Take, settings: CStore, watch: Watch
) -> Dataset | None:
    """The report, None where none comes. Raises AssociationLost where none can come any more."""
    deadline = monotonic() + settings.silent_minutes * 60
    is_open = True
    while reports.empty() and monotonic() < deadline and not watch.stop.is_set():
        if not is_open:
            watch.stop.wait(POLL_SECONDS)
            continue
        try:
            message = association.receive(POLL_SECONDS)
        except AssociationLost:
            if settings.commitment_port is None:
                raise
            is_open = False  # it calls us with its report
        else:
            if message is not None:
                _take_report(association, message, take)
    return None if reports.empty() else reports.get()


def _take_report(association: Association, message: Message, take: Take) -> None:
    """Answer an N-EVENT-REPORT (PS3.4 J.3.3), and refuse anything else."""
    if message.command.field != dimse.N_EVENT_REPORT_RQ:
        association.answer(message, dimse.UNRECOGNIZED_OPERATION)
        return
    take(message.kept)
    with suppress(AssociationLost):  # it may go once it has reported: what it said is known
        association.answer(message, dimse.SUCCESS)


class _Listener(socketserver.ThreadingTCPServer):
    """An SCU of the Storage Commitment class that takes reports on associations which the publisher opens (PS3.4
    J.3.3).
    """

    allow_reuse_address = True  # the last job's connections are still in TIME_WAIT

    def __init__(self, port: int, take: Take) -> None:
        self.take = take
        self.stop = threading.Event()
        self.admission = Admission(MAX_CONNECTIONS, MAX_CONNECTIONS_PER_PEER)
        self.places: dict[object, Place] = {}
        super().__init__(("0.0.0.0", port), _Handler)  # noqa: S104

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Anybody may call, and a thread is all that it takes to hold up the whole job."""
        place = self.admission.admit(str(client_address[0]), request)
        if place is None:
            return False
        if place.congested is not None:
            self.admission.release(place)
            return False
        self.places[request] = place
        return True


class _Handler(socketserver.BaseRequestHandler):
    server: _Listener

    def handle(self) -> None:
        place = self.server.places.pop(self.request)
        connection = Connection(self.request, MAX_PDU_BYTES, PDU_TIMEOUT_SECONDS, self.server.stop)
        try:
            with suppress(Stopping):
                _serve(connection, place, self.server.take)
        finally:
            connection.close()
            self.server.admission.release(place)


@contextmanager
def _listening(port: int | None, publisher: str, take: Take) -> Iterator[None]:
    """Take reports that come to this port meanwhile, where there is one."""
    if port is None:
        yield
        return
    try:
        listener = _Listener(port, take)
    except OSError as error:
        raise PrintUncertain(
            f"{publisher} accepted all instances; port {port} for its storage commitment can't be listened on "
            f"({error.strerror}). It may make the disc; set another publishers.{publisher}.commitment_port."
        ) from None
    with listener:
        thread = threading.Thread(target=listener.serve_forever, args=(POLL_SECONDS,), name="storage commitment")
        thread.start()
        try:
            yield
        finally:
            listener.stop.set()
            listener.shutdown()
            thread.join()
            listener.admission.end_all()  # who sends without a pause is never waited for, and hears of no stop


def _serve(connection: Connection, place: Place, take: Take) -> None:
    """One association that the publisher opened. Raises Stopping."""
    try:
        answer = accept(connection, _OFFER, place.peer, PDU_TIMEOUT_SECONDS)
        if isinstance(answer, Acceptance):
            place.associated = True
            association = Association(connection, answer.contexts, answer.peer_pdu_bytes)
            while (message := association.next_message(lambda: PDU_TIMEOUT_SECONDS)) is not None:
                _take_report(association, message, take)
    except AssociationLost:
        connection.abort(pdu.NOT_SPECIFIED)


def _choose(abstract_syntax: str, transfer_syntaxes: list[str]) -> str | int:
    if abstract_syntax != COMMITTING.abstract_syntax:
        return ABSTRACT_SYNTAX_NOT_SUPPORTED
    return (
        COMMITTING.transfer_syntax
        if COMMITTING.transfer_syntax in transfer_syntaxes
        else TRANSFER_SYNTAXES_NOT_SUPPORTED
    )


_OFFER = Offer(None, MAX_PDU_BYTES, _choose, roles=(False, True))
