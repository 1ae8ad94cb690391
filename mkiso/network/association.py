"""An association that is established, in either role: messages out in fragments, and in as they come (PS3.8 9.2, PS3.7
6.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from itertools import chain
from typing import NamedTuple, Protocol

from mkiso.network import pdu
from mkiso.network.dimse import MAX_COMMAND_BYTES, Command, Value, answer_to, encode_command, parse_command
from mkiso.network.negotiation import (
    Acceptance,
    Context,
    Offer,
    Rejection,
    decode_request,
    negotiate,
    rejection,
)
from mkiso.network.pdu import Connection, Pdv, PeerGone, ProtocolError, Source

MAX_DATA_SET_BYTES = 4 * 1024 * 1024
"""The longest data set that is kept in memory; real identifiers and reports have a few hundred bytes."""
UNLIMITED_PDU_BYTES = 131_072  # what we send a peer that names no limit
PIECE_BYTES = 262_144  # of one system call


class Sink(Protocol):
    """Where the data set of a message goes, piece by piece; a piece is valid while `write` runs."""

    def write(self, data: memoryview, /) -> object: ...


class Gathered(bytearray):
    """A data set that is kept in memory. Writing raises ProtocolError where nothing is so long."""

    def write(self, data: memoryview) -> None:
        self += data
        if len(self) > MAX_DATA_SET_BYTES:
            raise ProtocolError("sent a data set without end")


def gather(command: Command, context: Context) -> Sink:
    """Keep a data set in memory."""
    return Gathered()


class Message(NamedTuple):
    """A whole message; `data_set` is where its data set went, None where it has none."""

    context_id: int
    command: Command
    data_set: Sink | None

    @property
    def kept(self) -> bytes:
        """The data set as it came, empty where it isn't kept in memory."""
        return bytes(self.data_set) if isinstance(self.data_set, Gathered) else b""


class Association:
    """What both roles do. `sink_for` says where the data set of a command goes that comes in a context.

    Everything raises PeerGone, Stalled or ProtocolError where the association is lost.
    """

    def __init__(
        self,
        connection: Connection,
        contexts: Mapping[int, Context],
        peer_pdu_bytes: int,
        sink_for: Callable[[Command, Context], Sink] = gather,
    ) -> None:
        self.connection = connection
        self.contexts = contexts
        self.received_bytes = 0
        self._fragment_bytes = (peer_pdu_bytes or UNLIMITED_PDU_BYTES) - pdu.PDV_HEAD_BYTES
        self._sink_for = sink_for
        self._pdvs: Iterator[Pdv] = iter(())
        self._encoded = bytearray()
        self._begun: Message | None = None  # its command is whole, its data set isn't

    @property
    def is_between_messages(self) -> bool:
        return self._begun is None and not self._encoded

    def next_message(self, patience_seconds: Callable[[], float]) -> Message | None:
        """The next whole message; None where the peer asked for release and has its answer.

        `patience_seconds` is asked before each PDU how long it may take to begin. Where the connection is polled,
        waiting can go on after Stalled.
        """
        while True:
            for pdv in self._pdvs:
                if (message := self._take(pdv)) is not None:
                    return message
            kind, body = self.connection.next_pdu(patience_seconds())
            if kind == pdu.A_RELEASE_RQ:
                self.connection.send(pdu.RELEASE_RP)
                return None
            if kind == pdu.A_ABORT:
                raise PeerGone("aborted the association")
            self.received_bytes += len(body)
            self._pdvs = pdu.pdvs(body)

    def send(self, context_id: int, command: Mapping[int, Value], data_set: Source | None = None) -> None:
        """Send a message in PDUs that the peer takes, several to a system call; what `data_set` raises passes before
        its last fragment leaves.
        """
        parts = pdu.p_data_pdus(context_id, True, BytesIO(encode_command(command)), self._fragment_bytes)
        if data_set is not None:
            parts = chain(parts, pdu.p_data_pdus(context_id, False, data_set, self._fragment_bytes))
        held: list[bytes] = []
        size = 0
        for part in parts:
            held.append(part)
            size += len(part)
            if size >= PIECE_BYTES:
                self.connection.send(b"".join(held))
                held, size = [], 0
        self.connection.send(b"".join(held))

    def answer(self, message: Message, status: int) -> None:
        """Answer a request, without a data set."""
        self.send(message.context_id, answer_to(message.command, status))

    def _take(self, pdv: Pdv) -> Message | None:
        context = self.contexts.get(pdv.context_id)
        if context is None:
            raise ProtocolError(f"sent a PDV in presentation context {pdv.context_id}, which isn't accepted")
        if pdv.is_command:
            return self._take_command(pdv, context)
        begun = self._begun
        if begun is None or begun.data_set is None:
            raise ProtocolError("sent a data set without a command", pdu.UNEXPECTED_PDU)
        begun.data_set.write(pdv.data)
        if not pdv.is_last:
            return None
        self._begun = None
        return begun

    def _take_command(self, pdv: Pdv, context: Context) -> Message | None:
        if self._begun is not None:
            raise ProtocolError("sent a command before the data set of the last one", pdu.UNEXPECTED_PDU)
        self._encoded += pdv.data
        if len(self._encoded) > MAX_COMMAND_BYTES:
            raise ProtocolError("sent a command set without end")
        if not pdv.is_last:
            return None
        command = parse_command(self._encoded)
        self._encoded = bytearray()
        if not command.has_data_set:
            return Message(pdv.context_id, command, None)
        self._begun = Message(pdv.context_id, command, self._sink_for(command, context))
        return None


def accept(
    connection: Connection, offer: Offer, address: str, timeout_seconds: float, congested: int | None = None
) -> Acceptance | Rejection:
    """Answer the one who asks for an association; where it is `congested`, that is the reason to reject it with (PS3.8
    9.3.4, source 3).

    Raises PeerGone, Stalled, ProtocolError, Stopping.
    """
    kind, body = connection.next_pdu(timeout_seconds, pdu.REQUEST)
    if kind == pdu.A_ABORT:
        raise PeerGone("aborted the association")
    request = decode_request(body)
    if congested is None:
        answer = negotiate(request, offer, address)
    else:
        answer = rejection(request.calling_ae_title, "too many associations", 2, 3, congested)
    connection.send(answer.pdu)
    return answer
