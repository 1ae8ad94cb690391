"""Log lines as JSON objects or as text, one line each whatever they hold."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from mkiso.config import Logging

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


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


def begin_logging(logging_settings: Logging) -> None:
    """Send the program's log to standard error, unless it goes somewhere already."""
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines() if logging_settings.format == "json" else TextLines())
        root.addHandler(handler)
        root.setLevel(logging_settings.level)
        logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each of our own polls


def _head(record: logging.LogRecord) -> dict[str, Any]:
    message = record.getMessage()
    if record.exc_info and record.exc_info[0]:  # the text of an exception could hold a patient's name
        message = f"{message} ({record.exc_info[0].__name__})"
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return {"time": time, "level": record.levelname, "logger": record.name, "message": message}


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}
