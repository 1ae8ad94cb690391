"""The Prefect server of `mkiso serve`, on SQLite: Prefect's own, but for one thing.

Prefect begins its writing transactions DEFERRED. Where two overlap, SQLite refuses the second at once ("database is locked", no waiting for
busy_timeout), the API answers 503 and its client comes back two seconds later: a clerk in ten waits for that. Begun IMMEDIATE, the second waits
its few milliseconds (docs/decisions/prefect.md has the measurement). Run as `python -m service.prefect_server`.
"""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager

from prefect.cli import app
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


class ImmediateSqlite(AioSqliteConfiguration):
    """Prefect's SQLite configuration with every writing transaction begun IMMEDIATE."""

    def begin_transaction(self, session: AsyncSession, with_for_update: bool = False) -> AbstractAsyncContextManager[AsyncSessionTransaction]:
        return super().begin_transaction(session, with_for_update=True)


def main() -> None:
    """Run the server in this process until SIGTERM."""
    from prefect.server.database import dependencies

    dependencies.AioSqliteConfiguration = ImmediateSqlite  # type: ignore[attr-defined,misc]
    sys.argv = ["prefect", "server", "start"]
    app()


if __name__ == "__main__":
    main()
