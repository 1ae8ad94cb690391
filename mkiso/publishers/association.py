"""An association that sends stored instances byte for byte (PS3.8, PS3.7 9.1.1).

pynetdicom encodes and decodes the association's negotiation. Its sender isn't used: it queues a whole dataset in memory
before the first byte leaves and doesn't tell whether a byte did, and that is what decides whether a print may be
repeated.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, A_RELEASE_RQ
from pynetdicom.pdu_primitives import (
    A_ABORT,
    A_ASSOCIATE,
    A_RELEASE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext, build_context

from mkiso.errors import ProofFailed
from mkiso.implementation import IMPLEMENTATION_CLASS_UID

MAX_CONTEXTS = 128  # odd IDs 1 to 255 (PS3.8 9.3.2.2)
OUR_PDU_BYTES = 16_384  # we receive only responses
SMALLEST_PDU_BYTES = 16  # a fragment's headers take 6
ANSWER_LIMIT_BYTES = 1_048_576
PIECE_BYTES = 262_144
UNLIMITED_PDU_BYTES = 131_072  # what we send a peer that names no limit

C_STORE_RSP, C_ECHO_RSP = 0x8001, 0x8030  # PS3.7 E.1

Pair = tuple[str, str]
"""A SOP Class UID and a Transfer Syntax UID."""
VERIFICATION: Pair = ("1.2.840.10008.1.1", "1.2.840.10008.1.2")


class AssociationRejected(Exception):
    """A-ASSOCIATE-RJ (PS3.8 9.3.4). `lasting`: the same request will be rejected again."""

    def __init__(self, words: str, lasting: bool) -> None:
        super().__init__(words)
        self.lasting = lasting


class AssociationLost(Exception):
    """The connection broke, the peer aborted, was silent for too long, or speaks no DICOM."""


@dataclass(frozen=True, slots=True)
class Address:
    """Whom to call, as whom, and how long to wait for them."""

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str
    connect_timeout_seconds: float
    response_timeout_seconds: float


class StoreAssociation:
    """An open association. `contexts` maps each accepted pair to its presentation context ID."""

    def __init__(
        self, connection: socket.socket, contexts: dict[Pair, int], peer_pdu_bytes: int, timeout_seconds: float
    ) -> None:
        self._socket = connection
        self.contexts = contexts
        self._fragment_bytes = (peer_pdu_bytes or UNLIMITED_PDU_BYTES) - 6
        self._timeout_seconds = timeout_seconds
        self._message_id = 0

    @classmethod
    def open(cls, address: Address, pairs: Sequence[Pair]) -> StoreAssociation:
        """Connect and negotiate one context for each pair, so that the answer is about exactly that pair.

        Raises OSError (no connection), AssociationRejected, AssociationLost.
        """
        connection = socket.create_connection((address.host, address.port), timeout=address.connect_timeout_seconds)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(address.response_timeout_seconds)
            contexts, peer_pdu_bytes = _negotiate(connection, address, pairs)
            return cls(connection, contexts, peer_pdu_bytes, address.response_timeout_seconds)
        except BaseException:
            connection.close()
            raise

    def store(self, pair: Pair, sop_instance_uid: str, source: Path, offset: int, sha256: str) -> Dataset:
        """C-STORE the dataset that lies in a file from `offset` to its end; the response's command set.

        The file is hashed as it leaves: its last fragment goes only where all of it is what `sha256` says. Raises
        AssociationLost, ProofFailed.
        """
        self._message_id = self._message_id % 0xFFFF + 1
        context_id = self.contexts[pair]
        self._socket.settimeout(self._timeout_seconds)
        with source.open("rb") as file, _told_as_lost():
            self._send_fragments(context_id, 1, BytesIO(_store_request(self._message_id, pair[0], sop_instance_uid)))
            self._send_fragments(context_id, 0, _Proved(file, offset, sha256))
            return self._response(context_id, C_STORE_RSP)

    def echo(self) -> Dataset:
        """C-ECHO (PS3.7 9.1.5); the response's command set. Raises AssociationLost, also where Verification isn't among
        the accepted contexts.
        """
        context_id = self.contexts.get(VERIFICATION)
        if context_id is None:
            raise AssociationLost("it accepts no C-ECHO")
        self._message_id = self._message_id % 0xFFFF + 1
        with _told_as_lost():
            self._send_fragments(context_id, 1, BytesIO(_echo_request(self._message_id)))
            return self._response(context_id, C_ECHO_RSP)

    def release(self) -> None:
        """A-RELEASE, without caring for the answer: every status has been read."""
        with suppress(OSError):
            self._socket.sendall(_encoded(A_RELEASE_RQ, A_RELEASE()))
            self._socket.settimeout(min(self._timeout_seconds, 5))
            _read_pdu(self._socket, time.monotonic() + 5)
        self._socket.close()

    def abort(self) -> None:
        """A-ABORT by the service user (PS3.8 9.3.8): what was sent is not a whole job."""
        request = A_ABORT()
        request.abort_source = 0
        with suppress(OSError):
            self._socket.sendall(_encoded(A_ABORT_RQ, request))
        self._socket.close()

    def __enter__(self) -> StoreAssociation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release() if kind is None else self.abort()

    def _send_fragments(self, context_id: int, command: int, source: Source) -> None:
        """P-DATA-TF PDUs of one fragment each (PS3.8 9.3.5), several to a system call; bit 0 of the header: command,
        bit 1: the last (E.2).
        """
        batch: list[bytes] = []
        size = 0
        fragment = source.read(self._fragment_bytes)
        while True:
            following = source.read(self._fragment_bytes)
            header = struct.pack(
                ">BxIIBB", 4, len(fragment) + 6, len(fragment) + 2, context_id, command | (0 if following else 2)
            )
            batch += (header, fragment)
            size += len(fragment)
            if not following or size >= PIECE_BYTES:
                self._socket.sendall(b"".join(batch))
                batch, size = [], 0
            if not following:
                return
            fragment = following

    def _response(self, context_id: int, field: int) -> Dataset:
        """The command set of the response to the request just sent (PS3.7 9.3.1.2, 9.3.5.2)."""
        deadline = time.monotonic() + self._timeout_seconds
        command = bytearray()
        while True:
            kind, body = _read_pdu(self._socket, deadline)
            if kind == 7:
                raise AssociationLost("it aborted the association")
            if kind != 4:
                raise AssociationLost(f"it sent a PDU of type {kind} where a response was due")
            for fragment_context, header, fragment in _fragments(body):
                if fragment_context != context_id or not header & 1 or len(command) > ANSWER_LIMIT_BYTES:
                    raise AssociationLost("its response is malformed")
                command += fragment
                if header & 2:
                    return _answer_to(self._message_id, field, bytes(command))


class Source(Protocol):
    """What fragments are read from; nothing at its end."""

    def read(self, size: int, /) -> bytes: ...


class _Proved:
    """A file from `offset` on, which has no end unless all of it is what its hash says. Reading raises ProofFailed."""

    def __init__(self, file: BinaryIO, offset: int, sha256: str) -> None:
        self._file = file
        self._sha256 = sha256
        self._hash = hashlib.sha256(file.read(offset))

    def read(self, size: int, /) -> bytes:
        piece = self._file.read(size)
        self._hash.update(piece)
        if not piece and self._hash.hexdigest() != self._sha256:
            raise ProofFailed("A stored instance changed while it was sent; it was not sent whole.")
        return piece


def _answer_to(message_id: int, field: int, command: bytes) -> Dataset:
    try:
        answer = decode(BytesIO(command), True, True)
        matches = (
            answer.CommandField == field
            and answer.MessageIDBeingRespondedTo == message_id
            and answer.Status is not None
        )
    except Exception:  # pydicom raises many types for bytes that are no dataset
        raise AssociationLost("its response is malformed") from None
    if not matches:
        raise AssociationLost("it answered another message than the one it was sent")
    return answer


def _store_request(message_id: int, sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """The C-STORE-RQ's command set, always Implicit VR Little Endian (PS3.7 6.3.1, 9.3.1.1)."""
    command = Dataset()
    command.AffectedSOPClassUID = sop_class_uid
    command.CommandField = 0x0001
    command.MessageID = message_id
    command.Priority = 0
    command.CommandDataSetType = 0x0001
    command.AffectedSOPInstanceUID = sop_instance_uid
    return _command_set(command)


def _echo_request(message_id: int) -> bytes:
    """The C-ECHO-RQ's command set (PS3.7 9.3.5.1)."""
    command = Dataset()
    command.AffectedSOPClassUID = VERIFICATION[0]
    command.CommandField = 0x0030
    command.MessageID = message_id
    command.CommandDataSetType = 0x0101
    return _command_set(command)


def _command_set(command: Dataset) -> bytes:
    elements = encode(command, True, True)
    assert elements is not None
    return struct.pack("<HHII", 0, 0, 4, len(elements)) + elements


def _negotiate(connection: socket.socket, address: Address, pairs: Sequence[Pair]) -> tuple[dict[Pair, int], int]:
    """The accepted contexts and the peer's greatest PDU (0: no limit)."""
    proposed: dict[int, Pair] = {1 + 2 * index: pair for index, pair in enumerate(pairs)}
    with _told_as_lost():
        connection.sendall(_encoded(A_ASSOCIATE_RQ, _request(address, proposed)))
        kind, body = _read_pdu(connection, time.monotonic() + address.response_timeout_seconds)
    whole = struct.pack(">BxI", kind, len(body)) + body
    if kind == 3:
        raise _rejection(whole)
    if kind != 2:
        raise AssociationLost(
            "it aborted the association"
            if kind == 7
            else f"it answered the association request with a PDU of type {kind}"
        )
    try:
        answer = A_ASSOCIATE_AC()
        answer.decode(whole)
        primitive = answer.to_primitive()
        accepted = {
            pair: number
            for context in primitive.presentation_context_definition_results_list
            for number, pair in proposed.items()
            if (context.context_id, context.result, context.transfer_syntax) == (number, 0, [pair[1]])
        }
        peer_pdu_bytes = primitive.maximum_length_received or 0
    except Exception:  # pynetdicom raises many types for bytes that are no PDU
        raise AssociationLost("its answer to the association request is malformed") from None
    if 0 < peer_pdu_bytes < SMALLEST_PDU_BYTES:
        raise AssociationLost(f"it takes PDUs of {peer_pdu_bytes} bytes, which hold no data")
    return accepted, peer_pdu_bytes


def _request(address: Address, proposed: dict[int, Pair]) -> A_ASSOCIATE:
    maximum = MaximumLengthNotification()
    maximum.maximum_length_received = OUR_PDU_BYTES
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    request = A_ASSOCIATE()
    request.application_context_name = UID("1.2.840.10008.3.1.1.1")
    request.calling_ae_title = address.calling_ae_title
    request.called_ae_title = address.called_ae_title
    request.user_information = [maximum, implementation]
    request.presentation_context_definition_list = [_context(number, pair) for number, pair in proposed.items()]
    return request


def _context(context_id: int, pair: Pair) -> PresentationContext:
    context = build_context(pair[0], pair[1])
    context.context_id = context_id
    return context


def _rejection(whole: bytes) -> AssociationRejected:
    answer = A_ASSOCIATE_RJ()
    try:
        answer.decode(whole)
        words, lasting = (
            f"{answer.reason_str}",
            answer.result == 1 and answer.source == 1 and answer.reason_diagnostic in (2, 3, 7),
        )
    except Exception:  # pynetdicom raises many types for bytes that are no PDU
        raise AssociationLost("its answer to the association request is malformed") from None
    return AssociationRejected(words, lasting)


def _encoded(kind: type, primitive: object) -> bytes:
    pdu = kind()
    pdu.from_primitive(primitive)
    encoded: bytes = pdu.encode()
    return encoded


def _read_pdu(connection: socket.socket, deadline: float) -> tuple[int, bytes]:
    kind, length = struct.unpack(">BxI", _read(connection, 6, deadline))
    if length > ANSWER_LIMIT_BYTES:
        raise AssociationLost("it sent a PDU that is too large for an answer")
    return kind, _read(connection, length, deadline)


def _read(connection: socket.socket, size: int, deadline: float) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        left_seconds = deadline - time.monotonic()
        if left_seconds <= 0:
            raise TimeoutError
        connection.settimeout(left_seconds)
        part = connection.recv(size - len(parts))
        if not part:
            raise ConnectionResetError("it closed the connection")
        parts += part
    return bytes(parts)


def _fragments(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The presentation data values of a P-DATA-TF: context ID, message control header, fragment (PS3.8 9.3.5.1)."""
    position = 0
    while position < len(body):
        if len(body) - position < 6:
            raise AssociationLost("its response is malformed")
        (length,) = struct.unpack_from(">I", body, position)
        if length < 2 or position + 4 + length > len(body):
            raise AssociationLost("its response is malformed")
        yield body[position + 4], body[position + 5], body[position + 6 : position + 4 + length]
        position += 4 + length


@contextmanager
def _told_as_lost() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise AssociationLost("it didn't answer in time") from None
    except OSError as error:
        raise AssociationLost(f"the connection broke ({error.strerror or error})") from None
