"""Volumes that no run can mend: nights say so, and a person settles each case (SQLite and PostgreSQL)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sqlalchemy import update

from mkiso.archive.by_hand import settle, withdraw
from mkiso.archive.catalogue import archived, find, lost_studies
from mkiso.archive.ledger import Ledger
from mkiso.archive.lifecycle import Claim, Remedy
from mkiso.archive.nights import Night
from mkiso.archive.owed import look, owed, undelivered
from mkiso.archive.readback import verify_against_ledger
from mkiso.archive.reconcile import LeftOver, reconcile
from mkiso.archive.store import Store, deliver_to_store, put
from mkiso.archive.tables import nights, volumes
from mkiso.archive.volumes import ArchiveVolume
from mkiso.config.settings import Settings
from mkiso.errors import ClaimLost, MkisoError, VolumeNotFound
from mkiso.storage.files import sha256_of
from tests.archive.discs import DAY, RANGE, archive, master

UIDS = {"1.2": ["1.2.1", "1.2.2"]}


@pytest.fixture
def elsewhere(settings: Settings, tmp_path: Path) -> ArchiveVolume:
    """A mastered volume of another data directory, as after backup and restore onto a new machine."""
    return _mastered(settings, tmp_path)


def _mastered(settings: Settings, tmp_path: Path, state: str = "mastered", output: str = "store") -> ArchiveVolume:
    with Ledger.open(settings) as ledger, Night.begin(ledger, "one", RANGE) as night:
        night.claim(list(UIDS))
        (volume,) = night.plan("dvd", output, DAY)
        night.mastered([master(volume, UIDS)])
        if state != "mastered":
            night.advance(volume.label, "ordering", f"{volume.label}-1")
        if state == "ordered":
            night.advance(volume.label, "ordered")
    settings.storage.volumes_dir.rename(tmp_path / "old")
    return volume


def left_by(ledger: Ledger, store: Store | None) -> list[LeftOver]:
    with Night.begin(ledger, f"run {id(store)}", RANGE) as night:
        return list(reconcile(night, ledger, store))


def test_a_volume_of_another_place_is_said_to_be_owed_each_night(settings: Settings, elsewhere: ArchiveVolume) -> None:
    with Ledger.open(settings) as ledger:
        store = Store.open(ledger)
        for _ in range(2):
            (left,) = left_by(ledger, store)
            assert (left.volume.label, left.remedy) == (elsewhere.label, Remedy.LOOK)
            said = str(look(ledger, left.volume))
            assert said.startswith(f"{elsewhere.label} isn't delivered and lies on ")
            assert f"`mkiso archive settle {elsewhere.label}` --stored, --here or --lost." in said
        assert [str(each) for each in undelivered(ledger)] == [said]
        assert archived(ledger, UIDS) == {
            "1.2": frozenset(UIDS["1.2"])
        }  # on their way: archived anew they would be there twice
        with pytest.raises(VolumeNotFound):
            withdraw(ledger, elsewhere.label)


def test_what_is_proved_to_be_stored_is_done_without_a_person(
    settings: Settings, elsewhere: ArchiveVolume, tmp_path: Path
) -> None:
    """It was killed between storing and writing that down; the store is still there."""
    with Ledger.open(settings) as ledger:
        store = Store.open(ledger)
        shutil.copytree(tmp_path / "old" / elsewhere.label, store.directory / elsewhere.label)
        stored = store.image(elsewhere.label)
        (stored.parent / "disc.iso").rename(stored)
        content = stored.read_bytes()
        stored.write_bytes(content[:-1] + b"x")
        assert [left.remedy for left in left_by(ledger, store)] == [Remedy.LOOK]
        with pytest.raises(VolumeNotFound, match="can't be proved: in the store lies something that isn't its image"):
            settle(ledger, elsewhere.label, Claim.STORED, store)
        stored.write_bytes(content)
        assert [left.remedy for left in left_by(ledger, store)] == [Remedy.CLOSE]
        (holding,) = find(ledger, "1.2")[0].holdings
        assert (holding.state, holding.location) == ("done", str(stored.parent))
        assert undelivered(ledger) == owed(ledger, store) == ()


def test_a_person_may_have_it_proved_too(settings: Settings, elsewhere: ArchiveVolume, tmp_path: Path) -> None:
    with Ledger.open(settings) as ledger:
        store = Store.open(ledger)
        store.image(elsewhere.label).parent.mkdir()
        shutil.copy(tmp_path / "old" / elsewhere.label / "disc.iso", store.image(elsewhere.label))
        with pytest.raises(VolumeNotFound, match="isn't lost: it lies in the store"):
            settle(ledger, elsewhere.label, Claim.LOST, store)
        assert settle(ledger, elsewhere.label, Claim.STORED, store) == "done"
        (holding,) = find(ledger, "1.2")[0].holdings
        assert (holding.state, holding.read_back_good) == ("done", True)


@pytest.mark.parametrize("state", ["mastered", "ordering", "ordered"])
def test_what_is_lost_is_owed_until_it_lies_on_another_volume(settings: Settings, state: str, tmp_path: Path) -> None:
    volume = _mastered(settings, tmp_path, state, "store" if state == "mastered" else "robot")
    with Ledger.open(settings) as ledger:
        store = Store.open(ledger)
        assert settle(ledger, volume.label, Claim.LOST, store) == "gone"
        assert archived(ledger, UIDS) == {}
        assert [study.study_instance_uid for study in lost_studies(ledger)] == ["1.2"]
        assert [each.label for each in owed(ledger, store)] == [volume.label]
        with pytest.raises(VolumeNotFound, match="settled as lost"):
            verify_against_ledger(ledger, volume.label, [])
        with Night.begin(ledger, "two", RANGE) as night:
            assert reconcile(night, ledger, store) == ()
            anew = archive(night, {"1.2": ["1.2.2", "1.2.3"]})
            assert anew.label > volume.label
        assert archived(ledger, UIDS) == {"1.2": {"1.2.2", "1.2.3"}}
        assert "1 image of 1 study that lay on it is on no volume" in owed(ledger, store)[0].words
        (finding,) = find(ledger, "1.2")
        assert [(holding.label, holding.state, holding.instances) for holding in finding.holdings] == [
            (volume.label, "gone", 1), (anew.label, "mastered", 2),
        ]  # fmt: skip
        assert settle(ledger, volume.label, Claim.FORGET, store) == "gone"
        assert (lost_studies(ledger), owed(ledger, store)) == ((), ())


def test_what_was_copied_here_is_delivered_from_here(
    settings: Settings, elsewhere: ArchiveVolume, tmp_path: Path
) -> None:
    with Ledger.open(settings) as ledger:
        store = Store.open(ledger)
        with pytest.raises(VolumeNotFound, match="doesn't lie whole in this data directory"):
            settle(ledger, elsewhere.label, Claim.HERE, store)
        shutil.copytree(tmp_path / "old" / elsewhere.label, elsewhere.folder)
        with pytest.raises(VolumeNotFound, match="isn't lost: its image lies here"):
            settle(ledger, elsewhere.label, Claim.LOST, store)
        assert settle(ledger, elsewhere.label, Claim.HERE, store) == "mastered"
        with Night.begin(ledger, "two", RANGE) as night:
            (left,) = reconcile(night, ledger, store)
            assert left.remedy is Remedy.DELIVER
            deliver_to_store(night, left.volume, "{}", store)
        assert undelivered(ledger) == owed(ledger, store) == ()
        assert not elsewhere.folder.exists()


@pytest.mark.parametrize("state", ["ordering", "ordered"])
def test_an_order_of_another_place_is_settled_by_who_looked_at_the_robot(
    settings: Settings, state: str, tmp_path: Path
) -> None:
    volume = _mastered(settings, tmp_path, state, "robot")
    with Ledger.open(settings) as ledger:
        assert [left.remedy for left in left_by(ledger, None)] == [Remedy.LOOK]
        assert settle(ledger, volume.label, Claim.AGAIN) == "mastered"
        assert [left.remedy for left in left_by(ledger, None)] == [Remedy.LOOK]  # its image is still elsewhere
        assert settle(ledger, volume.label, Claim.MADE) == "done"
        assert undelivered(ledger) == owed(ledger, None) == ()


def test_nobody_settles_what_a_run_works_on(ledger: Ledger) -> None:
    with Night.begin(ledger, "one", RANGE) as night:
        volume = archive(night, UIDS)
        for claim in Claim:
            with pytest.raises(ClaimLost, match="wait for its end"):
                settle(ledger, volume.label, claim)
        assert undelivered(ledger) == ()
    assert [each.label for each in undelivered(ledger)] == [volume.label]
    with pytest.raises(VolumeNotFound):
        settle(ledger, "A20260213_0099", Claim.LOST)


@pytest.mark.parametrize("damage", ["missing", "shorter", "verified"])
def test_what_the_store_lost_is_said_each_night_until_it_is_back_or_archived_anew(ledger: Ledger, damage: str) -> None:
    with Night.begin(ledger, "one", RANGE) as night:
        store = Store.open(ledger)
        volume = archive(night, UIDS)
        deliver_to_store(night, reconcile(night, ledger, store)[0].volume, "{}", store)
    image = store.image(volume.label)
    content = image.read_bytes()
    if damage == "missing":
        shutil.rmtree(image.parent)
    elif damage == "shorter":
        image.write_bytes(content[:-1])
    else:
        image.write_bytes(b"x" * len(content))  # which a look at its size doesn't show
        assert owed(ledger, store) == ()
        assert not verify_against_ledger(ledger, volume.label, [("DICOM", 1, "00")]).is_good
    for _ in range(2):
        (said,) = owed(ledger, store)
        assert said.label == volume.label
    with pytest.raises(VolumeNotFound):
        settle(ledger, volume.label, Claim.STORED, store)
    image.parent.mkdir(exist_ok=True)
    image.write_bytes(content)
    assert settle(ledger, volume.label, Claim.STORED, store) == "done"
    assert owed(ledger, store) == ()
    shutil.rmtree(image.parent)
    assert settle(ledger, volume.label, Claim.LOST, store) == "gone"
    assert [study.study_instance_uid for study in lost_studies(ledger)] == ["1.2"]


def test_something_else_under_the_label_ends_no_night(ledger: Ledger) -> None:
    with Night.begin(ledger, "one", RANGE) as night:
        store = Store.open(ledger)
        volume = archive(night, UIDS)
        store.image(volume.label).parent.mkdir()
        store.image(volume.label).write_bytes(b"another")
        (left,) = reconcile(night, ledger, store)
        assert left.remedy is Remedy.LOOK
        assert "under its label something else lies in the store" in str(look(ledger, left.volume))
        assert volume.image.exists()
        shutil.rmtree(store.image(volume.label).parent)
        assert [left.remedy for left in reconcile(night, ledger, store)] == [Remedy.DELIVER]


def test_two_runs_that_store_one_volume_at_once_leave_one_whole_volume(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One was thought dead: its folder of unfinished files isn't the other's."""
    with Night.begin(ledger, "one", RANGE) as night:
        store = Store.open(ledger)
        archive(night, UIDS)
        (left,) = reconcile(night, ledger, store)
        copy = "mkiso.archive.store._link_or_copy"
        linked = __import__("mkiso.archive.store", fromlist=["_link_or_copy"])._link_or_copy

        def while_another_stores_it(image: Path, target: Path) -> None:
            monkeypatch.setattr(copy, linked)
            put(store.directory, left.volume, "{}")
            linked(image, target)

        monkeypatch.setattr(copy, while_another_stores_it)
        with pytest.raises(MkisoError):  # its unfinished folder was cleared away under it
            put(store.directory, left.volume, "{}")
        assert sha256_of(store.image(left.volume.label)) == left.volume.sha256
        assert put(store.directory, left.volume, "{}") == store.image(left.volume.label).parent


def test_a_withdrawn_volumes_label_is_never_used_again_and_its_studies_are_owed(ledger: Ledger) -> None:
    with Night.begin(ledger, "one", RANGE) as night:
        store = Store.open(ledger)
        volume = archive(night, UIDS)
        deliver_to_store(night, reconcile(night, ledger, store)[0].volume, "{}", store)
        assert withdraw(ledger, volume.label) == ("20260213", "20260213")
        assert [study.study_instance_uid for study in lost_studies(ledger)] == ["1.2"]
        assert archive(night, UIDS).label > volume.label
        assert lost_studies(ledger) == ()


def test_a_lease_that_a_clock_gave_that_was_ahead_ends(ledger: Ledger) -> None:
    """The machine's clock said 2099 when a run that is gone renewed its lease; its process can't be seen from here."""
    Night.begin(ledger, "ahead", RANGE).claim(["1.2"])
    with ledger.writing() as connection:
        connection.execute(
            update(nights)
            .where(nights.c.run_id == "ahead")
            .values(lease_until=4_080_000_000.0, process="another-boot pid:[1] 1 1")
        )
    with Night.begin(ledger, "two", RANGE) as night:
        assert night.claim(["1.2"]) == {"1.2"}


def test_a_volume_whose_publisher_is_no_more_goes_where_volumes_go_now(ledger: Ledger) -> None:
    with Night.begin(ledger, "one", RANGE) as night:
        night.claim(list(UIDS))
        (volume,) = night.plan("dvd", "robot", DAY)
        night.mastered([master(volume, UIDS)])
        assert night.redirect(volume.label, "store").for_store
        night.advance(volume.label, "done", "here", "S")
        with pytest.raises(ClaimLost):
            night.redirect(volume.label, "store")
    with ledger.reading() as connection:
        assert connection.scalar(volumes.select().with_only_columns(volumes.c.output)) == "store"
