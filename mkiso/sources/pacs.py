"""An association with the PACS, whose every loss has words of its own for the operator.

A query or a C-MOVE is polled between arrivals, so one thread does both and nothing is left behind when it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO

from pydicom import Dataset
from pydicom.uid import UID

from mkiso.config.settings import Receiver
from mkiso.config.sources import Pacs
from mkiso.errors import PacsBusy, PacsRefused, PacsSilent, PacsUnreachable
from mkiso.network import dimse
from mkiso.network.association import Message, Sink, gather
from mkiso.network.negotiation import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION, AssociationRejected, Context
from mkiso.network.pdu import AssociationLost, PeerGone, Stalled, Unreachable
from mkiso.network.requestor import Address, Requestor
from mkiso.study.models import Study

ECHO_LIMIT_SECONDS = 2.0
MAX_TIMEOUTS = 60  # how many times pacs.response_timeout_seconds an answer or a study may take in all

_TRANSIENT = 2  # A-ASSOCIATE-RJ result (PS3.8 9.3.4)
_CALLING_AE_UNKNOWN, _CALLED_AE_UNKNOWN = (1, 3), (1, 7)  # its source and reason


class ConnectionLost(PacsUnreachable):
    """The association ended before the answer did: FIN, RST, A-ABORT or bytes that are no DICOM."""


class PacsAssociation:
    """A context manager; entering connects and negotiates, leaving releases, or aborts where an exception passes.

    Entering raises PacsUnreachable, PacsRefused, PacsBusy, PacsSilent; the other calls ConnectionLost, PacsSilent and
    PacsRefused.
    """

    def __init__(
        self,
        pacs: Pacs,
        receiver: Receiver,
        sop_classes: Sequence[UID],
        limit_seconds: float | None = None,
        *,
        until: float | None = None,
        stored: Sequence[Context] = (),
        sink_for: Callable[[dimse.Command, Context], Sink] = gather,
    ) -> None:
        """`until`: when all of it has to have ended, on the monotonic clock; `stored`: what the PACS may send us here,
        by C-STORE; its data sets go where `sink_for` says."""
        address = address_of(pacs, receiver)
        self._until = until
        if until is not None:
            address = address.until(until)
        self._address = address if limit_seconds is None else address.within(limit_seconds)
        self._pacs = pacs
        self._receiver_port = receiver.port
        self._proposed = [_context(sop_class) for sop_class in sop_classes]
        self._stored = list(stored)
        self._sink_for = sink_for
        self._association: Requestor
        self._under_way = 0

    def __enter__(self) -> PacsAssociation:
        address = self._address
        try:
            scp_of = dict.fromkeys(context.abstract_syntax for context in self._stored)
            self._association = Requestor.open(address, [*self._proposed, *self._stored], scp_of, self._sink_for)
        except AssociationRejected as error:
            raise self._rejection(error) from None
        except Stalled:
            raise self._silent(address.associate_timeout_seconds) from None
        except PeerGone as error:
            hint = f"often because it doesn't know the calling AE title {address.calling_ae_title}"
            raise self._lost(f"{error} instead of an answer; {hint}") from None
        except Unreachable as error:
            section = self._pacs.section
            hint = (
                f"Check {section}.host and {section}.port, that it runs, and that no firewall drops what comes from "
                "here."
            )
            raise PacsUnreachable(f"{self.peer} {error}. {hint}") from None
        except AssociationLost as error:
            raise self._lost(error) from None
        if absent := [context for context in self._proposed if context not in self._association.ids]:
            self.abort()
            name = UID(absent[0].abstract_syntax).name
            raise PacsRefused(f"{self.peer} doesn't offer {name} to {address.calling_ae_title}. Have it enabled there.")
        return self

    def pdu_words(self) -> str:
        """The longest PDU that the PACS takes, in words."""
        length = self._association.peer_pdu_bytes
        return f"PDUs of up to {length} bytes" if length else "PDUs of any length"

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.release() if kind is None else self.abort()

    @property
    def peer(self) -> str:
        """Who is at the other end, for people."""
        return peer_of(self._pacs)

    def request(self, command: Mapping[int, dimse.Value], sop_class: UID, identifier: Dataset) -> None:
        """Send a request; its responses are had by `receive`."""
        command = {**command, dimse.AFFECTED_SOP_CLASS_UID: str(sop_class)}
        try:
            self._under_way = self._association.request(
                _context(sop_class), command, BytesIO(dimse.encode_data_set(identifier))
            )
        except AssociationLost as error:
            raise self._ended(error) from None

    def cancel(self, sop_class: UID) -> None:
        """Send a C-CANCEL of the last request; the peer still ends it with a response, FE00 where it obeys."""
        try:
            self._association.cancel(_context(sop_class), self._under_way)
        except AssociationLost as error:
            raise self._ended(error) from None

    def receive(self, timeout_seconds: float) -> dimse.Response | None:
        """The next response, or None where none is whole within the time; what has come of it is kept. Raises
        ConnectionLost, and PacsRefused for a response to another request than the last one.
        """
        message = self.receive_message(timeout_seconds)
        return None if message is None else self.response_in(message)

    def receive_message(self, timeout_seconds: float) -> Message | None:
        """The next message, also a request of the PACS."""
        try:
            return self._association.receive(timeout_seconds)
        except AssociationLost as error:
            raise self._ended(error) from None

    @property
    def received_bytes(self) -> int:
        return self._association.received_bytes

    def answer(self, message: Message, status: int) -> None:
        """Answer a request of the PACS."""
        try:
            self._association.answer(message, status)
        except AssociationLost as error:
            raise self._ended(error) from None

    def response_in(self, message: Message) -> dimse.Response:
        """A message as the response to the last request."""
        try:
            response = dimse.response(message.command, message.kept)
        except AssociationLost as error:
            raise self._ended(error) from None
        if response.message_id != self._under_way:  # a second end of the request before
            raise PacsRefused(
                f"{self.peer} answers a request that isn't under way, so no answer of it can be trusted. Look at its "
                "log."
            )
        return response

    def must_receive(self) -> dimse.Response:
        """The next response within pacs.response_timeout_seconds; raises PacsSilent, and what `receive` raises."""
        seconds = self._address.response_timeout_seconds
        rest = seconds if self._until is None else min(seconds, self._until - time.monotonic())
        response = self.receive(rest) if rest > 0 else None
        if response is None:
            raise self._silent(seconds)
        return response

    def echo(self) -> int:
        """C-ECHO; the response's status."""
        try:
            return self._association.echo()
        except AssociationLost as error:
            raise self._ended(error) from None

    def release(self) -> None:
        """Ask for release and close."""
        self._association.release()

    def abort(self) -> None:
        """Send A-ABORT and close at once."""
        self._association.abort()

    def _rejection(self, error: AssociationRejected) -> PacsRefused | PacsBusy:
        """The words for an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
        calling, source, reason = self._address.calling_ae_title, error.source, error.reason
        if (source, reason) == _CALLING_AE_UNKNOWN:
            return PacsRefused(
                f"{self.peer} doesn't know the calling AE title {calling}. "
                f"Have it added there, with this machine's address and port {self._receiver_port}."
            )
        if (source, reason) == _CALLED_AE_UNKNOWN:
            return PacsRefused(
                f"{self.peer} says that its AE title is another one than {self._pacs.ae_title}. Correct "
                f"{self._pacs.section}.ae_title."
            )
        if error.result == _TRANSIENT or source == 3:
            return PacsBusy(
                f"{self.peer} takes no association now (source {source}, reason {reason}). Try again in a moment."
            )
        return PacsRefused(
            f"{self.peer} rejected the association (source {source}, reason {reason}). "
            f"Check that it knows the AE title {calling}, that its own is {self._pacs.ae_title}, "
            "and which address it expects."
        )

    def _ended(self, error: AssociationLost) -> PacsUnreachable | PacsSilent:
        if isinstance(error, Stalled):
            return self._silent(self._address.response_timeout_seconds)
        if isinstance(error, PeerGone):  # so Orthanc says to whom it doesn't know that it may not ask or retrieve
            calling = self._address.calling_ae_title
            return self._lost(f"{error}; often because {calling} isn't known there, or may not do there what it asks")
        return self._lost(error)

    def _lost(self, what: object) -> ConnectionLost:
        return ConnectionLost(f"{self.peer} {what}. Try again; if it stays, look at the PACS's log.")

    def _silent(self, seconds: float) -> PacsSilent:
        return PacsSilent(
            f"{self.peer} took the connection and didn't answer within {round(seconds, 1):g} s. "
            "Try again; if it stays, the PACS hangs."
        )


def echo(pacs: Pacs, receiver: Receiver, limit_seconds: float = ECHO_LIMIT_SECONDS) -> float:
    """How many seconds the PACS took to connect, negotiate and answer a C-ECHO.

    Whatever it does, this returns or raises within about `limit_seconds`: PacsUnreachable, PacsRefused, PacsBusy,
    PacsSilent.
    """
    begun = time.monotonic()
    with PacsAssociation(pacs, receiver, [UID(VERIFICATION)], limit_seconds) as association:
        status = association.echo()
        if status != dimse.SUCCESS:
            raise PacsRefused(f"{association.peer} answers a C-ECHO with status {status:04X}. Look at the PACS's log.")
        return time.monotonic() - begun


def address_of(pacs: Pacs, receiver: Receiver) -> Address:
    """The PACS as we call it."""
    connect, response = pacs.connect_timeout_seconds, pacs.response_timeout_seconds
    return Address(pacs.host, pacs.port, pacs.ae_title, calling_ae_title(pacs, receiver), connect, connect, response)


def calling_ae_title(pacs: Pacs, receiver: Receiver) -> str:
    """The AE title that we call ourselves: a PACS that wants the two to differ gets pacs.calling_ae_title."""
    return pacs.calling_ae_title or receiver.ae_title


def peer_of(pacs: Pacs) -> str:
    """The PACS by AE title and address, for people."""
    return f"The PACS {pacs.ae_title} at {pacs.host}:{pacs.port}"


def _context(sop_class: UID) -> Context:
    return Context(str(sop_class), IMPLICIT_VR_LITTLE_ENDIAN)


def silent(pacs: Pacs, study: Study, what: str, seconds: float) -> PacsSilent:
    """The PACS hasn't gone on with a retrieval: `what` it didn't do, for so long."""
    return PacsSilent(
        f"The PACS {pacs.ae_title} {what} of {study.called} for {seconds:g} s. Try again; if it stays, the PACS hangs.",
        accession_number=study.accession_number,
    )
