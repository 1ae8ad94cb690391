"""One association with the PACS as requestor (PS3.8 7, 9), in the caller's thread.

pynetdicom's negotiation codecs serve here, its threads don't: two threads an association wake a thousand times a second
beside the ones that read headers, they can outlive a peer that stalls inside a PDU, and every kind of loss comes back
as one empty status. Here a call returns within its time limit whatever the peer does, nothing is left behind, and each
loss has its own words.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from pydicom import Dataset
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from mkiso.config.settings import Pacs, Settings
from mkiso.errors import PacsBusy, PacsRefused, PacsSilent, PacsUnreachable
from mkiso.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from mkiso.network import dimse

MAX_PDU_BYTES = 65_536
MAX_MESSAGE_BYTES = 4 * 1024 * 1024  # an identifier of one response; real ones have a few hundred bytes

ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = 2, 3, 4, 5, 6, 7
RELEASE_TIMEOUT_SECONDS = 1.0

_TRANSIENT = 2  # A-ASSOCIATE-RJ result (PS3.8 9.3.4)
_CALLING_AE_UNKNOWN, _CALLED_AE_UNKNOWN = (1, 3), (1, 7)  # its source and reason


class ConnectionLost(PacsUnreachable):
    """The association ended before the answer did: FIN, RST, A-ABORT or bytes that are no DICOM."""


class Association:
    """A context manager; entering connects and negotiates, leaving releases, or aborts where an exception passes.

    Entering raises PacsUnreachable, PacsRefused, PacsBusy, PacsSilent; the other calls ConnectionLost and PacsSilent.
    """

    def __init__(self, settings: Settings, sop_classes: Sequence[UID]) -> None:
        self._pacs = settings.pacs
        self._calling = calling_ae_title(settings)
        self._receiver = settings.receiver
        self._sop_classes = sop_classes
        self._contexts: dict[UID, int] = {}
        self._max_pdu_bytes = 0
        self._message_id = 0
        self._received = bytearray()
        self._socket: socket.socket
        self._parts: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._has_command = False  # and waits for its identifier

    def __enter__(self) -> Association:
        self._socket = self._connect()
        try:
            self._negotiate()
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.release()
        else:
            self.abort()

    def fileno(self) -> int:
        """For select: readable when something came, though not always a whole message."""
        return self._socket.fileno()

    @property
    def peer(self) -> str:
        """Who is at the other end, for people."""
        return peer_of(self._pacs)

    def request(self, command: Mapping[int, int | str], sop_class: UID, identifier: Dataset | None = None) -> int:
        """Send a request and return its Message ID; its responses are had by `receive`."""
        self._message_id += 1
        encoded = b"" if identifier is None else dimse.encode_identifier(identifier)
        self._send(
            {
                **command,
                dimse.AFFECTED_SOP_CLASS_UID: str(sop_class),
                dimse.MESSAGE_ID: self._message_id,
                dimse.COMMAND_DATA_SET_TYPE: dimse.DATA_SET if encoded else dimse.NO_DATA_SET,
            },
            encoded,
            sop_class,
        )
        return self._message_id

    def cancel(self, message_id: int, sop_class: UID) -> None:
        """Send a C-CANCEL (PS3.7 9.3.2.3); the peer still ends the operation with a response, FE00 where it obeys."""
        command = {
            dimse.COMMAND_FIELD: dimse.C_CANCEL_RQ,
            dimse.MESSAGE_ID_BEING_RESPONDED_TO: message_id,
            dimse.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET,
        }
        self._send(command, b"", sop_class)

    def receive(self, timeout_seconds: float) -> dimse.Response | None:
        """The next response, or None where none is whole within the time; what has come of it is kept. Raises
        ConnectionLost.
        """
        deadline = time.monotonic() + timeout_seconds
        try:
            while (pdu := self._next_pdu(deadline)) is not None:
                kind, body = pdu
                if kind != P_DATA:
                    raise self._lost("aborted the association" if kind == ABORT else "ended the association")
                for control, fragment in dimse.fragments(body):
                    if response := self._take(control, fragment):
                        return response
        except ValueError as error:
            raise self._lost(f"sent what is no DICOM message ({error})") from None
        return None

    def must_receive(self) -> dimse.Response:
        """The next response within pacs.response_timeout_seconds; raises PacsSilent."""
        response = self.receive(self._pacs.response_timeout_seconds)
        if response is None:
            raise self._silent(self._pacs.response_timeout_seconds)
        return response

    def release(self) -> None:
        """Ask for release and close without waiting long for the answer: nothing depends on it."""
        try:
            self._socket.settimeout(RELEASE_TIMEOUT_SECONDS)
            self._socket.sendall(struct.pack(">BBII", RELEASE_RQ, 0, 4, 0))
            self._next_pdu(time.monotonic() + RELEASE_TIMEOUT_SECONDS)
        except (OSError, PacsUnreachable):
            pass
        finally:
            self._socket.close()

    def abort(self) -> None:
        """Send A-ABORT (PS3.8 9.3.8) and close at once."""
        try:
            self._socket.settimeout(RELEASE_TIMEOUT_SECONDS)
            self._socket.sendall(struct.pack(">BBIBBBB", ABORT, 0, 4, 0, 0, 0, 0))
        except OSError:
            pass
        finally:
            self._socket.close()

    def _connect(self) -> socket.socket:
        try:
            connection = socket.create_connection(
                (self._pacs.host, self._pacs.port), timeout=self._pacs.connect_timeout_seconds
            )
        except TimeoutError:
            raise PacsUnreachable(
                f"{self.peer} took no connection within {self._pacs.connect_timeout_seconds:g} s. "
                "Check that the machine is on and no firewall drops it."
            ) from None
        except OSError as error:
            reason = error.strerror or error
            raise PacsUnreachable(
                f"{self.peer} can't be reached: {reason}. Check pacs.host and pacs.port, and that it runs."
            ) from None
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _negotiate(self) -> None:
        deadline = time.monotonic() + self._pacs.connect_timeout_seconds
        self._sendall(self._associate_request())
        pdu = self._next_pdu(deadline)
        if pdu is None:
            raise self._silent(self._pacs.connect_timeout_seconds)
        kind, body = pdu
        if kind == ASSOCIATE_RJ:
            raise self._rejection(body)
        if kind != ASSOCIATE_AC:
            raise self._lost(
                "broke off the association before it began; often because it doesn't know the calling AE title "
                + self._calling
            )
        try:
            self._accept(body)
        except PacsRefused:
            self.abort()
            raise
        except Exception:  # pynetdicom's decoders raise whatever a hostile PDU makes them
            raise self._lost("answered the association with what is no A-ASSOCIATE-AC") from None

    def _associate_request(self) -> bytes:
        contexts = [build_context(sop_class, ImplicitVRLittleEndian) for sop_class in self._sop_classes]
        for number, context in enumerate(contexts):
            context.context_id = 2 * number + 1
        length, implementation, version = (
            MaximumLengthNotification(),
            ImplementationClassUIDNotification(),
            ImplementationVersionNameNotification(),
        )
        length.maximum_length_received = MAX_PDU_BYTES
        implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        primitive = A_ASSOCIATE()
        primitive.application_context_name = UID("1.2.840.10008.3.1.1.1")
        primitive.calling_ae_title = self._calling
        primitive.called_ae_title = self._pacs.ae_title
        primitive.presentation_context_definition_list = contexts
        primitive.user_information = [length, implementation, version]
        request = A_ASSOCIATE_RQ()
        request.from_primitive(primitive)
        return bytes(request.encode())

    def _accept(self, body: bytes) -> None:
        accepted = A_ASSOCIATE_AC()
        accepted.decode(struct.pack(">BBI", ASSOCIATE_AC, 0, len(body)) + body)
        primitive = accepted.to_primitive()
        self._max_pdu_bytes = primitive.maximum_length_received or 0
        taken = {
            context.context_id
            for context in primitive.presentation_context_definition_results_list
            if context.result == 0
        }
        self._contexts = {
            sop_class: 2 * number + 1 for number, sop_class in enumerate(self._sop_classes) if 2 * number + 1 in taken
        }
        if absent := [sop_class.name for sop_class in self._sop_classes if sop_class not in self._contexts]:
            raise PacsRefused(f"{self.peer} doesn't offer {absent[0]} to {self._calling}. Have it enabled there.")

    def _rejection(self, body: bytes) -> PacsRefused | PacsBusy:
        """The words for an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
        _reserved, result, source, reason = struct.unpack(">4B", body[:4].ljust(4, b"\0"))
        if (source, reason) == _CALLING_AE_UNKNOWN:
            return PacsRefused(
                f"{self.peer} doesn't know the calling AE title {self._calling}. "
                f"Have it added there, with this machine's address and port {self._receiver.port}."
            )
        if (source, reason) == _CALLED_AE_UNKNOWN:
            return PacsRefused(
                f"{self.peer} says that its AE title is another one than {self._pacs.ae_title}. Correct pacs.ae_title."
            )
        if result == _TRANSIENT or source == 3:
            return PacsBusy(
                f"{self.peer} takes no association now (source {source}, reason {reason}). Try again in a moment."
            )
        return PacsRefused(
            f"{self.peer} rejected the association (source {source}, reason {reason}). Check that it knows the AE "
            f"title {self._calling}, "
            f"that its own is {self._pacs.ae_title}, and which address it expects."
        )

    def _send(self, command: Mapping[int, int | str], identifier: bytes, sop_class: UID) -> None:
        self._sendall(
            dimse.pdus(self._contexts[sop_class], dimse.encode_command(command), identifier, self._max_pdu_bytes)
        )

    def _sendall(self, data: bytes) -> None:
        self._socket.settimeout(self._pacs.response_timeout_seconds)
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise self._silent(self._pacs.response_timeout_seconds) from None
        except OSError as error:
            raise self._lost(f"broke the connection off ({error.strerror or error})") from None

    def _take(self, control: int, fragment: bytes) -> dimse.Response | None:
        """Add a fragment to the message under way; the response where this one completes it."""
        command, identifier = self._parts
        is_command = bool(control & dimse.IS_COMMAND)
        if is_command and self._has_command:
            raise ValueError("a command that goes on after its end")
        part = command if is_command else identifier
        part += fragment
        if len(part) > MAX_MESSAGE_BYTES:
            raise ValueError("a message larger than any response")
        if not control & dimse.IS_LAST:
            return None
        self._has_command = is_command and dimse.awaits_identifier(bytes(command))
        if self._has_command:
            return None
        self._parts = (bytearray(), bytearray())
        return dimse.response(bytes(command), bytes(identifier))

    def _next_pdu(self, deadline: float) -> tuple[int, bytes] | None:
        """The type and body of the next PDU, or None where it isn't whole by the deadline."""
        received = self._received
        while True:
            if len(received) >= 6:
                kind, length = struct.unpack_from(">BxI", received)
                if length > MAX_PDU_BYTES + 6:  # what we said that we take (PS3.8 D.1); an A-ASSOCIATE-AC is shorter
                    raise self._lost(f"sent a PDU of {length} bytes")
                if len(received) >= 6 + length:
                    body = bytes(received[6 : 6 + length])
                    del received[: 6 + length]
                    return kind, body
            if not self._recv(deadline):
                return None

    def _recv(self, deadline: float) -> bool:
        try:
            # Most peers keep Nagle's algorithm on: without an immediate acknowledgement each of their responses waits
            # 40 ms for ours. Linux falls back to delayed ones by itself, so it is asked each time.
            if quick := getattr(socket, "TCP_QUICKACK", None):
                self._socket.setsockopt(socket.IPPROTO_TCP, quick, 1)
            self._socket.settimeout(
                max(deadline - time.monotonic(), 0.0)
            )  # 0 doesn't wait, and the least above it waits 1 ms
            data = self._socket.recv(MAX_PDU_BYTES)
        except (TimeoutError, BlockingIOError):
            return False
        except OSError as error:
            raise self._lost(f"broke the connection off ({error.strerror or error})") from None
        if not data:
            raise self._lost("closed the connection")
        self._received += data
        return True

    def _lost(self, what: str) -> ConnectionLost:
        return ConnectionLost(f"{self.peer} {what}. Try again; if it stays, look at the PACS's log.")

    def _silent(self, seconds: float) -> PacsSilent:
        return PacsSilent(
            f"{self.peer} took the connection and didn't answer within {seconds:g} s. Try again; if it stays, the "
            "PACS hangs."
        )


def calling_ae_title(settings: Settings) -> str:
    """The AE title that we call ourselves: a PACS that wants the two to differ gets pacs.calling_ae_title."""
    return settings.pacs.calling_ae_title or settings.receiver.ae_title


def peer_of(pacs: Pacs) -> str:
    """The PACS by AE title and address, for people."""
    return f"The PACS {pacs.ae_title} at {pacs.host}:{pacs.port}"
