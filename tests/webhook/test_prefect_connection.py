"""Prefect's server closes a connection that nobody used for a while, perhaps as the next question is on its way."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest

from mkiso_service.cli.client import Client, ServiceError
from mkiso_service.prefect import api as prefect_api
from mkiso_service.prefect.api import PrefectApi

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n7"


async def asked(closes: int) -> tuple[list[int], int]:
    """What two questions are answered, the second of which meets so many connections that close on it; and how many
    times a question reached the server.
    """
    reached = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal reached
        while (head := await reader.readuntil(b"\r\n\r\n")) and head:
            await reader.readexactly(2)  # {}
            reached += 1
            if 1 < reached < closes + 2:
                break
            writer.write(ANSWER)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, PrefectApi.connected(url, "") as api:
        return [await api.post("/flow_runs/count", {}) for _ in range(2)], reached


@pytest.mark.parametrize("closes", range(prefect_api.TRIES))
def test_a_connection_that_is_closed_on_a_question_costs_no_answer(closes: int) -> None:
    assert asyncio.run(asked(closes)) == ([7, 7], 2 + closes)


def test_a_server_that_always_closes_is_not_asked_for_ever() -> None:
    with pytest.raises(httpx.TransportError):
        asyncio.run(asked(prefect_api.TRIES))


def test_no_proxy_is_told_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ws_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert asyncio.run(asked(0)) == ([7, 7], 2)
        with pytest.raises(OSError):
            asyncio.run(listened())
        with pytest.raises(ServiceError, match="There is no mkiso"), Client("http://127.0.0.1:1", "key") as client:
            client.jobs()
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


async def listened() -> None:
    async with PrefectApi.connected("http://127.0.0.1:1", "user:password") as api:
        async for _ in api.events(["prefect.flow-run.Completed"]):
            pass
