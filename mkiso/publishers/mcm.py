"""Media Creation Management (PS3.4 S): the instances are stored, then a disc of exactly these is requested, started and
followed.

Storing makes no disc here; only the Initiate Media Creation action does, so nothing before it is uncertain. A request
of which no answer came may be there and keeps its UID: the order is written down, so that its next attempt has another.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO

from pydicom import Dataset
from pydicom.uid import UID, generate_uid

from mkiso.config.publishers import MediaCreation
from mkiso.errors import PrintUncertain, PublisherRefused, PublisherUnavailable
from mkiso.media.application_profiles import Profile, profile_for
from mkiso.network import dimse
from mkiso.network.association import Message
from mkiso.network.negotiation import IMPLICIT_VR_LITTLE_ENDIAN, Context
from mkiso.network.pdu import AssociationLost, ProtocolError
from mkiso.network.requestor import Requestor
from mkiso.publishers.cstore import Relay, prove
from mkiso.publishers.dicom import DicomPublisher, reference_to
from mkiso.publishers.lock import Settling
from mkiso.publishers.orderbook import MAY_BE_MADE
from mkiso.publishers.protocol import Order, Receipt, Watch, label_values, tells_part
from mkiso.publishers.robot_status import RobotState, RobotStatus
from mkiso.study.identity import without_patient
from mkiso.study.models import Arrival, instances_words

MEDIA_CREATION = Context("1.2.840.10008.5.1.1.33", IMPLICIT_VR_LITTLE_ENDIAN)
INITIATE, CANCEL = 1, 2  # PS3.4 S.3.2.2, S.3.2.3
STATES: Mapping[str, RobotState] = {
    "IDLE": "absent",
    "PENDING": "waiting",
    "CREATING": "running",
    "DONE": "done",
    "FAILURE": "failed",
}
EXECUTION_STATUS_AND_INFO = struct.pack("<4H", 0x2100, 0x0020, 0x2100, 0x0030)
STARTED = (0xA510, 0xC201, 0xC202)  # Initiate has come already; the disc is made; it is being made
GOOD = (0x0000, 0x0001, 0x0107, 0x0116)
"""Success, and warnings that optional attributes were not taken (PS3.7 C)."""
POLL_SECONDS = 2.0
STANDSTILL: Mapping[RobotState, int] = {"absent": 1, "waiting": 8, "running": 8}
"""How many times `silent_minutes` a publisher may answer the same: IDLE is no state of a disc that was started, a queue
is slower than an answer.
"""


class McmPublisher(DicomPublisher[MediaCreation]):
    """A publisher with the Media Creation Management SOP Class."""

    def place(self, order: Order, before_giving: Callable[[], None], watch: Watch) -> Receipt:
        """C-STORE the instances, N-CREATE the request for them, N-ACTION to start it."""
        prove(order.instances)
        receipt = self._store(order, watch)
        with self._association() as association:
            try:
                answer = _ask(association, dimse.N_CREATE_RQ, order, data_set=media_request(order, self._settings))
            except AssociationLost as error:
                before_giving()
                raise PublisherUnavailable(
                    f"{self.name} {error} after the request for a disc; no disc was started."
                ) from None
            if answer.command.status == dimse.DUPLICATE_SOP_INSTANCE:
                before_giving()
                raise PublisherUnavailable(
                    f"{self.name} has the request of an attempt that broke off; no disc was started. Retry the run."
                )
            self._demand(answer, order, "the request for a disc")
            before_giving()
            try:
                answer = _ask(association, dimse.N_ACTION_RQ, order, {dimse.ACTION_TYPE_ID: INITIATE}, _start(order))
            except AssociationLost as error:
                raise PrintUncertain(f"{self.name} {error} when it was told to start. {MAY_BE_MADE}") from None
            self._demand(answer, order, "to start the disc")
        return replace(receipt, words=f"{self.name} has started a disc of {instances_words(receipt.instances)}.")

    def tells_part(self) -> bool:
        return tells_part(self._settings.label_fields)

    def settles_in_seconds(self, order: Order) -> float:
        """It is told which instances make a disc."""
        return 0

    def was_given(self, order: Order) -> bool | None:
        """A request that is idle was never started and is cancelled; one that isn't known any more may have been made
        and forgotten.
        """
        seen = self._look(order)
        if seen is None or (seen.state == "absent" and not self.cancel(order)):
            return None
        return seen.state != "absent"

    def follow(self, order: Order, receipt: Receipt, watch: Watch) -> Receipt:
        """N-GET the execution status until DONE or FAILURE.

        A publisher that doesn't answer for `silent_minutes`, or answers the same for too long, leaves the outcome
        unknown.
        """
        silent_seconds = self._settings.silent_minutes * 60
        last, answered = RobotStatus("waiting"), time.monotonic()
        changed = answered
        while not watch.stop.is_set():
            try:
                seen = self._look(order)
            except PublisherUnavailable:
                seen = None
            now = time.monotonic()
            if seen is not None:
                answered = now
                if seen != last:
                    last, changed = seen, now
                watch.progress(f"{self.name}: {seen.state}{f', {seen.words}' if seen.words else ''}", 0, order.copies)
                if seen.state == "done":
                    return replace(receipt, proves="done", words=f"{self.name} reported DONE.")
                if seen.state == "failed":
                    words = f"{self.name} failed at the disc: FAILURE {seen.words}".strip()
                    raise PublisherRefused(f"{words}.", **({"accepted": 1} if order.copies > 1 else {}))
                if now - changed > silent_seconds * STANDSTILL[seen.state]:
                    said = (
                        f"{self.name} has said the same of the disc for {(now - changed) / 60:.1f} minutes: "
                        f"{seen.state}"
                    )
                    raise PrintUncertain(f"{said}. {MAY_BE_MADE}")
            elif now - answered > silent_seconds:
                raise PrintUncertain(
                    f"{self.name} didn't tell of the disc for {self._settings.silent_minutes:g} minutes. {MAY_BE_MADE}"
                )
            watch.stop.wait(POLL_SECONDS)
        return receipt

    def cancel(self, order: Order) -> bool:
        """N-ACTION, Cancel Media Creation; False where the publisher refuses it."""
        with self._association() as association:
            try:
                return (
                    _ask(association, dimse.N_ACTION_RQ, order, {dimse.ACTION_TYPE_ID: CANCEL}).command.status
                    == dimse.SUCCESS
                )
            except AssociationLost:
                return False

    def _store(self, order: Order, watch: Watch) -> Receipt:
        relay = Relay(self.name, self._settings, self._address, order, watch, makes_of_part=False)
        try:
            return relay.send(lambda: None, Settling(self._orders_dir, self.where, order.patient.patient_id, 0))
        except PrintUncertain as error:
            raise PublisherUnavailable(
                f"{error.words.removesuffix(MAY_BE_MADE).strip()} No disc was started."
            ) from None
        except PublisherRefused as error:
            raise PublisherRefused(error.words) from None

    def _look(self, order: Order) -> RobotStatus | None:
        """The request's execution status; None where the publisher doesn't tell."""
        try:
            with self._association() as association:
                answer = _ask(
                    association, dimse.N_GET_RQ, order, {dimse.ATTRIBUTE_IDENTIFIER_LIST: EXECUTION_STATUS_AND_INFO}
                )
            attributes = dimse.decode_data_set(answer.kept)
        except AssociationLost:
            return None
        if answer.command.status not in GOOD:
            return None
        words = without_patient(str(attributes.get("ExecutionStatusInfo", "")), order.patient)
        state = STATES.get(str(attributes.get("ExecutionStatus", "")))
        return RobotStatus(state, words) if state else None

    def _demand(self, answer: Message, order: Order, asked: str) -> None:
        if answer.command.status in STARTED:
            raise PrintUncertain(f"{self.name} says that this disc was started before. {MAY_BE_MADE}")
        if answer.command.status not in GOOD:
            comment = without_patient(answer.command.comment, order.patient)
            raise PublisherRefused(
                f"{self.name} refused {asked}: {answer.command.status:04X}{f' ({comment})' if comment else ''}."
            )

    @contextmanager
    def _association(self) -> Iterator[Requestor]:
        """For Media Creation Management. Raises PublisherUnavailable where there is none."""
        where = f"{self.name} ({self._address})"
        try:
            association = Requestor.open(self._address, [MEDIA_CREATION])
        except AssociationLost as error:
            raise PublisherUnavailable(f"{where} {error}.") from None
        with association:
            if MEDIA_CREATION not in association.ids:
                raise PublisherUnavailable(f"{where} doesn't offer Media Creation Management.")
            yield association


def _ask(
    association: Requestor,
    field: int,
    order: Order,
    values: Mapping[int, dimse.Value] | None = None,
    data_set: Dataset | None = None,
) -> Message:
    """One DIMSE-N service on the order's request (PS3.7 10.1). Raises AssociationLost, also for an answer about another
    request, whose disc may be another patient's.
    """
    made = field == dimse.N_CREATE_RQ
    command: dict[int, dimse.Value] = {
        dimse.COMMAND_FIELD: field,
        dimse.AFFECTED_SOP_CLASS_UID if made else dimse.REQUESTED_SOP_CLASS_UID: MEDIA_CREATION.abstract_syntax,
        dimse.AFFECTED_SOP_INSTANCE_UID if made else dimse.REQUESTED_SOP_INSTANCE_UID: request_uid(order),
        **(values or {}),
    }
    answer = association.ask(
        MEDIA_CREATION, command, None if data_set is None else BytesIO(dimse.encode_data_set(data_set))
    )
    if answer.command.affected_sop_instance_uid not in ("", request_uid(order)):
        raise ProtocolError("answered about another request than this order's")
    return answer


def request_uid(order: Order) -> UID:
    """The SOP Instance UID of an order's request: the same after a restart."""
    return generate_uid(entropy_srcs=[order.order_id])


def media_request(order: Order, settings: MediaCreation) -> Dataset:
    """The attributes of the N-CREATE (PS3.4 S.3.2.1.1): what is on the disc, and what stands on its label."""
    request = Dataset()
    request.LabelUsingInformationExtractedFromInstances = "NO"
    request.LabelText = "\r\n".join(
        f"{name}: {value}" for name, value in label_values(order, settings.label_fields).items() if value
    )
    request.AllowMediaSplitting = "YES"
    request.AllowLossyCompression = "NO"
    request.IncludeDisplayApplication = "YES"
    request.PreserveCompositeInstancesAfterMediaCreation = "NO"
    profile = profile_for(order.medium, order.instances)
    request.ReferencedSOPSequence = [_reference(instance, profile) for instance in order.instances]
    return request


def _reference(instance: Arrival, profile: Profile | None) -> Dataset:
    """An instance to go onto the disc, and the profile that allows all of them; where none does, the choice is the
    publisher's (type 3)."""
    reference = reference_to(instance)
    if profile:
        reference.RequestedMediaApplicationProfile = profile.name
    return reference


def _start(order: Order) -> Dataset:
    start = Dataset()
    start.NumberOfCopies = order.copies
    start.RequestPriority = "MED"
    return start
