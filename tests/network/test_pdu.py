"""Framing: whatever the pieces, the same PDUs; whatever the bytes, one of the four errors."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from threading import Event, Thread, Timer
from time import monotonic

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mkiso.network.pdu import (
    ESTABLISHED,
    P_DATA_TF,
    RELEASE_RP,
    REQUEST,
    Connection,
    PeerGone,
    ProtocolError,
    Stalled,
    Stopping,
    abort_pdu,
    p_data_pdus,
    pdvs,
)
from peers.patience import LONG
from peers.raw_peer import p_data

MAX_PDU_BYTES = 4096


@contextmanager
def connected(
    stop: Event | None = None, pdu_timeout_seconds: float = 0.3, *, polled: bool = False
) -> Iterator[tuple[socket.socket, Connection]]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as peer:
        accepted, _ = listener.accept()
        connection = Connection(accepted, MAX_PDU_BYTES, pdu_timeout_seconds, stop, polled=polled)
        try:
            yield peer, connection
        finally:
            peer.close()
            connection.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sizes=st.lists(st.integers(1, MAX_PDU_BYTES - 6), min_size=1, max_size=12), piece=st.integers(1, 9000))
def test_pdus_come_whole_whatever_the_pieces(sizes: list[int], piece: int) -> None:
    bodies = [bytes((number,)) * size for number, size in enumerate(sizes)]
    stream = b"".join(p_data(body, control=0) for body in bodies)
    with connected(pdu_timeout_seconds=LONG) as (peer, connection):

        def send() -> None:
            for start in range(0, len(stream), piece):
                peer.sendall(stream[start : start + piece])

        sender = Thread(target=send)
        sender.start()
        for body in bodies:
            kind, received = connection.next_pdu(LONG)
            assert kind == P_DATA_TF
            assert [bytes(pdv.data) for pdv in pdvs(received)] == [body]
        sender.join()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=64), st.booleans())
def test_any_bytes_are_a_pdu_or_one_of_the_errors(sent: bytes, associated: bool) -> None:
    with connected() as (peer, connection):
        peer.sendall(sent)
        peer.shutdown(socket.SHUT_WR)
        with pytest.raises((PeerGone, ProtocolError)):
            while True:
                kind, body = connection.next_pdu(1, ESTABLISHED if associated else REQUEST)
                if kind == P_DATA_TF:
                    list(pdvs(body))


@given(st.binary(max_size=200))
def test_any_body_is_pdvs_or_a_protocol_error(body: bytes) -> None:
    with suppress(ProtocolError):
        assert sum(len(pdv.data) + 6 for pdv in pdvs(memoryview(body))) == len(body)


def test_a_pdu_may_be_as_large_as_negotiated_and_no_larger() -> None:
    with connected() as (peer, connection):
        peer.sendall(p_data(bytes(MAX_PDU_BYTES - 6), control=0) * 3 + struct.pack(">BxI", 4, MAX_PDU_BYTES + 1))
        for _ in range(3):
            assert len(connection.next_pdu(1)[1]) == MAX_PDU_BYTES
        with pytest.raises(ProtocolError, match="4097"):
            connection.next_pdu(1)


def test_a_long_request_is_taken_before_an_association_alone() -> None:
    request = struct.pack(">BxI", 1, 20_000) + bytes(20_000)
    with connected() as (peer, connection):
        peer.sendall(request + p_data(b"after", control=2))
        assert len(connection.next_pdu(1, REQUEST)[1]) == 20_000
        assert bytes(next(pdvs(connection.next_pdu(1)[1])).data) == b"after"


@pytest.mark.parametrize(
    ("sent", "words"),
    [(b"", "nothing"), (b"\x04\0", "inside a PDU"), (p_data(bytes(50), control=0)[:-1], "inside a PDU")],
)
def test_a_stall_ends_at_its_deadline(sent: bytes, words: str) -> None:
    with connected() as (peer, connection):
        peer.sendall(sent)
        began = monotonic()
        with pytest.raises(Stalled, match=words):
            connection.next_pdu(0.3)
        assert 0.25 < monotonic() - began < LONG


def test_the_receivers_end_interrupts_between_pdus_and_not_inside() -> None:
    stop = Event()
    stop.set()
    with connected(stop, pdu_timeout_seconds=LONG) as (peer, connection):
        with pytest.raises(Stopping):
            connection.next_pdu(60)
        peer.sendall(RELEASE_RP[:3].replace(b"\x06", b"\x05"))
        later = Timer(0.7, peer.sendall, (RELEASE_RP[3:],))
        later.start()
        assert connection.next_pdu(60)[0] == 5
        later.join()


def test_a_peer_that_reads_nothing_doesnt_hold_us() -> None:
    with connected() as (_, connection), pytest.raises(Stalled):
        for _ in range(100_000):
            connection.send(bytes(10_000))


def test_our_pdus() -> None:
    assert abort_pdu(6) == b"\x07\0\0\0\0\4\0\0\2\6"
    assert abort_pdu() == b"\x07\0\0\0\0\4\0\0\0\0"
    sent = b"".join(p_data_pdus(5, True, BytesIO(b"abcd"), 16_378))
    assert [(*pdv[:3], bytes(pdv.data)) for pdv in pdvs(memoryview(sent)[6:])] == [(5, True, True, b"abcd")]


@pytest.mark.parametrize("most_bytes", [1, 58, 199, 200, 16_378])
@pytest.mark.parametrize("content", [b"", bytes(range(200))])
def test_fragments_fit_the_peer_and_make_the_message(most_bytes: int, content: bytes) -> None:
    sent, found = b"".join(p_data_pdus(3, False, BytesIO(content), most_bytes)), []
    while sent:
        length = int.from_bytes(sent[2:6], "big")
        assert sent[0] == P_DATA_TF and length <= most_bytes + 6
        found += [
            (pdv.context_id, pdv.is_command, pdv.is_last, bytes(pdv.data))
            for pdv in pdvs(memoryview(sent)[6 : 6 + length])
        ]
        sent = sent[6 + length :]
    assert b"".join(fragment for *_, fragment in found) == content
    assert [pdv[:3] for pdv in found] == [(3, False, False)] * (len(found) - 1) + [(3, False, True)]


@pytest.mark.parametrize("body", [b"\0\0\0", b"\0\0\0\xff\1\3x", b"\0\0\0\1\1\3", b"\0\0\0\2\1\1"])
def test_wrong_fragments_are_errors(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(pdvs(memoryview(body)))


def test_what_came_while_it_was_polled_is_kept_and_whole_pdus_are_had_at_once() -> None:
    sent = p_data(b"abc", control=3) * 2
    with connected(polled=True) as (peer, connection):
        for part in (sent[:3], sent[3:10], sent[10:]):
            with pytest.raises(Stalled):
                connection.next_pdu(0)
            peer.sendall(part)
            select.select([connection._socket], [], [], 5)
        for _ in range(2):
            assert bytes(next(pdvs(connection.next_pdu(0)[1])).data) == b"abc"
        with pytest.raises(Stalled):
            connection.next_pdu(0)
