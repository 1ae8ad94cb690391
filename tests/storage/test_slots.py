"""Slots are limited, free when their holder dies, and never kept from a clerk by the archive."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from mkiso.storage.slots import slot, slot_behind_clerks
from peers.patience import LONG

FORK = multiprocessing.get_context("fork")


def in_thread(target: object) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_so_many_at_a_time(tmp_path: Path) -> None:
    third = threading.Event()

    def take() -> None:
        with slot(tmp_path, 2):
            third.set()

    with ExitStack() as two:
        assert [two.enter_context(slot(tmp_path, 2)) for _ in range(2)] == [0, 1]
        waiting = in_thread(take)
        assert not third.wait(0.3)
    assert third.wait(LONG)
    waiting.join()


def test_a_holder_that_dies_holds_nothing(tmp_path: Path) -> None:
    def hold_and_die() -> None:
        with slot(tmp_path, 1):
            os._exit(1)

    process = FORK.Process(target=hold_and_die)
    process.start()
    process.join()
    with slot(tmp_path, 1) as number:
        assert number == 0


def test_the_archive_hears_of_a_clerk_who_waits_for_its_slot(tmp_path: Path) -> None:
    moved = threading.Event()

    def clerk() -> None:
        with slot(tmp_path, 1):
            moved.set()

    with slot_behind_clerks(tmp_path, 1) as clerk_waits:
        assert not clerk_waits.wait(0.2)
        waiting = in_thread(clerk)
        assert clerk_waits.wait(LONG)
        assert not moved.is_set()
    assert moved.wait(LONG)
    waiting.join()


def test_the_archive_waits_while_a_clerk_moves_though_slots_are_free(tmp_path: Path) -> None:
    archived = threading.Event()

    def archive() -> None:
        with slot_behind_clerks(tmp_path, 4):
            archived.set()

    with slot(tmp_path, 4):
        waiting = in_thread(archive)
        assert not archived.wait(0.3)
    assert archived.wait(LONG)
    waiting.join()


def test_clerks_do_not_wait_for_each_other(tmp_path: Path) -> None:
    began = time.monotonic()
    with slot(tmp_path, 2), slot(tmp_path, 2):
        assert time.monotonic() - began < LONG
