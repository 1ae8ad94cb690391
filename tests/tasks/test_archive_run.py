"""How a night of the archive ends where the disk of its ledger is full."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from prefect.context import FlowRunContext

import tasks.archive_run as archive_run
from mkiso.config.settings import Settings
from mkiso.errors import StorageFull
from peers.small_disk import fill, small_disk
from tasks.archive_run import ArchiveRun

RUN = "0b0a1b2c-0000-4000-8000-000000000001"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "data", "size=4m") as disk:
        yield disk


@pytest.fixture
def night(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArchiveRun:
    settings = Settings.model_validate(
        {"storage": {"data_dir": disk, "min_free_gib": 0}, "archive": {"directory": tmp_path / "archive"}}
    )
    told: dict[str, Any] = {"flow_run": SimpleNamespace(id=RUN, expected_start_time=datetime.now(UTC))}
    context = FlowRunContext.model_construct(**told)
    monkeypatch.setattr(archive_run, "in_force", lambda: settings)
    monkeypatch.setattr(archive_run, "get_run_context", lambda: context)
    monkeypatch.setattr(archive_run, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(archive_run, "Artifacts", MagicMock())  # Prefect's client would start a server for them
    return ArchiveRun(date(2026, 2, 12), date(2026, 2, 12), dry_run=False)


@pytest.mark.parametrize(
    "fault", [StorageFull("The disk of mkiso is full."), None], ids=["that failed", "that went well"]
)
def test_a_night_whose_ledger_takes_nothing_more_ends_in_words(
    night: ArchiveRun, disk: Path, fault: StorageFull | None
) -> None:
    night.start()
    fill(disk)
    assert night.__exit__(
        type(fault) if fault else None, fault, None
    )  # without __enter__, which makes this process nice
    assert night.state.is_failed()
    assert ("The disk of mkiso is full." if fault else "ledger") in str(night.state.message)


def test_a_night_that_can_make_no_folder_ends_in_words(night: ArchiveRun, disk: Path) -> None:
    """What is no step of it either: Prefect would write the exception's text into its database."""
    (disk / "jobs").touch()
    with pytest.raises(OSError, match="Not a directory") as raised:
        night.start()
    assert night.__exit__(raised.type, raised.value, None)
    assert night.state.is_failed()
    words = str(night.state.message)
    assert "An unexpected fault in mkiso: NotADirectoryError" in words and str(disk) not in words
    assert "No disc was made" not in words  # a night that fails later has made some
