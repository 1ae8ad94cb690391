"""Processes end within a bound: told while their event loop spins or waits, or when their root is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from peers.patience import LONG

SPINNING = """
import asyncio, os, time
from mkiso_service import ending
ending.BOUND_SECONDS = 0.2

async def spin():
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    ending.on_signals(0.1, lambda: loop.call_soon_threadsafe(stop.set), lambda: os.write(1, b"at once\\n"))
    print("ready", flush=True)
    {what}

asyncio.run(spin())
"""
FOLLOWING = """
import os, signal, sys, time
from mkiso_service import ending
ending.BOUND_SECONDS = 0.2
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
ending.end_with(ending.Root({root}), 0.1)
print("ready", flush=True)
while True:
    pass
"""
CIRCLE = """
    first, second = KeyError(), ValueError()
    first.__context__, second.__context__ = second, first
    error = first
    while error is not None:
        error = error.__context__
"""


@contextmanager
def running(program: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    "what",
    ["while True: pass", CIRCLE.strip(), "await asyncio.to_thread(time.sleep, 3600)", "await asyncio.sleep(3600)"],
    ids=["spins", "circle", "thread", "ignores"],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_told_to_end_ends_whatever_it_does(what: str, number: signal.Signals) -> None:
    with running(SPINNING.format(what=what)) as process:
        process.send_signal(number)
        assert process.wait(LONG) == 1
        assert process.stderr is not None and "Timeout" in process.stderr.read(), "it says where it stood"


def test_a_second_signal_ends_it_at_once() -> None:
    with running(SPINNING.replace("0.1", "3600").format(what="while True: pass")) as process:
        process.send_signal(signal.SIGTERM)
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.returncode == 128 + signal.SIGTERM
        assert process.stdout is not None and process.stdout.read().startswith("at once\n")


def test_a_process_ends_with_its_root_though_it_hears_no_signal() -> None:
    with running("print('ready', flush=True); import time; time.sleep(3600)") as root:
        from mkiso_service.ending import Root

        told = Root.of(root.pid)
        with running(FOLLOWING.format(root=f"{told.pid}, {told.started!r}")) as process:
            process.send_signal(signal.SIGTERM)
            assert process.poll() is None
            root.kill()
            assert process.wait(LONG) == 1


@pytest.mark.parametrize("root", [f"{os.getpid()}, '1'", "2 ** 22 - 1, '4711'"], ids=["another of its id", "none"])
def test_a_root_that_is_gone_already_is_no_root(root: str) -> None:
    with running(FOLLOWING.format(root=root)) as process:
        assert process.wait(LONG) == 1


def test_what_has_a_root_that_lives_goes_on() -> None:
    from mkiso_service.ending import Root

    told = Root.of(os.getpid())
    with (
        running(FOLLOWING.format(root=f"{told.pid}, {told.started!r}")) as process,
        pytest.raises(subprocess.TimeoutExpired),
    ):
        process.wait(1)
