"""Storage commitment: the publisher says for each instance that it holds it (PS3.4 J)."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID, generate_uid
from pynetdicom import AE, evt

from mkiso.config.settings import Publisher as PublisherSettings
from mkiso.errors import PrintUncertain, PublisherRefused
from mkiso.publishers.association import Address
from mkiso.publishers.protocol import Order, Watch
from mkiso.study.models import Arrival

PUSH_MODEL = UID("1.2.840.10008.1.20.1")
PUSH_MODEL_INSTANCE = UID("1.2.840.10008.1.20.1.1")
POLL_SECONDS = 0.5


def commit(publisher: str, settings: PublisherSettings, address: Address, order: Order, watch: Watch) -> None:
    """Ask for the commitment of every instance and wait for the report, on this association or on one that the
    publisher opens to `commitment_port`.

    By now the publisher has every instance, so whatever goes wrong here is PrintUncertain or, where it names instances
    it lacks, PublisherRefused.
    """
    reports: queue.Queue[Dataset] = queue.Queue()
    transaction_uid = generate_uid()

    def reported(event: evt.Event) -> tuple[int, None]:
        information = event.event_information
        if information.get("TransactionUID") == transaction_uid:
            reports.put(information)
        return 0x0000, None

    client = AE(ae_title=address.calling_ae_title)
    client.connection_timeout = address.connect_timeout_seconds
    client.acse_timeout = client.dimse_timeout = address.response_timeout_seconds
    client.network_timeout = None  # silence on the association is what waiting for the report is
    handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, reported)]
    with _listening(settings.commitment_port, address.calling_ae_title, publisher, handlers):
        client.add_requested_context(PUSH_MODEL)
        association = client.associate(
            address.host, address.port, ae_title=address.called_ae_title, evt_handlers=handlers
        )
        if not association.is_established:
            raise _unclear(publisher, order, "gives no association for storage commitment")
        try:
            status, _ = association.send_n_action(
                _request(transaction_uid, order.instances), 1, PUSH_MODEL, PUSH_MODEL_INSTANCE
            )
            if status.get("Status") != 0x0000:
                raise _unclear(
                    publisher,
                    order,
                    f"answers the request for storage commitment with {status.get('Status', 'nothing')!s}",
                )
            report = _awaited(reports, settings, watch)
        finally:
            association.release()
    if report is None:
        raise _unclear(publisher, order, f"sent no storage commitment within {settings.silent_minutes:g} minutes")
    missing = uncommitted(report, order.instances)
    if missing:
        words = (
            f"{publisher} accepted {len(order.instances)} instances and commits itself to only "
            f"{len(order.instances) - len(missing)} of them"
        )
        raise PublisherRefused(
            f"{words}: it may make a disc of a part.", accepted=len(order.instances), missing=sorted(missing)[:20]
        )


def uncommitted(report: Dataset, instances: tuple[Arrival, ...]) -> set[str]:
    """The SOP Instance UIDs that the report doesn't list as held (PS3.4 J.3.3.1.3); what it lists under Failed SOP
    Sequence isn't held.
    """
    held = {str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence", [])}
    failed = {str(item.ReferencedSOPInstanceUID) for item in report.get("FailedSOPSequence", [])}
    return {arrival.sop_instance_uid for arrival in instances} - (held - failed)


def _request(transaction_uid: str, instances: tuple[Arrival, ...]) -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = [_reference(arrival) for arrival in instances]
    return request


def _reference(arrival: Arrival) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = arrival.sop_class_uid
    reference.ReferencedSOPInstanceUID = arrival.sop_instance_uid
    return reference


def _awaited(reports: queue.Queue[Dataset], settings: PublisherSettings, watch: Watch) -> Dataset | None:
    for _ in range(int(settings.silent_minutes * 60 / POLL_SECONDS) + 1):
        try:
            return reports.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if watch.stop.is_set():
                return None
    return None


@contextmanager
def _listening(port: int | None, ae_title: str, publisher: str, handlers: list[Any]) -> Iterator[None]:
    """An SCU of the Storage Commitment class that takes reports on associations which the publisher opens (PS3.4
    J.3.3).
    """
    if port is None:
        yield
        return
    listener = AE(ae_title=ae_title)
    listener.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)
    try:
        listener.start_server(("0.0.0.0", port), block=False, evt_handlers=handlers)  # noqa: S104
    except OSError as error:
        words = (
            f"{publisher} accepted all instances; port {port} for its storage commitment can't be listened on "
            f"({error.strerror})"
        )
        raise PrintUncertain(
            f"{words}. It may make the disc; set another publishers.{publisher}.commitment_port."
        ) from None
    try:
        yield
    finally:
        listener.shutdown()


def _unclear(publisher: str, order: Order, reason: str) -> PrintUncertain:
    words = (
        f"{publisher} accepted all {len(order.instances)} instances and {reason}: it may make the disc. Look at "
        "the robot."
    )
    return PrintUncertain(words, accepted=len(order.instances))
