"""Peers that mean ill or are broken: each is ended within its limit, nothing of it is kept, and an honest peer is
served meanwhile.
"""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path

import pytest

from mkiso.errors import InstanceConflict, StorageFull
from peers.patience import LONG, until
from peers.raw_peer import (
    ABORT,
    ABORT_PDU,
    AC,
    CT,
    DEFLATED,
    RELEASE_RQ_PDU,
    RJ,
    RawPeer,
    associate_rq,
    command,
    data_set,
    element,
    p_data,
)  # fmt: skip
from tests.receiver.conftest import Running, Start, eventually

STUDY = "1.2.3"
HONEST_STUDY = "1.2.9"  # nothing of it can lie with what the others sent
EACH_SECONDS = 0.1  # of a peer that dribbles; all that it has would take LONG
GARBAGE = {
    "random": bytes(range(200, 256)) * 4,
    "http": b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
    "tls hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "data before association": p_data(b"x" * 20, control=0),
    "release before association": RELEASE_RQ_PDU,
    "4 GiB claim": struct.pack(">BxI", 1, 0xFFFFFFFF) + bytes(100),
    "broken request": struct.pack(">BxI", 1, 200) + bytes(200),
    "request of wrong item lengths": associate_rq()[:80] + b"\xff" * (len(associate_rq()) - 80),
}
ASSOCIATED_GARBAGE = {
    "unknown type": struct.pack(">BxI", 0x44, 4) + bytes(4),
    "second request": associate_rq(),
    "accept from a requestor": struct.pack(">BxI", 2, 4) + bytes(4),
    "larger than negotiated": struct.pack(">BxI", 4, 131_073) + bytes(100),
    "4 GiB claim": struct.pack(">BxI", 4, 0xFFFFFFFF) + bytes(100),
    "PDV longer than its PDU": struct.pack(">BxI", 4, 20) + struct.pack(">IBB", 4000, 1, 3) + bytes(14),
    "PDV of length 0": struct.pack(">BxI", 4, 6) + struct.pack(">IBB", 0, 1, 3),
    "unknown context": p_data(command(1, sop_instance="1.2.3.4"), context_id=99, control=3),
    "data set without a command": p_data(bytes(100), control=2),
    "two commands": p_data(command(1, sop_instance="1.2.3.4"), control=3) * 2,
    "malformed command": p_data(b"\x00\x00\x00\x01\xff\xff\xff\xff" + bytes(30), control=3),
    "command of another group": p_data(b"\x08\x00\x00\x01\x02\x00\x00\x00\x01\x00", control=3),
    "empty command": p_data(b"", control=3),
    "release with a body": struct.pack(">BxI", 5, 5000) + bytes(5000),
}


def an_honest_peer_is_served(receiver: Running, number: int = 1) -> None:
    """A whole association from another address: stored, told, there."""
    uid = f"{HONEST_STUDY}.{number}"
    with (
        receiver.expect(HONEST_STUDY, frozenset({uid}), job=f"honest-{number}") as expectation,
        RawPeer(receiver.port, "127.0.0.9") as peer,
    ):
        peer.associate()
        assert peer.store(uid, data_set(uid, HONEST_STUDY)) == 0
        arrival = expectation.next_arrival(LONG)
        assert arrival is not None and arrival.path.is_file()
        peer.release()


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_before_an_association_ends_it(receiver: Running, garbage: bytes) -> None:
    with RawPeer(receiver.port) as peer:
        peer.send(garbage)
        assert peer.ended_within(LONG)
    an_honest_peer_is_served(receiver)


@pytest.mark.parametrize("garbage", ASSOCIATED_GARBAGE.values(), ids=ASSOCIATED_GARBAGE)
def test_garbage_in_an_association_is_answered_with_an_abort(receiver: Running, garbage: bytes) -> None:
    with receiver.expect(STUDY), RawPeer(receiver.port) as peer:
        peer.associate()
        peer.send(garbage)
        kind, body = peer.receive()
        assert (kind, body[2]) == (ABORT, 2)
        assert peer.ended_within(LONG)
        assert not list(receiver.folder().iterdir())
    an_honest_peer_is_served(receiver)


@pytest.mark.parametrize("stalled", [associate_rq()[:3], associate_rq()[:40]], ids=["in the head", "in the body"])
def test_a_stall_in_a_request_is_freed_within_the_limit(impatient: Running, stalled: bytes) -> None:
    with RawPeer(impatient.port) as peer:
        peer.send(stalled)
        an_honest_peer_is_served(impatient)
        assert peer.ended_within(LONG)


@pytest.mark.parametrize("sent", [b"\x04", p_data(bytes(5000), control=0)[:3000]], ids=["in the head", "in the body"])
def test_a_stall_in_p_data_is_freed_within_the_limit(impatient: Running, sent: bytes) -> None:
    with impatient.expect(STUDY), RawPeer(impatient.port) as peer:
        peer.associate().send(p_data(command(1, sop_instance="1.2.3.4"), control=3) + sent)
        an_honest_peer_is_served(impatient)
        assert peer.ended_within(LONG)


def test_silence_inside_a_message_is_freed_within_the_pdu_limit(start: Start) -> None:
    receiver = start(pdu_timeout_seconds=1)
    with receiver.expect(STUDY), RawPeer(receiver.port) as peer:
        peer.associate().send(p_data(command(1, sop_instance="1.2.3.4"), control=3))
        assert peer.ended_within(LONG)


def test_a_dribble_inside_a_pdu_is_freed_within_the_limit(impatient: Running) -> None:
    with RawPeer(impatient.port) as peer:
        peer.associate()
        with pytest.raises(ConnectionError):
            for byte in p_data(bytes(round(LONG / EACH_SECONDS)), control=0):
                peer.send(bytes((byte,)))
                time.sleep(EACH_SECONDS)


def test_a_message_of_tiny_pdus_is_freed_once_it_is_too_slow(start: Start) -> None:
    receiver = start(idle_timeout_seconds=1, pdu_timeout_seconds=1)
    with receiver.expect(STUDY), RawPeer(receiver.port) as peer, pytest.raises(ConnectionError):
        peer.associate().send(p_data(command(1, sop_instance="1.2.3.4"), control=3))
        for _ in range(round(LONG / EACH_SECONDS)):
            peer.send(p_data(b"x", control=0))
            time.sleep(EACH_SECONDS)


def test_idleness_is_ended(start: Start) -> None:
    with RawPeer(start(idle_timeout_seconds=1).port) as peer:
        peer.associate()
        assert peer.ended_within(LONG)


def test_a_flood_of_silent_connections_takes_no_place_from_honest_peers(start: Start) -> None:
    receiver = start(max_associations=20, max_associations_per_peer=10)
    flood = [RawPeer(receiver.port, f"127.0.1.{1 + number % 4}") for number in range(120)]
    try:
        assert threading.active_count() < 60
        until(lambda: sum(not peer.ended_within(0.001) for peer in flood) == 20)  # the others have been told
        time.sleep(1.1)  # what a connection is given to ask for its association
        an_honest_peer_is_served(receiver, 1)
        with RawPeer(receiver.port, "127.0.1.1") as same:  # behind the same address as the flood
            assert same.associate().echo() == 0
    finally:
        for peer in flood:
            peer.socket.close()


def test_associations_beyond_the_limit_of_a_peer_are_rejected(start: Start) -> None:
    receiver = start(max_associations_per_peer=2)
    with RawPeer(receiver.port) as first, RawPeer(receiver.port) as second, RawPeer(receiver.port) as third:
        first.associate()
        second.associate()
        third.send(associate_rq())
        assert third.receive() == (RJ, bytes((0, 2, 3, 2)))
        an_honest_peer_is_served(receiver)
        first.release()
        second.release()
    eventually(lambda: not any(thread.name.startswith("association") for thread in threading.enumerate()))
    with RawPeer(receiver.port) as fourth:
        fourth.associate().release()


def test_associations_beyond_all_places_are_rejected(start: Start) -> None:
    receiver = start(max_associations=1)
    with RawPeer(receiver.port) as first, RawPeer(receiver.port, "127.0.0.2") as second:
        first.associate()
        second.send(associate_rq())
        assert second.receive() == (RJ, bytes((0, 2, 3, 1)))
        first.release()


def test_endless_fragments_of_a_command_are_bounded(receiver: Running) -> None:
    with RawPeer(receiver.port) as peer:
        peer.associate()
        peer.send(p_data(bytes(10_000), control=1) * 2)
        assert peer.receive()[0] == ABORT


def test_empty_fragments_are_no_progress(receiver: Running) -> None:
    with receiver.expect(STUDY), RawPeer(receiver.port) as peer:
        peer.associate()
        peer.send(p_data(command(1, sop_instance="1.2.3.4"), control=3) + p_data(*[b""] * 100, control=0))
        assert peer.receive()[0] == ABORT


def test_an_instance_beyond_the_limit_is_refused_in_constant_memory(start: Start) -> None:
    receiver = start(max_instance_gib=0.01)
    fragment = p_data(bytes(100_000), control=0)
    with receiver.expect(STUDY) as expectation, RawPeer(receiver.port) as peer:
        peer.associate().send(p_data(command(1, sop_instance="1.2.3.4"), control=3))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(1000):
            peer.send(fragment)
        peer.send(p_data(b"", control=2))
        assert peer.status() == 0xA700
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024
        assert expectation.next_arrival(0) is None
        peer.release()


@pytest.mark.parametrize(
    "sent",
    [command(1, sop_instance="1.2.3.4"), command(1, sop_instance="x"), command(0x20)],
    ids=["too large", "no UID", "no request that is served"],
)
def test_what_is_refused_is_read_to_a_bound(start: Start, sent: bytes) -> None:
    receiver = start(max_instance_gib=0.001)
    with receiver.expect(STUDY), RawPeer(receiver.port) as peer:
        peer.associate().send(p_data(sent, control=3))
        with suppress(ConnectionError):
            for _ in range(1000):
                peer.send(p_data(bytes(100_000), control=0))
            peer.send(p_data(b"", control=2))
        assert peer.receive()[0] in (0, ABORT)
    an_honest_peer_is_served(receiver)


@pytest.mark.parametrize("uid", ["../x", "..", "/etc/passwd", "1.2.3/4", "1..2", "", "1.2.3\x00.4", "1" * 65, "a.b"])
def test_what_is_no_uid_never_names_a_file(receiver: Running, uid: str) -> None:
    with receiver.expect(STUDY) as expectation, RawPeer(receiver.port) as peer:
        peer.associate()
        assert peer.store(uid, data_set(uid, STUDY)) == 0x0117
        assert expectation.next_arrival(0) is None
        peer.release()
    files = [file for file in receiver.settings.storage.data_dir.parent.rglob("*") if file.is_file()]
    assert files == []


def test_strangers_are_refused_and_the_expected_pass(receiver: Running) -> None:
    with receiver.expect(STUDY, frozenset({"1.2.3.1"})) as expectation, RawPeer(receiver.port) as peer:
        peer.associate()
        assert peer.store("1.2.3.2", data_set("1.2.3.2", STUDY)) == 0x0124  # not asked for
        assert peer.store("1.2.3.1", data_set("1.2.3.1", "1.2.9")) == 0x0124  # of another study
        assert peer.store("1.2.3.1", data_set("1.2.3.9", STUDY)) == 0xA900  # the command lies
        assert peer.store("1.2.3.1", data_set("1.2.3.1", STUDY, sop_class="1.2.840.10008.5.1.4.1.1.4")) == 0xA900
        assert (
            peer.store("1.2.3.1", data_set("1.2.3.1", STUDY), sop_class="1.2.840.10008.5.1.4.1.1.4") == 0xA900
        )  # not its context's
        assert peer.store("1.2.3.1", data_set("1.2.3.1", STUDY)) == 0
        arrival = expectation.next_arrival(LONG)
        assert arrival is not None and arrival.sop_instance_uid == "1.2.3.1"
        peer.release()
    with RawPeer(receiver.port) as peer:  # the expectation is gone with its connection
        peer.associate()
        eventually(lambda: peer.store("1.2.3.3", data_set("1.2.3.3", STUDY)) == 0x0124)
        peer.release()
    assert [file.name for file in receiver.folder().iterdir()] == ["1.2.3.1"]


def test_the_same_instance_twice_is_ignored_and_another_under_its_uid_is_a_conflict(receiver: Running) -> None:
    with receiver.expect(STUDY) as expectation, RawPeer(receiver.port) as peer:
        peer.associate()
        encoded = data_set("1.2.3.1", STUDY)
        assert peer.store("1.2.3.1", encoded) == peer.store("1.2.3.1", encoded) == 0
        first = expectation.next_arrival(LONG)
        assert first is not None and expectation.next_arrival(0.2) is None
        assert peer.store("1.2.3.1", data_set("1.2.3.1", STUDY, pixels=b"\1" * 64)) == 0xC111
        with pytest.raises(InstanceConflict):
            expectation.next_arrival(LONG)
        peer.release()
    assert first.path.read_bytes().endswith(encoded)


def test_what_an_earlier_run_left_counts_as_arrived_or_as_a_conflict(receiver: Running) -> None:
    for expected_status in (0, 0):
        with receiver.expect(STUDY) as expectation, RawPeer(receiver.port) as peer:
            assert peer.associate().store("1.2.3.1", data_set("1.2.3.1", STUDY)) == expected_status
            assert expectation.next_arrival(LONG) is not None
            peer.release()
    with receiver.expect(STUDY) as expectation, RawPeer(receiver.port) as peer:
        assert peer.associate().store("1.2.3.1", data_set("1.2.3.1", STUDY, patient_id="P2")) == 0xC111
        with pytest.raises(InstanceConflict):
            expectation.next_arrival(LONG)
        peer.release()


def test_an_instance_reaches_every_job_that_expects_it_or_none(receiver: Running) -> None:
    with receiver.expect(STUDY, job="a") as a, receiver.expect(STUDY, job="b") as b, RawPeer(receiver.port) as peer:
        peer.associate()
        assert peer.store("1.2.3.1", data_set("1.2.3.1", STUDY)) == 0
        arrivals = [a.next_arrival(LONG), b.next_arrival(LONG)]
        assert {arrival.path.stat().st_ino for arrival in arrivals if arrival} == {
            (receiver.folder("a") / "1.2.3.1").stat().st_ino
        }
        (receiver.folder("b") / "1.2.3.2").write_bytes(b"something else")
        assert peer.store("1.2.3.2", data_set("1.2.3.2", STUDY)) == 0xC111
        assert not (receiver.folder("a") / "1.2.3.2").exists()
        assert a.next_arrival(0.2) is None
        with pytest.raises(InstanceConflict):
            b.next_arrival(LONG)
        peer.release()


def test_a_job_whose_folder_is_gone_fails_the_store(receiver: Running) -> None:
    with receiver.expect(STUDY) as expectation, RawPeer(receiver.port) as peer:
        receiver.folder().rmdir()
        assert peer.associate().store("1.2.3.1", data_set("1.2.3.1", STUDY)) == 0xA700
        assert expectation.next_arrival(0.2) is None
        peer.release()


DAMAGED = {
    "cut short": data_set("1.2.3.1", STUDY)[:-3],
    "something after the end": data_set("1.2.3.1", STUDY) + b"\0\0\0\0",
    "unterminated pixel data": data_set("1.2.3.1", STUDY)[:-76]
    + struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF)
    + struct.pack("<HHI", 0xFFFE, 0xE000, 64)
    + bytes(64),
    "deep nesting": data_set("1.2.3.1", STUDY)[:-76]
    + b"".join(
        struct.pack("<HH2s2xIHHI", 0x0040, 0xA730, b"SQ", 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF) for _ in range(3000)
    ),
    "an attribute twice": element(0x00080018, b"UI", b"1.2.3.1") + data_set("1.2.3.1", STUDY),
    "group 0002": element(0x00020010, b"UI", b"1.2.840.10008.1.2") + data_set("1.2.3.1", STUDY),
}


@pytest.mark.parametrize("encoded", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_instance_never_gets_success(receiver: Running, encoded: bytes) -> None:
    with receiver.expect(STUDY) as expectation, RawPeer(receiver.port) as peer:
        assert peer.associate().store("1.2.3.1", encoded) == 0xC000
        assert expectation.next_arrival(0.1) is None
        peer.release()
    assert not list(receiver.folder().iterdir())


def test_an_empty_instance_is_not_the_one_that_was_announced(receiver: Running) -> None:
    with receiver.expect(STUDY), RawPeer(receiver.port) as peer:
        assert peer.associate().store("1.2.3.1", b"") == 0xA900
        peer.release()


def test_a_deflate_bomb_is_refused(receiver: Running) -> None:
    deflate = zlib.compressobj(9, wbits=-15)
    packed = deflate.compress(element(0x00080016, b"UI", CT.encode()))
    packed += b"".join(deflate.compress(bytes(1 << 20)) for _ in range(300)) + deflate.flush()
    with receiver.expect(STUDY), RawPeer(receiver.port) as peer:
        peer.associate({CT: [DEFLATED]})
        peer.send(p_data(command(1, sop_instance="1.2.3.1"), control=3))
        for start in range(0, len(packed), 100_000):
            peer.send(p_data(packed[start : start + 100_000], control=0))
        peer.send(p_data(b"", control=2))
        assert peer.status() == 0xC000
        peer.release()


def test_a_full_disk_is_answered_with_out_of_resources(start: Start) -> None:
    receiver = start(storage={"min_free_gib": 10_000_000})
    with receiver.expect(STUDY) as expectation, RawPeer(receiver.port) as peer:
        assert peer.associate().store("1.2.3.1", data_set("1.2.3.1", STUDY)) == 0xA700
        with pytest.raises(StorageFull, match="disk of mkiso is full"):
            expectation.next_arrival(LONG)
        peer.release()


def test_a_disk_that_fills_up_fails_the_store_and_nothing_else(start: Start, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path / "data"], capture_output=True
    ).returncode:
        pytest.skip("no file system may be mounted here")
    receiver = start()
    try:
        with receiver.expect(STUDY) as expectation, RawPeer(receiver.port) as peer:
            peer.associate().send(p_data(command(1, sop_instance="1.2.3.1"), control=3))
            peer.send(p_data(bytes(100_000), control=0) * 15 + p_data(b"", control=2))
            assert peer.status() == 0xA700
            with pytest.raises(StorageFull):
                expectation.next_arrival(LONG)
            assert peer.store("1.2.3.2", data_set("1.2.3.2", STUDY)) == 0
            arrival = expectation.next_arrival(LONG)
            assert arrival is not None and arrival.sop_instance_uid == "1.2.3.2"
            peer.release()
        assert [file.name for file in receiver.folder().iterdir()] == ["1.2.3.2"]
        receiver.end()
    finally:
        subprocess.run(["umount", "-l", tmp_path / "data"], check=True)
        receiver.settings.storage.incoming_dir.mkdir(parents=True, exist_ok=True)


def test_a_file_system_without_unnamed_files_serves_too(receiver: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.O_TMPFILE", os.O_DIRECTORY)  # what open(2) answers there: EISDIR
    with receiver.expect(STUDY) as expectation, RawPeer(receiver.port) as peer:
        assert peer.associate().store("1.2.3.1", data_set("1.2.3.1", STUDY)) == 0
        assert peer.store("1.2.3.2", data_set("1.2.3.2", STUDY)[:-1]) == 0xC000
        arrival = expectation.next_arrival(LONG)
        assert arrival is not None and arrival.path.stat().st_nlink == 1
        peer.release()
    assert not list(receiver.settings.storage.incoming_dir.iterdir())


def test_an_abort_at_every_stage_leaves_nothing(receiver: Running) -> None:
    announced = p_data(command(1, sop_instance="1.2.3.1"), control=3)
    stages = [b"", announced, announced + p_data(bytes(50), control=0)]
    for stage in stages:
        for last in (ABORT_PDU, b""):
            with receiver.expect(STUDY), RawPeer(receiver.port) as peer:
                peer.associate().send(stage + last)
    an_honest_peer_is_served(receiver)
    assert not list(receiver.folder().iterdir())


def test_cancel_is_ignored_echo_answered_and_the_unknown_refused(receiver: Running) -> None:
    cancel = (
        struct.pack("<HHIH", 0, 0x0100, 2, 0x0FFF)
        + struct.pack("<HHIH", 0, 0x0120, 2, 1)
        + struct.pack("<HHIH", 0, 0x0800, 2, 0x0101)
    )
    with RawPeer(receiver.port) as peer:
        peer.associate().send(p_data(cancel, control=3))
        assert peer.echo() == 0
        peer.send(p_data(command(0x20), control=3) + p_data(bytes(10), control=2))  # C-FIND
        assert peer.status() == 0x0211
        peer.release()


@pytest.mark.parametrize(
    "keys, called", [({}, "WRONG"), ({"allowed_peers": ["PACS", "10.0.0.0/8"]}, "CDRECORD")], ids=["called", "peer"]
)
def test_who_isnt_meant_is_rejected(start: Start, keys: dict[str, object], called: str) -> None:
    receiver = start(**keys)
    with RawPeer(receiver.port) as peer:
        peer.send(associate_rq(called=called))
        kind, body = peer.receive()
        assert (kind, body[1]) == (RJ, 1)


def test_every_pdu_may_come_in_pieces_and_together(receiver: Running) -> None:
    conversation = p_data(command(1, sop_instance="1.2.3.1"), control=3) + p_data(data_set("1.2.3.1", STUDY), control=2)
    with receiver.expect(STUDY) as expectation, RawPeer(receiver.port) as peer:
        for byte in associate_rq():
            peer.send(bytes((byte,)))
        assert peer.receive()[0] == AC
        for start in range(0, len(conversation), 7):
            peer.send(conversation[start : start + 7])
        assert peer.status() == 0 and expectation.next_arrival(LONG) is not None
        peer.send(conversation * 2 + RELEASE_RQ_PDU)  # one after the other without waiting
        assert (peer.status(), peer.status(), peer.receive()[0]) == (0, 0, 6)


def test_folders_and_files_are_for_the_service_alone(receiver: Running) -> None:
    storage = receiver.settings.storage
    with receiver.expect(STUDY) as expectation, RawPeer(receiver.port) as peer:
        peer.associate().store("1.2.3.1", data_set("1.2.3.1", STUDY))
        arrival = expectation.next_arrival(LONG)
        assert arrival is not None
        peer.release()
    modes = {
        path: path.stat().st_mode & 0o777
        for path in (storage.data_dir, storage.incoming_dir, storage.receiver_socket, arrival.path)
    }
    assert list(modes.values()) == [0o700, 0o700, 0o600, 0o600]


def test_no_patient_is_in_the_log(receiver: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with receiver.expect(STUDY), RawPeer(receiver.port) as peer:
        peer.associate().store("1.2.3.1", data_set("1.2.3.1", STUDY, patient_id="CANARY"))
        peer.store("1.2.3.2", data_set("1.2.3.9", STUDY, patient_id="CANARY"))
        peer.store("1.2.3.3", data_set("1.2.3.3", STUDY, patient_id="CANARY")[:-2])
        peer.release()
    eventually(lambda: "released" in caplog.text)
    assert "CANARY" not in caplog.text
    assert "127.0.0.1 (RAWPEER): 1 stored, 2 refused" in caplog.text
