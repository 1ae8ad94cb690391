"""Who can have Prefect do what: nobody without the password, no page of another site, and with the password only what
mkiso itself runs.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

from mkiso.config.file import load
from mkiso_service.worker.deploy import ensure_deployments
from peers.corpus import make_study
from peers.patience import LONG
from tests.end_to_end.conftest import Hospital, Open

pytestmark = [pytest.mark.end_to_end]

WEBSOCKETS = (
    "events/in",
    "events/out",
    "logs/out",
    "task_runs/subscriptions/scheduled",
    "work_pools/mkiso/workers/connect",
)


@pytest.fixture(scope="module")
def hospital(open_hospital: Open, tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    patient = {"connect_timeout_seconds": 3000, "response_timeout_seconds": 3000, "quiet_timeout_seconds": 3000}
    with pytest.MonkeyPatch.context() as environment:  # a minute otherwise, for which a test would wait
        environment.setenv("PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS", "5")
        return open_hospital("dcmqrscp", make_study(tmp_path_factory.mktemp("studies"), "OWN1"), {"pacs": patient})


def address(hospital: Hospital) -> str:
    return f"127.0.0.1:{hospital.service.prefect_port}"


def test_without_the_password_only_health_is_told(hospital: Hospital) -> None:
    with httpx.Client(base_url=f"http://{address(hospital)}/api", timeout=LONG) as anybody:
        assert anybody.get("/health").status_code == anybody.get("/ready").status_code == 200
        for method, path in (
            ("POST", "/deployments/filter"),
            ("POST", "/flow_runs/filter"),
            ("POST", "/deployments/"),
            ("POST", "/work_pools/"),
            ("GET", "/admin/settings"),
            ("POST", "/admin/database/clear"),
            ("POST", "/admin/database/drop"),
            ("POST", "/events/filter"),
            ("GET", "/docs"),
            ("GET", "/openapi.json"),
            ("POST", "/automations/filter"),
            ("POST", "/health"),
            ("GET", "/variables/name/health"),
        ):
            assert anybody.request(method, path, json={}).status_code == 401, path
        for wrong in ("mkiso:wrong", "mkiso:", ":", hospital.service.prefect_password + "x"):
            user, _, password = wrong.partition(":")
            assert anybody.get("/admin/version", auth=(user, password)).status_code == 401
    assert hospital.service.prefect.get("/admin/version").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:1"}, {"host": "evil.example"},
     {"host": "evil.example:4200", "origin": "http://evil.example:4200"}],
    ids=str,
)  # fmt: skip
def test_a_page_of_another_site_gets_nothing_even_with_the_password(
    hospital: Hospital, headers: dict[str, str]
) -> None:
    service = hospital.service
    for path in ("/admin/version", "/health"):
        answer = service.prefect.get(path, headers=headers)
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers, answer.text
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    preflight = service.prefect.options("/deployments/", headers={**headers, **asked})
    assert not preflight.is_success and "access-control-allow-origin" not in preflight.headers
    for path in WEBSOCKETS:
        own = {"Host": headers["host"]} if "host" in headers else {}
        with pytest.raises(InvalidStatus) as refused:
            connect_to(hospital, path, own, headers.get("origin"))
        assert refused.value.response.status_code == 403, path


def connect_to(
    hospital: Hospital, path: str, headers: dict[str, str] | None = None, origin: Any = None, token: str = ""
) -> str:
    """Open a WebSocket of Prefect's API as a page would, show the password, and what is answered to it. Raises
    WebSocketException.
    """
    url = f"ws://{address(hospital)}/api/{path}"
    named = {name: value for name, value in (headers or {}).items() if name != "Host"}
    if headers and "Host" in headers:
        url = f"ws://{headers['Host'].partition(':')[0]}:{hospital.service.prefect_port}/api/{path}"
        import socket

        line = socket.create_connection(("127.0.0.1", hospital.service.prefect_port))
        with line, connect(url, sock=line, origin=origin, subprotocols=["prefect"], additional_headers=named) as there:  # type: ignore[list-item]
            return str(there.recv(timeout=LONG))
    with connect(url, origin=origin, subprotocols=["prefect"], additional_headers=named) as there:  # type: ignore[list-item]
        there.send(json.dumps({"type": "auth", "token": token}))
        return str(there.recv(timeout=LONG))


@pytest.mark.parametrize("path", WEBSOCKETS)
def test_every_websocket_wants_the_password(hospital: Hospital, path: str) -> None:
    with pytest.raises(WebSocketException):
        connect_to(hospital, path, token="mkiso:wrong")
    with pytest.raises(WebSocketException):
        connect_to(hospital, path)
    assert "auth_success" in connect_to(
        hospital, path, token=hospital.service.prefect_password, origin=f"http://{address(hospital)}"
    )


def test_the_password_is_in_no_command_line_no_log_and_no_other_file(hospital: Hospital) -> None:
    service = hospital.service
    assert service.download("OWN1").status_code == 200
    secret = service.prefect_password.partition(":")[2].encode()
    assert secret not in service.log_file.read_bytes()
    for process in (service.pid, *service.processes().values()):
        folder = Path(f"/proc/{process}")
        assert secret not in (folder / "cmdline").read_bytes()
        assert secret not in (folder / "environ").read_bytes()
    holding = [file for file in service.data_dir.rglob("*") if file.is_file() and secret in file.read_bytes()]
    assert holding == [service.data_dir / "prefect" / "password"]
    assert holding[0].stat().st_mode & 0o777 == 0o600 and holding[0].stat().st_uid == os.getuid()
    settings = service.prefect.get("/admin/settings")
    assert settings.is_success and secret not in settings.content


def test_doctor_and_the_command_that_shows_it_know_the_password(hospital: Hospital) -> None:
    mkiso = [sys.executable, "-P", "-m", "mkiso_service", "-c", str(hospital.service.configuration)]
    told = subprocess.run([*mkiso, "doctor"], capture_output=True, text=True, check=False, timeout=2 * LONG).stdout
    assert [line for line in told.splitlines() if line.startswith("ok") and "Prefect 3." in line], told
    shown = subprocess.run(
        [*mkiso, "prefect", "password"], capture_output=True, text=True, check=True, timeout=2 * LONG
    )
    assert shown.stdout.strip() == hospital.service.prefect_password


def test_the_ui_is_reached_by_any_name_of_the_machine_and_asks_for_the_password(hospital: Hospital) -> None:
    for name in ("127.0.0.1", "localhost"):
        told = httpx.get(f"http://{name}:{hospital.service.prefect_port}/ui-settings", timeout=LONG).json()
        assert (told["api_url"], told["auth"], told["available_uis"]) == ("/api", "BASIC", ["v1"])
    unpacked = hospital.service.data_dir / "prefect" / "ui"
    assert {file.parent.name for file in unpacked.glob("*/index.html")} == {"v1"}, "mkiso's own folder"


class Stranger:
    """Somebody who has the password, and would have the worker run more than mkiso's own flows."""

    def __init__(self, hospital: Hospital, marker: Path) -> None:
        self.service = hospital.service
        self.api = hospital.service.prefect
        self.marker = marker
        self.steps = [{"prefect.deployments.steps.run_shell_script": {"script": f"touch {marker}"}}]

    def deployment(self, name: str) -> dict[str, Any]:
        [found] = [
            each
            for each in self.api.post("/deployments/filter", json={}).raise_for_status().json()
            if each["name"] == name
        ]
        return dict(found)

    def deploy(self, name: str, **more: Any) -> str:
        """A deployment of this name in mkiso's pool; mkiso's own where it has that name."""
        own = self.deployment("download")
        kept = {
            key: own[key]
            for key in (
                "flow_id",
                "entrypoint",
                "work_pool_name",
                "work_queue_name",
                "parameter_openapi_schema",
                "tags",
            )
        }
        answer = self.api.post("/deployments/", json={**kept, "enforce_parameter_schema": False, "name": name, **more})
        return str(answer.raise_for_status().json()["id"])

    def start(self, deployment_id: str, **more: Any) -> str:
        wanted = {
            "parameters": {"accession_numbers": ["OWN1"]},
            "state": {"type": "SCHEDULED"},
            "enforce_parameter_schema": False,
            **more,
        }
        return str(
            self.api.post(f"/deployments/{deployment_id}/create_flow_run", json=wanted).raise_for_status().json()["id"]
        )

    def is_refused(self, run_id: str, words: str) -> None:
        run = self.service.run_ended(run_id)
        assert (run["state_type"], run["state_name"]) == ("FAILED", "Refused"), run["state"]
        assert words in run["state"]["message"]
        assert not self.marker.exists() and not (self.service.data_dir / "jobs" / run_id).exists()


@pytest.fixture
def stranger(hospital: Hospital, tmp_path: Path) -> Iterator[Stranger]:
    yield Stranger(hospital, tmp_path / "a-stranger-was-here")
    service = hospital.service
    api = {PREFECT_API_URL: str(service.prefect.base_url), PREFECT_API_AUTH_STRING: service.prefect_password}
    with temporary_settings(api):  # as `mkiso deploy` does
        asyncio.run(ensure_deployments(load(service.configuration, {})))
    assert hospital.service.download("OWN1").status_code == 200, "mkiso's own don't run any more"


def test_a_deployment_of_a_stranger_is_refused(stranger: Stranger) -> None:
    run_id = stranger.start(stranger.deploy("shell", pull_steps=stranger.steps))
    stranger.is_refused(run_id, "none of mkiso's deployments")
    stranger.service.retry(run_id)
    stranger.service.when(lambda: "Refused" in stranger.service.run(run_id)["state_name"])
    assert not stranger.marker.exists()


@pytest.mark.parametrize(
    ("edited", "words"),
    [
        ({"pull_steps": "steps"}, "pull steps"),
        ({"entrypoint": "shutil.rmtree"}, "another flow"),
        ({"job_variables": {"env": {"MKISO__PACS__HOST": "192.0.2.1"}}}, "job variables"),
        ({"work_queue_name": "prints"}, "another work pool or queue"),
    ],
    ids=lambda told: "-".join(told) if isinstance(told, dict) else "",
)
def test_our_own_deployment_that_somebody_edited_is_refused(
    stranger: Stranger, edited: dict[str, Any], words: str
) -> None:
    changed = {key: stranger.steps if value == "steps" else value for key, value in edited.items()}
    stranger.is_refused(stranger.start(stranger.deploy("download", **changed)), words)


def test_a_run_with_an_environment_another_question_or_odd_parameters_is_refused(stranger: Stranger) -> None:
    own = stranger.deploy("download")  # without the check of parameters by Prefect itself
    stranger.is_refused(
        stranger.start(own, job_variables={"env": {"MKISO__PACS__HOST": "192.0.2.1"}}), "it has job variables"
    )
    stranger.is_refused(stranger.start(own, tags=["question:0123456789abcdef0123456789abcdef"]), "another question")
    stranger.is_refused(
        stranger.start(own, parameters={"accession_numbers": ["OWN1"], "publisher": "x"}),
        "doesn't take these parameters",
    )
    block = {"accession_numbers": {"$ref": {"block_document_id": "123e4567-e89b-12d3-a456-426614174000"}}}
    stranger.is_refused(stranger.start(own, parameters=block), "doesn't take these parameters")


def test_a_run_of_no_deployment_is_refused(stranger: Stranger) -> None:
    own = stranger.deployment("download")
    queue = stranger.api.get("/work_pools/mkiso/queues/downloads").raise_for_status().json()
    wanted = {"flow_id": own["flow_id"], "parameters": {"accession_numbers": ["OWN1"]}, "state": {"type": "SCHEDULED"}}
    run = (
        stranger.api.post("/flow_runs/", json={**wanted, "work_pool_name": "mkiso", "work_queue_name": queue["name"]})
        .raise_for_status()
        .json()
    )
    stranger.is_refused(run["id"], "none of mkiso's deployments")


def test_what_a_deployment_says_when_a_run_of_it_is_cancelled_is_not_run(
    hospital: Hospital, stranger: Stranger
) -> None:
    """The worker calls the hook that clears the job's folder: of our flow, and not by what Prefect says of its
    deployment by then.
    """
    service = hospital.service
    hospital.pacs.pause()
    try:
        job_id = service.ask("/api/iso/download", accession_number="OWN1")
        service.when(
            lambda: service.run(job_id)["state_type"] == "RUNNING" and (service.data_dir / "jobs" / job_id).exists()
        )
        stranger.deploy("download", pull_steps=stranger.steps, entrypoint="shutil.rmtree")
        service.cancel(job_id)
        assert service.run_ended(job_id)["state_type"] == "CANCELLED"
        service.when(lambda: not (service.data_dir / "jobs" / job_id).exists())
    finally:
        hospital.pacs.resume()
    assert not stranger.marker.exists()


def test_an_environment_in_the_work_pool_changes_nothing(stranger: Stranger) -> None:
    pool = stranger.api.get("/work_pools/mkiso").raise_for_status().json()
    template = pool["base_job_template"]
    template["job_configuration"]["env"] = {
        "MKISO__PACS__HOST": "192.0.2.1",
        "PREFECT__FLOW_ENTRYPOINT": "shutil.rmtree",
    }
    template["job_configuration"]["command"] = f"touch {stranger.marker}"
    stranger.api.patch("/work_pools/mkiso", json={"base_job_template": template}).raise_for_status()
    assert (
        stranger.service.run_ended(stranger.start(stranger.deployment("download")["id"]))["state_type"] == "COMPLETED"
    )
    assert not stranger.marker.exists()


class Touch:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_pickled_result_of_a_stranger_is_read_by_nobody(stranger: Stranger, tmp_path: Path) -> None:
    result = tmp_path / "result"
    metadata = {
        "storage_key": str(result),
        "serializer": {"type": "pickle"},
        "storage_block_id": None,
        "expiration": None,
    }
    record = {"metadata": metadata, "result": base64.b64encode(pickle.dumps(Touch(stranger.marker))).decode()}
    result.write_text(json.dumps(record))
    run_id = stranger.start(stranger.deployment("download")["id"])
    assert stranger.service.run_ended(run_id)["state_type"] == "COMPLETED"
    for name, kind in (("Completed", "COMPLETED"), ("AwaitingRetry", "SCHEDULED")):
        state = {"type": kind, "name": name, "data": {"type": "resultmetadata", **metadata}}
        stranger.api.post(f"/flow_runs/{run_id}/set_state", json={"state": state, "force": True}).raise_for_status()
    stranger.service.when(lambda: stranger.service.run(run_id)["run_count"] == 2)
    assert stranger.service.run_ended(run_id)["state_type"] == "COMPLETED"
    assert not stranger.marker.exists()


def test_a_schedule_and_a_tag_that_an_operator_adds_are_legal(stranger: Stranger) -> None:
    own = stranger.deployment("download")["id"]
    run_id = stranger.start(own, tags=["urgent"])
    assert stranger.service.run_ended(run_id)["state_type"] == "COMPLETED"
    schedule = {
        "schedule": {"interval": 5, "anchor_date": "2026-01-01T00:00:00Z"},
        "active": True,
        "parameters": {"accession_numbers": ["OWN1"]},
    }
    [added] = stranger.api.post(f"/deployments/{own}/schedules", json=[schedule]).raise_for_status().json()
    wanted = {
        "flow_runs": {"tags": {"all_": ["auto-scheduled"]}, "state": {"type": {"any_": ["COMPLETED"]}}},
        "deployments": {"id": {"any_": [own]}},
    }
    stranger.service.when(lambda: stranger.api.post("/flow_runs/filter", json=wanted).json())
    stranger.api.delete(
        f"/deployments/{own}/schedules/{added['id']}"
    ).raise_for_status()  # else it goes on beside others


def test_a_run_that_still_runs_gets_no_second_process(hospital: Hospital, stranger: Stranger) -> None:
    """Whatever state somebody gives it: two processes would work in one folder, and no other job be fetched."""
    service = hospital.service
    hospital.pacs.pause()
    try:
        job_id = service.ask("/api/iso/download", accession_number="OWN1")
        process = service.when(
            lambda: service.run(job_id)["state_type"] == "RUNNING" and service.run(job_id)["infrastructure_pid"]
        )
        service.retry(job_id)
        others = [stranger.start(stranger.deployment("housekeeping")["id"], parameters={}) for _ in range(3)]
        assert [service.run_ended(other)["state_type"] for other in others] == ["COMPLETED"] * 3
        assert (service.run(job_id)["state_name"], service.run(job_id)["infrastructure_pid"]) == (
            "AwaitingRetry",
            process,
        )
    finally:
        hospital.pacs.resume()
    run = service.run_ended(job_id)
    assert (run["state_type"], run["run_count"], run["infrastructure_pid"]) == ("COMPLETED", 1, process)


def test_what_somebody_removes_from_prefect_comes_back(stranger: Stranger) -> None:
    stranger.api.delete(f"/deployments/{stranger.deployment('download')['id']}").raise_for_status()
    stranger.service.when(lambda: stranger.service.download("OWN1").status_code == 200)
    stranger.api.delete("/work_pools/mkiso").raise_for_status()
    stranger.service.when(lambda: stranger.service.download("OWN1").status_code == 200)


def test_an_operator_pauses_a_queue_and_health_says_so(stranger: Stranger) -> None:
    """Prefect's server tells of it in the middle of the transaction; where that waits for itself, everybody does."""
    queue, health = "/work_pools/mkiso/queues/downloads", stranger.service.http
    stranger.api.patch(queue, json={"is_paused": True}, timeout=50).raise_for_status()  # SQLite gives up after 60
    told = stranger.service.when(
        lambda: (worker := health.get("/api/health").json()["dependencies"]["worker"])["ok"] is False and worker
    )
    assert "Paused in Prefect: downloads." in told["detail"]
    stranger.api.patch(queue, json={"is_paused": False}, timeout=50).raise_for_status()
    stranger.service.when(lambda: health.get("/api/health").json()["dependencies"]["worker"]["ok"])
