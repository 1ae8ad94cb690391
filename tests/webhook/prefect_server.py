"""A real Prefect server on a free port with its own home, and deployments that no worker takes, so that a test moves
each run itself.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from mkiso_service.prefect.database import make_database
from peers.nursery import PREFECT_SERVER, nursery
from peers.ports import free_port
from peers.process import Child, Process

AUTH = "mkiso:password-of-a-test"


class PrefectServer(Process):
    """`prefect server start` on SQLite. `warm`: a fork of what has imported it (peers/nursery.py), not an interpreter
    of its own.
    """

    def __init__(self, folder: Path, *, warm: bool = True) -> None:
        port = free_port()
        self.database = folder / "prefect.db"
        make_database(self.database)
        environment = {
            "PREFECT_HOME": str(folder),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_UI_ENABLED": "false",
            "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",  # 54 kinds that nobody here uses
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
            "PREFECT_SERVER_API_AUTH_STRING": AUTH,
        }
        command: list[str | Path] = [Path(sys.executable).with_name("prefect"), *PREFECT_SERVER[1:]]
        super().__init__(command, folder / "server.log", port=port, environment=environment)
        self.api_url = environment["PREFECT_API_URL"]
        self._warm = warm

    def begin(self) -> Child:
        """Start it, in an interpreter that has imported it, where it is `warm`."""
        if not self._warm:
            return super().begin()
        self.log_file.touch()
        return nursery.start(PREFECT_SERVER, self.environment, self.log_file)

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.api_url}/health", timeout=10, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def asked_here(folder: Path) -> Iterator[PrefectServer]:
    """A server that Prefect's own client asks in this process."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    with (
        PrefectServer(folder) as server,
        temporary_settings({PREFECT_API_URL: server.api_url, PREFECT_API_AUTH_STRING: AUTH}),
    ):
        yield server


def deploy(api_url: str) -> None:
    """The two deployments by name, without flows behind them."""

    async def create() -> None:
        from prefect.client.orchestration import PrefectClient
        from prefect.client.schemas.actions import WorkPoolCreate

        async with PrefectClient(api_url, auth_string=AUTH) as client:
            await client.create_work_pool(WorkPoolCreate(name="mkiso", type="process"))
            for flow, name in (("make_disc", "download"), ("print_disc", "print")):
                flow_id = await client.create_flow_from_name(flow)
                await client.create_deployment(flow_id=flow_id, name=name, work_pool_name="mkiso")

    asyncio.run(create())
