"""The worker's watch over what was sent: nothing that was sent keeps another study from its job, and each has one job,
wherever the watch is cut off.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient
from pydicom import dcmread

from mkiso.config.settings import Server, Settings
from mkiso.errors import DamagedInstance, MkisoError, NotAskedEverywhere, StorageUnreadable, StudyIncomplete
from mkiso.housekeeping import sweep
from mkiso.receiver.pushed import Ask, Line, PushedStudy
from mkiso.sources.choosing import FoundStudies
from mkiso.storage.files import sha256_of
from mkiso.storage.report import JobReport, write_report
from mkiso.storage.report_files import REPORT, file_of
from mkiso.study.models import Expected, Study
from mkiso_service.worker import inboxes
from mkiso_service.worker.inboxes import InboxWatch
from peers.corpus import make_study
from peers.small_disk import failing

Changed = Callable[[Path], None]


class Runs(SyncPrefectClient):
    """Prefect's runs by their idempotency key. `breaks`: the answer to the next creation gets lost."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[UUID, dict[str, Any]]] = {}
        self.breaks = False

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def read_deployment_by_name(self, name: str) -> Any:
        return SimpleNamespace(id=name)

    def create_flow_run_from_deployment(self, deployment_id: Any, **given: Any) -> Any:
        run_id, _ = self.made.setdefault(given["idempotency_key"], (uuid4(), given))
        if self.breaks:
            self.breaks = False
            raise TimeoutError
        return SimpleNamespace(id=run_id)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """No run of these ends."""
    kept = Runs()
    monkeypatch.setattr(inboxes, "get_client", lambda **_: kept)
    monkeypatch.setattr(inboxes, "standings", lambda job_ids: dict.fromkeys(job_ids, "active"))
    return kept


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    rules = {"senders": ["CT1"], "ask": "none", "quiet_seconds": 1}
    kept = {"data_dir": tmp_path / "data", "min_free_gib": 0}
    return Settings.model_validate({"storage": kept, "inboxes": {"BURN": rules}, "server": {"max_running_jobs": 4}})


def sent(settings: Settings, folder: Path, number: str, changed: Changed | None = None, images: int = 1) -> PushedStudy:
    """A study that lies in the inbox, quiet since a minute."""
    files = make_study(folder, number, kinds={"ct": images})
    study = PushedStudy(settings.storage, "BURN", str(dcmread(files[0]).StudyInstanceUID))
    study.instances_dir.mkdir(parents=True, exist_ok=True)
    for file in files:
        image = dcmread(file)
        path = study.instances_dir / str(image.SOPInstanceUID)
        shutil.copy(file, path)
        if changed:
            changed(path)
        syntax, size = image.file_meta.TransferSyntaxUID, path.stat().st_size
        study.note(Line(path.name, image.SOPClassUID, syntax, size, sha256_of(path), "CT1@10.0.0.1"))
    os.utime(study.instances_dir, (time.time() - 60,) * 2)
    return study


def of_no_alphabet(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 192", b"hex       ").replace(b"ISO_IR 100", b"hex       "))


def of_an_endless_number(path: Path) -> None:
    image = dcmread(path)
    image.SpecificCharacterSet = "ISO_IR 192"
    image.add_new(0x00080050, "UT", "A" * 70_000)
    image.save_as(path)


@pytest.mark.parametrize("odd", [of_no_alphabet, of_an_endless_number])
def test_what_cannot_be_read_of_one_study_keeps_no_other_from_its_job(
    settings: Settings, runs: Runs, tmp_path: Path, odd: Changed
) -> None:
    studies = [sent(settings, tmp_path, "A1", odd), sent(settings, tmp_path, "A2"), sent(settings, tmp_path, "A3", odd)]
    InboxWatch(settings).look()
    assert [len(study.asked) for study in studies] == [1, 1, 1], "and its own job says what is wrong with it"
    assert len(runs.made) == 3


def test_a_job_whose_creation_was_cut_off_is_not_made_twice(settings: Settings, runs: Runs, tmp_path: Path) -> None:
    """The answer was lost, more images came, the worker was started anew: it is still one job."""
    study = sent(settings, tmp_path, "A1")
    runs.breaks = True
    with pytest.raises(TimeoutError):
        InboxWatch(settings).look()
    more = sent(settings, tmp_path / "more", "A2", images=2)
    for each in more.instances_dir.iterdir():
        shutil.move(each, study.instances_dir)
    shutil.rmtree(more.folder)
    os.utime(study.instances_dir, (time.time() - 60,) * 2)
    InboxWatch(settings).look()
    [(run_id, _)] = runs.made.values()
    [asked] = study.asked
    assert (asked.job_id, asked.ended) == (str(run_id), "")


def asked_archive(settings: Settings) -> Settings:
    """The inbox asks the archive."""
    inbox = settings.inboxes["BURN"].model_copy(update={"ask": "pacs"})
    return settings.model_copy(update={"inboxes": {"BURN": inbox}})


def listed(study: PushedStudy, **said: Any) -> FoundStudies:
    uids = study.read().uids
    expected = Expected("image", len(uids), {"1.9": uids})
    return FoundStudies((Study("A1", study.study_instance_uid, "P1", expected=expected),), **said)


@pytest.mark.parametrize("error", [StudyIncomplete("No source holds all."), NotAskedEverywhere("One can't be asked.")])
def test_a_study_without_an_answer_keeps_no_other_from_theirs(
    settings: Settings, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: MkisoError
) -> None:
    studies = [sent(settings, tmp_path, f"A{number}") for number in range(4)]
    whole = studies[-1]

    def found(_: Any, study_instance_uid: str) -> FoundStudies:
        if study_instance_uid == whole.study_instance_uid:
            return listed(whole)
        raise error

    monkeypatch.setattr(inboxes, "find_everywhere_by_uid", found)
    monkeypatch.setattr(inboxes, "studies_in", lambda *_: studies)
    watch, begun = InboxWatch(asked_archive(settings)), time.monotonic()
    for number, _ in enumerate(studies, 1):
        clock = SimpleNamespace(time=time.time, monotonic=lambda at=begun + number * 6.0: at)
        monkeypatch.setattr(inboxes, "time", clock)
        watch.look()
    assert [bool(study.asked) for study in studies] == [False, False, False, True]


def test_while_a_source_cannot_be_asked_nothing_is_settled(
    settings: Settings, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have images that nobody sent, and nobody is there to read that it wasn't asked."""
    study = sent(settings, tmp_path, "A1")
    down = {"degraded": ("source_down:old",), "reasons": ("old: it is silent.",)}
    monkeypatch.setattr(inboxes, "find_everywhere_by_uid", lambda *_: listed(study, **down))
    InboxWatch(asked_archive(settings)).look()
    assert not study.asked
    monkeypatch.setattr(inboxes, "find_everywhere_by_uid", lambda *_: listed(study))
    InboxWatch(asked_archive(settings)).look()
    assert len(study.asked) == 1


def test_what_was_cleared_away_is_known_no_more(settings: Settings, runs: Runs, tmp_path: Path) -> None:
    study = sent(settings, tmp_path, "A1")
    watch = InboxWatch(settings)
    watch.look()
    [asked] = study.asked
    study.note_asked([replace(asked, ended="done", ended_time=time.time())])
    watch.look()
    assert list(watch._at_rest) == [study]
    shutil.rmtree(study.folder)
    watch.look()
    assert not watch._at_rest and not watch._known and not watch._there


def test_a_study_that_nobody_remembers_has_a_job_however_long_its_run_is_kept(
    settings: Settings, runs: Runs, tmp_path: Path
) -> None:
    """Prefect keeps a run that was retried longer than mkiso remembers that it was asked for."""
    study = sent(settings, tmp_path / "first", "A1")
    InboxWatch(settings).look()
    shutil.rmtree(study.folder)
    again = sent(settings, tmp_path / "again", "A1")
    assert again == study
    assert InboxWatch(settings).look() == 1
    assert len(runs.made) == 2


def test_what_was_asked_for_and_cannot_be_read_is_asked_for_by_nobody(
    settings: Settings, runs: Runs, tmp_path: Path
) -> None:
    study = sent(settings, tmp_path, "A1")
    (study.folder / "asked.json").write_bytes(b"[{")
    watch = InboxWatch(settings)
    assert (watch.look(), watch.look(), list(watch._at_rest)) == (0, 0, [study])
    with pytest.raises(DamagedInstance):
        study.read()
    assert study.asked == ()


def test_a_study_that_is_being_sent_is_not_settled_by_a_clock_that_leaps(
    settings: Settings, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, watch, now = sent(settings, tmp_path, "A1"), InboxWatch(settings), time.time
    os.utime(study.instances_dir)
    monkeypatch.setattr("time.time", lambda: now() + 3 * 86_400)
    assert watch.look() == 0
    time.sleep(1.1)
    assert watch.look() == 1


def test_what_was_asked_for_and_cannot_be_read_just_now_is_looked_at_again(
    settings: Settings, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = sent(settings, tmp_path, "A1")
    InboxWatch(settings).look()
    monkeypatch.setattr(inboxes, "LONGEST_PAUSE_SECONDS", 0)
    watch = InboxWatch(settings)
    with failing(study.folder / "asked.json"):
        assert watch.look() == 0
    assert (watch.look(), watch._at_rest, len(runs.made)) == (0, {}, 1)


def test_a_job_whose_report_cannot_be_read_keeps_no_place_after_its_end(
    settings: Settings, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a disk that fails it never can be: one place was taken for ever, and no other study had its job."""
    settings = settings.model_copy(update={"server": Server(max_running_jobs=1)})
    first = sent(settings, tmp_path, "A1")
    assert InboxWatch(settings).look() == 1
    [ask] = first.asked
    second = sent(settings, tmp_path, "A2")
    write_report(settings.storage, JobReport(ask.job_id, "download", ("A1",), status="done"))
    monkeypatch.setattr(inboxes, "standings", lambda job_ids: dict.fromkeys(job_ids, "over"))
    with failing(file_of(settings.storage, ask.job_id, REPORT)):
        assert (InboxWatch(settings).look(), len(second.asked)) == (1, 1)
        assert [ask.ended for ask in first.asked] == [""]
    InboxWatch(settings).look()
    assert [ask.ended for ask in first.asked] == ["done"]


def test_what_cannot_be_read_just_now_is_not_cleared_away_as_never_asked_for(
    settings: Settings, runs: Runs, tmp_path: Path
) -> None:
    study = sent(settings, tmp_path, "A1")
    study.note_asked([Ask("", "", 1, time.time())])
    (study.folder / "cleared").write_text("1.2.3")
    with failing(study.folder / "cleared"), pytest.raises(StorageUnreadable):
        study.clear(lambda: "instances")
    assert len(study.read().instances) == 1
    shutil.rmtree(study.instances_dir)
    with failing(study.folder / "asked.json"):
        assert sweep(settings, None).sent_studies == 0
    assert len(study.asked) == 1


def test_what_is_only_remembered_costs_nothing_at_each_look(
    settings: Settings, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = sent(settings, tmp_path / "first", "A1")
    watch = InboxWatch(settings)
    watch.look()
    [asked] = study.asked
    study.note_asked([replace(asked, time=asked.time - 3600, ended="failed", ended_time=time.time())])
    shutil.rmtree(study.instances_dir)
    watch.look()
    with monkeypatch.context() as patch:
        patch.delattr(PushedStudy, "asked")
        watch.look()
    sent(settings, tmp_path / "again", "A1")
    assert watch.look() == 1


def test_what_comes_while_the_archive_answers_is_settled_first(
    settings: Settings, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be on the disc and not in what was asked for: a second job would have nothing new."""
    study = sent(settings, tmp_path / "first", "A1")
    more = sent(settings, tmp_path / "more", "A2")

    def answer(*_: Any) -> FoundStudies:
        said = listed(study)
        for image in more.instances_dir.iterdir():
            shutil.move(image, study.instances_dir)
        return said

    monkeypatch.setattr(inboxes, "find_everywhere_by_uid", answer)
    monkeypatch.setattr(inboxes, "studies_in", lambda *_: [study])
    watch = InboxWatch(asked_archive(settings))
    assert (watch.look(), study.asked) == (0, ())
    os.utime(study.instances_dir, (time.time() - 60,) * 2)
    assert watch.look() == 1
    assert study.asked[0].instances == len(study.read().instances) == 2
