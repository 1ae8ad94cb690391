"""The API's description is true: schemathesis asks what it allows and what it forbids of the running webhook."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.generation import GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from starlette.routing import Route

from mkiso.formats.registry import FORMATS
from mkiso.storage.handover import hand_over
from mkiso.study.question import Question
from mkiso_service.prefect.orchestrator import Standing
from mkiso_service.webhook.app import build_app
from tests.webhook.desk import KEY, Desk, Scripts, served, settings_in
from tests.webhook.pacs import with_pacs

DESCRIPTION = yaml.safe_load(files("mkiso_service.webhook").joinpath("openapi.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseSchema]:
    folder = tmp_path_factory.mktemp("described")
    configured = settings_in(folder, auth=True)
    scripts = Scripts(configured.storage)

    def script(job_id: str, question: Question) -> Standing:
        if question.seal:
            hand_over(configured.storage, job_id, question.seal, "11111-22222")
        return scripts.done(job_id, question)

    desk = Desk(script)
    with with_pacs(configured, folder / "pacs", "0", "00") as configured, served(configured, desk) as client:
        yield schemathesis.openapi.from_url(str(client.base_url.join("/api/openapi.json")))


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(
    ("path", "method"), [(path, method) for path, each in DESCRIPTION["paths"].items() for method in each]
)
def test_the_webhook_is_as_described(described: BaseSchema, path: str, method: str, mode: GenerationMode) -> None:
    operation = described[path][method.upper()]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=15, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    def ask(case: Case[Any]) -> None:
        # The key is given to what schemathesis leaves it out of, and unknown parameters are ignored on purpose: neither
        # is "accepted wrongly".
        # OpenAPI can't say that one of several parameters is needed, nor that one needs another.
        form = FORMATS.get(str(case.query.get("format")))
        is_alone = form is not None and form.is_encrypted and ("password" not in case.query or "part" in case.query)
        named = any(case.query.get(name) for name in ("accession_number", "accession_numbers", "study_uid"))
        names_none = "/api/iso/" in path and "study_uid" in str(DESCRIPTION["paths"][path]) and not named
        apart = [positive_data_acceptance] if path == "/api/studies" or is_alone or names_none else []
        case.call_and_validate(headers={"X-API-Key": KEY}, excluded_checks=[negative_data_rejection, *apart])

    try:
        ask()
    except Exception as error:
        if type(error).__name__ not in (
            "Unsatisfiable",
            "SkipTest",
        ):  # nothing can be wrong with an address that takes no parameters
            raise


def test_every_address_of_the_api_is_described(tmp_path: Path) -> None:
    app = build_app(settings_in(tmp_path), Desk())
    assert {route.path for route in app.routes if isinstance(route, Route) and route.path.startswith("/api/")} == set(
        DESCRIPTION["paths"]
    )
