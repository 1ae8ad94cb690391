"""A run is killed, and the next one goes on: nothing twice, nothing missing."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from mkiso.archive.ledger import Ledger
from mkiso.config.settings import Settings
from tests.archive import archivist

FORK = multiprocessing.get_context("fork")
STEPS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "shutil.rmtree", "open"}


def studies(count: int) -> dict[str, list[str]]:
    """Every fifth study is larger than a volume."""
    return {
        f"1.{number}": [f"1.{number}.{part}" for part in range(20 if number % 5 == 0 else 1 + number % 4)]
        for number in range(1, count + 1)
    }


def archive(
    settings: Settings, run_id: str, pacs: dict[str, list[str]], killed_at: int | None = None, later_seconds: float = 0
) -> None:
    if killed_at is not None:
        kill_at_step(killed_at, later_seconds)
    archivist.run(settings, run_id, pacs)


def kill_at_step(number: int, later_seconds: float) -> None:
    """Make this process kill itself before its `number`th change of a file or commit, or so much later."""
    steps = count(1)

    def step(*_: object) -> None:
        if next(steps) == number:
            kill = partial(os.kill, os.getpid(), signal.SIGKILL)
            threading.Timer(later_seconds, kill).start() if later_seconds else kill()

    sys.addaudithook(lambda name, args: step() if name in STEPS and _writes(name, args) else None)
    event.listen(Engine, "commit", step)


def _writes(name: str, args: tuple[object, ...]) -> bool:
    return name != "open" or (isinstance(args[2], int) and bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)))


def test_twenty_kills_at_random_moments(settings: Settings) -> None:
    """By what the run has done and a little later, since on a busy machine a run may be slow, or this test."""
    pacs = studies(60)
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    killed = runs = 0
    while killed < 20 and runs < 200:
        moment = moments.randrange(1, 100), moments.uniform(0.0001, 0.02)
        run = FORK.Process(target=archive, args=(settings, f"run {runs}", pacs, *moment))
        run.start()
        run.join()
        assert run.exitcode in (0, -signal.SIGKILL), f"{run} failed by itself"
        runs += 1
        if run.exitcode == 0:  # it was done before: the next one gets more to do
            pacs = studies(len(pacs) + 60)
        else:
            killed += 1
    assert killed == 20
    archive(settings, "last", pacs)
    archivist.check(settings, pacs)
    archive(settings, "second night", pacs)
    archivist.check(settings, pacs)


def test_a_kill_before_each_step(settings: Settings, tmp_path: Path) -> None:
    Ledger.open(settings).close()
    pacs: dict[str, list[str]] = {}
    for number in range(1, 500):
        pacs |= {
            f"2.{number}.{study}": [f"2.{number}.{study}.{part}" for part in range(1 if study else 10)]
            for study in (0, 1)
        }
        run = FORK.Process(target=archive, args=(settings, f"run {number}", pacs, number))
        run.start()
        run.join()
        if run.exitcode == 0:
            break
        assert run.exitcode == -signal.SIGKILL
        archive(settings, f"again {number}", pacs)
        archivist.check(settings, pacs)
    else:
        pytest.fail("the run never came to its end")
    assert number > 20
    print(f"{number - 1} steps")
