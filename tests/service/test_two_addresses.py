"""A host name of several addresses, the first of them of a machine that is off."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from mkiso.config.settings import Settings
from mkiso.config.storage import Storage
from mkiso_service.prefect.api import PrefectApi
from mkiso_service.prefect.environment import begin_with

SECONDS = 8
"""Less than WebSockets wait for a connection in all (10 s)."""


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As each process of mkiso that knows Prefect begins."""
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", asyncio.BaseEventLoop.create_connection)
    begin_with(Settings(storage=Storage(data_dir=tmp_path)))
    yield
    os.environ.clear()
    os.environ.update(before)


def test_prefects_events_come_from_the_second_address(begun: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, a worker began none of its jobs, and said nothing."""
    with ExitStack() as stack:
        living = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = living.getsockname()[1]
        silent = stack.enter_context(socket.create_server(("127.0.0.2", port), backlog=0))
        for _ in range(4):  # whoever else asks there for a connection gets no answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(silent.getsockname())

        async def both(*_: Any, **__: Any) -> list[Any]:
            kind = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
            return [(*kind, listener.getsockname()) for listener in (silent, living)]

        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", both)

        async def listen() -> None:
            async with PrefectApi.connected(f"http://prefect.example:{port}/api", "") as api:
                async for _ in api.events(["an event"]):
                    pass

        async def ask() -> None:
            listening = asyncio.create_task(listen())
            living.setblocking(False)
            async with asyncio.timeout(SECONDS):
                connection, _ = await asyncio.get_running_loop().sock_accept(living)
            connection.close()
            await asyncio.gather(listening, return_exceptions=True)

        asyncio.run(ask())
