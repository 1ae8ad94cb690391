"""A worker's places for runs: each is free again, also where its run comes to nothing before it began."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from peers.link import Link
from peers.patience import LONG, until
from peers.warm import Warm
from tests.webhook.prefect_server import AUTH, PrefectServer

pytestmark = pytest.mark.peer


def test_a_deployment_removed_while_its_run_is_fetched_costs_no_place(tmp_path: Path) -> None:
    """Of one place: before, nothing was run any more until the worker was started again."""
    (tmp_path / "prefect").mkdir()
    configuration = tmp_path / "config.yaml"
    with (
        PrefectServer(tmp_path / "prefect") as server,
        Link(int(server.api_url.rpartition(":")[2].partition("/")[0])) as link,
        httpx.Client(base_url=server.api_url, auth=tuple(AUTH.split(":")), timeout=LONG) as prefect,  # type: ignore[arg-type]
    ):
        settings = {
            "prefect": {"api_url": f"http://127.0.0.1:{link.port}/api", "api_auth_string": AUTH},
            "server": {"max_running_jobs": 1, "shutdown_grace_seconds": 1},
            "storage": {"data_dir": str(tmp_path / "data")},
            "disc": {"pictures": "none"},
        }
        configuration.write_text(yaml.safe_dump(settings))

        def told(method: str, address: str, body: Mapping[str, Any] | None = None) -> Any:
            """Again where others write just now, or nothing is there yet: this is Prefect's own server."""

            def answer() -> httpx.Response | None:
                answer = prefect.request(method, address, json=body)
                return answer if answer.is_success else None

            found: httpx.Response = until(answer)
            return found.json() if found.content else None

        def deployment(name: str) -> str:
            return str(told("GET", f"/deployments/name/{name}")["id"])

        def run(of: str, parameters: Mapping[str, Any] | None = None) -> str:
            return str(told("POST", f"/deployments/{of}/create_flow_run", {"parameters": parameters or {}})["id"])

        with Warm(["worker"], tmp_path / "worker.log", environment={"MKISO_CONFIG": str(configuration)}):
            removed, another = deployment("keep_house/housekeeping"), deployment("make_disc/download")
            link.hush_at = f"GET /api/deployments/{removed} ".encode()
            run(removed)
            assert link.hushed.wait(LONG)
            told("DELETE", f"/deployments/{removed}")
            link.hush_at = b""
            link.mend()
            next_one = run(another, {"accession_numbers": ["A1"]})  # of no PACS
            until(lambda: told("GET", f"/flow_runs/{next_one}")["state_type"] == "FAILED")
