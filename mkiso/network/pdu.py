"""PDUs of an association in either role (PS3.8 9.3): framing, bounds and deadlines over a non-blocking socket."""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import suppress
from threading import Event
from time import monotonic
from typing import NamedTuple, Protocol

A_ASSOCIATE_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, P_DATA_TF, A_RELEASE_RQ, A_RELEASE_RP, A_ABORT = range(1, 8)

# What may come when: of whom asks for an association, in answer to it, while it is there, and after we asked for its
# release.
REQUEST = frozenset({A_ASSOCIATE_RQ, A_ABORT})
ANSWER = frozenset({A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ABORT})
ESTABLISHED = frozenset({P_DATA_TF, A_RELEASE_RQ, A_ABORT})
RELEASING = ESTABLISHED | {A_RELEASE_RP}

# Reasons of a service provider's A-ABORT (PS3.8 9.3.8).
NOT_SPECIFIED, UNRECOGNIZED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER = 0, 1, 2, 6

MAX_ASSOCIATE_BYTES = 1024 * 1024  # 128 presentation contexts with every known transfer syntax take a quarter of it
STOP_TICK_SECONDS = 0.5
PARTING_SECONDS = 1.0  # for our last PDU
PDV_HEAD_BYTES = 6

_HEAD = struct.Struct(">BxI")
_PDV_HEAD = struct.Struct(">IBB")
_P_DATA_HEAD = struct.Struct(">BxIIBB")
_NOT_READY = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_IS_COMMAND, _IS_LAST = 0x01, 0x02  # the message control header (PS3.8 E.2)

RELEASE_RQ, RELEASE_RP = (_HEAD.pack(kind, 4) + bytes(4) for kind in (A_RELEASE_RQ, A_RELEASE_RP))


class AssociationLost(Exception):
    """There is no association, or it ended before its work did. The words go on after the peer's name."""


class Unreachable(AssociationLost):
    """There is no connection."""


class PeerGone(AssociationLost):
    """The peer closed or reset the connection, or aborted."""


class Stalled(AssociationLost):
    """The peer sent nothing, or not enough, within a deadline."""


class ProtocolError(AssociationLost):
    """The peer broke PS3.8 or PS3.7; `reason` goes into the A-ABORT."""

    def __init__(self, words: str, reason: int = INVALID_PARAMETER) -> None:
        super().__init__(words)
        self.reason = reason


class Stopping(Exception):
    """We end."""


class Pdv(NamedTuple):
    """One presentation data value (PS3.8 9.3.5.1); `data` is valid until the next PDU is read."""

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


class Source(Protocol):
    """What is sent in fragments; nothing at its end."""

    def read(self, size: int, /) -> bytes: ...


def abort_pdu(reason: int | None = None) -> bytes:
    """An A-ABORT (PS3.8 9.3.8): from the service provider where there is a reason, else from its user."""
    return _HEAD.pack(A_ABORT, 4) + (bytes(4) if reason is None else bytes((0, 0, 2, reason)))


def p_data_pdus(context_id: int, is_command: bool, source: Source, most_bytes: int) -> Iterator[bytes]:
    """A command or a data set as P-DATA-TF PDUs of one PDV each (PS3.8 9.3.5), header and fragment in turn.

    No fragment is longer than `most_bytes`, and none is given before the source has told whether it is the last.
    """
    fragment, control = source.read(most_bytes), _IS_COMMAND if is_command else 0
    while True:
        following = source.read(most_bytes)
        length = len(fragment)
        yield _P_DATA_HEAD.pack(P_DATA_TF, length + 6, length + 2, context_id, control | (0 if following else _IS_LAST))
        yield fragment
        if not following:
            return
        fragment = following


def pdvs(body: memoryview) -> Iterator[Pdv]:
    """The PDVs of a P-DATA-TF's body. Raises ProtocolError where their lengths don't add up to the PDU's."""
    offset, end = 0, len(body)
    while offset < end:
        if end - offset < _PDV_HEAD.size:
            raise ProtocolError("sent a PDU that ends inside a PDV's header")
        length, context_id, control = _PDV_HEAD.unpack_from(body, offset)
        after = offset + 4 + length
        if length < 2 or after > end:
            raise ProtocolError(f"sent a PDV that claims {length} bytes")
        is_last = bool(control & _IS_LAST)
        if length == 2 and not is_last:  # endless empty fragments would count as progress
            raise ProtocolError("sent an empty PDV that isn't the last")
        yield Pdv(context_id, bool(control & _IS_COMMAND), is_last, body[offset + 6 : after])
        offset = after


class Connection:
    """One peer's connection: reads whole PDUs into one buffer that is used again for the next, and sends.

    A PDU that has begun is whole within `timeout_seconds`, and so is what we send; `polled`: within the time that its
    reader waits, who may go on waiting for it later. `stop` ends the waiting between PDUs.
    """

    def __init__(
        self,
        sock: socket.socket,
        max_pdu_bytes: int,
        timeout_seconds: float,
        stop: Event | None = None,
        *,
        polled: bool = False,
    ) -> None:
        self._socket = sock
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(sock, select.POLLOUT)
        self._timeout_seconds = timeout_seconds
        self._polled = polled
        self._stop = stop
        self._max_pdu_bytes = max_pdu_bytes
        # Room for a command, a PDU and most of the next: what the kernel has is taken in one call.
        self._buffer = memoryview(bytearray(2 * (max_pdu_bytes + _HEAD.size) + 4096))
        self._start = self._end = 0

    def next_pdu(self, idle_timeout_seconds: float, expected: frozenset[int] = ESTABLISHED) -> tuple[int, memoryview]:
        """The next PDU's type and body; the body is valid until the next call.

        Raises Stalled where it doesn't begin within `idle_timeout_seconds` or isn't whole in time, ProtocolError where
        its type isn't expected or its length isn't what may come, PeerGone, and Stopping where we end before it begins.
        """
        deadline = monotonic() + idle_timeout_seconds
        while self._start == self._end:
            self._start = self._end = 0
            self._fill(deadline, interruptible=True)
        if not self._polled:
            deadline = monotonic() + self._timeout_seconds
        if self._end - self._start < _HEAD.size:
            self._require(_HEAD.size, deadline)
        kind, length = _HEAD.unpack_from(self._buffer, self._start)
        self._check(kind, length, expected)
        if self._end - self._start < _HEAD.size + length:
            self._require(_HEAD.size + length, deadline)
        body = self._start + _HEAD.size
        self._start = body + length
        return kind, self._buffer[body : self._start]

    def send(self, data: bytes, timeout_seconds: float | None = None) -> None:
        """Send all of `data` in time. Raises Stalled or PeerGone."""
        deadline = monotonic() + (self._timeout_seconds if timeout_seconds is None else timeout_seconds)
        left = memoryview(data)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except _NOT_READY:
                if not self._writable.poll(max(0.0, deadline - monotonic()) * 1000):
                    raise Stalled("took nothing of what it was sent") from None
            except OSError as error:
                raise PeerGone(_broken(error)) from None

    def abort(self, reason: int | None = None) -> None:
        """Send A-ABORT (PS3.8 9.3.8), as service provider where there is a reason; a peer that takes nothing any more
        isn't waited for.
        """
        with suppress(PeerGone, Stalled):
            self.send(abort_pdu(reason), PARTING_SECONDS)

    def close(self, linger_seconds: float = PARTING_SECONDS) -> None:
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

    def _check(self, kind: int, length: int, expected: frozenset[int]) -> None:
        if kind == P_DATA_TF and kind in expected and length <= self._max_pdu_bytes:
            return
        if not A_ASSOCIATE_RQ <= kind <= A_ABORT:
            raise ProtocolError(f"sent a PDU of type {kind:02X}", UNRECOGNIZED_PDU)
        if kind not in expected:
            raise ProtocolError(f"sent a PDU of type {kind:02X}, which may not come now", UNEXPECTED_PDU)
        limits = {
            P_DATA_TF: self._max_pdu_bytes,
            A_ASSOCIATE_RQ: MAX_ASSOCIATE_BYTES,
            A_ASSOCIATE_AC: MAX_ASSOCIATE_BYTES,
        }
        limit = limits.get(kind, 4)
        if length > limit or (limit == 4 and length != 4):
            raise ProtocolError(f"sent a PDU of type {kind:02X} that claims {length} bytes")

    def _require(self, size: int, deadline: float) -> None:
        """Wait until `size` bytes from the PDU's beginning are there."""
        if self._start + size > len(self._buffer):
            unread = self._end - self._start
            buffer = self._buffer if size <= len(self._buffer) else memoryview(bytearray(size))
            buffer[:unread] = self._buffer[self._start : self._end]
            self._buffer, self._start, self._end = buffer, 0, unread
        while self._end - self._start < size:
            self._fill(deadline)
            if self._end - self._start < size and monotonic() > deadline:
                raise Stalled("sent a PDU too slowly")

    def _fill(self, deadline: float, interruptible: bool = False) -> None:
        """Take what the peer has sent, at least a byte."""
        while True:
            try:
                received = self._socket.recv_into(self._buffer[self._end :])
            except _NOT_READY:
                self._wait(deadline, interruptible)
                continue
            except OSError as error:
                raise PeerGone(_broken(error)) from None
            if not received:
                raise PeerGone("closed the connection")
            self._end += received
            return

    def _wait(self, deadline: float, interruptible: bool) -> None:
        # Armed anew before each wait, since the kernel leaves quick acknowledgement by itself; a sender with Nagle on
        # then waits 40 ms a message.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        left = deadline - monotonic()
        if left <= 0:
            raise Stalled("sent nothing" if interruptible else "stopped inside a PDU")
        if (
            not self._poll.poll(min(left, STOP_TICK_SECONDS) * 1000)
            and interruptible
            and self._stop is not None
            and self._stop.is_set()
        ):
            raise Stopping


def _broken(error: OSError) -> str:
    return f"broke the connection off ({error.strerror or error})"
