"""What a job orders of a publisher, and the words for what came of it, without Prefect."""

from __future__ import annotations

from pathlib import Path

import pytest

from mkiso.config.settings import Settings
from mkiso.errors import JobNotFound
from mkiso.housekeeping import forget_cancelled
from mkiso.publishers.orders import images_of, proved_by, study_order, words_of
from mkiso.publishers.protocol import Proves, Receipt
from mkiso.storage.job import Job
from mkiso.storage.report import JobReport, read_report, write_report
from peers.corpus import make_study
from tests.media.discs import instances, passed

JOB = "0b0a1b2c-0000-4000-8000-000000000001"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    sections = {
        "storage": {"data_dir": str(tmp_path / "data")},
        "publishers": {"rimage": {"copies": 3, "medium": "dvd"}},
        "disc": {"institution": "St. Elsewhere"},
    }
    job = Job(JOB, "print", Settings.model_validate(sections))
    job.open()
    return job


def test_an_order_has_every_image_and_what_its_publisher_is_set_to(job: Job, tmp_path: Path) -> None:
    studies = passed(instances(make_study(tmp_path / "in", "A1", kinds={"ct": 3})))
    order = study_order(job, "rimage", studies)
    assert (order.job_id, order.accession_numbers, order.copies, order.medium) == (JOB, ("A1",), 3, "dvd")
    assert (order.institution, order.patient) == ("St. Elsewhere", studies.patient)
    assert [each.sop_instance_uid for each in order.instances] == [
        each.arrival.sop_instance_uid for each in studies.instances
    ]
    assert images_of([order, order]) == 6


@pytest.mark.parametrize(
    ("each", "all_of_them", "said"),
    [
        (["done", "done"], "done", "reports the disc as made"),
        (["done", "queued"], "queued", "doesn't tell when a disc is made"),
    ],
)
def test_a_set_is_made_when_each_of_its_discs_is(each: list[Proves], all_of_them: Proves, said: str) -> None:
    proves = proved_by([Receipt("rimage", JOB, one, 3, "sent") for one in each])
    assert proves == all_of_them
    assert said in words_of("rimage", [], proves)


def test_of_a_cancelled_job_only_its_report_stays(job: Job) -> None:
    storage = job.settings.storage
    write_report(storage, JobReport(JOB, "print", ("A1",)))
    forget_cancelled(job)
    assert not job.folder.exists()
    report = read_report(storage, JOB)
    assert (report.status, report.error["code"]) == ("failed", "job_cancelled")


def test_a_job_that_was_cancelled_before_it_began_gets_no_report(job: Job) -> None:
    forget_cancelled(job)
    with pytest.raises(JobNotFound):
        read_report(job.settings.storage, JOB)
