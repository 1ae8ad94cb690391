"""The handler that sends a job's lines to Prefect's server; what it can't send is said in one line of the log."""

from __future__ import annotations

import logging
from typing import Any

from prefect.logging.handlers import APILogHandler, APILogWorker

log = logging.getLogger("mkiso.prefect.log")


async def _send(self: APILogWorker, items: list[dict[str, Any]]) -> None:
    """As Prefect's own, which writes the error to standard error past every handler and formatter."""
    try:
        await self._client.create_logs(items)
    except Exception as error:
        log.warning("%s lines of jobs didn't get into Prefect's log (%s).", len(items), type(error).__name__)


APILogWorker._handle_batch = _send  # type: ignore[method-assign]


def handler() -> logging.Handler:
    """mkiso_service/prefect/logging.yaml names it for Prefect."""
    return APILogHandler()
