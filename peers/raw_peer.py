"""A peer that speaks PS3.8 byte by byte, so that it can also speak it wrongly."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import build_context

from peers.patience import LONG

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
UNDEFINED = 0xFFFFFFFF

AC, RJ, P_DATA, RELEASE_RP, ABORT = 2, 3, 4, 6, 7
RELEASE_RQ_PDU = struct.pack(">BxI", 5, 4) + bytes(4)
ABORT_PDU = struct.pack(">BxI", 7, 4) + bytes(4)

UserItem = (
    AsynchronousOperationsWindowNegotiation
    | SCP_SCU_RoleSelectionNegotiation
    | SOPClassExtendedNegotiation
    | SOPClassCommonExtendedNegotiation
    | UserIdentityNegotiation
)


def associate_rq(
    contexts: Mapping[str, Iterable[str]] | None = None,
    *,
    called: str = "CDRECORD",
    calling: str = "RAWPEER",
    user_items: Iterable[UserItem] = (),
) -> bytes:
    """An encoded A-ASSOCIATE-RQ; contexts get the IDs 1, 3, 5 ... in order."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    proposed = [
        build_context(uid, list(syntaxes))
        for uid, syntaxes in (contexts or {CT: [EXPLICIT], VERIFICATION: [IMPLICIT]}).items()
    ]
    for number, context in enumerate(proposed):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = proposed
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = 16384, "1.2.3.4"
    primitive.user_information = [length, implementation, *user_items]
    request = A_ASSOCIATE_RQ()
    request.from_primitive(primitive)
    return bytes(request.encode())


def every_user_item() -> list[UserItem]:
    """User information of every kind that a peer may send beside the two that it must (PS3.7 D.3.3)."""
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = CT, True, True
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = CT, bytes(6)
    common = SOPClassCommonExtendedNegotiation()
    common.sop_class_uid, common.service_class_uid = CT, "1.2.840.10008.4.2"
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field, identity.positive_response_requested = 1, b"somebody", True
    return [window(8, 8), role, extended, common, identity]


def window(invoked: int, performed: int) -> AsynchronousOperationsWindowNegotiation:
    """How many operations a peer wants to have without an answer; 0: any number (PS3.7 D.3.3.3)."""
    item = AsynchronousOperationsWindowNegotiation()
    item.maximum_number_operations_invoked, item.maximum_number_operations_performed = invoked, performed
    return item


def p_data(*fragments: bytes, context_id: int = 1, control: int) -> bytes:
    """One P-DATA-TF with a PDV a fragment."""
    body = b"".join(struct.pack(">IBB", len(fragment) + 2, context_id, control) + fragment for fragment in fragments)
    return struct.pack(">BxI", 4, len(body)) + body


def command(
    field: int,
    *,
    sop_class: str = CT,
    sop_instance: str = "",
    message_id: int = 1,
    data_set: bool = True,
    originator: str = "",
) -> bytes:
    """A request's command set."""
    body = (
        _uid(0x0002, sop_class)
        + struct.pack("<HHIH", 0, 0x0100, 2, field)
        + struct.pack("<HHIH", 0, 0x0110, 2, message_id)
    )
    body += struct.pack("<HHIH", 0, 0x0800, 2, 0 if data_set else 0x0101) + (
        _uid(0x1000, sop_instance) if sop_instance else b""
    )
    body += struct.pack("<HHI16s", 0, 0x1030, 16, originator.ljust(16).encode()) if originator else b""
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def data_set(
    sop_instance: str, study: str, *, sop_class: str = CT, pixels: bytes = bytes(64), patient_id: str = "P1"
) -> bytes:
    """A small data set in Explicit VR Little Endian."""
    texts = [
        (0x00080016, b"UI", sop_class),
        (0x00080018, b"UI", sop_instance),
        (0x00100020, b"LO", patient_id),
        (0x0020000D, b"UI", study),
    ]
    return b"".join(element(tag, vr, text.encode()) for tag, vr, text in texts) + element(0x7FE00010, b"OW", pixels)


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """One element in Explicit VR Little Endian, padded."""
    value += (b"\0" if vr in (b"UI", b"OB", b"OW") else b" ") * (len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    return (
        head
        + (
            struct.pack("<2xI", len(value))
            if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
            else struct.pack("<H", len(value))
        )
        + value
    )


def nested(depth: int) -> bytes:
    """Sequences of undefined length in each other, in Explicit VR Little Endian."""
    opened = struct.pack("<HH2s2xI", 0x0040, 0xA730, b"SQ", UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    closed = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return opened * depth + closed * depth


def _number(command_set: bytes, number: int) -> int:
    offset = command_set.index(struct.pack("<HHI", 0, number, 2))
    return int.from_bytes(command_set[offset + 8 : offset + 10], "little")


def _uid(number: int, uid: str) -> bytes:
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return struct.pack("<HHI", 0, number, len(value)) + value


class RawPeer:
    """A TCP connection to the receiver, closed after the `with`."""

    def __init__(self, port: int, source: str = "127.0.0.1", timeout_seconds: float = LONG) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_seconds, (source, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def associate(
        self, contexts: Mapping[str, Iterable[str]] | None = None, user_items: Iterable[UserItem] = ()
    ) -> Self:
        self.send(associate_rq(contexts, user_items=user_items))
        kind, _ = self.receive()
        assert kind == AC
        return self

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """The next PDU's type and body; (0, b"") where the receiver closes."""
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxI", head)
        return kind, self._exactly(length)

    def store(
        self, sop_instance: str, encoded: bytes, *, sop_class: str = CT, context_id: int = 1, originator: str = ""
    ) -> int:
        """C-STORE in one fragment each; the status that came back."""
        request = command(1, sop_class=sop_class, sop_instance=sop_instance, originator=originator)
        self.send(p_data(request, context_id=context_id, control=3))
        self.send(p_data(encoded, context_id=context_id, control=2))
        return self.status()

    def echo(self, context_id: int = 3) -> int:
        self.send(p_data(command(0x30, sop_class=VERIFICATION, data_set=False), context_id=context_id, control=3))
        return self.status()

    def status(self) -> int:
        return self.answer()[1]

    def answer(self) -> tuple[int, int]:
        """The next answer: to which Message ID, and the status."""
        kind, body = self.receive()
        assert kind == P_DATA, f"a PDU of type {kind}"
        return _number(body, 0x0120), _number(body, 0x0900)

    def release(self) -> None:
        self.send(RELEASE_RQ_PDU)
        assert self.receive()[0] == RELEASE_RP

    def ended_within(self, seconds: float) -> bool:
        """Whether the receiver ends the connection in that time, with an A-ABORT or without."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True

    def _exactly(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            try:
                chunk = self.socket.recv(size - len(received))
            except ConnectionError:
                return b""
            if not chunk:
                return b""
            received += chunk
        return received
