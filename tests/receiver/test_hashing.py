"""Hashing beside an association: values, order, waiting, and no thread where there is no instance."""

from __future__ import annotations

import hashlib
import os
import threading
import tracemalloc
from functools import partial
from pathlib import Path

from mkiso.config.storage import Storage
from mkiso.network.dimse import AFFECTED_SOP_CLASS_UID, AFFECTED_SOP_INSTANCE_UID, C_STORE_RQ, Command
from mkiso.network.negotiation import Context
from mkiso.receiver.expectations import Expected
from mkiso.receiver.hashing import MAX_WAITING, Hashing
from mkiso.receiver.spool import Spool
from mkiso.receiver.storage_scp import Reception, Tally
from peers.patience import LONG
from peers.raw_peer import CT, EXPLICIT


def test_a_digest_is_that_of_all_bytes_in_order() -> None:
    hashing = Hashing()
    told: list[tuple[int, str]] = []
    wanted = []

    def tell(number: int, sha256: str) -> None:
        told.append((number, sha256))

    for number in range(5):
        pieces = [os.urandom(100_000) for _ in range(7)]
        wanted.append((number, hashlib.sha256(b"".join(pieces)).hexdigest()))
        digest = hashing.begin()
        digest.add(pieces[:3])
        digest.add(pieces[3:])
        digest.finish()
        digest.then(partial(tell, number))
    hashing.close()
    assert told == wanted


def test_any_thread_may_wait_for_a_value() -> None:
    hashing = Hashing()
    digest = hashing.begin()
    values: list[str] = []
    waiting = [threading.Thread(target=lambda: values.append(digest.value())) for _ in range(3)]
    for thread in waiting:
        thread.start()
    assert not values
    digest.add([b"a", b"bc"])
    digest.finish()
    for thread in waiting:
        thread.join(LONG)
    assert values == [hashlib.sha256(b"abc").hexdigest()] * 3
    hashing.close()


def test_what_is_received_faster_than_hashed_waits() -> None:
    hashing = Hashing()
    held = threading.Event()
    digest = hashing.begin()

    def hold() -> None:
        held.wait()

    def feed() -> None:
        for _ in range(2 * MAX_WAITING):
            digest.add([bytes(1000)])

    hashing.put(hold)
    feeding = threading.Thread(target=feed)
    feeding.start()
    feeding.join(0.3)
    assert feeding.is_alive()
    held.set()
    feeding.join(LONG)
    assert not feeding.is_alive()
    hashing.close()


def begun(storage: Storage, hashing: Hashing) -> Reception:
    """An instance of which nothing has come yet."""
    wanted = frozenset({"1.2.3.1"})
    spool = Spool.of_one(storage, 1, Expected("1.2.3", storage.data_dir, wanted))
    command = Command(C_STORE_RQ, 1, True, {AFFECTED_SOP_CLASS_UID: CT.encode(), AFFECTED_SOP_INSTANCE_UID: b"1.2.3.1"})
    return Reception(command, Context(CT, EXPLICIT), spool, hashing, Tally("peer"))


def test_a_file_that_cant_be_removed_closes_no_other(tmp_path: Path) -> None:
    """After its file is closed, the number of its descriptor may belong to another image."""
    storage, hashing = Storage(data_dir=tmp_path, min_free_gib=0), Hashing()
    storage.spares_dir.mkdir()
    (storage.spares_dir / "7").write_bytes(b"\0")
    coming = begun(storage, hashing)
    (storage.incoming_dir / "7").unlink()
    (storage.incoming_dir / "7").mkdir()
    coming.close()
    with (tmp_path / "other").open("wb") as other:
        coming.close()
        os.fstat(other.fileno())
    hashing.close()


def test_an_instance_in_pieces_of_a_byte_takes_no_more_memory(tmp_path: Path) -> None:
    hashing = Hashing()
    coming = begun(Storage(data_dir=tmp_path, min_free_gib=0), hashing)
    tracemalloc.start()
    for _ in range(500_000):
        coming.write(memoryview(b"x"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    coming.close()
    hashing.close()
    assert peak < 8 << 20


def test_no_instance_no_thread() -> None:
    before = threading.active_count()
    hashing = Hashing()
    assert threading.active_count() == before
    hashing.close()
