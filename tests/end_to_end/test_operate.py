"""The operator's desk: queues in order and bounded, runs refused before they start, deployments by either way, log
lines, metrics.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mkiso_service.prefect.environment import QUEUES, environment
from mkiso_service.prefect.password import with_password
from peers.corpus import make_study
from peers.patience import LONG, until
from peers.ports import free_port
from tests.end_to_end.conftest import Hospital, Open

pytestmark = [pytest.mark.end_to_end]

PREFECT_YAML = Path(__file__).parents[2] / "deployments" / "prefect.yaml"
MOST_WAITING = 2
NAMES = [f"OPS{number}" for number in range(6)]


@pytest.fixture(scope="module")
def hospital(open_hospital: Open, tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    folder = tmp_path_factory.mktemp("studies")
    sections = {
        "server": {"max_running_jobs": 2, "max_queued_jobs": MOST_WAITING, "public_url": "https://discs.example.org/"},
        "pacs": {"connect_timeout_seconds": 60, "response_timeout_seconds": 60},  # while it is paused, jobs wait
        "publishers": {"rimage": {"kind": "cstore", "port": free_port(), "attempts": 1, "connect_timeout_seconds": 1}},
    }
    return open_hospital(
        "orthanc", [file for name in NAMES for file in make_study(folder, name)], sections, verbose=False
    )


def deployments(hospital: Hospital) -> dict[str, dict[str, Any]]:
    return {
        each["name"]: each
        for each in hospital.service.prefect.post("/deployments/filter", json={}).raise_for_status().json()
    }


def run_of(hospital: Hospital, deployment: str, parameters: dict[str, Any]) -> Any:
    """What the UI's Custom run does."""
    address = f"/deployments/{deployments(hospital)[deployment]['id']}/create_flow_run"
    return hospital.service.prefect.post(address, json={"parameters": parameters, "state": {"type": "SCHEDULED"}})


def test_log_lines_of_every_process_are_json_and_a_job_s_name_its_request(hospital: Hospital) -> None:
    answer = hospital.service.download("OPS0", **{"X-Request-ID": "counter-17"})
    assert answer.status_code == 200, answer.text
    job_id = answer.headers["content-location"].split("/")[4]
    assert hospital.service.run_ended(job_id)["state_type"] == "COMPLETED"
    lines = [json.loads(line) for line in hospital.service.log().splitlines()]
    assert {"mkiso.prefect", "mkiso.webhook", "mkiso.receiver.server", "prefect.flow_runs", "prefect.task_runs"} <= {
        line["logger"] for line in lines
    }
    of_job = [line for line in lines if line["logger"] in ("prefect.flow_runs", "prefect.task_runs")]
    assert {(line["job_id"], line["run"], line["request_id"]) for line in of_job} == {
        (job_id, "Disc OPS0", "counter-17")
    }
    assert "Retrieve OPS0: done" in {line["message"] for line in of_job}
    assert not [line for line in lines if line["logger"].startswith(("httpx", "pynetdicom"))]


def test_each_step_of_a_job_is_shown_with_its_end(hospital: Hospital) -> None:
    job_id = hospital.service.ask("/api/iso/download", accession_number="OPS2")
    assert hospital.service.run_ended(job_id)["state_type"] == "COMPLETED"

    def steps() -> dict[str, str]:
        found = hospital.service.prefect.post("/task_runs/filter", json={"flow_runs": {"id": {"any_": [job_id]}}})
        return {step["name"]: step["state_type"] for step in found.raise_for_status().json()}

    def all_written_down() -> bool:  # which is up to a second later than the run's end
        found = steps()
        return "Retrieve OPS2" in found and set(found.values()) == {"COMPLETED"}

    until(all_written_down, told=lambda: str(steps()))


def test_artifacts_say_what_was_asked_and_link_to_the_disc_as_browsers_reach_it(hospital: Hospital) -> None:
    job_id = hospital.service.ask("/api/iso/download", accession_number="OPS1")
    assert hospital.service.run_ended(job_id)["state_type"] == "COMPLETED"
    found = hospital.service.prefect.post(
        "/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [job_id]}}}
    ).json()
    told = {artifact["key"]: artifact for artifact in found}
    assert told.keys() == {"retrieval", "studies", "disc"}
    assert f"https://discs.example.org/api/iso/jobs/{job_id}/disc" in told["disc"]["data"]
    [row] = json.loads(told["studies"]["data"])
    assert row["accession number"] == "OPS1" and row["expected"] == row["received"]


def test_events_of_runs_are_kept_and_those_of_steps_are_not(hospital: Hospital) -> None:
    def told(prefix: str) -> int:
        found = hospital.service.prefect.post(
            "/events/filter", json={"filter": {"event": {"prefix": [prefix]}}}
        ).raise_for_status()
        return int(found.json()["total"])

    hospital.service.run_ended(hospital.service.ask("/api/iso/download", accession_number="OPS1"))
    hospital.service.when(lambda: told("prefect.flow-run.Completed") or None)
    assert told("prefect.task-run.") == told("prefect.artifact") == 0


def test_metrics_tell_what_the_jobs_took(hospital: Hospital) -> None:
    text = hospital.service.http.get("/metrics").text
    assert 'mkiso_stage_seconds{kind="download",stage="retrieving"}' in text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["mkiso_received_bytes"]) > 1000
    assert float(values["mkiso_orchestrator_up"]) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"accession_numbers": ["A*"]},
        {"accession_numbers": []},
        {},
        {"accession_numbers": "A1"},
        {"accession_numbers": ["OPS1"], "publisher": "x"},
    ],
    ids=str,
)
def test_a_wrong_custom_run_is_refused_before_it_starts(hospital: Hospital, wrong: dict[str, Any]) -> None:
    assert run_of(hospital, "download", wrong).status_code in (409, 422)


def test_schedules_make_runs(hospital: Hospital) -> None:
    wanted = {
        "deployments": {"name": {"any_": ["housekeeping"]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    assert hospital.service.when(lambda: hospital.service.prefect.post("/flow_runs/filter", json=wanted).json())


def test_prefect_deploy_makes_the_same_deployments(hospital: Hospital, tmp_path: Path) -> None:
    def told() -> dict[str, dict[str, Any]]:
        passing = {
            "id",
            "created",
            "updated",
            "updated_by",
            "created_by",
            "status",
            "version",
            "version_id",
            "version_info",
            "last_polled",
            "path",
        }
        found = {
            name: {key: value for key, value in each.items() if key not in passing}
            for name, each in deployments(hospital).items()
        }
        for each in found.values():
            # What fields are called and explained as, and that nothing else may be given, comes with a worker:
            # prefect.yaml has no place for it.
            schema = each.pop("parameter_openapi_schema")
            of_worker = {"title": "", "description": ""}
            each["parameters taken"] = {name: {**entry, **of_worker} for name, entry in schema["properties"].items()}
            each["parameters needed"] = schema.get("required", [])
            schedules = [
                {key: schedule[key] for key in ("schedule", "active", "parameters")} for schedule in each["schedules"]
            ]
            each["schedules"] = [
                {**schedule, "schedule": {key: schedule["schedule"][key] for key in ("cron", "timezone")}}
                for schedule in schedules
            ]
        return found

    before = told()
    from mkiso.config.file import load

    variables = {
        **os.environ,
        **environment(with_password(load(hospital.service.configuration, {}))),
        "PREFECT_HOME": str(tmp_path),
    }
    command = [
        sys.executable,
        "-P",
        "-m",
        "prefect",
        "--no-prompt",
        "deploy",
        "--all",
        "--prefect-file",
        str(PREFECT_YAML),
    ]
    done = subprocess.run(
        command, env=variables, cwd=PREFECT_YAML.parents[1], capture_output=True, text=True, check=False, timeout=LONG
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert told() == before


def test_a_download_goes_first_and_a_full_queue_says_so(hospital: Hospital) -> None:
    """While the PACS is silent two prints hold every place; what waits behind them is fetched by its queue, and more
    than may wait is refused.
    """
    service = hospital.service
    queues = service.prefect.post("/work_pools/mkiso/queues/filter", json={}).json()
    assert {each["name"]: each["priority"] for each in queues if each["name"] in QUEUES} == QUEUES
    hospital.pacs.pause()
    try:
        holding = [service.ask("/api/iso/print", accession_number=name) for name in NAMES[2:4]]
        service.when(lambda: all(service.run(job)["state_type"] == "RUNNING" for job in holding))
        later = service.ask("/api/iso/print", accession_number=NAMES[4])
        archive = (
            run_of(hospital, "nightly", {"date_from": "2001-01-01", "dry_run": True}).raise_for_status().json()["id"]
        )
        first = service.ask("/api/iso/download", accession_number=NAMES[5])
        refused = service.http.get("/api/iso/download", params={"accession_number": NAMES[0]})
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full"), refused.text
        assert int(refused.headers["retry-after"]) > 0
    finally:
        hospital.pacs.resume()
    assert service.run_ended(first)["state_type"] == "COMPLETED"
    for job in (later, archive):
        service.run_ended(job)
        assert fetched(service.log(), first) < fetched(service.log(), job)


def test_housekeeping_runs_and_says_what_it_removed(hospital: Hospital) -> None:
    run = run_of(hospital, "housekeeping", {}).raise_for_status().json()
    assert hospital.service.run_ended(run["id"])["state_type"] == "COMPLETED"
    assert hospital.service.run(run["id"])["name"] == "Housekeeping"
    wanted = {"logs": {"flow_run_id": {"any_": [run["id"]]}}}
    hospital.service.when(
        lambda: any(
            "job folders" in line["message"]
            for line in hospital.service.prefect.post("/logs/filter", json=wanted).json()
        )
    )


def fetched(log: str, job_id: str) -> int:
    """Where in the log the worker fetches a run; runs that are fetched at once may begin in any order."""
    return log.index(f"submitting flow run '{job_id}'")
