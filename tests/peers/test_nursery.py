"""The program whose forks are the services and commands of tests."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

from peers.nursery import Nursery, nursery
from peers.patience import LONG, until


def test_a_service_that_is_left_behind_is_noticed(tmp_path: Path) -> None:
    configuration, log, own = tmp_path / "config.yaml", tmp_path / "log", Nursery()
    os.mkfifo(configuration)  # it waits for what this says
    log.touch()
    left = own.start(["serve"], {**os.environ, "MKISO_CONFIG": str(configuration)}, log)
    assert own.close() == 1
    configuration.write_text("no: key", encoding="utf-8")
    until(lambda: not Path(f"/proc/{left.pid}").exists())
    assert own.close() == 0


def test_a_command_says_what_it_says_by_itself(tmp_path: Path) -> None:
    environment = {**os.environ, "MKISO_CONFIG": str(tmp_path / "none.yaml")}
    told = nursery.run(["--version"], environment, LONG)
    assert (told.returncode, told.stdout.strip(), told.stderr) == (0, version("mkiso"), "")
    told = nursery.run(["config", "check"], environment, LONG)
    assert (told.returncode, told.stdout) == (2, "") and "none.yaml" in told.stderr
