"""A worker whose Prefect server fails for longer than Prefect's own loops bear it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import yaml
from prefect._internal.observers import FlowRunCancellingObserver
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from mkiso_service.worker import loops  # noqa: F401
from peers.link import Link
from peers.patience import LONG, until
from peers.warm import Warm
from tests.webhook.prefect_server import AUTH, PrefectServer

pytestmark = pytest.mark.peer

A_DISC = {"parameters": {"accession_numbers": ["A1"]}}
"""Of no PACS, so that its run fails at once."""
FAILURES = 40
"""Prefect's own loops end after 3, or 12, in a row."""


@contextmanager
def failing_server() -> Iterator[tuple[int, list[str]]]:
    """Answers 500, as Prefect does without its database; its port, and the paths that it was asked for."""
    asked: list[str] = []

    class Failing(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(self.path)
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PATCH = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """In silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def reached_by_a_link(folder: Path) -> Iterator[tuple[Link, httpx.Client]]:
    """A Prefect server that is reached by a link; the link, and who asks the server itself."""
    with (
        PrefectServer(folder) as server,
        Link(int(server.api_url.rpartition(":")[2].partition("/")[0])) as link,
        httpx.Client(base_url=server.api_url, auth=tuple(AUTH.split(":")), timeout=LONG) as prefect,  # type: ignore[arg-type]
    ):
        yield link, prefect


def asked(prefect: httpx.Client, method: str, address: str, body: Mapping[str, Any] | None = None) -> Any:
    """Again where others write just now, or nothing is there yet: this is Prefect's own server."""

    def answer() -> httpx.Response | None:
        answer = prefect.request(method, address, json=body)
        return answer if answer.is_success else None

    return until(answer).json()


def configured(folder: Path, link: Link) -> dict[str, str]:
    """A worker's environment, with its configuration."""
    settings = {
        "prefect": {"api_url": f"http://127.0.0.1:{link.port}/api", "api_auth_string": AUTH},
        "server": {"shutdown_grace_seconds": 1},
        "storage": {"data_dir": str(folder / "data")},
        "disc": {"pictures": "none"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return {"MKISO_CONFIG": str(folder / "config.yaml")}


def test_a_worker_outlasts_a_prefect_server_without_its_database(tmp_path: Path) -> None:
    """Before, it ended after four minutes, and its jobs with it."""
    (tmp_path / "prefect").mkdir()
    with reached_by_a_link(tmp_path / "prefect") as (link, prefect), failing_server() as (failing, failed):
        environment = {**configured(tmp_path, link), "PREFECT_WORKER_QUERY_SECONDS": "0.05"}
        with Warm(["worker"], tmp_path / "worker.log", environment=environment) as worker:
            download = asked(prefect, "GET", "/deployments/name/make_disc/download")["id"]
            until(lambda: asked(prefect, "POST", "/work_pools/mkiso/workers/filter", {}))
            sound, link.target = link.target, failing
            link.cut()
            until(lambda: sum("get_scheduled_flow_runs" in path for path in failed) > FAILURES, told=worker.log)
            assert worker.child is not None and worker.child.poll() is None
            link.target = sound
            link.cut()
            run = asked(prefect, "POST", f"/deployments/{download}/create_flow_run", A_DISC)["id"]
            until(lambda: asked(prefect, "GET", f"/flow_runs/{run}")["state_type"] == "FAILED", told=worker.log)
        told = worker.log()
        assert asked(prefect, "POST", "/work_pools/mkiso/workers/filter", {}) == []  # it was stopped: nobody misses it
    assert told.count("Prefect can't be asked") <= 4, told  # said once for each of two loops, and each outage
    assert "Traceback" not in told


def test_a_worker_outlasts_an_error_where_it_begins_a_run(tmp_path: Path) -> None:
    """Before, one ended the worker, and all of its jobs with it."""
    (tmp_path / "prefect").mkdir()
    with reached_by_a_link(tmp_path / "prefect") as (link, prefect), failing_server() as (failing, failed):
        with Warm(["worker"], tmp_path / "worker.log", environment=configured(tmp_path, link)) as worker:
            download = asked(prefect, "GET", "/deployments/name/make_disc/download")["id"]
            until(lambda: asked(prefect, "POST", "/work_pools/mkiso/workers/filter", {}))
            link.hush_at = f"GET /api/deployments/{download} ".encode()
            run = asked(prefect, "POST", f"/deployments/{download}/create_flow_run", A_DISC)["id"]
            assert link.hushed.wait(LONG)
            link.hush_at, sound, link.target = b"", link.target, failing
            link.mend()
            link.cut()
            until(lambda: f"/api/deployments/{download}" in failed, told=worker.log)
            link.target = sound
            link.cut()
            until(lambda: asked(prefect, "GET", f"/flow_runs/{run}")["state_type"] == "FAILED", told=worker.log)
            assert worker.child is not None and worker.child.poll() is None
        assert "Traceback" not in worker.log()


def test_a_job_can_be_cancelled_after_prefect_was_away(tmp_path: Path) -> None:
    """Before, after half a minute without it, by no worker that had been there, until it was started again."""
    (tmp_path / "prefect").mkdir()
    cancelled: list[UUID] = []
    with reached_by_a_link(tmp_path / "prefect") as (link, prefect), failing_server() as (failing, failed):
        flow = asked(prefect, "POST", "/flows/", {"name": "a_flow"})["id"]
        run = asked(prefect, "POST", "/flow_runs/", {"flow_id": flow, "state": {"type": "RUNNING"}})["id"]
        cancelling = {"state": {"type": "CANCELLING"}, "force": True}
        sound, link.target = link.target, failing

        async def watch() -> None:
            observer = FlowRunCancellingObserver(
                lambda flow_run_id: cancelled.append(flow_run_id), polling_interval=0.05
            )
            async with observer:
                observer.add_in_flight_flow_run_id(UUID(run))
                await asyncio.to_thread(until, lambda: len(failed) > FAILURES)
                link.target = sound
                await asyncio.to_thread(asked, prefect, "POST", f"/flow_runs/{run}/set_state", cancelling)
                await asyncio.to_thread(until, lambda: cancelled)

        address = f"http://127.0.0.1:{link.port}/api"
        with temporary_settings({PREFECT_API_URL: address, PREFECT_API_AUTH_STRING: AUTH}):
            asyncio.run(watch())
    assert cancelled == [UUID(run)]
