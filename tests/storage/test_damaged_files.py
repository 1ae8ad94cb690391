"""What mkiso wrote and finds damaged is read as absent, or refused in words; nothing else stops because of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mkiso.archive.belonging import StoreMark, read_mark
from mkiso.archive.importing import _set_of
from mkiso.archive.ledger import Ledger
from mkiso.archive.manifest import MANIFEST
from mkiso.archive.manifest import manifest_of as archive_manifest_of
from mkiso.archive.store import MARK, _read_mark
from mkiso.archive.volumes import ArchiveVolume
from mkiso.config.disc import Viewer
from mkiso.config.settings import Settings
from mkiso.errors import ArchiveUnusable, JobNotFound, PrintUncertain, ProofFailed
from mkiso.housekeeping import sweep
from mkiso.media.viewer import bundle_viewer
from mkiso.publishers.orderbook import OrderBook, forget_old
from mkiso.storage.files import MAX_BYTES, sha256_of, write_whole
from mkiso.storage.job import Job
from mkiso.storage.kept_reports import KeptReports
from mkiso.storage.marks import marks_of
from mkiso.storage.report import JobReport, read_report, write_report
from mkiso.storage.reread import reread_shelf
from mkiso.storage.shelf import (
    Manifest,
    last_seen,
    manifest_of,
    manifests,
    new_disc_id,
    open_image,
    remove_old,
    reusable,
    shelve,
    whole_sets,
)
from mkiso.study.models import Arrival
from mkiso.study.question import Question
from mkiso_service.process_states import process_states
from mkiso_service.webhook.metrics import Metrics
from mkiso_service.worker.orphans import has_ordered
from tasks.cleaning import forget_cancelled_job

JOB, OTHER = new_disc_id(), new_disc_id()
IMAGE = b"an image" * 1000
Damage = Callable[[Path], object]


def huge(file: Path) -> None:
    with file.open("ab") as opened:
        opened.truncate(MAX_BYTES + 1)


def exchanged(file: Path, put: Callable[[Path], object]) -> None:
    file.unlink()
    put(file)


def wrong_types(file: Path) -> None:
    """Each value of JSON in the place of one of another kind."""
    told = json.loads(file.read_text())
    inner = told[0] if isinstance(told, list) else told
    for name, value in inner.items():
        inner[name] = [7] if isinstance(value, str) else "7"
    file.write_text(json.dumps(told))


def written(content: bytes) -> Damage:
    return lambda file: file.write_bytes(content)


DAMAGES: dict[str, Damage] = {
    "nothing": written(b""),
    "cut": lambda file: os.truncate(file, file.stat().st_size // 2),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "bytes of something else": written(b"\xff\xfe\x00\x80" * 100),
    **{
        f"the JSON {text}": written(text.encode())
        for text in ("null", "7", '"text"', "true", "[7]", "[[]]", "[null]", '{"a": 1}')
    },
    "JSON a hundred thousand deep": written(b"[" * 100_000),
    "values of other types": wrong_types,
    "too large": huge,
    "a folder": lambda file: exchanged(file, Path.mkdir),
    "a pipe": lambda file: exchanged(file, os.mkfifo),
    "a link to itself": lambda file: exchanged(file, lambda link: link.symlink_to(link.name)),
}
damaged = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
EMPTY = {"[]": written(b"[]"), "{}": written(b"{}")}
damaged_or_empty = pytest.mark.parametrize("damage", (DAMAGES | EMPTY).values(), ids=DAMAGES | EMPTY)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir()
    return Settings.model_validate({"storage": {"data_dir": str(tmp_path / "data"), "min_free_gib": 0}})


def shelved(settings: Settings, **facts: Any) -> Manifest:
    storage = settings.storage
    image = storage.data_dir / "disc.iso"
    image.write_bytes(IMAGE)
    now = datetime.now(UTC).isoformat()
    made = Manifest(
        new_disc_id(), JOB, now, "V", "x.iso", ("A1",), "same", len(IMAGE), "", 3, "cd", studies={"1.2": "A1"}, **facts
    )
    return shelve(storage, image, made, marks_of(IMAGE))


@damaged_or_empty
def test_a_jobs_report(damage: Damage, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = settings.storage
    for job_id in (JOB, OTHER):
        write_report(
            storage, JobReport(job_id, "download", ("A1",), status="done", disc_ids=(job_id,), error={"code": "x"})
        )
    assert read_report(storage, JOB).disc_ids == (JOB,)
    damage(storage.reports_dir / f"{JOB}.json")
    with pytest.raises(JobNotFound):
        read_report(storage, JOB)
    assert KeptReports(storage).sets_told(Question("download", ("A1",), transfer_syntax="as-archived")) == {
        OTHER: OTHER
    }
    metrics = Metrics(KeptReports(storage))
    for _ in range(2):
        assert b'mkiso_jobs{code="x",kind="download",status="done"} 1.0' in metrics.text(storage, 0, {})
    Job(JOB, "download", settings).open()
    sweep(settings, lambda ids: dict.fromkeys(ids, "failed"))
    monkeypatch.setattr("tasks.cleaning.in_force", lambda: settings)
    forget_cancelled_job(None, cast(Any, SimpleNamespace(id=JOB)), cast(Any, None))


@damaged_or_empty
def test_a_discs_manifest(damage: Damage, settings: Settings) -> None:
    storage = settings.storage
    good, bad = shelved(settings), shelved(settings)
    assert manifest_of(storage, bad.disc_id) == bad
    damage(storage.discs_dir / bad.disc_id / "manifest.json")
    with pytest.raises(JobNotFound, match="ask for it again"):
        manifest_of(storage, bad.disc_id)
    assert reusable(storage, "same", 60) == [good] == [disc for each in whole_sets(manifests(storage)) for disc in each]
    assert reread_shelf(storage, wait=lambda seconds: None).taken_off == 0
    assert remove_old(storage, keep_hours=1) == 0


def test_a_manifest_of_another_disc_and_one_that_counts_beyond_reason(settings: Settings) -> None:
    storage = settings.storage
    good, bad = shelved(settings), shelved(settings, number=1, total=10**12)
    (storage.discs_dir / good.disc_id / "manifest.json").write_bytes(
        (storage.discs_dir / bad.disc_id / "manifest.json").read_bytes()
    )
    assert manifests(storage) == [bad]
    assert whole_sets(manifests(storage)) == []


@damaged_or_empty
def test_when_a_disc_was_last_seen(damage: Damage, settings: Settings) -> None:
    storage = settings.storage
    good, bad = shelved(settings), shelved(settings)
    damage(storage.discs_dir / bad.disc_id / "seen.json")
    assert (last_seen(storage, good)[0] is None, last_seen(storage, bad)[0]) == (False, None)
    assert reread_shelf(storage, wait=lambda seconds: None).taken_off == 0


def test_a_disc_seen_at_a_time_of_no_zone(settings: Settings) -> None:
    storage = settings.storage
    shelved(settings)
    seen = storage.discs_dir / shelved(settings).disc_id / "seen.json"
    seen.write_text(json.dumps({**json.loads(seen.read_text()), "when": "2024-02-29T10:00:00"}))
    assert reread_shelf(storage, wait=lambda seconds: None).discs == 1


@pytest.mark.parametrize("damage", [damage for damage in DAMAGES.values() if damage is not wrong_types])
@pytest.mark.parametrize("name", ["marks", "disc.iso"])
def test_a_discs_image_and_its_marks(damage: Damage, name: str, settings: Settings) -> None:
    disc = shelved(settings)
    damage(settings.storage.discs_dir / disc.disc_id / name)
    with pytest.raises(ProofFailed), open_image(settings.storage, disc) as image:
        image.mark(0)
        assert name == "disc.iso" and len(image)
        raise ProofFailed("its bytes are proved as they leave (test_marks)")


@damaged_or_empty
def test_a_jobs_facts_and_its_arrivals(damage: Damage, settings: Settings) -> None:
    job = Job(JOB, "download", settings)
    job.open()
    job.begin("as the PACS says")
    stored = job.instances_dir / "1.2.3"
    stored.write_bytes(b"DICM")
    arrival = Arrival("1.2.3", "1.2", "1.2", "1.2", stored, 4, sha256_of(stored))
    job.remember(arrival)
    assert job.kept("1.2", frozenset({"1.2.3"})) == [arrival]
    damage(job.folder / "arrivals-1.2.jsonl")
    assert job.kept("1.2", frozenset({"1.2.3"})) == []
    assert not stored.exists()
    facts = job.folder / "job.json"
    damage(facts)
    assert job.facts() in ({}, {"a": 1}, {"fingerprint": [7]})
    if not facts.is_dir():
        job.note(accession_numbers=["A1"])
        assert job.facts()["accession_numbers"] == ["A1"]


@damaged
def test_an_order_book_is_an_error_and_never_empty(damage: Damage, settings: Settings) -> None:
    _refuses(damage, settings)


@pytest.mark.parametrize(
    "text", [b"{}", b'[{"job_id": "x", "publisher": "y", "volume": 1, "attempt": 1, "state": "givn", "time": 1}]']
)
def test_an_order_book_of_no_list_and_of_a_state_that_there_is_not(text: bytes, settings: Settings) -> None:
    _refuses(written(text), settings)


def _refuses(damage: Damage, settings: Settings) -> None:
    orders = settings.storage.orders_dir
    book = OrderBook.of(orders, ["A1"])
    book.ask(JOB)
    book.begin(book.open(JOB, 1, "rimage"))
    damage(book.paths[0])
    with pytest.raises(PrintUncertain, match="can't be read"):
        book.pages()
    os.utime(orders, (0, 0))
    if not book.paths[0].is_symlink():
        os.utime(book.paths[0], (0, 0))
    assert forget_old(orders, 1, lambda _: ()) == 0
    run = SimpleNamespace(id=OTHER, work_queue_name="prints", parameters={"accession_numbers": ["A1"]})
    assert has_ordered(cast(Any, run), settings)


@damaged_or_empty
def test_the_remembered_hashes_of_a_viewer(damage: Damage, tmp_path: Path) -> None:
    (tmp_path / "viewer").mkdir()
    (tmp_path / "viewer" / "VIEW.EXE").write_bytes(b"MZ")
    viewer, hashes = Viewer(directory=str(tmp_path / "viewer")), tmp_path / "hashes.json"
    bundled = bundle_viewer(viewer, hashes)
    damage(hashes)
    assert bundle_viewer(viewer, hashes) == bundled
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".new")] == []


@damaged_or_empty
def test_what_the_supervisor_told_of_its_processes(damage: Damage, settings: Settings) -> None:
    file = settings.storage.data_dir / "processes.json"
    write_whole(file, json.dumps({"worker": {"up": True}}))
    assert process_states(settings.storage) == {"worker": {"up": True}}
    damage(file)
    assert process_states(settings.storage) == {}


@damaged
def test_the_marks_of_an_archive(damage: Damage, tmp_path: Path) -> None:
    place, store = tmp_path / ".place", tmp_path / MARK
    for file, told in ((place, {"place": "P1", "archive": "A"}), (store, {"store": "S", "archive": "A"})):
        write_whole(file, json.dumps(told))
    assert _read_mark(tmp_path) == StoreMark("S", "A")
    damage(place)
    damage(store)
    if damage is not DAMAGES["nothing"]:  # an earlier version's, which says nothing
        with pytest.raises(ArchiveUnusable, match="damaged"):
            read_mark(place)
    with pytest.raises(ArchiveUnusable, match="damaged"):
        _read_mark(tmp_path)


@damaged
def test_the_manifest_of_a_volume(damage: Damage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso.archive.manifest._from_the_ledger", lambda ledger, volume: "from the ledger")
    volume = cast(ArchiveVolume, SimpleNamespace(folder=tmp_path))
    file = tmp_path / MANIFEST
    write_whole(file, json.dumps({"number": 2, "total": 3}))
    assert json.loads(archive_manifest_of(cast(Ledger, None), volume)) == {"number": 2, "total": 3}
    found = SimpleNamespace(where=tmp_path / "V.iso")
    assert _set_of(cast(Any, found)) == (2, 3)
    damage(file)
    if damage not in (wrong_types, DAMAGES['the JSON {"a": 1}']):
        assert archive_manifest_of(cast(Ledger, None), volume) == "from the ledger"
    assert _set_of(cast(Any, found)) == (1, 1)
