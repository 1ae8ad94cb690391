"""Senders that don't wait for each answer: an asynchronous operations window (PS3.7 D.3.3.3) as it is used."""

from __future__ import annotations

import random
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom import AE, build_context

from mkiso.demo.steady import steady
from mkiso.receiver.negotiation import OPERATIONS
from peers.corpus import make_ct_series
from peers.patience import LONG
from peers.raw_peer import CT, EXPLICIT, VERIFICATION, RawPeer, command, data_set, p_data, window
from tests.receiver.conftest import Running, Start, eventually

STUDY = "1.2.3"


def request(message_id: int, uid: str, encoded: bytes) -> bytes:
    return p_data(command(1, sop_instance=uid, message_id=message_id), control=3) + p_data(encoded, control=2)


def uids(count: int) -> list[str]:
    return [f"{STUDY}.{number}" for number in range(1, count + 1)]


def test_a_whole_window_is_answered_by_its_message_ids(receiver: Running) -> None:
    good, damaged, stranger = uids(OPERATIONS - 3), f"{STUDY}.900", "1.2.9.1"
    sent = {uid: (data_set(uid, STUDY, pixels=bytes(20_000)), 0) for uid in good}
    sent[damaged] = data_set(damaged, STUDY)[:-3], 0xC000
    sent[stranger] = data_set(stranger, "1.2.9"), 0x0124
    ids = dict(zip(random.sample(range(1, 65_536), len(sent)), sorted(sent), strict=True))
    echo = p_data(command(0x30, sop_class=VERIFICATION, message_id=0, data_set=False), context_id=3, control=3)
    with receiver.expect(STUDY, frozenset({*good, damaged})) as expectation, RawPeer(receiver.port) as peer:
        peer.associate(user_items=[window(0, 1)])
        peer.send(b"".join(request(number, uid, sent[uid][0]) for number, uid in ids.items()) + echo)
        answers = dict(peer.answer() for _ in range(OPERATIONS))
        assert answers == {0: 0, **{number: sent[uid][1] for number, uid in ids.items()}}
        peer.release()
        arrived = [expectation.next_arrival(LONG) for _ in good]
    assert {arrival.sop_instance_uid for arrival in arrived if arrival} == set(good)


def test_of_a_window_that_breaks_off_what_was_whole_is_kept(receiver: Running) -> None:
    whole, half = uids(6)[:5], uids(6)[5]
    with receiver.expect(STUDY) as expectation:
        with RawPeer(receiver.port) as peer:
            peer.associate(user_items=[window(8, 1)])
            peer.send(b"".join(request(number, uid, data_set(uid, STUDY)) for number, uid in enumerate(whole, 1)))
            peer.send(request(6, half, data_set(half, STUDY))[:-20])
            peer.socket.shutdown(socket.SHUT_WR)
            assert [peer.answer() for _ in whole] == [(number, 0) for number in range(1, 6)]
        eventually(lambda: {file.name for file in receiver.folder().iterdir()} == set(whole))
        arrived = [expectation.next_arrival(LONG) for _ in whole]
        assert [arrival.sop_instance_uid for arrival in arrived if arrival] == whole


def test_a_sender_that_reads_no_answer_is_let_go(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """The receiver's end of it is looked at: with both windows closed TCP may tell the sender minutes later."""
    caplog.set_level("INFO")
    receiver = start(pdu_timeout_seconds=1)
    echoes = 100 * p_data(command(0x30, sop_class=VERIFICATION, data_set=False), context_id=3, control=3)
    with RawPeer(receiver.port) as peer:
        peer.associate(user_items=[window(0, 1)])
        peer.socket.setblocking(False)
        unsent = b""

        def let_go() -> bool:
            nonlocal unsent
            with suppress(BlockingIOError, ConnectionError):
                while True:
                    unsent = unsent or echoes
                    unsent = unsent[peer.socket.send(unsent) :]
            return "took nothing of what it was sent" in caplog.text

        eventually(let_go)
        eventually(lambda: not [each for each in threading.enumerate() if each.name.startswith("association ")])


def test_pynetdicom_may_have_a_window(receiver: Running, tmp_path: Path) -> None:
    files = make_ct_series(tmp_path / "files", "A1", 3, size=64)
    with receiver.expect(str(dcmread(files[0]).StudyInstanceUID)) as expectation:
        ae = AE("WINDOWED")
        ae.requested_contexts = [build_context(CT, EXPLICIT)]
        association = steady(ae.associate("127.0.0.1", receiver.port, ae_title="CDRECORD", ext_neg=[window(5, 1)]))
        assert association.is_established and association.acceptor.asynchronous_operations == (5, 1)
        assert [association.send_c_store(file).Status for file in files] == [0, 0, 0]
        association.release()
        assert all(expectation.next_arrival(LONG) for _ in files)
