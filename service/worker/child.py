"""What a flow's process is: a fork of a warm process in which Prefect's engine and the flows are imported already.

The imports below are what is warm: `import prefect` alone takes over a second in a new interpreter. Nothing here may start a thread, open a
connection or read the configuration, since all of that would be shared by every run.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

import prefect.engine
import prefect.events.clients
import prefect.flow_engine
import prefect.runner.storage
import prefect.task_engine
import prefect.task_runners  # noqa: F401

import flows.archive
import flows.download
import flows.housekeeping
import flows.print  # noqa: F401


def run_flow_run(environment: dict[str, str], flow_run_id: str) -> None:
    """Run one flow run as `python -m prefect.engine` would, and leave with its exit code."""
    os.setsid()  # a group of its own, so that the worker's end isn't its end
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.update(environment)
    sys.argv = ["prefect.engine", flow_run_id]
    runpy.run_module("prefect.engine", run_name="__main__")
