"""The program whose forks are the services of tests."""

from __future__ import annotations

import os
from pathlib import Path

from peers.nursery import Nursery
from peers.patience import until


def test_a_service_that_is_left_behind_is_noticed(tmp_path: Path) -> None:
    configuration, log, nursery = tmp_path / "config.yaml", tmp_path / "log", Nursery()
    os.mkfifo(configuration)  # it waits for what this says
    log.touch()
    left = nursery.serve({**os.environ, "MKISO_CONFIG": str(configuration)}, log)
    assert nursery.close() == 1
    configuration.write_text("no: key", encoding="utf-8")
    until(lambda: not Path(f"/proc/{left.pid}").exists())
    assert nursery.close() == 0
