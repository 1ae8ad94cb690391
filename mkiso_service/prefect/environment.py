"""What every process of mkiso tells Prefect through its environment, and the names it is known by there."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from mkiso.config.settings import Prefect, Settings

QUEUES = {"downloads": 1, "prints": 2, "inboxes": 3, "archives": 4, "housekeeping": 5}
"""Work queues and their priority: a clerk waits for a download, somebody collects a print, later what was sent to an
inbox, nobody waits for an archive.
"""
REQUEST_ID_LABEL = "mkiso.request_id"
"""The label of a run that holds the id of the request which asked for it; not a tag, which would stand in every list of
the UI.
"""
DAY_SECONDS = 86_400
INBOX = "burn_sent/inbox"
"""The deployment of what was sent to inboxes."""
NIGHTLY_ARCHIVE = "nightly_archive/nightly"
"""The archive's deployment."""
HOUSEKEEPING = "keep_house/housekeeping"
NEXT_ADDRESS_SECONDS = 0.25
ONE_AT_A_TIME = frozenset({"archives"})
"""Queues of which one run at a time is started, on all machines together."""
_connect: Callable[..., Awaitable[Any]] = asyncio.BaseEventLoop.create_connection


def api_url(prefect: Prefect) -> str:
    """The API of the orchestrator: the configured one, or the one that `mkiso serve` starts here."""
    return prefect.api_url or f"http://127.0.0.1:{prefect.server_port}/api"


def not_taken(prefect: Prefect) -> str:
    """In words, that the orchestrator refuses our password."""
    if prefect.api_url:
        why = "prefect.api_auth_string has to be the one of that server."
    else:
        why = "where it is another one's, end it or set another prefect.server_port; else restart mkiso."
    return f"The Prefect server at {api_url(prefect)} refuses mkiso's password: {why}"


def begin_with(settings: Settings) -> None:
    """Before Prefect is imported: its environment, and a working directory in which nobody leaves anything. Prefect
    takes settings, such as another database, from .env, prefect.toml and pyproject.toml there.
    """
    os.chdir("/")
    # mkiso makes that folder itself, as the user that it belongs to.
    warnings.filterwarnings("ignore", "Failed to create the Prefect home directory")
    os.environ.update(environment(settings))
    asyncio.BaseEventLoop.create_connection = connect_to_any  # type: ignore[method-assign, assignment]


async def connect_to_any(
    loop: asyncio.BaseEventLoop, make: Callable[[], Any], host: Any = None, port: Any = None, **how: Any
) -> Any:
    """As asyncio's own, but where a name has several addresses the next one is soon tried, too (RFC 8305).

    Prefect's WebSockets, and its PostgreSQL, would wait for the first alone, for longer than they wait at all: where
    that is of a machine that is off, a worker never came to its first job, and said nothing.
    """
    how.setdefault("happy_eyeballs_delay", NEXT_ADDRESS_SECONDS)
    return await _connect(loop, make, host, port, **how)


def environment(settings: Settings) -> dict[str, str]:
    """The variables of Prefect for every process of mkiso; what the administrator has set in the environment already
    stays as it is, but for what the trust in Prefect rests on (docs/decisions/trust-in-prefect.md).

    The reasons are measurements of Prefect 3.8.8, see docs/decisions/prefect.md.
    """
    prefect = settings.prefect
    wanted = {
        "PREFECT_API_URL": api_url(prefect),
        "PREFECT_HOME": str(settings.storage.prefect_dir),
        # Prefect asks for it when it is imported; a container's user may have none.
        "HOME": str(settings.storage.prefect_dir),
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # saves a round trip a client; the server of mkiso has it off as well
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
        # another one, twice a job: all processes are of one installation
        "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(prefect.server_port),
        # Of its two UIs the one that asks nobody outside; and no advertisements in it.
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # No part of mkiso uses blocks, and to write down 54 kinds of them takes half of a first start.
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
        "PREFECT_UI_API_URL": "/api",  # where the UI came from, by whichever name
        # Prefect unpacks its UI beside its own program, where a service may not write (systemd's ProtectSystem).
        "PREFECT_UI_STATIC_DIRECTORY": str(settings.storage.prefect_dir / "ui"),
        "PREFECT_LOGGING_LEVEL": settings.logging.level,
        "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_LOGGING_SETTINGS_PATH": str(files("mkiso_service.prefect") / "logging.yaml"),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_FORMAT": settings.logging.format,
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        # Leases that live in the server's memory are stranded by its restart.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
        # A step's states are written together with what came in the same second, not each in a transaction of its own.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        # They wake whoever waits, and then are only history.
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"PT{int(min(prefect.keep_runs_days, 1) * DAY_SECONDS)}S",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(max(int(prefect.keep_runs_days * DAY_SECONDS), 3601)),
        # The poll is the safety net under the events that wake the worker.
        "PREFECT_WORKER_QUERY_SECONDS": "5",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
    }
    auth = prefect.api_auth_string.get_secret_value()
    fixed = {
        "PREFECT_API_AUTH_STRING": auth,
        "PREFECT_SERVER_API_AUTH_STRING": auth,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{prefect.server_port}",
        **dict.fromkeys(("NO_PROXY", "no_proxy"), _without_proxy(prefect)),
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()} | fixed


def _without_proxy(prefect: Prefect) -> str:
    """The hosts that no proxy is asked for: Prefect's API among them, since its password would go there."""
    kept = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")).split(",")
    own = ("127.0.0.1", "localhost", "::1", urlsplit(api_url(prefect)).hostname or "")
    return ",".join(dict.fromkeys(filter(None, (host.strip() for host in (*kept, *own)))))
