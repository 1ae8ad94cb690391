"""An association that we ask for, with peers that answer nonsense, nothing, or several things at once."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE, evt

from mkiso.network import dimse
from mkiso.network.negotiation import AssociationRejected
from mkiso.network.pdu import AssociationLost, PeerGone, ProtocolError
from mkiso.network.requestor import VERIFYING, Address, Requestor
from peers.open_association import requestor_to
from peers.patience import LONG

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
PLAIN, J2K = str(ExplicitVRLittleEndian), str(JPEG2000Lossless)


def serve(answer: Callable[[socket.socket], None], seconds: float = LONG) -> tuple[Address, threading.Thread]:
    """One connection, answered as told, then closed."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listener, listener.accept()[0] as connection:
            connection.settimeout(LONG)
            answer(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return Address("127.0.0.1", listener.getsockname()[1], "ROBOT", "MKISO", *[seconds] * 3), thread


def test_nagle_is_off_and_each_pair_is_asked_for_alone() -> None:
    ae = AE("ROBOT")
    ae.add_supported_context(CT, [PLAIN, J2K])
    seen: list[int] = []

    def requested(event: evt.Event) -> None:
        seen.append(len(event.assoc.requestor.requested_contexts))

    server: Any = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_REQUESTED, requested)])
    address = Address("127.0.0.1", server.socket.getsockname()[1], "ROBOT", "MKISO", *[LONG] * 3)
    try:
        with Requestor.open(address, [(CT, PLAIN), (CT, J2K), (MR, PLAIN)]) as association:
            assert set(association.ids) == {(CT, PLAIN), (CT, J2K)}
            assert association.connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert seen == [3]
    finally:
        ae.shutdown()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "type 48"),
        (struct.pack(">BxI", 7, 4) + bytes(4), "aborted"),
        (struct.pack(">BxI", 2, 0xFFFFFFFF), "claims 4294967295 bytes"),
        (struct.pack(">BxI", 4, 6) + bytes(6), "type 04"),
        (struct.pack(">BxI", 3, 0), "claims 0 bytes"),
        (struct.pack(">BxI", 2, 100) + b"\xff" * 100, "item of type FF that claims 65535 bytes"),
    ],
)
def test_nonsense_instead_of_an_association_is_an_error_in_words(answer: bytes, words: str) -> None:
    def nonsense(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)

    address, thread = serve(nonsense)
    with pytest.raises(AssociationLost, match=words):
        Requestor.open(address, [(CT, PLAIN)])
    thread.join(LONG)


def test_a_silent_peer_is_given_up_within_the_limit() -> None:
    def silent(connection: socket.socket) -> None:
        while connection.recv(65_536):
            pass

    address, thread = serve(silent, 1)
    with pytest.raises(AssociationLost, match="in time"):
        Requestor.open(address, [(CT, PLAIN)])
    thread.join(LONG)


@pytest.mark.parametrize(
    ("result", "source", "reason", "lasting"),
    [(1, 1, 7, True), (1, 1, 3, True), (1, 1, 1, False), (2, 3, 1, False), (2, 3, 2, False)],
)
def test_rejections_tell_whether_they_last(result: int, source: int, reason: int, lasting: bool) -> None:
    def reject(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(struct.pack(">BxIxBBB", 3, 4, result, source, reason))

    address, thread = serve(reject)
    with pytest.raises(AssociationRejected) as rejected:
        Requestor.open(address, [(CT, PLAIN)])
    assert rejected.value.lasting is lasting
    thread.join(LONG)


def test_a_publisher_whose_pdus_hold_no_data_gets_none() -> None:
    """With fragments of nothing an empty dataset would leave, and its success be read as the instance's."""
    ae = AE("ROBOT")
    ae.maximum_pdu_size = 6
    ae.add_supported_context(CT, PLAIN)
    server: Any = ae.start_server(("127.0.0.1", 0), block=False)
    try:
        with pytest.raises(AssociationLost, match="6 bytes"):
            Requestor.open(
                Address("127.0.0.1", server.socket.getsockname()[1], "ROBOT", "MKISO", *[LONG] * 3), [(CT, PLAIN)]
            )
    finally:
        ae.shutdown()


def _pdvs(*commands: dict[int, dimse.Value]) -> bytes:
    """Command sets as the PDVs of one P-DATA-TF."""
    encoded = map(dimse.encode_command, commands)
    body = b"".join(struct.pack(">IBB", len(command) + 2, 1, 3) + command for command in encoded)
    return struct.pack(">BxI", 4, len(body)) + body


def _pending(number: int) -> dict[int, dimse.Value]:
    return {
        dimse.COMMAND_FIELD: 0x8021,
        dimse.MESSAGE_ID_BEING_RESPONDED_TO: 1,
        dimse.STATUS: 0xFF00,
        dimse.REMAINING: number,
    }


def test_every_message_of_a_pdu_is_had() -> None:
    with requestor_to({1: VERIFYING}) as (association, peer):
        peer.sendall(_pdvs(*map(_pending, range(3))) + _pdvs(_pending(3)))
        messages = [association.receive(5) for _ in range(4)]
        assert [message and message.command.number(dimse.REMAINING) for message in messages] == [0, 1, 2, 3]
        assert association.receive(0) is None


@pytest.mark.parametrize(
    "endless",
    [struct.pack(">BxI", 4, 0), struct.pack(">BxIIBB", 4, 16_006, 16_002, 1, 0) + bytes(16_000)],
    ids=["PDUs without a PDV", "a data set"],
)
def test_pdus_that_come_without_a_pause_keep_nobody_waiting(endless: bytes) -> None:
    """They are there whenever the next is looked for, so that a limit for waiting alone ends nothing."""
    over = threading.Event()

    class Drain:
        def write(self, data: memoryview) -> None: ...

    def flood(peer: socket.socket) -> None:
        stored: dict[int, dimse.Value] = {
            dimse.COMMAND_FIELD: dimse.C_STORE_RQ,
            dimse.MESSAGE_ID: 1,
            dimse.COMMAND_DATA_SET_TYPE: dimse.DATA_SET,
        }
        with suppress(OSError):
            peer.sendall(_pdvs(stored))
            while not over.is_set():
                peer.sendall(endless * (262_144 // len(endless)))

    with requestor_to({1: VERIFYING}) as (association, peer):
        association._sink_for = lambda command, context: Drain()
        sending = threading.Thread(target=flood, args=(peer,))
        limit = threading.Timer(LONG, over.set)
        sending.start()
        limit.start()
        try:
            assert association.receive(0.1) is None
            assert association.receive(0) is None
            assert not over.is_set()
        finally:
            over.set()
            limit.cancel()
            association.abort()
            sending.join()


def test_a_peer_that_asks_for_release_has_its_answer() -> None:
    with requestor_to({1: VERIFYING}) as (association, peer):
        peer.sendall(struct.pack(">BxI", 5, 4) + bytes(4))
        with pytest.raises(PeerGone, match="ended the association"):
            association.receive(5)
        assert peer.recv(100) == struct.pack(">BxI", 6, 4) + bytes(4)


def test_an_echo_is_answered_and_a_request_of_the_peer_is_no_answer() -> None:
    with requestor_to({1: VERIFYING}) as (association, peer):
        peer.sendall(_pdvs({**_pending(0), dimse.COMMAND_FIELD: 0x8030, dimse.STATUS: 0x0122}))
        assert association.echo() == 0x0122
        asked: dict[int, dimse.Value] = {
            dimse.COMMAND_FIELD: dimse.C_ECHO_RQ,
            dimse.MESSAGE_ID: 2,
            dimse.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET,
        }
        peer.sendall(_pdvs(asked))
        with pytest.raises(ProtocolError, match="another message"):
            association.echo()
