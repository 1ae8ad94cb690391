"""Prefect's loops that ask its server regularly, made to outlast an outage of it: in the worker and in each flow's
process.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx
import prefect._internal.observers
import prefect.workers.base
from prefect.utilities.math import clamped_poisson_interval

log = logging.getLogger("mkiso.worker")

JITTER = 0.3
"""By which part of it an interval is longer or shorter, so that not all machines ask at once."""


async def keep_on(workload: Callable[[], Awaitable[Any]], interval: float, **_: Any) -> None:
    """Do it again and again, also where Prefect can't be asked.

    Prefect's own loop gives up after a few errors. Half a minute without Prefect's server, and no job of the worker
    could be cancelled any more; four minutes without its database ended the worker. And it rests longer and longer, so
    that a machine gave no sign of life after an outage until another one took it for lost.
    """
    answers = True
    while True:
        try:
            await workload()
            if not answers:
                log.info("Prefect answers again.")
            answers = True
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if isinstance(error, httpx.HTTPStatusError) and not error.response.is_server_error:
                raise
            if answers:
                words = "Prefect can't be asked (%s): jobs that run go on, and no other begins until it answers."
                log.warning(words, type(error).__name__)
            answers = False
        await anyio.sleep(clamped_poisson_interval(interval, clamping_factor=JITTER))


prefect.workers.base.critical_service_loop = keep_on  # type: ignore[attr-defined, assignment]
prefect._internal.observers.critical_service_loop = keep_on  # type: ignore[attr-defined, assignment]
