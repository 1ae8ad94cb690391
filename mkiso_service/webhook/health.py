"""/api/health. Each dependency is checked at most every five seconds. One that isn't well is checked every second and a
half; a part of the service itself every quarter of a second, since it may be starting. All checks run at once, and no
answer waits longer than it may take. A monitor that asks each second waits for no check.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from mkiso.config.settings import Settings
from mkiso_service import api
from mkiso_service.checks.check import Check, Finding, Site, examine
from mkiso_service.checks.registry import checks_of
from mkiso_service.prefect.orchestrator import Orchestrator

KEPT_SECONDS = {True: 10.0, False: 3.0}
"""How long it is believed of a dependency that it is well, or isn't."""
STARTING_SECONDS = 0.5
"""And of a part of the service that it isn't."""
ANEW = 0.5
"""After this part of that time whoever asks is told what is believed, and it is asked anew beside that."""
ANSWER_SECONDS = 1.5  # the whole answer stays under two
T = TypeVar("T")


class Probe:
    """One dependency's last finding, believed for so many seconds by whether it is well. While its check hangs no
    second one is started.
    """

    def __init__(self, find: Callable[[], Awaitable[Finding]], kept_seconds: Mapping[bool, float]) -> None:
        self._find, self._kept_seconds = find, kept_seconds
        self._asking: asyncio.Task[Finding] | None = None
        self._found: Finding | None = None
        self._began = self._anew_from = self._until = 0.0

    async def finding(self) -> Finding:
        """No older than `kept_seconds` says, and no later than ANSWER_SECONDS after its check has begun."""
        now = time.monotonic()
        if self._asking is None or (self._asking.done() and now > self._anew_from):
            self._asking, self._began = asyncio.create_task(self._ask()), now
        if self._found is not None and now <= self._until:
            return self._found
        await asyncio.wait([self._asking], timeout=max(0.0, self._began + ANSWER_SECONDS - now))
        if self._asking.done():
            return self._asking.result()
        return Finding(False, "gives no answer within two seconds", ANSWER_SECONDS)

    async def _ask(self) -> Finding:
        self._found, asked = await self._find(), time.monotonic()
        self._until = asked + self._kept_seconds[self._found.well]
        self._anew_from = asked + ANEW * self._kept_seconds[self._found.well]
        return self._found


class Health:
    """All dependencies of this configuration."""

    def __init__(self, settings: Settings, orchestrator: Orchestrator) -> None:
        checks = checks_of(settings)
        threads = ThreadPoolExecutor(len(checks), "health")  # of their own: a hanging PACS takes none from a download

        async def find(check: Check) -> Finding:
            loop = asyncio.get_running_loop()

            def ask_prefect(what: Callable[[Orchestrator], Coroutine[Any, Any, T]]) -> T:
                return asyncio.run_coroutine_threadsafe(what(orchestrator), loop).result()

            return await loop.run_in_executor(threads, examine, check, Site(settings, ask_prefect, ANSWER_SECONDS))

        of_service = KEPT_SECONDS | {False: STARTING_SECONDS}
        self._probes = {
            check.name: Probe(partial(find, check), of_service if check.of_service else KEPT_SECONDS)
            for check in checks
        }

    async def publisher(self, name: str) -> api.Dependency:
        """How a configured publisher is."""
        found = await self._probes[f"publisher:{name}"].finding()
        return {"ok": found.well, "detail": found.words}

    async def answer(self) -> api.Health:
        """The body of /api/health."""
        found = await asyncio.gather(*(probe.finding() for probe in self._probes.values()))
        dependencies: dict[str, api.Dependency] = {
            name: {"ok": each.well, "detail": each.words} for name, each in zip(self._probes, found, strict=True)
        }
        degraded = [name for name, each in dependencies.items() if not each["ok"]]
        return {"status": "degraded" if degraded else "ok", "degraded": degraded, "dependencies": dependencies}
