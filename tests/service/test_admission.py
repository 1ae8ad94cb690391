"""Which runs a worker takes, and that a refusal says why and nothing of the run."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.objects import FlowRun, FlowRunPolicy
from prefect.client.schemas.responses import DeploymentResponse

from mkiso.config.settings import Settings
from mkiso.study.question import Question
from mkiso_service.worker.admission import NotAdmitted, admitted
from mkiso_service.worker.deployments import Deployment, deployments

OWN = {each.name: each for each in deployments(Settings().archive)}
DEPLOYMENT, QUEUE, OTHER = UUID(int=1), UUID(int=2), UUID(int=3)
PARAMETERS: dict[str, dict[str, Any]] = {
    "download": {"accession_numbers": ["A1", "A2"]},
    "print": {"accession_numbers": ["A1"], "publisher": "rimage", "confirm_reprint": True},
    "inbox": {"inbox": "BURN_CT", "study_instance_uid": "1.2.3", "accession_numbers": ["A1"], "after": ""},
    "nightly": {"date_from": "2030-01-01", "date_to": None, "dry_run": True},
    "housekeeping": {},
}


def deployment(name: str = "download", **edited: Any) -> DeploymentResponse:
    """As Prefect has it after mkiso deployed it."""
    ours = OWN.get(name, OWN["download"])
    told = {
        "id": DEPLOYMENT, "name": name, "entrypoint": ours.entrypoint, "pull_steps": [], "job_variables": {},
        "storage_document_id": None, "infrastructure_document_id": None, "work_pool_name": "mkiso",
        "work_queue_name": ours.queue, "work_queue_id": QUEUE,
    }  # fmt: skip
    return DeploymentResponse.model_construct(**{**told, **edited})


def run(name: str = "download", **edited: Any) -> FlowRun:
    told = {
        "deployment_id": DEPLOYMENT, "work_queue_id": QUEUE, "job_variables": {}, "infrastructure_document_id": None,
        "parent_task_run_id": None, "parameters": PARAMETERS[name], "tags": [],
        "empirical_policy": FlowRunPolicy(),
    }  # fmt: skip
    return FlowRun.model_construct(**{**told, **edited})


def refused(a_run: FlowRun, of: DeploymentResponse | None) -> str:
    with pytest.raises(NotAdmitted) as caught:
        admitted(a_run, of, OWN, "mkiso")
    words: str = caught.value.words
    assert words.startswith("Refused: ") and "mkiso's page" in words and str(caught.value) == words
    return words


@pytest.mark.parametrize("name", sorted(OWN))
def test_our_own_runs_are_taken(name: str) -> None:
    assert admitted(run(name), deployment(name), OWN, "mkiso") is OWN[name]
    assert admitted(
        run(name, job_variables=None, tags=["urgent", name]),
        deployment(name, pull_steps=None, job_variables=None),
        OWN,
        "mkiso",
    )
    assert admitted(run(name), deployment(name, work_pool_name="other"), OWN, "other") is OWN[name]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("print", {"accession_numbers": ["A1"]}),
        ("nightly", {}),
        ("nightly", {"date_from": "2030-01-01"}),
        ("download", {"accession_numbers": ["ก1"]}),
    ],
    ids=str,
)
def test_what_custom_run_and_schedules_ask_is_taken(name: str, parameters: dict[str, Any]) -> None:
    assert admitted(run(name, parameters=parameters), deployment(name), OWN, "mkiso") is OWN[name]


def test_a_run_of_no_deployment_or_of_a_stranger_s_is_refused() -> None:
    assert "none of mkiso's deployments" in refused(run(), None)
    for name in ("", "shell", "Download", "make_disc/download"):
        assert "none of mkiso's deployments" in refused(run(), deployment(name))


@pytest.mark.parametrize(
    ("edited", "words"),
    [
        ({"entrypoint": "flows.print.print_disc"}, "names another flow"),
        ({"entrypoint": "evil.py:make_disc"}, "names another flow"),
        ({"entrypoint": None}, "names another flow"),
        ({"pull_steps": [{"prefect.deployments.steps.run_shell_script": {"script": "id"}}]}, "pull steps"),
        ({"job_variables": {"env": {"MKISO__PACS__HOST": "evil"}}}, "deployment has job variables"),
        ({"job_variables": {"command": "id"}}, "deployment has job variables"),
        ({"storage_document_id": OTHER}, "storage or infrastructure"),
        ({"infrastructure_document_id": OTHER}, "storage or infrastructure"),
        ({"work_pool_name": "theirs"}, "another work pool or queue"),
        ({"work_pool_name": None}, "another work pool or queue"),
        ({"work_queue_name": "prints"}, "another work pool or queue"),
        ({"work_queue_name": "default"}, "another work pool or queue"),
        ({"id": OTHER}, "belongs to another deployment"),
    ],
    ids=str,
)
def test_an_edited_deployment_is_refused(edited: dict[str, Any], words: str) -> None:
    assert words in refused(run(), deployment(**edited))


@pytest.mark.parametrize(
    ("edited", "words"),
    [
        ({"deployment_id": OTHER}, "belongs to another deployment"),
        ({"deployment_id": None}, "belongs to another deployment"),
        ({"work_queue_id": OTHER}, "another queue than its deployment"),
        ({"work_queue_id": None}, "another queue than its deployment"),
        ({"job_variables": {"env": {"MKISO__PACS__HOST": "evil"}}}, "it has job variables"),
        ({"infrastructure_document_id": OTHER}, "infrastructure of its own"),
        ({"parent_task_run_id": OTHER}, "part of another run"),
        ({"empirical_policy": FlowRunPolicy(retries=1)}, "retries of its own"),
    ],
    ids=str,
)
def test_a_run_that_brings_more_than_parameters_is_refused(edited: dict[str, Any], words: str) -> None:
    assert words in refused(run(**edited), deployment())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("download", {}),
        ("download", {"accession_numbers": []}),
        ("download", {"accession_numbers": [], "study_uids": []}),
        ("download", {"accession_numbers": [], "series_uids": ["1.2"]}),
        ("download", {"accession_numbers": ["A1"], "series_uids": ["1.2*"]}),
        ("print", {"accession_numbers": ["A1"], "study_uids": ["../1"]}),
        ("download", {"accession_numbers": "A1"}),
        ("download", {"accession_numbers": ["A*"]}),
        ("download", {"accession_numbers": [{"$ref": {"block_document_id": str(OTHER)}}]}),
        ("download", {"accession_numbers": {"__prefect_kind": "jinja", "template": "{{ x }}"}}),
        ("download", {"accession_numbers": ["A1"], "publisher": "rimage"}),
        ("inbox", {"inbox": "BURN_CT", "study_instance_uid": "../1", "accession_numbers": []}),
        ("inbox", {"inbox": "BURN_CT", "study_instance_uid": "1.2", "accession_numbers": ["A1", "A2"]}),
        ("inbox", {"inbox": "BURN_CT", "study_instance_uid": "1.2", "accession_numbers": [], "publisher": "rimage"}),
        ("print", {"accession_numbers": ["A1"], "publisher": ["rimage"]}),
        ("print", {"accession_numbers": ["A1"], "confirm_reprint": "yes"}),
        ("nightly", {"date_from": 1}),
        ("nightly", {"dry_run": None}),
        ("housekeeping", {"data_dir": "/"}),
    ],
    ids=str,
)
def test_parameters_that_the_flow_does_not_take_are_refused_and_not_told(name: str, parameters: dict[str, Any]) -> None:
    words = refused(run(name, parameters=parameters), deployment(name))
    assert "doesn't take these parameters" in words and "A1" not in words


def tag(kind: Any, *numbers: str, publisher: str = "", anew: bool = False) -> str:
    return Question(kind, numbers, publisher, anew).tag


def test_the_tag_of_a_question_is_that_of_its_parameters() -> None:
    right = tag("download", "A2", "A1")
    assert admitted(run(tags=[right, "urgent"]), deployment(), OWN, "mkiso")
    assert admitted(
        run("print", tags=[tag("print", "A1", publisher="rimage", anew=True)]), deployment("print"), OWN, "mkiso"
    )
    for tags in ([tag("download", "B1")], [right, tag("download", "B1")], ["question:"], [tag("print", "A1", "A2")]):
        assert "another question" in refused(run(tags=tags), deployment())
    for tags in ([tag("print", "A1", publisher="rimage")], [tag("print", "A1", anew=True)], [right]):
        assert "another question" in refused(run("print", tags=tags), deployment("print"))
    for name in ("nightly", "housekeeping"):
        assert "another question" in refused(run(name, tags=[right]), deployment(name))


def test_what_we_deploy_is_what_we_take() -> None:
    """A table of our own deployments that is empty takes nothing."""
    with pytest.raises(NotAdmitted):
        admitted(run(), deployment(), {}, "mkiso")
    assert isinstance(OWN["download"], Deployment)
