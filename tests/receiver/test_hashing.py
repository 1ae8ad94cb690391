"""Hashing beside an association: values, order, waiting, and no thread where there is no instance."""

from __future__ import annotations

import hashlib
import os
import threading
from functools import partial

from mkiso.receiver.hashing import MAX_WAITING, Hashing
from peers.patience import LONG


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


def test_no_instance_no_thread() -> None:
    before = threading.active_count()
    hashing = Hashing()
    assert threading.active_count() == before
    hashing.close()
