"""Which runs a worker takes: those of mkiso's own deployments, as mkiso deploys them, with parameters that their flow
takes. Pure.

A run's process is given one of our own flows and its parameters, and nothing else of what Prefect says of the run
(docs/decisions/trust-in-prefect.md). So what is refused here would have no effect; the refusal tells whoever asked for
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jsonschema import Draft202012Validator
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse

from mkiso.study.question import TAG, Question
from mkiso_service.worker.deployments import Deployment, parameter_form

REMEDY = "Ask for a disc on mkiso's page, or by Custom run of mkiso's own deployments. `mkiso deploy` restores these."


class NotAdmitted(Exception):
    """The run isn't one of ours; the words say what is wrong with it and what to do, and hold nothing that the run
    says.
    """

    def __init__(self, reason: str) -> None:
        self.words = f"Refused: {reason}. {REMEDY}"
        super().__init__(self.words)


def admitted(
    run: FlowRun, deployment: DeploymentResponse | None, own: Mapping[str, Deployment], pool: str
) -> Deployment:
    """Our own deployment whose flow the run may run; `own` by name. Raises NotAdmitted."""
    if deployment is None or (ours := own.get(deployment.name)) is None:
        raise NotAdmitted("it belongs to none of mkiso's deployments")
    for reason in (*_of_deployment(deployment, ours, pool), *_of_run(run, deployment), *_of_parameters(run, ours)):
        raise NotAdmitted(reason)
    return ours


def _of_deployment(deployment: DeploymentResponse, ours: Deployment, pool: str) -> Iterator[str]:
    if deployment.entrypoint != ours.entrypoint:
        yield "its deployment names another flow"
    if deployment.pull_steps:
        yield "its deployment has pull steps"
    if deployment.job_variables:
        yield "its deployment has job variables"
    if deployment.storage_document_id or deployment.infrastructure_document_id:
        yield "its deployment has storage or infrastructure of its own"
    if (deployment.work_pool_name, deployment.work_queue_name) != (pool, ours.queue):
        yield "its deployment stands in another work pool or queue"


def _of_run(run: FlowRun, deployment: DeploymentResponse) -> Iterator[str]:
    if run.deployment_id != deployment.id:
        yield "it belongs to another deployment"
    if run.work_queue_id != deployment.work_queue_id:
        yield "it stands in another queue than its deployment"
    if run.job_variables:
        yield "it has job variables"
    if run.infrastructure_document_id:
        yield "it has infrastructure of its own"
    if run.parent_task_run_id:
        yield "it is part of another run"
    if run.empirical_policy.retries:
        yield "it has retries of its own"


def _of_parameters(run: FlowRun, ours: Deployment) -> Iterator[str]:
    if not Draft202012Validator(parameter_form(ours.flow)).is_valid(run.parameters):
        yield "its flow doesn't take these parameters"
        return
    tags = {tag for tag in run.tags if tag.startswith(TAG)}
    if tags and (ours.kind is None or tags != {Question.of_run(ours.kind, run.parameters).tag}):
        yield "its tag is of another question"
