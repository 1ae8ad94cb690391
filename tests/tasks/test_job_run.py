"""How a job ends where its disk is full: in words, with room for the next one, and never because progress can't be
told.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.context import FlowRunContext
from prefect.exceptions import Abort

import tasks.job_run as job_run
from mkiso.config.disc import Viewer
from mkiso.config.file import load
from mkiso.errors import ConfigurationError, PacsUnreachable
from mkiso.storage.handover import claimed, new_claim, seal_of
from mkiso.storage.report import LOOK_FIRST, read_report
from mkiso.storage.room import UNUSABLE, require_room
from peers.small_disk import fill, read_only, small_disk
from tasks.job_run import JobRun

JOB = "0b0a1b2c-0000-4000-8000-000000000001"
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "data", "size=1m") as disk:
        yield disk


@pytest.fixture
def begun(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], JobRun]]:
    """A job that has begun; its failed folder is kept."""
    storage = {"data_dir": str(disk), "min_free_gib": 0}
    (tmp_path / "config.yaml").write_text(
        json.dumps({"storage": storage, "publishers": {"rimage": {}}})
    )  # JSON is YAML
    monkeypatch.setenv("MKISO_CONFIG", str(tmp_path / "config.yaml"))
    settings = load()
    told: dict[str, Any] = {"flow_run": SimpleNamespace(id=JOB)}
    context = FlowRunContext.model_construct(**told)
    monkeypatch.setattr(job_run, "in_force", lambda: settings)
    monkeypatch.setattr(job_run, "get_run_context", lambda: context)
    monkeypatch.setattr(job_run, "get_run_logger", lambda: logging.getLogger("test"))

    def begin(kind: str, **asked: str) -> JobRun:
        run = JobRun(kind, ["A1"], "rimage" if kind == "print" else "", **asked)  # type: ignore[arg-type]
        run.open()
        return run

    yield begin


def test_a_missing_viewer_is_told_before_the_pacs_is_asked(
    begun: Callable[[str], JobRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load().model_copy(update={"viewer": Viewer(directory=str(tmp_path / "none"))})
    monkeypatch.setattr(job_run, "in_force", lambda: settings)
    with pytest.raises(ConfigurationError, match=r"The viewer's folder .* doesn't exist"):
        begun("download")
    with begun("print") as run:
        assert not run.publisher.needs_image  # it makes its discs itself, without the viewer


@pytest.mark.parametrize("kind", ["download", "print"])
@pytest.mark.parametrize("fault", [FULL, None], ids=["that failed", "that went well"])
def test_a_job_whose_end_cant_be_written_down_ends_in_words(
    begun: Callable[[str], JobRun], disk: Path, kind: str, fault: OSError | None
) -> None:
    run = begun(kind)
    fill(disk)
    with run:
        if fault:
            raise fault
    assert run.state.is_failed() and str(run.state.message).endswith("[storage_full]")
    assert (LOOK_FIRST in str(run.state.message)) == (kind == "print")


def test_a_job_that_filled_the_disk_makes_room_and_keeps_what_a_retry_needs(
    begun: Callable[[str], JobRun], disk: Path
) -> None:
    run = begun("download")
    (run.job.instances_dir / "1.2.3").write_bytes(b"an image")
    (run.job.folder / "arrivals-1.2.jsonl").write_text("{}")
    for folder in (run.job.pictures_dir, run.job.documents_dir, run.job.copies_dir, run.job.converted_dir):
        folder.mkdir()
    for made in ("disc1.iso", "disc2.iso.42.new", "disc/README.TXT", "pictures/pack", "converted/x", "copies/x"):
        (run.job.folder / made).write_bytes(bytes(50_000))
    fill(disk)
    with run:
        raise FULL
    assert read_report(run.settings.storage, JOB).error["code"] == "storage_full"
    left = {str(file.relative_to(run.job.folder)) for file in run.job.folder.rglob("*") if file.is_file()}
    assert left - {"fault.txt"} == {"job.json", "arrivals-1.2.jsonl", "instances/1.2.3"}


@pytest.mark.parametrize("kind", ["download", "print"])
def test_a_job_whose_disk_becomes_read_only_ends_in_words(
    begun: Callable[[str], JobRun], disk: Path, kind: str
) -> None:
    """Before, it was an unexpected fault, whose traceback lay nowhere."""
    run = begun(kind)
    with read_only(disk), run:
        run.job.note(fingerprint="f")
    assert run.state.is_failed() and str(run.state.message).endswith("[storage_unreadable]")
    assert "Read-only file system" in str(run.state.message) and "mkiso doctor" in str(run.state.message)
    assert (LOOK_FIRST in str(run.state.message)) == (kind == "print")


@pytest.mark.parametrize("fault", UNUSABLE)
def test_a_job_whose_files_cant_be_used_may_be_retried(begun: Callable[[str], JobRun], fault: int) -> None:
    run = begun("download")
    with run:
        raise OSError(fault, "x", "/data/of a patient")
    told = read_report(run.settings.storage, JOB).error
    assert (told["code"], told["http_status"]) == ("storage_unreadable", 503)
    assert os.strerror(fault) in told["error"] and "of a patient" not in told["error"]


def test_a_job_whose_images_leave_no_room_for_others_keeps_nothing(
    begun: Callable[[str], JobRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one study that is too large would keep everybody from discs for `storage.keep_failed_hours`."""
    settings = load()
    storage = settings.storage.model_copy(update={"min_free_gib": 0.0005})  # half of the disk
    monkeypatch.setattr(job_run, "in_force", lambda: settings.model_copy(update={"storage": storage}))
    run = begun("download")
    (run.job.instances_dir / "1.2.3").write_bytes(bytes(700_000))
    with run:
        raise FULL
    assert read_report(storage, JOB).error["code"] == "storage_full"
    assert not run.job.folder.exists()
    require_room(storage)


def test_a_job_ends_in_words_though_what_it_made_cant_be_removed(begun: Callable[[str], JobRun]) -> None:
    run = begun("download")
    run.job.image(1, ".iso").mkdir()  # no file, as none that a disk that fails gives up
    with run:
        raise FULL
    assert run.state.is_failed() and str(run.state.message).endswith("[storage_full]")
    assert read_report(run.settings.storage, JOB).status == "failed"


def test_a_job_goes_on_though_nobody_can_be_told_how_far_it_is(begun: Callable[[str], JobRun], disk: Path) -> None:
    run = begun("print")
    with run:
        filler = fill(disk)
        run.tell("ordered", proves="queued")
        run.tell_seldom("rimage: burning (1 of 2)")
        filler.unlink()
        run.tell("done", proves="done")
    assert run.state.is_completed()
    assert read_report(run.settings.storage, JOB).proves == "done"


@pytest.mark.parametrize("fault", [PacsUnreachable("The PACS can't be reached."), None, KeyboardInterrupt()])
def test_a_job_that_another_machine_has_begun_anew_says_nothing_of_its_end(
    begun: Callable[[str], JobRun], fault: BaseException | None
) -> None:
    """The other one had the disc printed, and this one would say that there is none."""
    lost = begun("print")
    anew = begun("print")
    with anew:
        pass
    with pytest.raises(Abort), lost:
        if fault:
            raise fault
    assert anew.state.is_completed()
    assert read_report(lost.settings.storage, JOB).status == "done"


def test_the_password_is_that_of_the_attempt_whose_discs_the_job_has(begun: Callable[..., JobRun]) -> None:
    """The other machine had made the disc, and whoever asked was told a password that doesn't open it."""
    claim = new_claim()
    lost, anew = (begun("download", form="zip-encrypted", seal=seal_of(claim)) for _ in range(2))
    with anew:
        anew.hand_over_password()
    told = claimed(anew.settings.storage, JOB, claim)
    with pytest.raises(Abort), lost:
        lost.hand_over_password()
    assert claimed(anew.settings.storage, JOB, claim) == told
