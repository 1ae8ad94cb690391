"""`mkiso doctor`: every check of this configuration in turn, told as it comes."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rich.console import Console

from mkiso.config.settings import Settings
from mkiso.errors import ConfigurationError
from mkiso_service.checks.check import Check, Site, Unwell, examine
from mkiso_service.checks.registry import checks_of
from mkiso_service.prefect.orchestrator import Orchestrator, PrefectOrchestrator
from mkiso_service.prefect.password import with_password
from mkiso_service.process_states import is_starting, process_states

WAIT_SECONDS = 5.0
T = TypeVar("T")


def _not_started(check: Check, site: Site) -> str:
    """In the place of a check of the service's parts, where there is no service: they would all say the same, but for
    whose port another program has.
    """
    settings = site.settings
    places = {
        "receiver": (f"//127.0.0.1:{settings.receiver.port}", "receiver.port"),
        "prefect": (f"//127.0.0.1:{settings.prefect.server_port}", "prefect.server_port"),
        "webhook": (settings.server.local_address, "server.port"),
    }
    url, key = places.get(check.name, ("", ""))
    if url and _answers(url):
        where = urlsplit(url).netloc
        raise Unwell(f"isn't running, and another program answers at {where}. End that one, or set another {key}.")
    if check.name != "webhook":
        raise Unwell("isn't running.")
    raise Unwell("Nothing runs here. Start `mkiso serve` (as a service: systemctl start mkiso), then ask again.")


def _is_started(site: Site, checks: Sequence[Check]) -> bool:
    """Whether there is a service here to be looked at, or parts of one: they may be on several machines. What answers
    at their ports may be anybody's.
    """
    settings = site.settings
    if settings.prefect.api_url or process_states(settings.storage) or settings.storage.receiver_socket.exists():
        return True
    return any(examine(check, site).well for check in checks if check.name == "prefect")


def _answers(url: str) -> bool:
    address = urlsplit(url)
    try:
        socket.create_connection((str(address.hostname), address.port or 80), WAIT_SECONDS).close()
    except OSError:
        return False
    return True


def _await_start(console: Console, site: Site, checks: Sequence[Check]) -> None:
    """Where mkiso is being started, wait until its parts answer, or had the time for it."""
    page = site.settings.server.local_address
    parts, is_told = [check for check in checks if check.of_service and check.name != "webhook"], False
    while is_starting(site.settings.storage):
        if _answers(page) and all(examine(each, site).well for each in parts):
            return
        if not is_told:
            console.print("mkiso is starting …", style="dim")
            is_told = True
        time.sleep(1)


def diagnose(console: Console, settings: Settings) -> int:
    """Try everything that mkiso depends on, one after the other; the exit code: 1 where something is wrong. Raises
    ConfigurationError where this user may not look into the data folder.
    """
    try:
        settings.storage.receiver_socket.exists()
    except PermissionError:
        raise ConfigurationError(
            f"Only the user that mkiso runs as may look into {settings.storage.data_dir}: run mkiso doctor as that "
            "user (runuser -u mkiso -- …)."
        ) from None

    def ask_prefect(what: Callable[[Orchestrator], Coroutine[Any, Any, T]]) -> T:
        async def asked() -> T:
            async with PrefectOrchestrator.connected(with_password(settings)) as orchestrator:
                return await what(orchestrator)

        return asyncio.run(asked())

    wrong: set[str] = set()
    site = Site(settings, ask_prefect, WAIT_SECONDS, inside=True, wrong=wrong)
    checks = checks_of(settings, inside=True)
    _await_start(console, site, checks)
    if not _is_started(site, checks):
        checks = [
            replace(check, run=partial(_not_started, check)) if check.of_service else check
            for check in checks
            if check.name not in ("processes", "schedules")
        ]
    for check in checks:
        finding = examine(check, site)
        mark = "[green]ok   [/]" if finding.well else "[bold red]wrong[/]"
        console.print(f"{mark}  [bold]{check.title:<18}[/] [dim]{finding.seconds:5.2f} s[/]  ", end="")
        console.print(finding.words, markup=False, highlight=False)
        if not finding.well:
            wrong.add(check.name)
    console.print(f"{len(wrong)} of these need attention." if wrong else "Everything is in order.")
    return 1 if wrong else 0
