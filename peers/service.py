"""The whole of mkiso as a hospital runs it: `mkiso serve` with a configuration of its own on free ports, driven over
HTTP and Prefect's API.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from peers.nursery import nursery
from peers.patience import LONG, until
from peers.ports import free_port
from peers.process import Child, Process

AE_TITLE = "CDRECORD"


class Service(Process):
    """`mkiso serve`. `pacs` is the (AE title, port) it asks; `sections` are merged into its configuration and win.
    `sources` are what it asks instead of a PACS, each with the same short limits. `warm`: a fork of what has imported
    all (peers/nursery.py), not an interpreter of its own.
    """

    ready_seconds = 3 * LONG
    poll_seconds = 0.1

    def __init__(
        self,
        folder: Path,
        pacs: tuple[str, int],
        sections: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        receiver_port: int = 0,
        sources: Sequence[Mapping[str, Any]] = (),
        warm: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.data_dir = folder / "data"
        self.receiver_port = receiver_port or free_port()
        self.prefect_port = free_port()
        http_port = free_port()
        limits = {"connect_timeout_seconds": 3, "response_timeout_seconds": 8, "back_off_seconds": 0.2}
        configuration: dict[str, Any] = {
            "server": {"port": http_port, "shutdown_grace_seconds": 10, "request_timeout_seconds": 3 * LONG},
            "pacs": {"ae_title": pacs[0], "port": pacs[1], "quiet_timeout_seconds": 3, **limits},
            "receiver": {"ae_title": AE_TITLE, "host": "127.0.0.1", "port": self.receiver_port},
            "storage": {"data_dir": str(self.data_dir), "min_free_gib": 0},
            "prefect": {"server_port": self.prefect_port},
            "logging": {"format": "json"},
        }
        for section, values in (sections or {}).items():
            configuration[section] = {**configuration.get(section, {}), **values}
        if sources:
            del configuration["pacs"]
            configuration["sources"] = [{**limits, **source} for source in sources]
        self.settings = configuration
        self._warm = warm
        self.configuration = folder / "config.yaml"
        self.configuration.write_text(yaml.safe_dump(configuration), encoding="utf-8")
        super().__init__(
            [sys.executable, "-P", "-m", "mkiso_service", "serve"],
            folder / "serve.log",
            port=http_port,
            environment={"MKISO_CONFIG": str(self.configuration)},
        )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=4 * LONG)
        self.prefect = httpx.Client(
            base_url=f"http://127.0.0.1:{self.prefect_port}/api", timeout=LONG, auth=self._with_password
        )

    def begin(self) -> Child:
        """Start it, in an interpreter that has imported all, where it is `warm`."""
        if not self._warm:
            return super().begin()
        self.log_file.touch()
        return nursery.start(["serve"], self.environment, self.log_file)

    @property
    def prefect_password(self) -> str:
        """`user:password` of Prefect's API: the configured one, else the one that the service has made."""
        configured = str(self.settings["prefect"].get("api_auth_string", ""))
        return configured or (self.data_dir / "prefect" / "password").read_text().strip()

    def _with_password(self, request: httpx.Request) -> httpx.Request:
        request.headers["authorization"] = f"Basic {base64.b64encode(self.prefect_password.encode()).decode()}"
        return request

    def is_ready(self) -> bool:
        try:
            if not super().is_ready():
                return False
            health = self.http.get("/api/health").json()
        except (httpx.TransportError, ValueError):
            return False
        told = health.get("dependencies", {})  # another program may answer at its port
        return all(told.get(name, {}).get("ok") for name in ("receiver", "prefect", "worker"))

    def stop(self, seconds: float = LONG) -> None:
        super().stop(seconds)
        self.http.close()
        self.prefect.close()

    def download(self, accession_number: str, **headers: str) -> httpx.Response:
        """What a clerk's browser asks. Returns when the run has ended too, which is a little after its disc was
        here.
        """
        answer = self.http.get("/api/iso/download", params={"accession_number": accession_number}, headers=headers)
        if address := answer.headers.get("content-location"):
            self.run_ended(job_at(address))
        return answer

    def ask(self, path: str, **parameters: str) -> str:
        """Ask without waiting; the job's id. Again where a busy machine's Prefect was too slow to answer."""
        for _ in range(5):
            answer = self.http.get(path, params=parameters, headers={"Prefer": "respond-async"})
            if "orchestrator_unavailable" not in answer.text:
                break
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """What /api/iso/jobs/{id} says."""
        return dict(self.http.get(f"/api/iso/jobs/{job_id}").json())

    def ended(self, job_id: str, seconds: float = 3 * LONG) -> dict[str, Any]:
        """The job once it has ended."""
        return dict(
            self.when(lambda: job if (job := self.job(job_id)).get("state") in ("done", "failed") else None, seconds)
        )

    def run(self, job_id: str) -> dict[str, Any]:
        """The job's flow run as Prefect has it."""
        return dict(self.prefect.get(f"/flow_runs/{job_id}").raise_for_status().json())

    def run_ended(self, job_id: str, seconds: float = 3 * LONG) -> dict[str, Any]:
        """The flow run once its state is final."""

        def final() -> dict[str, Any] | None:
            try:
                run = self.run(job_id)
            except httpx.HTTPError:  # the server is on its way back
                return None
            return run if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

        return dict(self.when(final, seconds, pause=0.15))  # what is final stays, and each look costs the server 10 ms

    def set_state(self, job_id: str, kind: str, name: str) -> None:
        """Set a run's state as the buttons of the Prefect UI do: `SCHEDULED`/`AwaitingRetry` for Retry,
        `CANCELLING`/`Cancelling` for Cancel.
        """
        state = {"type": kind, "name": name, "message": "by hand"}
        self.prefect.post(f"/flow_runs/{job_id}/set_state", json={"state": state, "force": True}).raise_for_status()

    def retry(self, job_id: str) -> None:
        self.set_state(job_id, "SCHEDULED", "AwaitingRetry")

    def cancel(self, job_id: str) -> None:
        self.set_state(job_id, "CANCELLING", "Cancelling")

    def processes(self) -> dict[str, int]:
        """The process ids of what `mkiso serve` runs, by name."""
        states = json.loads((self.data_dir / "processes.json").read_text(encoding="utf-8"))
        return {name: int(state["pid"]) for name, state in states.items() if state["up"]}

    def when(self, wanted: Callable[[], Any], seconds: float = LONG, *, pause: float = 0.05) -> Any:
        """What `wanted` gives, once that is true. Raises TimeoutError with the service's log."""
        return until(wanted, seconds, pause=pause, told=lambda: f"; the service's log ends:\n{self.log()[-4000:]}")


def job_at(address: str) -> str:
    """The job's id in a disc's address, /api/iso/jobs/{id}/disc."""
    return address.split("/")[-2]
