"""The Prefect server of `mkiso serve`, on SQLite: Prefect's own, but for one thing.

Prefect begins its writing transactions DEFERRED. Where two overlap, SQLite refuses the second at once ("database is locked", no waiting for
busy_timeout), the API answers 503 and its client comes back two seconds later: a clerk in ten waits for that. Begun IMMEDIATE, the second waits
its few milliseconds (docs/decisions/prefect.md has the measurement). Run as `python -m service.prefect_server`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prefect.cli import app
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


class ImmediateSqlite(AioSqliteConfiguration):
    """Prefect's SQLite configuration with every writing transaction begun IMMEDIATE."""

    @asynccontextmanager
    async def begin_transaction(self, session: AsyncSession, with_for_update: bool = False) -> AsyncGenerator[AsyncSessionTransaction, None]:
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def main() -> None:
    """Run the server in this process until SIGTERM."""
    from prefect.server.database import dependencies

    dependencies.AioSqliteConfiguration = ImmediateSqlite  # type: ignore[attr-defined]
    sys.argv = ["prefect", "server", "start"]
    app()


if __name__ == "__main__":
    main()
