"""The description of the API says what the code says: schemas, limits, codes."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mkiso_service.webhook
from mkiso.config.settings import Server, Settings
from mkiso.errors import InvalidRequest, kinds
from mkiso.study.accession import PATTERN, SH_MAX_CHARACTERS, parse_accession_number
from mkiso_service.api import CODES
from mkiso_service.webhook.description import description_of
from mkiso_service.webhook.questions.query import MAX_PART, Query, QueryTooLong

DESCRIPTION = description_of(Settings())


def references(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*map(references, part.values()))
    return set().union(*map(references, part)) if isinstance(part, list) else set()


def test_whatever_is_referred_to_is_described_and_nothing_else() -> None:
    named = {
        f"#/components/{kind}/{name}"
        for kind, each in DESCRIPTION["components"].items()
        if kind != "securitySchemes"
        for name in each
    }
    assert references(DESCRIPTION) == named


def test_every_code_of_an_error_is_described() -> None:
    described = set(DESCRIPTION["components"]["schemas"]["Error"]["properties"]["code"]["enum"])
    answered: set[object] = {kind.code for kind in kinds()} | {QueryTooLong.code}
    for file in Path(mkiso_service.webhook.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "error_answer":
                answered |= {code.value for code in node.args[2:3] if isinstance(code, ast.Constant)}
            if isinstance(node, ast.Dict):
                told = zip(map(ast.unparse, filter(None, node.keys)), node.values, strict=False)
                answered |= {value.value for key, value in told if key == "'code'" and isinstance(value, ast.Constant)}
    assert answered <= described == set(CODES)
    assert len(answered) > len(list(kinds())) + 4


@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=SH_MAX_CHARACTERS))
def test_an_accession_number_is_taken_exactly_where_it_is_described(text: str) -> None:
    try:
        parse_accession_number(text)
    except InvalidRequest:
        assert not re.search(PATTERN, text)
    else:
        assert re.search(PATTERN, text)


def test_the_limits_are_those_of_the_code() -> None:
    schemas = description_of(Settings(server=Server(max_accessions=7)))["components"]["schemas"]
    assert schemas["AccessionNumbers"]["maxItems"] == 7
    with pytest.raises(InvalidRequest):
        parse_accession_number("1" * (schemas["AccessionNumber"]["maxLength"] + 1))
    part = DESCRIPTION["components"]["parameters"]["part"]["schema"]
    assert Query(f"part={part['maximum']}".encode()).part() == MAX_PART
    for beyond in (part["minimum"] - 1, part["maximum"] + 1):
        with pytest.raises(InvalidRequest):
            Query(f"part={beyond}".encode()).part()
