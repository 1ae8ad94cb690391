"""Runs of mkiso's Prefect have ids that say their day: else all reports would lie in one folder again."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from mkiso.config.storage import Storage
from mkiso.storage.report_files import ASKED, REPORT, file_of
from peers.ports import free_port
from peers.service import Service


@pytest.mark.peer
def test_what_is_asked_for_now_is_kept_in_the_folder_of_this_day(tmp_path: Path) -> None:
    """Of a PACS that doesn't answer, so that the job ends at once."""
    service = Service(tmp_path, ("NOBODY", free_port()), warm=True)
    days = {datetime.now(UTC).date().isoformat()}
    service.start()
    try:
        began = time.time()
        jobs = [service.ask("/api/iso/download", accession_number=number) for number in ("A1", "A2")]
        for job_id in jobs:
            assert abs((UUID(job_id).int >> 80) / 1000 - began) < 60
            service.ended(job_id)
        assert {job["job"]["job_id"] for job in service.http.get("/api/iso/jobs").json()["jobs"]} == {*jobs}
    finally:
        service.stop()
    storage = Storage(data_dir=service.data_dir)
    days.add(datetime.now(UTC).date().isoformat())
    for job_id in jobs:
        files = [file_of(storage, job_id, suffix) for suffix in (REPORT, ASKED)]
        assert all(file.exists() and file.parent.name in days for file in files)
