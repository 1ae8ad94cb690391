"""Prefect's server that is stopped in its start, as where another part of mkiso can't run."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from peers.patience import LONG, until
from peers.ports import is_open
from tests.service.test_prefect_ui import Server

MOMENTS: dict[str, Callable[[Server], bool]] = {
    "before it answers": lambda server: "Prefect's server starts on" in server.log(),
    "as it answers": lambda server: is_open(server.port),
}


@pytest.mark.peer
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_server_stopped_in_its_start_ends_without_a_fault(tmp_path: Path, moment: Callable[[Server], bool]) -> None:
    server = Server(tmp_path)
    child = server.child = server.begin()
    try:
        until(lambda: moment(server), pause=0.001)
        child.terminate()
        assert child.wait(LONG) == -signal.SIGTERM
    finally:
        server.kill()
    assert "Traceback" not in server.log() and "ERROR" not in server.log()
