"""The OpenAPI description: the addresses of openapi.yaml, with the schemas, limits and codes that the code has; and the
page that shows it to people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, get_args

import yaml
from markupsafe import Markup, escape
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import HTMLResponse

from mkiso.config.section import TransferSyntax
from mkiso.config.settings import Settings
from mkiso.errors import kinds
from mkiso.formats.registry import FORMATS
from mkiso.languages import languages
from mkiso.study.accession import PATTERN, SH_MAX_CHARACTERS
from mkiso.study.selection import MAX_SERIES, UID_CHARACTERS, UID_PATTERN
from mkiso_service.api import MESSAGES
from mkiso_service.webhook.answers.pages import page_of
from mkiso_service.webhook.questions.query import (
    BIRTH_DATE_PATTERN,
    MAX_ORDERS_TOLD,
    MAX_PART,
    MAX_SEARCH,
    SEARCH_PATTERN,
    SHOWN_PATTERN,
)


def description_of(settings: Settings) -> dict[str, Any]:
    """The description of a webhook with this configuration."""
    text = files("mkiso_service.webhook").joinpath("openapi.yaml").read_text(encoding="utf-8")
    description: dict[str, Any] = yaml.safe_load(text)
    adapters = [(message, "serialization", TypeAdapter(message)) for message in MESSAGES]
    _, schemas = TypeAdapter.json_schemas(adapters, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    number = {"type": "string", "minLength": 1, "maxLength": SH_MAX_CHARACTERS, "pattern": PATTERN}
    numbers = {
        "type": "array",
        "items": {"$ref": "#/components/schemas/AccessionNumber"},
        "minItems": 1,
        "maxItems": settings.server.max_accessions,
    }
    uid = {"type": "string", "minLength": 1, "maxLength": UID_CHARACTERS, "pattern": UID_PATTERN}
    components = description["components"]
    asked = {"AccessionNumber": number, "AccessionNumbers": numbers, "Uid": uid}
    components["schemas"] = {**asked, **schemas["$defs"]}
    for name, most in (("study_uid", settings.server.max_accessions), ("series_uid", MAX_SERIES)):
        parameter = components["parameters"][name]
        parameter["schema"] = {"type": "array", "items": {"$ref": "#/components/schemas/Uid"}, "maxItems": most}
    components["parameters"]["part"]["schema"] = {"type": "integer", "minimum": 1, "maximum": MAX_PART}
    components["parameters"]["orders_told"]["schema"] = {"type": "integer", "minimum": 0, "maximum": MAX_ORDERS_TOLD}
    components["parameters"]["shown"]["schema"]["pattern"] = SHOWN_PATTERN
    components["parameters"]["search"]["schema"] |= {"maxLength": MAX_SEARCH, "pattern": SEARCH_PATTERN}
    components["parameters"]["language"]["schema"]["enum"] = list(languages())
    components["parameters"]["format"]["schema"]["enum"] = list(FORMATS)
    components["parameters"]["transfer_syntax"]["schema"]["enum"] = list(get_args(TransferSyntax))
    bytes_of = {
        form.media_type: {"schema": {"type": "string", "contentMediaType": form.media_type}}
        for form in FORMATS.values()
    }
    for answer in ("Disc", "Part"):
        components["responses"][answer]["content"] = bytes_of
    components["parameters"]["birth_date"] |= {
        "required": settings.identity.confirm_birth_date,
        "schema": {"type": "string", "pattern": BIRTH_DATE_PATTERN},
    }
    if not settings.priors.count:
        components["parameters"]["priors"]["schema"]["enum"] = [False]
    if settings.publishers:
        components["parameters"]["publisher"]["schema"]["enum"] = list(settings.publishers)
    return description


def docs_page(request: Request, description: Mapping[str, Any]) -> HTMLResponse:
    """The OpenAPI description for people: each address, what it takes, and what it answers."""
    return page_of(request, "docs.html", cache_control="no-cache", **_operations(description))


def _operations(description: Mapping[str, Any]) -> dict[str, Any]:
    def resolved(part: Any) -> Any:
        while isinstance(part, Mapping) and "$ref" in part:
            at: Any = description
            for step in part["$ref"].removeprefix("#/").split("/"):
                at = at[step]
            part = at
        return part

    operations = [
        {
            "method": method.upper(),
            "path": path,
            "summary": _marked(told.get("summary", "")),
            "description": _marked(told.get("description", "")),
            "parameters": [
                _parameter(each, resolved(each.get("schema", {})))
                for each in map(resolved, [*methods.get("parameters", ()), *told.get("parameters", ())])
            ],
            "answers": {
                status: _marked(resolved(answer)["description"]) for status, answer in told["responses"].items()
            },
        }
        for path, methods in description["paths"].items()
        for method, told in methods.items()
        if method in ("get", "post")
    ]
    about = _marked(description["info"]["description"])
    return {"about": about, "operations": operations, "codes": kinds()}


def _marked(words: str) -> Markup:
    """Text in which what stands between back quotes is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(words))))  # noqa: S704  escaped before


def _parameter(told: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    marks = ["needed"] * bool(told.get("required")) + ["header"] * (told["in"] == "header")
    words = [told.get("description", "").rstrip(".")]
    if "enum" in schema:
        words.append(f"One of {', '.join(map(str, schema['enum']))}")
    if "maxLength" in schema:
        words.append(f"At most {schema['maxLength']} characters")
    return {
        "name": told["name"],
        "marks": marks,
        "words": _marked(". ".join(filter(None, words))),
        "pattern": schema.get("pattern", ""),
    }
