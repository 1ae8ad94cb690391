"""What a flow's process is: a fork of a warm process in which Prefect's engine and the flows are imported already.

The imports below are what is warm: `import prefect` alone takes over a second in a new interpreter. Nothing here may start a thread, open a
connection or read the configuration, since all of that would be shared by every run.
"""

from __future__ import annotations

import logging
import os
import signal
from uuid import UUID

import prefect.events.clients
import prefect.runner.storage
import prefect.task_engine
import prefect.task_runners  # noqa: F401
from prefect._internal.control_listener import configure_from_env
from prefect.engine import handle_engine_signals
from prefect.flow_engine import load_flow, load_flow_run, run_flow

import flows.archive
import flows.download
import flows.housekeeping
import flows.print  # noqa: F401
from mkiso.errors import MkisoError


def run_flow_run(environment: dict[str, str], flow_run_id: str) -> None:
    """Run one flow run as `python -m prefect.engine` does, but for this: a run that fails in words doesn't leave a traceback in its log."""
    os.setsid()  # a group of its own, so that the worker's end isn't its end
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.update(environment)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_words_only)
    configure_from_env()
    with handle_engine_signals(UUID(flow_run_id)):
        flow_run = load_flow_run(UUID(flow_run_id))
        run_flow(load_flow(flow_run), flow_run=flow_run, return_type="state")


def _words_only(record: logging.LogRecord) -> bool:
    """An error of mkiso says what happened in its words; where in the code it was raised is no operator's concern."""
    if record.exc_info and isinstance(record.exc_info[1], MkisoError):
        record.exc_info = None
    return True
