"""An association that we ask for, in the caller's thread: requests out, responses in.

A call returns within its time limit whatever the peer does, and nothing is left behind.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import Self

from mkiso.network import dimse, pdu
from mkiso.network.association import Association, Message, Sink, gather
from mkiso.network.negotiation import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
    Answer,
    Context,
    Pair,
    accepted,
    rejected,
    request_pdu,
)
from mkiso.network.pdu import AssociationLost, Connection, PeerGone, ProtocolError, Source, Stalled, Unreachable

MAX_PDU_BYTES = 65_536
LEAST_SECONDS = 0.1
LOOK_SECONDS = 0.05
"""How long what has come already is taken beyond the time for a message: a peer may send faster than it is read."""
NO_ANSWER = "didn't answer in time"
COUNTED_WRONGLY_BYTES = 6  # some peers count a PDU's length without its head (PS3.8 D.1)

VERIFYING = Context(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)


@dataclass(frozen=True, slots=True)
class Address:
    """Whom to call, as whom, and how long to wait for the connection, for the answer to our request for an association,
    for a response, and for the answer to our release.
    """

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str
    connect_timeout_seconds: float
    associate_timeout_seconds: float
    response_timeout_seconds: float
    release_timeout_seconds: float = 1.0

    def __str__(self) -> str:
        return f"{self.called_ae_title} at {self.host}:{self.port}"

    def within(self, limit_seconds: float) -> Address:
        """The same, for whoever has only so long: the connection, the association and the answer get a third each at
        most.
        """
        names = ("connect_timeout_seconds", "associate_timeout_seconds", "response_timeout_seconds")
        return replace(self, **{name: min(getattr(self, name), limit_seconds / 3) for name in names})

    def until(self, moment: float) -> Address:
        """The same, for whoever has to be done by a moment of the monotonic clock: the association is there by then, or
        isn't; whoever waits for responses sees to the rest.
        """
        rest = max(moment - monotonic(), LEAST_SECONDS)
        return replace(
            self,
            connect_timeout_seconds=min(self.connect_timeout_seconds, rest / 2),
            associate_timeout_seconds=min(self.associate_timeout_seconds, rest / 2),
            response_timeout_seconds=min(self.response_timeout_seconds, rest),
        )


class Requestor(Association):
    """A context manager: leaving it releases, or aborts where an exception passes. `ids` maps each accepted context to
    its ID; `scp_of` are the SOP classes that the peer may send us; `peer_pdu_bytes` is the longest PDU that it takes, 0
    for any length.
    """

    def __init__(
        self,
        connection: Connection,
        answer: Answer,
        address: Address,
        sink_for: Callable[[dimse.Command, Context], Sink] = gather,
    ) -> None:
        super().__init__(connection, answer.contexts, answer.peer_pdu_bytes, sink_for)
        self.ids: dict[Pair, int] = {context: number for number, context in answer.contexts.items()}
        self.scp_of = answer.scp_of
        self.peer_pdu_bytes = answer.peer_pdu_bytes
        self._address = address
        self._message_id = 0

    @classmethod
    def open(
        cls,
        address: Address,
        proposed: Sequence[Pair],
        scp_of: Collection[str] = (),
        sink_for: Callable[[dimse.Command, Context], Sink] = gather,
    ) -> Self:
        """Connect and negotiate; `scp_of`: the SOP classes of which we are SCP, whose data sets go where `sink_for`
        says. Raises Unreachable, AssociationRejected, PeerGone, Stalled, ProtocolError.
        """
        limit_seconds = address.connect_timeout_seconds
        try:
            sock = socket.create_connection((address.host, address.port), timeout=limit_seconds)
        except TimeoutError:
            raise Unreachable(f"took no connection within {round(limit_seconds, 1):g} s") from None
        except OSError as error:
            raise Unreachable(f"can't be reached ({error.strerror or error})") from None
        try:
            connection = Connection(
                sock, MAX_PDU_BYTES + COUNTED_WRONGLY_BYTES, address.response_timeout_seconds, polled=True
            )
            titles = address.called_ae_title, address.calling_ae_title
            connection.send(request_pdu(*titles, proposed, MAX_PDU_BYTES, scp_of))
            try:
                kind, body = connection.next_pdu(address.associate_timeout_seconds, pdu.ANSWER)
            except Stalled:
                raise Stalled(NO_ANSWER) from None
            if kind == pdu.A_ASSOCIATE_RJ:
                raise rejected(body)
            if kind == pdu.A_ABORT:
                raise PeerGone("aborted the association")
            return cls(connection, accepted(body, proposed), address, sink_for)
        except BaseException:
            sock.close()
            raise

    def request(self, context: Pair, command: Mapping[int, dimse.Value], data_set: Source | None = None) -> int:
        """Send a request and return its Message ID."""
        self._message_id = self._message_id % 0xFFFF + 1
        numbered = {
            **command,
            dimse.MESSAGE_ID: self._message_id,
            dimse.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET if data_set is None else dimse.DATA_SET,
        }
        self.send(self.ids[context], numbered, data_set)
        return self._message_id

    def cancel(self, context: Pair, message_id: int) -> None:
        """Send a C-CANCEL (PS3.7 9.3.2.3); the peer still ends the operation with a response."""
        command: dict[int, dimse.Value] = {
            dimse.COMMAND_FIELD: dimse.C_CANCEL_RQ,
            dimse.MESSAGE_ID_BEING_RESPONDED_TO: message_id,
            dimse.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET,
        }
        self.send(self.ids[context], command)

    def receive(self, timeout_seconds: float) -> Message | None:
        """The next message, or None where none is whole within the time, however much comes; what has come of it is
        kept.
        """
        deadline = monotonic() + timeout_seconds

        def patience_seconds() -> float:
            left = deadline - monotonic()
            if left < -LOOK_SECONDS:  # nothing is waited for where PDUs come without a pause
                raise Stalled(NO_ANSWER)
            return left

        try:
            message = self.next_message(patience_seconds)
        except Stalled:
            return None
        if message is None:
            raise PeerGone("ended the association")
        return message

    def ask(self, context: Pair, command: Mapping[int, dimse.Value], data_set: Source | None = None) -> Message:
        """Send a request and return its response, the next message, which must come in time. Raises ProtocolError for
        any other.
        """
        message_id = self.request(context, command, data_set)
        message = self.receive(self._address.response_timeout_seconds)
        if message is None:
            raise Stalled(NO_ANSWER)
        field = command[dimse.COMMAND_FIELD]
        assert isinstance(field, int)
        if message.context_id != self.ids[context] or (message.command.field, message.command.message_id) != (
            field | dimse.RESPONSE,
            message_id,
        ):
            raise ProtocolError("answered another message than the one it was sent")
        return message

    def echo(self) -> int:
        """C-ECHO (PS3.4 A.4, PS3.7 9.1.5); the response's status. Raises ProtocolError where Verification isn't
        accepted.
        """
        if VERIFYING not in self.ids:
            raise ProtocolError("accepts no C-ECHO")
        answer = self.ask(VERIFYING, {dimse.COMMAND_FIELD: dimse.C_ECHO_RQ, dimse.AFFECTED_SOP_CLASS_UID: VERIFICATION})
        return answer.command.status

    def release(self) -> None:
        """Ask for release and close without waiting long for the answer: nothing depends on it."""
        with suppress(AssociationLost):
            self.connection.send(pdu.RELEASE_RQ, pdu.PARTING_SECONDS)
            self.connection.next_pdu(self._address.release_timeout_seconds, pdu.RELEASING)
        self.connection.close(0)

    def abort(self) -> None:
        """Send A-ABORT and close at once."""
        self.connection.abort()
        self.connection.close(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.release() if kind is None else self.abort()
