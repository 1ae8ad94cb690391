"""Each deployment, in the program and in prefect.yaml: its parameters and its schedule are held against its flow."""

from __future__ import annotations

import re
from datetime import datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from cronsim import CronSim
from prefect.utilities.schema_tools.validation import ValidationError, validate

from mkiso.config.archive import Archive
from mkiso.config.settings import Server, Settings
from mkiso_service.prefect.environment import QUEUES
from mkiso_service.prefect.orchestrator import DEPLOYMENTS
from mkiso_service.worker.deployments import Deployment, deployments, parameter_form

FILE = Path(__file__).parents[2] / "deployments" / "prefect.yaml"
WANTED = deployments(Archive())
BY_NAME = {each.name: each for each in WANTED}


def full_name(deployment: Deployment) -> str:
    return f"{deployment.flow.name}/{deployment.name}"


def test_prefect_yaml_says_the_same() -> None:
    told = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    assert told["pull"] == []
    assert told["deployments"] == [
        {
            "name": each.name,
            "entrypoint": each.entrypoint,
            "description": each.description,
            "tags": list(each.tags),
            "parameters": {},
            "enforce_parameter_schema": True,
            "schedules": [{"cron": each.schedule[0], "timezone": each.schedule[1]}] if each.schedule else [],
            "work_pool": {
                "name": Settings().prefect.work_pool,
                "work_queue_name": each.queue,
            },
        }
        for each in WANTED
    ]


@pytest.mark.parametrize("deployment", [each for each in WANTED if each.schedule], ids=lambda each: each.name)
def test_what_has_a_schedule_needs_no_parameters(deployment: Deployment) -> None:
    assert deployment.schedule and not parameter_form(deployment.flow).get("required")
    CronSim(deployment.schedule[0], datetime(2030, 1, 1))


@pytest.mark.parametrize("deployment", WANTED, ids=lambda each: each.name)
def test_every_parameter_says_what_it_is(deployment: Deployment) -> None:
    """The operator sees this in the form of Custom run."""
    for name, entry in parameter_form(deployment.flow)["properties"].items():
        assert len(entry.get("description", "")) > 15, name
        assert entry.get("examples") or "default" in entry, f"the form shows no example of {name}"
        assert entry["title"] != name and entry["title"][0].isupper()
        assert not re.search(r"mkiso\.[a-z_]+\.", entry["description"]), "a module says nothing to an operator"


def test_a_blank_is_no_accession_number() -> None:
    numbers = parameter_form(WANTED[0].flow)["properties"]["accession_numbers"]["items"]["pattern"]
    assert all(re.search(numbers, number) for number in ("A1", " A1 ", "A 1", "1"))
    assert not any(re.search(numbers, number) for number in ("", " ", "   ", "A1,A2", "A*", "A\\B"))


def test_the_webhook_names_deployments_that_exist() -> None:
    assert set(DEPLOYMENTS.values()) <= {full_name(each) for each in WANTED}


def test_every_deployment_has_a_queue_of_its_own_and_clerks_come_first() -> None:
    assert (
        [each.queue for each in WANTED]
        == sorted(QUEUES, key=QUEUES.__getitem__)
        == ["downloads", "prints", "inboxes", "archives", "housekeeping"]
    )


def test_the_archive_runs_by_itself_only_where_it_is_enabled() -> None:
    assert BY_NAME["nightly"].schedule is None
    enabled = Archive(enabled=True, schedule="30 1 * * *", timezone="Asia/Bangkok")
    assert {each.name: each for each in deployments(enabled)}["nightly"].schedule == ("30 1 * * *", "Asia/Bangkok")


@pytest.mark.parametrize(
    "wrong",
    [
        {"accession_numbers": []},
        {"accession_numbers": ["A*"]},
        {"accession_numbers": ["A\\B"]},
        {"accession_numbers": ["12345678901234567"]},
        {"accession_numbers": "A1"},
        {},
        {"accession_numbers": ["A1"], "publisher": "rimage"},
    ],
    ids=str,
)
def test_a_wrong_custom_run_is_refused_by_the_schema(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        validate(wrong, parameter_form(BY_NAME["download"].flow), raise_on_error=True, preprocess=False)


def test_compose_believes_the_nginx_of_its_host_and_nobody_else() -> None:
    compose = yaml.safe_load((FILE.parent / "compose.yaml").read_text(encoding="utf-8"))
    (network,) = compose["networks"]["default"]["ipam"]["config"]
    proxies = yaml.safe_load(compose["services"]["webhook"]["environment"]["MKISO__SERVER__TRUSTED_PROXIES"])
    assert Server(trusted_proxies=proxies).trusted_proxies == (network["gateway"],)
    assert ip_address(network["gateway"]) in ip_network(network["subnet"])
