"""Scenario 21: the disk fills up while a job runs. The receiver alone on a full disk is held in
tests/receiver/test_attacks.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peers.corpus import make_ct_series, make_study, ramp
from peers.discs import assert_holds_exactly, extract
from peers.orthanc import Orthanc
from peers.ports import free_port
from peers.service import AE_TITLE, Service
from peers.small_disk import small_disk, use_up_names

pytestmark = [pytest.mark.end_to_end]

DISK_MIB = 64  # Prefect's server copies its pages onto it
IMAGE_MIB = 0.5


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "data", f"size={DISK_MIB}m") as folder:
        yield folder


def test_21_a_disk_that_fills_up_fails_the_job_and_nothing_else(data_dir: Path, tmp_path: Path) -> None:
    """In mid-move (more images than fit) and in mastering (the images fit, the image of the disc doesn't), and where
    not even the job's end finds room; then a small job passes.
    """
    studies = {
        "HUGE1": make_ct_series(tmp_path / "s", "HUGE1", int(DISK_MIB / IMAGE_MIB) + 8, pixels=ramp(512)),
        "LARGE1": make_ct_series(tmp_path / "s", "LARGE1", int(DISK_MIB / IMAGE_MIB * 0.7), pixels=ramp(512)),
        "GOOD1": make_study(tmp_path / "s", "GOOD1"),
    }
    receiver_port = free_port()
    with Orthanc(tmp_path / "orthanc", destinations={AE_TITLE: ("127.0.0.1", receiver_port)}) as orthanc:
        orthanc.store(file for files in studies.values() for file in files)
        sections: dict[str, dict[str, Any]] = {
            "pacs": {"quiet_timeout_seconds": 1, "move_attempts": 2, "back_off_seconds": 0.1},
            "storage": {"data_dir": str(data_dir), "keep_failed_hours": 0},
        }
        # Prefect has a disk of its own here: what is tried is a store that fills up beside a whole orchestrator.
        asked = (orthanc.ae_title, orthanc.port)
        service = Service(tmp_path / "mkiso", asked, sections, receiver_port=receiver_port, warm=True)
        service.environment["PREFECT_HOME"] = str(service.data_dir / "prefect")
        service.data_dir = data_dir
        with service:
            for accession_number in ("HUGE1", "LARGE1"):
                refused = service.download(accession_number)
                assert (refused.status_code, refused.json()["code"]) == (503, "storage_full"), refused.text
                assert "disk of mkiso is full" in refused.json()["error"] and "retry-after" in refused.headers
                run = service.run_ended(refused.json()["job_id"])
                told = f"{refused.json()['error']} [storage_full]"
                assert (run["state_type"], run["state"]["message"]) == ("FAILED", told)
                nothing_left(data_dir)
            assert "a700" in orthanc.log().lower(), "the PACS wasn't told why"
            assert "A700, it can't be written: No space left on device" in service.log()

            names = use_up_names(data_dir)  # and nothing can be written down of how the job ends
            left = unheard(service)
            for name in names:
                name.unlink()
            service.retry(left)
            assert service.run_ended(left)["state_type"] == "COMPLETED"

            answer = service.download("GOOD1")
            assert answer.status_code == 200, answer.text
            (tmp_path / "disc.iso").write_bytes(answer.content)
            assert_holds_exactly(extract(tmp_path / "disc.iso", tmp_path / "extracted"), studies["GOOD1"])


def unheard(service: Service) -> str:
    """Ask for a disc whose job can't even say beside the discs how it ends; the job's id."""
    refused = service.download("GOOD1")
    assert (refused.status_code, refused.json()["code"]) == (503, "storage_full"), refused.text
    assert "retry-after" in refused.headers
    job_id = str(refused.json()["job_id"])
    run = service.run_ended(job_id)
    assert (run["state_type"], run["state"]["message"]) == ("FAILED", f"{refused.json()['error']} [storage_full]")
    assert service.job(job_id)["error"]["code"] == "storage_full"
    assert not service.http.get("/api/health").json()["dependencies"]["disk"]["ok"]
    return job_id


def nothing_left(disk: Path) -> None:
    assert not [*disk.glob("jobs/*"), *disk.glob("incoming/*"), *disk.rglob("*.iso")]
