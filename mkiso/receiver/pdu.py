"""PDUs as they come from a peer (PS3.8 9.3): framing, bounds and deadlines over a non-blocking socket."""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Iterator
from threading import Event
from time import monotonic
from typing import NamedTuple

A_ASSOCIATE_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, P_DATA_TF, A_RELEASE_RQ, A_RELEASE_RP, A_ABORT = range(1, 8)

# Reasons of a service provider's A-ABORT (PS3.8 9.3.8).
NOT_SPECIFIED, UNRECOGNIZED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER = 0, 1, 2, 6

MAX_ASSOCIATE_BYTES = 1024 * 1024  # 128 presentation contexts with every known transfer syntax take a quarter of it
STOP_TICK_SECONDS = 0.5

_HEAD = struct.Struct(">BxI")
_PDV_HEAD = struct.Struct(">IBB")
_NOT_READY = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

RELEASE_RP = _HEAD.pack(A_RELEASE_RP, 4) + bytes(4)


class PeerGone(Exception):
    """The peer closed or reset the connection, or aborted."""


class Stalled(Exception):
    """The peer sent nothing, or not enough, within a deadline."""


class Stopping(Exception):
    """The receiver ends."""


class ProtocolError(Exception):
    """The peer broke PS3.8; `reason` goes into the A-ABORT."""

    def __init__(self, words: str, reason: int = INVALID_PARAMETER) -> None:
        super().__init__(words)
        self.reason = reason


class Pdv(NamedTuple):
    """One presentation data value (PS3.8 9.3.5.1); `data` is valid until the next PDU is read."""

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


def abort_pdu(reason: int) -> bytes:
    """An A-ABORT from the service provider (PS3.8 9.3.8)."""
    return _HEAD.pack(A_ABORT, 4) + bytes((0, 0, 2, reason))


def p_data_pdu(context_id: int, command: bytes) -> bytes:
    """A P-DATA-TF with a whole command set in one PDV (PS3.8 9.3.5)."""
    return _HEAD.pack(P_DATA_TF, len(command) + 6) + _PDV_HEAD.pack(len(command) + 2, context_id, 0x03) + command


def pdvs(body: memoryview) -> Iterator[Pdv]:
    """The PDVs of a P-DATA-TF's body. Raises ProtocolError where their lengths don't add up to the PDU's."""
    offset, end = 0, len(body)
    while offset < end:
        if end - offset < _PDV_HEAD.size:
            raise ProtocolError("a PDU ends inside a PDV's header")
        length, context_id, control = _PDV_HEAD.unpack_from(body, offset)
        after = offset + 4 + length
        if length < 2 or after > end:
            raise ProtocolError(f"a PDV claims {length} bytes")
        is_last = bool(control & 0x02)
        if length == 2 and not is_last:  # endless empty fragments would count as progress
            raise ProtocolError("an empty PDV that isn't the last")
        yield Pdv(context_id, bool(control & 0x01), is_last, body[offset + 6 : after])
        offset = after


class Connection:
    """One peer's connection: reads whole PDUs into one buffer that is used again for the next, and sends."""

    def __init__(self, sock: socket.socket, max_pdu_bytes: int, pdu_timeout_seconds: float, stop: Event) -> None:
        self._socket = sock
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(sock, select.POLLOUT)
        self._pdu_timeout_seconds = pdu_timeout_seconds
        self._stop = stop
        self._max_pdu_bytes = max_pdu_bytes
        # Room for a command, a PDU and most of the next: what the kernel has is taken in one call.
        self._buffer = memoryview(bytearray(2 * (max_pdu_bytes + _HEAD.size) + 4096))
        self._start = self._end = 0

    def next_pdu(self, idle_timeout_seconds: float, *, associated: bool = True) -> tuple[int, memoryview]:
        """The next PDU's type and body; the body is valid until the next call.

        Raises Stalled where it doesn't begin within `idle_timeout_seconds` or isn't whole a PDU's limit later,
        ProtocolError where its type or length isn't what may come (`associated`: after the A-ASSOCIATE-AC), PeerGone,
        and Stopping where the receiver ends before it begins.
        """
        deadline = monotonic() + idle_timeout_seconds
        while self._start == self._end:
            self._start = self._end = 0
            self._fill(deadline, interruptible=True)
        deadline = monotonic() + self._pdu_timeout_seconds
        self._require(_HEAD.size, deadline)
        kind, length = _HEAD.unpack_from(self._buffer, self._start)
        self._check(kind, length, associated)
        self._require(_HEAD.size + length, deadline)
        body = self._start + _HEAD.size
        self._start = body + length
        return kind, self._buffer[body : self._start]

    def send(self, data: bytes) -> None:
        """Send all of `data` within a PDU's limit. Raises Stalled or PeerGone."""
        deadline = monotonic() + self._pdu_timeout_seconds
        left = memoryview(data)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except _NOT_READY:
                if not self._writable.poll(max(0.0, deadline - monotonic()) * 1000):
                    raise Stalled("took none of our answer") from None
            except OSError as error:
                raise PeerGone(error.strerror or "connection lost") from None

    def close(self, linger_seconds: float = 1.0) -> None:
        """Say that nothing more comes, let the peer read what was sent, and close; a reset would take our last PDU from
        it.
        """
        deadline = monotonic() + linger_seconds
        try:
            self._socket.shutdown(socket.SHUT_WR)
            while (
                self._poll.poll(max(0.0, deadline - monotonic()) * 1000)
                and self._socket.recv_into(self._buffer)
                and monotonic() < deadline
            ):
                pass
        except OSError:
            pass
        self._socket.close()

    def _check(self, kind: int, length: int, associated: bool) -> None:
        if kind == P_DATA_TF and associated and length <= self._max_pdu_bytes:
            return
        if not A_ASSOCIATE_RQ <= kind <= A_ABORT:
            raise ProtocolError(f"a PDU of type {kind:02X}", UNRECOGNIZED_PDU)
        expected = (P_DATA_TF, A_RELEASE_RQ, A_ABORT) if associated else (A_ASSOCIATE_RQ, A_ABORT)
        if kind not in expected:
            raise ProtocolError(f"a PDU of type {kind:02X}, which may not come now", UNEXPECTED_PDU)
        limit = {P_DATA_TF: self._max_pdu_bytes, A_ASSOCIATE_RQ: MAX_ASSOCIATE_BYTES}.get(kind, 4)
        if length > limit or (limit == 4 and length != 4):
            raise ProtocolError(f"a PDU of type {kind:02X} that claims {length} bytes")

    def _require(self, size: int, deadline: float) -> None:
        """Wait until `size` bytes from the PDU's beginning are there."""
        if self._start + size > len(self._buffer):
            unread = self._end - self._start
            buffer = self._buffer if size <= len(self._buffer) else memoryview(bytearray(size))
            buffer[:unread] = self._buffer[self._start : self._end]
            self._buffer, self._start, self._end = buffer, 0, unread
        while self._end - self._start < size:
            self._fill(deadline)

    def _fill(self, deadline: float, interruptible: bool = False) -> None:
        """Take what the peer has sent, at least a byte."""
        while True:
            try:
                received = self._socket.recv_into(self._buffer[self._end :])
            except _NOT_READY:
                self._wait(deadline, interruptible)
                continue
            except OSError as error:
                raise PeerGone(error.strerror or "connection lost") from None
            if not received:
                raise PeerGone("closed the connection")
            self._end += received
            if monotonic() > deadline:
                raise Stalled("sent a PDU too slowly")
            return

    def _wait(self, deadline: float, interruptible: bool) -> None:
        left = deadline - monotonic()
        if left <= 0:
            raise Stalled("sent nothing" if interruptible else "stopped inside a PDU")
        # Armed anew before each wait, since the kernel leaves quick acknowledgement by itself; a sender with Nagle on
        # then waits 40 ms an instance.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        if not self._poll.poll(min(left, STOP_TICK_SECONDS) * 1000) and interruptible and self._stop.is_set():
            raise Stopping
