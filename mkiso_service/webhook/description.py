"""The OpenAPI description: the addresses of openapi.yaml, with the schemas, limits and codes that the code has."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, get_args

import yaml
from pydantic import TypeAdapter

from mkiso.config.section import TransferSyntax
from mkiso.config.settings import Settings
from mkiso.formats.registry import FORMATS
from mkiso.languages import languages
from mkiso.study.accession import PATTERN, SH_MAX_CHARACTERS
from mkiso.study.selection import MAX_SERIES, UID_CHARACTERS, UID_PATTERN
from mkiso_service.api import MESSAGES
from mkiso_service.webhook.query import BIRTH_DATE_PATTERN, MAX_PART, MAX_SEARCH, SEARCH_PATTERN, SHOWN_PATTERN


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
        parameter["schema"] = {
            "type": "array",
            "items": {"$ref": "#/components/schemas/Uid"},
            "maxItems": most,
        }
    components["parameters"]["part"]["schema"] = {"type": "integer", "minimum": 1, "maximum": MAX_PART}
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
