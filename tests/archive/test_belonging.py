"""A ledger that isn't the data's is refused, an older copy of the true one deletes and uses nothing again (SQLite
and PostgreSQL).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from mkiso.archive.belonging import read_mark
from mkiso.archive.by_hand import settle
from mkiso.archive.catalogue import archived, find, lost_studies
from mkiso.archive.ledger import Ledger
from mkiso.archive.lifecycle import Claim, Remedy
from mkiso.archive.nights import Night
from mkiso.archive.owed import owed, undelivered
from mkiso.archive.reconcile import reconcile
from mkiso.archive.store import MARK, Store, deliver_to_store, put, require_store
from mkiso.archive.volumes import ArchiveVolume
from mkiso.config.settings import Settings
from mkiso.errors import ArchiveUnusable, StorageFull
from mkiso.storage.files import sha256_of
from peers.small_disk import small_disk
from tests.archive.conftest import Copies
from tests.archive.discs import DAY, RANGE, archive, master


def stored(settings: Settings, run_id: str, uid: str) -> ArchiveVolume:
    """One volume of one study, in the store."""
    with Ledger.open(settings) as ledger, Night.begin(ledger, run_id, RANGE) as night:
        volume = archive(night, {uid: [f"{uid}.1"]})
        store = Store.open(ledger)
        for left in reconcile(night, ledger, store):
            deliver_to_store(night, left.volume, "{}", store)
        night.finish(1)
    return volume


def waiting(settings: Settings, run_id: str, uid: str) -> ArchiveVolume:
    """One volume of one study, mastered."""
    with Ledger.open(settings) as ledger, Night.begin(ledger, run_id, RANGE) as night:
        return archive(night, {uid: [f"{uid}.1"]})


def test_an_empty_ledger_deletes_nothing_and_is_refused_in_words(settings: Settings, copies: Copies) -> None:
    volume = waiting(settings, "one", "1.2")
    mark = read_mark(settings.storage.volumes_dir / ".place")
    other = copies.another(settings)
    with pytest.raises(
        ArchiveUnusable, match=r"is empty.*belongs to another one.*Nothing was touched.*archive\.ledger_url"
    ):
        Ledger.open(other)
    assert volume.image.exists()
    assert read_mark(settings.storage.volumes_dir / ".place") == mark
    assert not copies.tables(other)  # a stranger's database stays as it was
    copies.back(settings)
    with Ledger.open(settings) as ledger, Night.begin(ledger, "two", RANGE) as night:
        assert [left.remedy for left in reconcile(night, ledger, Store.open(ledger))] == [Remedy.DELIVER]


def test_the_ledger_of_another_archive_is_refused(settings: Settings, copies: Copies, tmp_path: Path) -> None:
    volume = waiting(settings, "one", "1.2")
    elsewhere = settings.model_copy(
        update={"storage": settings.storage.model_copy(update={"data_dir": tmp_path / "elsewhere"})}
    )
    other = copies.another(elsewhere)
    Ledger.open(other).close()
    copies.use(other, settings)
    with pytest.raises(ArchiveUnusable, match="is another one than this data directory belongs to"):
        Ledger.open(copies.with_url_of(other, settings))
    assert volume.image.exists()


def test_a_person_may_say_that_they_belong_together_and_nothing_is_removed(settings: Settings, copies: Copies) -> None:
    volume, kept = waiting(settings, "one", "1.2"), stored(settings, "two", "1.3")
    other = copies.another(settings)
    with Ledger.open(other, adopt=True) as ledger:
        with pytest.raises(ArchiveUnusable, match="store of another archive"):
            Store.open(ledger)
        store = Store.open(ledger, adopt=True)
        with Night.begin(ledger, "three", RANGE) as night:
            assert reconcile(night, ledger, store) == ()
            assert volume.label == kept.label or volume.image.exists() or store.image(volume.label).exists()
            (planned,) = night.plan("dvd", "store", DAY)
            assert planned.label not in (volume.label, kept.label)  # they may be on discs that nobody knows of any more
        assert [each.label for each in owed(ledger, store)] == sorted({volume.label, kept.label})
    Ledger.open(other).close()  # from now on without a word


def test_an_older_copy_of_the_ledger_deletes_nothing_and_uses_no_label_again(
    settings: Settings, copies: Copies
) -> None:
    known = stored(settings, "one", "1.2")
    with Ledger.open(settings) as ledger, Night.begin(ledger, "interrupted", RANGE) as night:
        (planned,) = night.plan("dvd", "store", DAY)
        copies.take(settings)
        night.claim(["1.3"])
        night.mastered([master(planned, {"1.3": ["1.3.1"]})])
        late, lost = archive(night, {"1.4": ["1.4.1"]}), archive(night, {"1.5": ["1.5.1"]})
        deliver_to_store(night, replace(late, sha256=sha256_of(late.image)), "{}", Store.open(ledger))
    copies.restore(settings)
    with Ledger.open(settings) as ledger, Night.begin(ledger, "four", RANGE) as night:
        store = Store.open(ledger)
        assert reconcile(night, ledger, store) == ()
        assert planned.image.exists()
        assert lost.image.exists()
        said = {each.label: each.words for each in owed(ledger, store)}
        assert sorted(said) == [planned.label, late.label, lost.label]
        assert all("the ledger doesn't know it" in words for words in said.values())
        assert archived(ledger, ["1.2", "1.3", "1.4", "1.5"]) == {"1.2": {"1.2.1"}}
        assert find(ledger, "1.2")[0].holdings[0].label == known.label
        (new,) = night.plan("dvd", "store", DAY)
        assert new.label > max(known.label, planned.label, late.label, lost.label)


@pytest.mark.parametrize("lying", ["store", "volumes", "mark"])
def test_a_label_is_never_used_again_wherever_the_last_trace_of_it_is(settings: Settings, lying: str) -> None:
    with Ledger.open(settings) as ledger, Night.begin(ledger, "one", RANGE) as night:
        if lying == "mark":
            (first,) = night.plan("dvd", "store", DAY)
            assert reconcile(night, ledger) == ()  # it was planned alone: its row is gone
            (second,) = night.plan("dvd", "store", DAY)
            assert (first.label, second.label) == ("A20260213_0001", "A20260213_0002")
            return
        folder = settings.archive.directory if lying == "store" else settings.storage.volumes_dir
        (folder / "A20260213_0041").mkdir(parents=True)
        (planned,) = night.plan("dvd", "store", DAY)
        assert planned.label == "A20260213_0042"


def test_a_new_machine_joins_with_what_was_copied_onto_it(settings: Settings, copies: Copies, tmp_path: Path) -> None:
    stored(settings, "one", "1.2")
    copies.take(settings)
    new = settings.model_copy(update={"storage": settings.storage.model_copy(update={"data_dir": tmp_path / "new"})})
    (new.storage.volumes_dir / "A20260213_0009").mkdir(parents=True)
    copies.restore(new)
    with Ledger.open(new) as ledger:
        assert find(ledger, "1.2")
        assert [each.label for each in owed(ledger, Store.open(ledger))] == ["A20260213_0009"]
        assert undelivered(ledger) == ()


def test_a_ledger_of_the_first_version_gets_an_id_and_its_store_too(settings: Settings) -> None:
    volume = stored(settings, "one", "1.2")
    place = settings.storage.volumes_dir / ".place"
    with Ledger.open(settings) as ledger:
        mark, id_ = read_mark(place), ledger.id
        with ledger.writing() as connection:
            for statement in (
                "DROP TABLE days",
                "DROP TABLE archive",
                "DROP TABLE places",
                "DROP TABLE stores",
                "ALTER TABLE volumes DROP COLUMN store",
            ):
                connection.execute(text(statement))
            connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    place.write_text(mark.place)
    (settings.archive.directory / MARK).unlink()
    with Ledger.open(settings) as ledger:
        store = Store.open(ledger)
        assert ledger.place == mark.place
        assert ledger.id != id_
        assert read_mark(place).archive == ledger.id
        assert owed(ledger, store) == ()
        shutil.rmtree(store.directory / volume.label)
        assert [each.label for each in owed(ledger, store)] == [volume.label]


def test_an_empty_mount_point_is_no_store(settings: Settings) -> None:
    volume = stored(settings, "one", "1.2")
    store = settings.archive.directory
    store.rename(store.with_name("unmounted"))
    for directory in ("absent", "empty"):
        if directory == "empty":
            store.mkdir()
        with Ledger.open(settings) as ledger, pytest.raises(ArchiveUnusable, match=r"isn't there.*mounted"):
            Store.open(ledger)
    assert not list(store.iterdir())
    store.rmdir()
    store.with_name("unmounted").rename(store)
    with Ledger.open(settings) as ledger:
        assert Store.open(ledger).image(volume.label).exists()


def test_a_store_that_goes_away_during_the_night_gets_nothing(ledger: Ledger, settings: Settings) -> None:
    with Night.begin(ledger, "one", RANGE) as night:
        store = Store.open(ledger)
        volume = archive(night, {"1.2": ["1.2.1"]})
        (left,) = reconcile(night, ledger, store)
        store.directory.rename(store.directory.with_name("gone"))
        store.directory.mkdir()
        with pytest.raises(ArchiveUnusable, match="isn't there any more"):
            deliver_to_store(night, left.volume, "{}", store)
        assert not list(store.directory.iterdir())
        assert volume.image.exists()


def test_a_store_that_vanishes_during_a_write_keeps_nothing_and_loses_nothing(
    ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was mounted on takes the volume instead: the next run delivers it into the store."""
    with Night.begin(ledger, "one", RANGE) as night:
        store = Store.open(ledger)
        volume = archive(night, {"1.2": ["1.2.1"]})
        (left,) = reconcile(night, ledger, store)

        def into_the_mount_point(directory: Path, *arguments: Any) -> Path:
            directory.rename(directory.with_name("unmounted"))
            directory.mkdir()
            return put(directory, *arguments)

        with monkeypatch.context() as patch, pytest.raises(ArchiveUnusable, match="isn't there any more"):
            patch.setattr("mkiso.archive.store.put", into_the_mount_point)
            deliver_to_store(night, left.volume, "{}", store)
        assert volume.image.exists()
        shutil.rmtree(store.directory)
        store.directory.with_name("unmounted").rename(store.directory)
        assert [left.remedy for left in reconcile(night, ledger, store)] == [Remedy.DELIVER]


def test_a_store_that_is_away_at_the_end_of_the_night_has_lost_no_volume(settings: Settings) -> None:
    """Each volume would be said to be missing, and to be settled as lost."""
    volume = stored(settings, "one", "1.2")
    with Ledger.open(settings) as ledger, Night.begin(ledger, "two", RANGE) as night:
        store = Store.open(ledger)
        waits = archive(night, {"1.3": ["1.3.1"]})
        waits.image.write_bytes(b"damaged")  # with its store away, nobody knows whether it was stored
        store.directory.rename(store.directory.with_name("unmounted"))
        store.directory.mkdir()
        with pytest.raises(ArchiveUnusable, match="isn't there any more"):
            owed(ledger, store)
        with pytest.raises(ArchiveUnusable, match="isn't there any more"):
            reconcile(night, ledger, store)
        assert archived(ledger, ["1.2", "1.3"]).keys() == {"1.2", "1.3"}
        assert find(ledger, "1.2")[0].holdings[0].label == volume.label


def test_a_store_in_the_place_of_a_lost_one_is_said_to_lack_each_volume(settings: Settings) -> None:
    """Its disk was replaced, and a person says `adopt`: what lay on the old one counts as archived no longer unsaid."""
    volume = stored(settings, "one", "1.2")
    shutil.rmtree(settings.archive.directory)
    with Ledger.open(settings) as ledger:
        with pytest.raises(ArchiveUnusable, match="isn't there"):
            Store.open(ledger)
        store = Store.open(ledger, adopt=True)
        for _ in range(2):
            (said,) = owed(ledger, store)
            assert str(said).startswith(f"{volume.label} is missing in the store")
        assert settle(ledger, volume.label, Claim.LOST, store) == "gone"
        assert [study.study_instance_uid for study in lost_studies(ledger)] == ["1.2"]


def test_a_store_whose_mark_is_damaged_is_adopted_by_a_person(settings: Settings) -> None:
    volume = stored(settings, "one", "1.2")
    (settings.archive.directory / MARK).write_bytes(bytes(70))
    with Ledger.open(settings) as ledger:
        with pytest.raises(ArchiveUnusable, match="is damaged"):
            Store.open(ledger)
        assert owed(ledger, Store.open(ledger, adopt=True)) == ()
        assert Store.open(ledger).image(volume.label).exists()


def test_another_archive_may_not_use_the_store(settings: Settings, copies: Copies, tmp_path: Path) -> None:
    stored(settings, "one", "1.2")
    elsewhere = settings.model_copy(
        update={"storage": settings.storage.model_copy(update={"data_dir": tmp_path / "elsewhere"})}
    )
    with (
        Ledger.open(copies.another(elsewhere)) as ledger,
        pytest.raises(ArchiveUnusable, match="store of another archive"),
    ):
        Store.open(ledger)


def test_a_folder_with_volumes_that_nobody_knows_is_no_store(ledger: Ledger, settings: Settings) -> None:
    (settings.archive.directory / "A20200101_0001").mkdir(parents=True)
    with pytest.raises(ArchiveUnusable, match="knows nothing of, such as A20200101_0001"):
        Store.open(ledger)


def mounted(folder: Path, size: str) -> Callable[[], None]:
    stack = ExitStack()
    stack.enter_context(small_disk(folder, f"size={size}"))
    return stack.close


def test_a_full_store_leaves_nothing_half_stored(ledger: Ledger, settings: Settings) -> None:
    """On a file system of its own: the image is copied, and there is no room for it."""
    unmount = mounted(settings.archive.directory, "64k")
    try:
        with Night.begin(ledger, "one", RANGE) as night:
            night.claim(["1.2"])
            store = Store.open(ledger)
            volume = archive(night, {"1.2": ["1.2." + "1" * 50 + f"{number}" for number in range(10_000)]})
            (left,) = reconcile(night, ledger, store)
            with pytest.raises(StorageFull):
                deliver_to_store(night, left.volume, "{}", store)
            assert [entry.name for entry in store.directory.iterdir()] == [MARK]
            assert volume.image.exists()
            assert find(ledger, "1.2")[0].holdings[0].state == "mastered"
            subprocess.run(["mount", "-o", "remount,size=16m", store.directory], check=True)
            deliver_to_store(night, left.volume, "{}", store)
            assert owed(ledger, store) == ()
    finally:
        unmount()


def test_a_store_that_came_after_the_start_of_a_service_says_so(ledger: Ledger, settings: Settings) -> None:
    """To a service with a read-only system it is read-only until the next start."""
    unmount = mounted(settings.archive.directory, "64k,ro")
    try:
        with pytest.raises(
            ArchiveUnusable, match="Read-only file system; if it came after mkiso's start, restart mkiso"
        ):
            Store.open(ledger)
    finally:
        unmount()


def test_a_store_that_can_not_be_written_says_so(ledger: Ledger, settings: Settings) -> None:
    settings.archive.directory.parent.mkdir(exist_ok=True)
    settings.archive.directory.write_text("no folder")
    with pytest.raises(ArchiveUnusable, match="can't be used"):
        Store.open(ledger)


def test_what_a_killed_run_left_of_the_stores_mark_is_cleared_away(ledger: Ledger, settings: Settings) -> None:
    settings.archive.directory.mkdir()
    (settings.archive.directory / f"{MARK}.0123.new").write_text("{")
    Store.open(ledger)
    assert [entry.name for entry in settings.archive.directory.iterdir()] == [MARK]


def test_a_look_at_the_store_says_what_a_run_would_and_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    directory, away = settings.archive.directory, settings.archive.directory.with_name("unmounted")
    assert "becomes the store with the next volume" in require_store(settings)
    assert not directory.exists() and not settings.storage.data_dir.exists()
    stored(settings, "one", "1.2")
    before = sorted(directory.rglob("*"))
    assert f"{directory} is this archive's store" in require_store(settings)
    assert sorted(directory.rglob("*")) == before
    directory.rename(away)

    def refuses(words: str) -> None:
        """Both say the same."""
        with pytest.raises(ArchiveUnusable, match=words) as looked:
            require_store(settings)
        with Ledger.open(settings) as ledger, pytest.raises(ArchiveUnusable) as ran:
            Store.open(ledger)
        assert looked.value.words == ran.value.words

    refuses("isn't there.*mounted")
    directory.mkdir()
    refuses("isn't there.*mounted")
    (directory / MARK).write_bytes(bytes(70))
    refuses("is damaged")
    shutil.copy(away / MARK, directory)
    (directory / MARK).write_text((directory / MARK).read_text().replace('"archive": "', '"archive": "0'))
    refuses("store of another archive")
    shutil.rmtree(directory)
    directory.write_text("no folder")
    refuses("can't be used: Not a directory")


def test_a_look_at_a_store_that_is_full_or_read_only_says_so(settings: Settings) -> None:
    unmount = mounted(settings.archive.directory, "64k")
    try:
        with pytest.raises(StorageFull, match=r"has 66 kB free, and a volume takes up to 4\.7 GB: make room"):
            require_store(settings)
        subprocess.run(["mount", "-o", "remount,ro", settings.archive.directory], check=True)
        with pytest.raises(ArchiveUnusable, match="Read-only file system; if it came after mkiso's start"):
            require_store(settings)
    finally:
        unmount()


def test_a_volume_that_is_linked_into_the_store_needs_no_room_there(settings: Settings, tmp_path: Path) -> None:
    unmount = mounted(tmp_path / "disk", "64k")
    try:
        storage = settings.storage.model_copy(update={"data_dir": tmp_path / "disk" / "data"})
        archive = settings.archive.model_copy(update={"directory": tmp_path / "disk" / "archive"})
        assert "66 kB are free" in require_store(settings.model_copy(update={"storage": storage, "archive": archive}))
    finally:
        unmount()
