"""`mkiso doctor`: every check of this configuration in turn, told as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rich.console import Console

from mkiso.config.settings import Settings
from mkiso_service.checks import Site, checks_of, examine
from mkiso_service.prefect_password import with_password
from mkiso_service.webhook.orchestrator import Orchestrator, PrefectOrchestrator

WAIT_SECONDS = 5.0
T = TypeVar("T")


def diagnose(console: Console, settings: Settings) -> int:
    """Try everything that mkiso depends on, one after the other; the exit code: 1 where something is wrong."""

    def ask_prefect(what: Callable[[Orchestrator], Coroutine[Any, Any, T]]) -> T:
        async def asked() -> T:
            async with PrefectOrchestrator.connected(with_password(settings)) as orchestrator:
                return await what(orchestrator)

        return asyncio.run(asked())

    site, wrong = Site(settings, ask_prefect, WAIT_SECONDS, inside=True), 0
    for check in checks_of(settings, inside=True):
        finding = examine(check, site)
        mark = "[green]well [/]" if finding.well else "[bold red]wrong[/]"
        console.print(f"{mark}  [bold]{check.title:<18}[/] [dim]{finding.seconds:5.2f} s[/]  ", end="")
        console.print(finding.words, markup=False, highlight=False)
        wrong += not finding.well
    console.print("Everything is well." if not wrong else f"{wrong} of these need somebody.")
    return 1 if wrong else 0
