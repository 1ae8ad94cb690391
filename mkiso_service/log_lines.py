"""Log lines of every process of mkiso, Prefect's among them: JSON objects or text, one line each whatever they hold,
and no exception's text.

What is said of a job carries its `job_id`, the `run`'s name, the `task` and the `request_id` of the request that asked
for it first.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from mkiso.config.settings import Logging

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NAMES = {"flow_run_id": "job_id", "flow_run_name": "run", "task_run_name": "task"}
"""What Prefect calls what mkiso has a name for."""
_NOISE = frozenset(
    ("color_message", "deployment_name", "flow_name", "task_name", "task_run_id", "send_to_api")
) | frozenset(("worker_id", "worker_name", "work_pool_id", "work_pool_name"))
_QUIET = ("alembic", "apscheduler", "docket", "fontTools", "httpcore", "httpx", "uvicorn")
"""Libraries that tell of every step at INFO."""
_SILENT = "pynetdicom"
"""Its errors are told in words by whoever meets them, with what to do."""
_FRAMES = 12


class JsonLines(logging.Formatter):
    """`{"time", "level", "logger", "message", …}` with what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({**_head(record), **_extra(record)}, default=str)


class TextLines(logging.Formatter):
    """Time, level, message, and what was given as `extra` as key=value; a line break can't get in."""

    def format(self, record: logging.LogRecord) -> str:
        head = _head(record)
        fields = "".join(f" {name}={json.dumps(value, default=str)}" for name, value in _extra(record).items())
        return f"{head['time']} {head['level']:7} {head['logger']}: {json.dumps(head['message'])[1:-1]}{fields}"


def line_handler(format: Literal["json", "text"]) -> logging.Handler:
    """A handler that writes lines to standard error; mkiso_service/prefect/logging.yaml names it for Prefect."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if format == "json" else TextLines())
    handler.addFilter(_is_wanted)
    return handler


def begin_logging(logging_settings: Logging) -> None:
    """Send the program's log to standard error, unless it goes somewhere already."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(line_handler(logging_settings.format))
        root.setLevel(logging_settings.level)


def name_job(job_id: str, run: str, request_id: str) -> None:
    """Give every line of this process, which runs this one job, the job's names."""
    names = {"flow_run_id": job_id, "flow_run_name": run, **({"request_id": request_id} if request_id else {})}

    def named(record: logging.LogRecord) -> bool:
        vars(record).update({name: value for name, value in names.items() if not hasattr(record, name)})
        return True

    for handler in logging.getLogger().handlers:
        handler.addFilter(named)


def frames_of(error: BaseException) -> list[str]:
    """Where an exception came from, innermost last: what a developer needs, and nothing that it was about."""
    return [
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    ]


def _is_wanted(record: logging.LogRecord) -> bool:
    return not record.name.startswith(_SILENT if record.levelno >= logging.WARNING else (_SILENT, *_QUIET))


def _head(record: logging.LogRecord) -> dict[str, Any]:
    message = record.getMessage()
    if record.exc_info and record.exc_info[0]:  # the text of an exception could hold a patient's name
        message = f"{message} ({record.exc_info[0].__name__})"
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return {"time": time, "level": record.levelname, "logger": record.name, "message": message}


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    given = {
        _NAMES.get(name, name): value
        for name, value in vars(record).items()
        if name not in _STANDARD and name not in _NOISE
    }
    if record.exc_info and record.exc_info[1]:
        given["frames"] = frames_of(record.exc_info[1])
    return given
