"""A job makes, or serves, one set of discs once and for all: what its address has promised is never exchanged."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from prefect.context import FlowRunContext

import flows.download
import tasks.job_run as job_run
from mkiso.config.file import load
from mkiso.config.settings import Settings
from mkiso.errors import JobNotFound, StorageFull
from mkiso.letter import letter_of
from mkiso.storage.kept_reports import KeptReports
from mkiso.storage.marks import marks_of
from mkiso.storage.report import FoundStudy, JobReport, read_report, write_report
from mkiso.storage.shelf import Manifest, new_disc_id, remove_old, shelve
from mkiso.study.question import Question
from mkiso.study.selection import EVERYTHING, Selection
from tasks.disc import resume_discs
from tasks.job_run import JobRun

JOB = "0b0a1b2c-0000-4000-8000-000000000001"
OTHER = "0b0a1b2c-0000-4000-8000-000000000002"
IMAGE = b"an image" * 100


def asked(*accession_numbers: str) -> Question:
    return Question("download", accession_numbers, transfer_syntax="as-archived")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "data").mkdir()
    storage = {"data_dir": str(tmp_path / "data"), "min_free_gib": 0}
    (tmp_path / "config.yaml").write_text(json.dumps({"storage": storage}))  # JSON is YAML
    monkeypatch.setenv("MKISO_CONFIG", str(tmp_path / "config.yaml"))
    return load()


@pytest.fixture
def begin(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[], JobRun]:
    told: dict[str, Any] = {"flow_run": SimpleNamespace(id=JOB)}
    context = FlowRunContext.model_construct(**told)
    monkeypatch.setattr(job_run, "get_run_context", lambda: context)
    monkeypatch.setattr(job_run, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(job_run, "Artifacts", MagicMock())
    return lambda: JobRun("download", ["A1"])


@pytest.fixture
def discs(settings: Settings, tmp_path: Path) -> tuple[Manifest, ...]:
    """The set that an earlier attempt of the job has told of before its process was killed."""
    ids = (new_disc_id(), new_disc_id())
    shelved = []
    for number, disc_id in enumerate(ids, start=1):
        image = tmp_path / "disc.iso"
        image.write_bytes(IMAGE)
        now, sha256 = datetime.now(UTC).isoformat(), hashlib.sha256(IMAGE).hexdigest()
        made = Manifest(disc_id, JOB, now, "V", "x.iso", ("A1",), "f", len(IMAGE), sha256, 3, "cd", number, 2)
        shelved.append(shelve(settings.storage, image, made, marks_of(IMAGE)))
    write_report(settings.storage, JobReport(JOB, "download", ("A1",), status="done", disc_ids=ids))
    return tuple(shelved)


def test_a_rerun_of_a_job_that_has_told_of_its_discs_gives_the_same(
    begin: Callable[[], JobRun], settings: Settings, discs: tuple[Manifest, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*_: object) -> None:
        raise AssertionError("the PACS was asked although the discs are there")

    monkeypatch.setattr(flows.download, "JobRun", lambda *_, **__: begin())
    monkeypatch.setattr(flows.download, "resume_discs", resume_discs.fn)
    monkeypatch.setattr(flows.download, "find", unwanted)
    state = flows.download.make_disc.fn(["A1"])
    assert state.is_completed()
    report = read_report(settings.storage, JOB)
    assert (report.status, report.disc_ids) == ("done", tuple(disc.disc_id for disc in discs))


def test_where_they_are_gone_it_makes_no_others(
    begin: Callable[[], JobRun], settings: Settings, discs: tuple[Manifest, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may have the first of them."""
    remove_old(settings.storage, 0)
    monkeypatch.setattr(flows.download, "JobRun", lambda *_, **__: begin())
    monkeypatch.setattr(flows.download, "resume_discs", resume_discs.fn)
    for _ in range(2):
        state = flows.download.make_disc.fn(["A1"])
        assert state.is_failed() and "aren't kept any more" in str(state.message)
        report = read_report(settings.storage, JOB)
        assert (report.status, report.error["code"], len(report.disc_ids)) == ("failed", "job_not_found", 2)


def test_an_attempt_that_fails_before_it_begins_forgets_nothing(
    begin: Callable[[], JobRun], settings: Settings, discs: tuple[Manifest, ...]
) -> None:
    ids = tuple(disc.disc_id for disc in discs)
    with begin():
        raise StorageFull("full")
    assert read_report(settings.storage, JOB).disc_ids == ids
    run = begin()
    assert resume_discs.fn(run) == discs
    remove_old(settings.storage, 0)
    with pytest.raises(JobNotFound):
        resume_discs.fn(run)


def test_a_run_that_asks_for_something_else_by_now_is_not_given_them(
    begin: Callable[[], JobRun], settings: Settings, discs: tuple[Manifest, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is told of the job stays what its discs are."""
    for change in ({"form": "zip"}, {"selection": Selection((), ("1.2.3",))}, {"accession_numbers": ["A1", "B2"]}):
        given: dict[str, Any] = {"accession_numbers": ["A1"], **change}
        with JobRun("download", **given) as run:
            resume_discs.fn(run)
        assert run.state.is_failed() and "asks for something else" in str(run.state.message)
        report = read_report(settings.storage, JOB)
        assert (report.accession_numbers, report.selection, report.format) == (("A1",), EVERYTHING, "iso")
        assert (report.status, KeptReports(settings.storage).sets_told(asked("A1", "B2"))) == ("failed", {})
    assert resume_discs.fn(begin()) == discs


def test_a_rerun_tells_of_the_studies_as_the_attempt_did_that_made_the_discs(
    begin: Callable[[], JobRun], settings: Settings, discs: tuple[Manifest, ...]
) -> None:
    studies = (FoundStudy("A1", "20240229", ("CT",), "Head", 3, 3, study_instance_uid="1.2.3"),)
    told = JobReport(
        JOB,
        "download",
        ("A1",),
        status="done",
        disc_ids=tuple(disc.disc_id for disc in discs),
        studies=studies,
        degraded=("patient_api",),
        is_part=True,
        patient_id="HN-1",
        patient_name="Example^Anna",
    )
    write_report(settings.storage, told)
    for _ in range(2):
        with begin() as run:
            run.start()
        report = read_report(settings.storage, JOB)
        assert (report.studies, report.degraded, report.is_part) == (studies, ("patient_api",), True)
        letter = letter_of(report, settings.disc, "", has_pages=True)
        assert (letter.studies, letter.patient_name, letter.is_part) == (studies, "Example, Anna", True)


def test_the_sets_that_a_question_was_told_of(settings: Settings, discs: tuple[Manifest, ...]) -> None:
    storage, first = settings.storage, discs[0].disc_id
    assert KeptReports(storage).sets_told(asked("A1")) == {first: JOB}
    write_report(storage, JobReport(OTHER, "download", ("B2", "A1"), status="done", disc_ids=("x", "y")))
    (storage.reports_dir / "123e4567-e89b-12d3-a456-426614174000.json").write_text("{")
    (storage.reports_dir / "no report.json").write_text("{}")
    assert KeptReports(storage).sets_told(asked("A1")) == {first: JOB}
    for numbers in (("A1", "B2"), ("B2", "A1", "B2")):
        assert KeptReports(storage).sets_told(asked(*numbers)) == {"x": OTHER}
    assert KeptReports(storage).sets_told(asked("C3")) == {}
    write_report(storage, JobReport(OTHER, "download", ("A1",), status="done", disc_ids=("z",), inbox="BURN"))
    assert KeptReports(storage).sets_told(asked("A1")) == {first: JOB}
