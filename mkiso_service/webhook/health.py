"""/api/health: each dependency asked at most every ten seconds, all at once, and never waited for longer than the
answer may take.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from mkiso.config.settings import PatientApi, Settings, Storage
from mkiso.errors import MkisoError, OrchestratorUnavailable, PatientApiUnavailable, RetriableError
from mkiso.housekeeping import require_room
from mkiso.publishers import publisher_of
from mkiso.receiver.client import receiver_status
from mkiso.sources.pacs import echo
from mkiso_service.supervisor import process_states
from mkiso_service.webhook.orchestrator import Orchestrator

KEPT_SECONDS = 10.0
ANSWER_SECONDS = 1.5  # the whole answer stays under two


class ProcessAway(RetriableError):
    """A process of this machine has died and is being restarted."""


Check = Callable[[], Awaitable[str]]
"""Returns in words what is well, raises what isn't."""


class Probe:
    """One dependency's last answer. While a check hangs no second one is started."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._asking: asyncio.Task[dict[str, Any]] | None = None
        self._answer: dict[str, Any] = {}
        self._until = 0.0

    async def answer(self) -> dict[str, Any]:
        """`{"ok", "detail"}`, at most KEPT_SECONDS old and after at most ANSWER_SECONDS."""
        if time.monotonic() < self._until:
            return self._answer
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        await asyncio.wait([self._asking], timeout=ANSWER_SECONDS)
        return (
            self._asking.result()
            if self._asking.done()
            else {"ok": False, "detail": "gives no answer within two seconds"}
        )

    async def _ask(self) -> dict[str, Any]:
        try:
            self._answer = {"ok": True, "detail": await self._check()}
        except MkisoError as error:
            self._answer = {"ok": False, "detail": error.words}
        except Exception as error:  # a check that breaks is a dependency that can't be vouched for
            self._answer = {"ok": False, "detail": f"can't be checked: {type(error).__name__}"}
        self._until = time.monotonic() + KEPT_SECONDS
        return self._answer


class Health:
    """All dependencies of this configuration."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._probes = {name: Probe(check) for name, check in checks.items()}

    async def answer(self) -> dict[str, Any]:
        """The body of /api/health."""
        answers = await asyncio.gather(*(probe.answer() for probe in self._probes.values()))
        dependencies = dict(zip(self._probes, answers, strict=True))
        degraded = [name for name, answer in dependencies.items() if not answer["ok"]]
        return {"status": "degraded" if degraded else "ok", "degraded": degraded, "dependencies": dependencies}


def checks_of(settings: Settings, orchestrator: Orchestrator) -> dict[str, Check]:
    """A check for each dependency that is configured, by its name in the answer."""
    threads = ThreadPoolExecutor(
        4 + len(settings.publishers), "health"
    )  # of their own: a hanging PACS takes no thread from a download

    def blocking(check: Callable[[], str]) -> Check:
        return lambda: asyncio.get_running_loop().run_in_executor(threads, check)

    checks: dict[str, Check] = {
        "pacs": blocking(lambda: f"answers C-ECHO in {echo(settings, ANSWER_SECONDS):.2f} s"),
        "receiver": blocking(lambda: _receiver(settings.storage)),
        "prefect": lambda: _prefect(orchestrator),
        "worker": lambda: _worker(orchestrator),
        "processes": blocking(lambda: _processes(settings.storage)),
        "disk": blocking(lambda: _room(settings.storage)),
    }
    if settings.patient_api.base_url:
        checks["patient_api"] = lambda: _patient_api(settings.patient_api)
    for name in settings.publishers:
        checks[f"publisher:{name}"] = blocking(lambda name=name: publisher_of(name, settings).check())  # type: ignore[misc]
    return checks


def _room(storage: Storage) -> str:
    require_room(storage)
    return f"{shutil.disk_usage(storage.data_dir).free / 2**30:.1f} GiB are free"


def _receiver(storage: Storage) -> str:
    status = receiver_status(storage.receiver_socket, ANSWER_SECONDS)
    return ", ".join(f"{name} {value}" for name, value in status.items() if isinstance(value, int)) or "listens"


def _processes(storage: Storage) -> str:
    states = process_states(storage)
    if away := [name for name, state in states.items() if not state.get("up")]:
        raise ProcessAway(f"Being restarted: {', '.join(away)}.")
    restarts = ", ".join(f"{name} {state['restarts']}" for name, state in states.items() if state.get("restarts"))
    return (
        f"all run; restarted since the start: {restarts}"
        if restarts
        else "all run"
        if states
        else "run without a supervisor here"
    )


async def _prefect(orchestrator: Orchestrator) -> str:
    return f"answers; {await orchestrator.queued()} jobs wait"


async def _worker(orchestrator: Orchestrator) -> str:
    if not await orchestrator.worker_ready():
        raise OrchestratorUnavailable("No worker takes jobs: they wait until one is started.")
    return "takes jobs"


async def _patient_api(api: PatientApi) -> str:
    """Any answer over HTTP shows that it can be reached; no patient is asked for."""
    headers = {name: value.get_secret_value() for name, value in api.headers.items()}
    try:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, headers=headers, trust_env=False) as client:
            status = (await client.head(api.base_url)).status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise PatientApiUnavailable(f"The patient API can't be reached ({type(error).__name__}).") from None
    if status >= 500:
        raise PatientApiUnavailable(f"The patient API answers {status}.")
    return "answers"
