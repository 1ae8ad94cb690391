"""The workers on Prefect's list: who takes jobs, and of whom nothing is heard."""

from __future__ import annotations

import socket
from urllib.parse import quote

from mkiso.config.settings import Settings
from mkiso_service.prefect.api import PrefectApi


def worker_name(settings: Settings) -> str:
    """The name in the Prefect UI, unique among all machines: one AE title is one receiver, and a machine stays the same
    worker across restarts.
    """
    return f"{settings.receiver.ae_title} on {socket.gethostname()}"


def machine_of(name: str) -> str:
    """The machine of a worker of this name."""
    return name.rpartition(" on ")[2]


async def why_jobs_wait(api: PrefectApi, settings: Settings) -> str:
    """Why nobody works at jobs, in words; empty where a worker does. Raises httpx.HTTPError, LookupError,
    ValueError.
    """
    name = settings.prefect.work_pool
    pool = await api.get(_address(settings))
    queues = await api.post(f"{_address(settings)}/queues/filter", {})
    paused = [queue["name"] for queue in queues if queue["is_paused"]]
    closed = [queue["name"] for queue in queues if queue["concurrency_limit"] == 0]
    if pool["is_paused"]:
        return f"The work pool {name} is paused in Prefect: jobs wait until somebody resumes it there."
    if pool["concurrency_limit"] == 0:
        return f"The work pool {name} has a limit of 0 in Prefect: jobs wait until somebody changes it there."
    if paused:
        return f"Paused in Prefect: {', '.join(paused)}. Jobs of such a work queue wait until somebody resumes it."
    if closed:
        return f"With a limit of 0 in Prefect: {', '.join(closed)}. Jobs of such a queue wait until it has another."
    return "" if pool["status"] == "READY" else "No worker takes jobs: they wait until one is started."


async def silent_workers(api: PrefectApi, settings: Settings) -> list[str]:
    """Those of which nothing is heard, though nobody has stopped them; not of a machine that has another one now.
    Raises httpx.HTTPError, LookupError, ValueError.
    """
    found = await api.post(f"{_address(settings)}/workers/filter", {})
    heard = {machine_of(worker["name"]) for worker in found if worker["status"] == "ONLINE"}
    return sorted(worker["name"] for worker in found if machine_of(worker["name"]) not in heard)


async def leave(api: PrefectApi, settings: Settings) -> None:
    """Take this machine's worker, which has ended, off the list: nobody misses it then. Raises httpx.HTTPError."""
    await api.delete(f"{_address(settings)}/workers/{quote(worker_name(settings), safe='')}")


def _address(settings: Settings) -> str:
    return f"/work_pools/{quote(settings.prefect.work_pool, safe='')}"
