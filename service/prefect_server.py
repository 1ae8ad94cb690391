"""The Prefect server of mkiso: Prefect's own, but for two things.

On SQLite, Prefect begins its writing transactions DEFERRED. Where two overlap, SQLite refuses the second at once ("database is locked", no waiting
for busy_timeout), the API answers 503 and its client comes back two seconds later: a clerk in ten waits for that. Begun IMMEDIATE, the second waits
its few milliseconds (docs/decisions/prefect.md has the measurement). And its log looks like all others of mkiso (service/prefect_logging.yaml).

Run as `python -m service.prefect_server`, with the environment of service/orchestration.py.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import uvicorn
from prefect.server.api.server import create_app
from prefect.server.database import dependencies
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.settings import get_current_settings
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

log = logging.getLogger("mkiso.prefect")


class ImmediateSqlite(AioSqliteConfiguration):
    """Prefect's SQLite configuration with every writing transaction begun IMMEDIATE."""

    @asynccontextmanager
    async def begin_transaction(self, session: AsyncSession, with_for_update: bool = False) -> AsyncGenerator[AsyncSessionTransaction, None]:
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def main() -> None:
    """Run the server in this process until SIGTERM."""
    dependencies.AioSqliteConfiguration = ImmediateSqlite  # type: ignore[attr-defined]
    app = create_app(final=True)  # begins the logging, too
    api = get_current_settings().server.api
    log.info("Prefect's server starts on %s port %s.", api.host, api.port)
    uvicorn.run(
        app,
        host=api.host,
        port=api.port,
        timeout_keep_alive=api.keepalive_timeout,
        ws_ping_interval=api.websocket_ping_interval,
        ws_ping_timeout=api.websocket_ping_timeout,
        log_config=None,
        access_log=False,
        server_header=False,
    )


if __name__ == "__main__":
    main()
