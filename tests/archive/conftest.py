"""Every test that asks for `settings` or `ledger` runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from mkiso.archive.ledger import Ledger
from mkiso.config import Settings
from tests.archive.postgresql import BIN, PostgreSQL, running_postgresql


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    if not (BIN / "initdb").exists():
        pytest.skip("PostgreSQL isn't installed")
    with running_postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peer)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = request.getfixturevalue("postgresql").database(f"ledger_{uuid4().hex}") if request.param == "postgresql" else ""
    return Settings.model_validate({"storage": {"data_dir": tmp_path / "data"}, "archive": {"ledger_url": url, "directory": tmp_path / "archive"}})


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with Ledger.open(settings) as ledger:
        yield ledger
