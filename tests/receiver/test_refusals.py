"""What isn't stored is told to the jobs that it may concern, before its sender hears of it; and nobody waits for
another's instance."""

from __future__ import annotations

import os
import threading
import zlib
from pathlib import Path

import pytest

from mkiso.dataset.header import MAX_BEGINNING_BYTES
from mkiso.receiver.client import Expectation, Refusal
from mkiso.receiver.expectations import Expected
from mkiso.receiver.hashing import Hashing
from mkiso.receiver.spool import Whole, _link
from mkiso.storage.files import sha256_of
from mkiso.storage.spare_files import clear_away
from peers.patience import LONG
from peers.raw_peer import CT, DEFLATED, EXPLICIT, RawPeer, associate_rq, command, data_set, element, p_data
from tests.receiver.conftest import Running, Start, eventually

STUDY, OTHER, MR = "1.2.3", "1.2.9", "1.2.840.10008.5.1.4.1.1.4"
LISTED, UNLISTED = f"{STUDY}.1", f"{STUDY}.2"


def told(expectation: Expectation) -> list[Refusal]:
    """All that the receiver has told by now; nothing is waited for but its answer."""
    expectation.catch_up()
    return expectation.refusals


def packed(encoded: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(encoded) + deflate.flush()


@pytest.mark.parametrize(
    ("uid", "encoded", "status", "words"),
    [
        (UNLISTED, data_set(UNLISTED, STUDY), 0x0124, "no job expects it"),
        (LISTED, data_set(LISTED, OTHER), 0x0124, "no job expects it"),
        (LISTED, data_set(UNLISTED, STUDY), 0xA900, "isn't the instance that its C-STORE names"),
        (LISTED, data_set(LISTED, STUDY, sop_class=MR), 0xA900, "isn't the instance"),
        (LISTED, data_set(LISTED, STUDY)[:-3], 0xC000, "cut short"),
        (LISTED, b"", 0xA900, "isn't the instance"),
        (LISTED, data_set(LISTED, STUDY, pixels=bytes(1200)), 0xA700, "larger than receiver.max_instance_gib"),
        ("../x", data_set("../x", STUDY), 0x0117, "is no UID"),
        (UNLISTED, data_set(UNLISTED, STUDY)[:-3], 0x0124, "no job expects it"),
    ],
)
def test_each_kind_of_refusal_is_told_before_it_is_answered(
    start: Start, uid: str, encoded: bytes, status: int, words: str
) -> None:
    receiver = start(max_instance_gib=1e-6)  # 1,073 bytes
    with receiver.expect(STUDY, frozenset({LISTED})) as expectation, RawPeer(receiver.port) as peer:
        assert peer.associate().store(uid, encoded) == status
        [refusal] = told(expectation)
        assert (
            refusal.sop_instance_uid == (uid if uid != "../x" else "") and words in refusal.words and not refusal.moved
        )
        assert expectation.next_arrival(0) is None
        peer.release()


def test_a_sop_class_that_isnt_its_contexts_is_told(receiver: Running) -> None:
    with receiver.expect(STUDY, frozenset({LISTED})) as expectation, RawPeer(receiver.port) as peer:
        assert peer.associate().store(LISTED, data_set(LISTED, STUDY), sop_class=MR) == 0xA900
        assert [refusal.sop_instance_uid for refusal in told(expectation)] == [LISTED]
        peer.release()


def test_what_is_stored_or_of_another_study_is_no_refusal(receiver: Running) -> None:
    with receiver.expect(STUDY, frozenset({LISTED})) as expectation, RawPeer(receiver.port) as peer:
        assert peer.associate().store(LISTED, data_set(LISTED, STUDY)) == 0
        assert peer.store(UNLISTED, data_set(UNLISTED, OTHER)) == 0x0124
        assert told(expectation) == []
        assert expectation.next_arrival(LONG) is not None
        peer.release()


def test_whose_it_is_is_known_whatever_the_pieces(receiver: Running) -> None:
    encoded = data_set(UNLISTED, STUDY)
    with receiver.expect(STUDY, frozenset({LISTED})) as expectation, RawPeer(receiver.port) as peer:
        peer.associate({CT: [DEFLATED]}).send(p_data(command(1, sop_instance=UNLISTED), control=3))
        for byte in packed(encoded):
            peer.send(p_data(bytes((byte,)), control=0))
        peer.send(p_data(b"", control=2))
        assert peer.status() == 0x0124
        assert [refusal.sop_instance_uid for refusal in told(expectation)] == [UNLISTED]
        peer.release()


@pytest.mark.parametrize(
    "before", [b"", element(0x00081140, b"UT", bytes(MAX_BEGINNING_BYTES))], ids=["not deflated", "far behind"]
)
def test_what_cant_be_read_may_be_anybodys(receiver: Running, before: bytes) -> None:
    with receiver.expect(OTHER, frozenset({f"{OTHER}.1"})) as expectation, RawPeer(receiver.port) as peer:
        peer.associate({CT: [DEFLATED]})
        assert peer.store(UNLISTED, packed(before + data_set(UNLISTED, STUDY)) if before else b"\xff" * 100) == 0x0124
        assert [refusal.sop_instance_uid for refusal in told(expectation)] == [UNLISTED]
        peer.release()


def test_a_refused_instance_that_breaks_off_is_told(receiver: Running) -> None:
    with receiver.expect(STUDY, frozenset({LISTED})) as expectation:
        with RawPeer(receiver.port) as peer:
            peer.associate().send(
                p_data(command(1, sop_instance=UNLISTED), control=3) + p_data(data_set(UNLISTED, STUDY), control=0)
            )
        eventually(lambda: [refusal.sop_instance_uid for refusal in told(expectation)] == [UNLISTED])


def test_who_says_that_it_is_of_our_move_is_told_apart(receiver: Running) -> None:
    storage = receiver.settings.storage
    with (
        Expectation(storage.receiver_socket, STUDY, receiver.folder(), frozenset({LISTED}), "MKISO") as ours,
        RawPeer(receiver.port) as peer,
    ):
        peer.associate().store(UNLISTED, data_set(UNLISTED, STUDY), originator="MKISO")
        peer.store(f"{STUDY}.3", data_set(f"{STUDY}.3", STUDY), originator="ELSE")
        assert [(refusal.sop_instance_uid, refusal.moved) for refusal in told(ours)] == [
            (UNLISTED, True),
            (f"{STUDY}.3", False),
        ]
        peer.release()


def test_what_another_job_gets_is_told_to_the_one_that_doesnt_list_it(receiver: Running) -> None:
    with (
        receiver.expect(STUDY, frozenset({LISTED}), job="old") as old,
        receiver.expect(STUDY, job="new") as new,
        RawPeer(receiver.port) as peer,
    ):
        assert peer.associate().store(UNLISTED, data_set(UNLISTED, STUDY)) == 0
        assert [refusal.sop_instance_uid for refusal in told(old)] == [UNLISTED]
        assert told(new) == [] and new.next_arrival(LONG) is not None
        peer.release()


def test_nobody_waits_while_an_earlier_runs_file_is_read(receiver: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 8 GiB is hashed for half a minute. Here it is hashed until the test says so."""
    reading, go_on = threading.Event(), threading.Event()

    def slowly(path: Path) -> str:
        reading.set()
        assert go_on.wait(10 * LONG)
        return sha256_of(path)

    monkeypatch.setattr("mkiso.receiver.spool.sha256_of", slowly)
    (receiver.folder("a") / LISTED).write_bytes(b"of an earlier run")
    with (
        receiver.expect(STUDY, job="a") as a,
        RawPeer(receiver.port) as first,
        RawPeer(receiver.port, "127.0.0.2") as second,
    ):
        first.associate().send(
            p_data(command(1, sop_instance=LISTED), control=3) + p_data(data_set(LISTED, STUDY), control=2)
        )
        assert reading.wait(LONG)
        try:
            second.associate()
            second.socket.settimeout(LONG)
            assert second.store(UNLISTED, data_set(UNLISTED, STUDY)) == 0  # of the same job
            assert a.next_arrival(LONG) is not None
            with receiver.expect(OTHER, job="b") as b:  # and another job comes, gets its own and goes
                assert second.store(f"{OTHER}.1", data_set(f"{OTHER}.1", OTHER)) == 0
                assert b.next_arrival(LONG) is not None
            assert second.store("1.2.4.1", data_set("1.2.4.1", "1.2.4")) == 0x0124
        finally:
            go_on.set()
        assert first.status() == 0xC111
        first.release()
        second.release()


def test_what_another_job_is_still_to_get_is_nobodys_to_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first job ends and clears its folder away before the third has its name of the file: cut, and filled anew
    with whatever comes next, the third would have another patient's image."""
    jobs = [Expected(STUDY, tmp_path / name, None) for name in ("ended", "run again", "waiting")]
    for job in jobs:
        job.folder.mkdir()
    ended, again, waiting = (job.folder / LISTED for job in jobs)
    spares, incoming, hashing = tmp_path / "spares", tmp_path / "incoming", Hashing()
    incoming.mkdir()
    again.write_bytes(b"image")

    def clear_first(path: Path) -> str:
        assert path == again and ended.exists() and not waiting.exists()
        clear_away(ended.parent, spares)
        return sha256_of(path)

    monkeypatch.setattr("mkiso.receiver.spool.sha256_of", clear_first)
    descriptor = os.open(incoming, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        os.write(descriptor, b"image")
        digest = hashing.begin()
        digest.add([b"image"])
        digest.finish()
        _link(jobs, Whole(CT, LISTED, EXPLICIT, STUDY, 5, digest, descriptor), incoming)
    finally:
        os.close(descriptor)
        hashing.close()
    assert waiting.read_bytes() == b"image" and waiting.stat().st_nlink == 1
    assert not ended.parent.exists() and not any(spares.iterdir()) and not any(incoming.iterdir())


def test_the_same_instance_at_once_is_given_once(receiver: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two associations bring one UID: the second is compared with the first, also while that isn't there yet."""
    reading, go_on = threading.Event(), threading.Event()

    def slowly(path: Path) -> str:
        reading.set()
        assert go_on.wait(10 * LONG)
        return sha256_of(path)

    monkeypatch.setattr("mkiso.receiver.spool.sha256_of", slowly)
    encoded = data_set(LISTED, STUDY)
    with receiver.expect(STUDY) as expectation, RawPeer(receiver.port) as peer:
        assert peer.associate().store(LISTED, encoded) == 0 and expectation.next_arrival(LONG) is not None
        peer.release()
    with (
        receiver.expect(STUDY) as expectation,
        RawPeer(receiver.port) as first,
        RawPeer(receiver.port, "127.0.0.2") as second,
    ):
        whole = p_data(command(1, sop_instance=LISTED), control=3) + p_data(encoded, control=2)
        first.associate().send(whole)
        assert reading.wait(LONG)
        second.associate().send(whole)
        go_on.set()
        assert first.status() == second.status() == 0
        assert expectation.next_arrival(LONG) is not None and expectation.next_arrival(0.2) is None
        first.release()
        second.release()


def test_what_another_source_sends_of_the_study_is_none_of_this_job_s(start: Start) -> None:
    """Two jobs retrieve one study, each from a source of its own; both sources send at once."""
    receiver = start()

    def expect(job: str, own: str, other: str) -> Expectation:
        path, folder, listed = receiver.settings.storage.receiver_socket, receiver.folder(job), frozenset({LISTED})
        return Expectation(path, STUDY, folder, listed, "CDRECORD", {own, "127.0.0.1"}, {other})

    def send(calling: str, uid: str = LISTED, pixels: bytes = b"") -> int:
        with RawPeer(receiver.port) as peer:
            peer.send(associate_rq({CT: ["1.2.840.10008.1.2.1"]}, calling=calling))
            peer.receive()
            return peer.store(uid, data_set(uid, STUDY, pixels=pixels), originator="CDRECORD")

    with expect("north", "NORTH", "SOUTH") as north, expect("south", "SOUTH", "NORTH") as south:
        assert send("SOUTH", pixels=b"12") == 0
        assert (arrival := south.next_arrival(LONG)) and arrival.path.parent == receiver.folder("south")
        assert send("SOUTH", UNLISTED) != 0
        assert north.next_arrival(0) is None and told(north) == []
        assert [refusal.sop_instance_uid for refusal in told(south)] == [UNLISTED]
        assert send("NORTH") == 0  # other bytes: no conflict, since they are another job's
        assert (arrival := north.next_arrival(LONG)) and arrival.path.parent == receiver.folder("north")
        assert send("STRANGER", UNLISTED) != 0
        assert len(told(north)) == 1
