"""A worker that is told to end while it starts: one sentence in the log, no traceback, and it ends well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from peers.link import Link
from peers.patience import LONG
from tests.webhook.prefect_server import AUTH, PrefectServer

pytestmark = pytest.mark.peer


def test_a_worker_ended_while_it_connects_says_so_in_words(tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    with (
        PrefectServer(tmp_path / "prefect") as server,
        Link(int(server.api_url.rpartition(":")[2].partition("/")[0]), hush_at=b"/workers/connect") as link,
    ):
        prefect = {"api_url": f"http://127.0.0.1:{link.port}/api", "api_auth_string": AUTH}
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump({"prefect": prefect, "storage": {"data_dir": str(tmp_path / "data")}}))
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "mkiso_service", "worker"],
            env={**os.environ, "MKISO_CONFIG": str(config)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as worker:
            try:
                assert link.hushed.wait(LONG)
                worker.send_signal(signal.SIGTERM)
                told, _ = worker.communicate(timeout=LONG)
            finally:
                worker.kill()
    assert worker.returncode == 0
    assert "Traceback" not in told and "The worker was ended while it was starting" in told
