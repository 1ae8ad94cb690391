"""What must stand in one place only: a key in a file that people read, an address of the webhook."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from starlette.routing import Match, Route

from mkiso.config.settings import Settings
from mkiso.config.storage import Storage
from mkiso_service.webhook.app import build_app
from tests.webhook.desk import Desk

ROOT = Path(__file__).parents[2]
FILES = sorted(
    file
    for room in ("", "deployments/**/", "docs/**/", "mkiso/**/", "mkiso_service/**/", "peers/**/", "tests/**/")
    for suffix in ("yaml", "yml", "json")  # JSON is YAML
    for file in ROOT.glob(f"{room}*.{suffix}")
    if not file.name.startswith(".") and "node_modules" not in file.parts
)


def twice(text: str) -> list[str]:
    """The keys that stand twice in one mapping, of which a reader takes the last without a word."""
    return [words for document in yaml.compose_all(text, yaml.SafeLoader) if document for words in _twice(document)]


def _twice(node: yaml.Node) -> Iterator[str]:
    if isinstance(node, yaml.MappingNode):
        keys = set()
        for key, value in node.value:
            if key.value in keys:
                yield f"{key.value} in line {key.start_mark.line + 1}"
            keys.add(key.value)
            yield from _twice(value)
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from _twice(each)


def test_a_key_that_stands_twice_is_found() -> None:
    assert twice("a: [{b: 1, c: 2,\n b: 3}]\n---\na: 1\n") == ["b in line 2"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_has_a_key_twice(file: Path) -> None:
    assert twice(file.read_text(encoding="utf-8")) == []


def test_the_files_that_people_configure_are_among_them() -> None:
    assert {"config.example.yaml", "compose.yaml", "prefect.yaml", "openapi.yaml"} <= {file.name for file in FILES}


def test_every_request_has_one_handler(tmp_path: Path) -> None:
    """Starlette takes the first route that fits, so a second one would never be asked."""
    routes = build_app(Settings(storage=Storage(data_dir=tmp_path)), Desk()).routes
    asked = [
        (method, route.path) for route in routes if isinstance(route, Route) for method in sorted(route.methods or ())
    ]
    assert len(asked) > 2 * 20  # GET comes with HEAD
    for method, path in asked:
        scope = {"type": "http", "method": method, "path": path.replace("{", "").replace("}", "")}
        assert [route.path for route in routes if route.matches(scope)[0] is Match.FULL] == [path]  # type: ignore[attr-defined]
