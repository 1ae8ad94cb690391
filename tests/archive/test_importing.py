"""Volumes of which the ledger knows nothing any more are written down again, from what lies on them (real images;
SQLite and PostgreSQL).
"""

from __future__ import annotations

import shutil
from itertools import chain
from pathlib import Path

import pytest

from mkiso.archive.by_hand import settle, withdraw
from mkiso.archive.catalogue import archived, find, lost_studies
from mkiso.archive.importing import FoundVolume, Imported, import_volume
from mkiso.archive.ledger import Ledger
from mkiso.archive.lifecycle import Claim, Remedy
from mkiso.archive.nights import Night
from mkiso.archive.owed import owed
from mkiso.archive.readback import verify_against_ledger
from mkiso.archive.reconcile import reconcile
from mkiso.archive.store import Store, deliver_to_store
from mkiso.config.settings import Settings
from mkiso.errors import ClaimLost, InvalidRequest, ProofFailed, VolumeNotFound
from mkiso.formats.iso import master
from mkiso.media.layout import LayoutOptions, lay_out
from mkiso_service.cli.archive_discs import found_volume
from peers.corpus import PLAIN, THAI, make_study
from tests.archive.conftest import Copies
from tests.archive.discs import RANGE, archive
from tests.media.discs import CREATED, instances
from tests.media.discs import archived as passed
from tests.media.discs import settings as media_settings

LABEL = "A20260213_0001"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume of two patients, as the archive makes it."""
    folder = tmp_path_factory.mktemp("image")
    files = make_study(folder / "a", "A1", patient=PLAIN, kinds={"ct": 3, "sr": 1}, study_date="20260212")
    files += make_study(folder / "b", "A2", patient=THAI, kinds={"mr": 2}, study_date="20260213")
    layout = lay_out(
        passed(instances(files)), LayoutOptions(media_settings(folder), CREATED), folder / "disc", volume_id=LABEL
    )
    master(layout.files, layout.volume_id, folder / "disc.iso", created=CREATED)
    return folder / "disc.iso"


def in_store(store: Store, image: Path) -> Path:
    target = store.image(LABEL)
    target.parent.mkdir()
    shutil.copy(image, target)
    target.with_suffix(".json").write_text('{"number": 2, "total": 3}')
    return target


def files_of(found: FoundVolume) -> list[tuple[str, int, str]]:
    files = [*chain.from_iterable(study.files for study in found.studies), *found.other_files]
    return [(str(file.path), file.size, file.sha256) for file in files]


def test_a_volume_in_the_store_is_known_again(ledger: Ledger, image: Path) -> None:
    store = Store.open(ledger)
    stored = in_store(store, image)
    assert [each.label for each in owed(ledger, store)] == [LABEL]
    assert import_volume(ledger, found_volume(stored), store, "dvd", "store") == Imported("done", 6, 0)
    assert owed(ledger, store) == ()
    (one,), (other,) = find(ledger, "A1"), find(ledger, "A2")
    assert (one.study_date, other.study_date) == ("20260212", "20260213")
    (holding,) = one.holdings
    assert (holding.label, holding.state, holding.number, holding.total, holding.instances) == (LABEL, "done", 2, 3, 4)
    assert holding.location == str(stored.parent)
    assert holding.read_back_good
    assert len(archived(ledger, [one.study_instance_uid])[one.study_instance_uid]) == 4
    with pytest.raises(InvalidRequest, match="knows volume"):
        import_volume(ledger, found_volume(stored), store, "dvd", "store")
    assert verify_against_ledger(ledger, LABEL, files_of(found_volume(stored))).is_good


def test_what_was_archived_anew_meanwhile_stays_where_it_is(ledger: Ledger, image: Path) -> None:
    store = Store.open(ledger)
    stored = in_store(store, image)
    found = found_volume(stored)
    study = max(found.studies, key=lambda each: len(each.files))
    with Night.begin(ledger, "anew", RANGE) as night:
        anew = archive(night, {study.study_instance_uid: [file.sop_instance_uid for file in study.files]})
    assert import_volume(ledger, found, store, "dvd", "store") == Imported("done", 2, 4)
    (finding,) = find(ledger, study.study_instance_uid)
    assert [holding.label for holding in finding.holdings] == [anew.label]
    assert verify_against_ledger(ledger, LABEL, files_of(found)).is_good
    assert owed(ledger, store) == ()


def test_a_volume_of_which_all_was_archived_anew_is_read_back_good_and_withdrawn(ledger: Ledger, image: Path) -> None:
    store = Store.open(ledger)
    found = found_volume(in_store(store, image))
    with Night.begin(ledger, "anew", RANGE) as night:
        archive(
            night,
            {study.study_instance_uid: [file.sop_instance_uid for file in study.files] for study in found.studies},
        )
    assert import_volume(ledger, found, store, "dvd", "store") == Imported("done", 0, 6)
    assert verify_against_ledger(ledger, LABEL, files_of(found)).is_good
    assert withdraw(ledger, LABEL) == (None, None)


def test_another_disc_under_a_lost_volumes_label_leaves_everything_owed(ledger: Ledger, image: Path) -> None:
    """Labels are dates and numbers: that of another archive may have the same."""
    with Night.begin(ledger, "one", RANGE) as night:
        volume = archive(night, {"1.2": ["1.2.1"]})
        night.advance(volume.label, "done", "shelf 3")
    assert volume.label == LABEL
    withdraw(ledger, LABEL)
    store = Store.open(ledger)
    with pytest.raises(
        InvalidRequest, match=r"This isn't the volume that the ledger has as A20260213_0001: .* \(1 instance missing"
    ):
        import_volume(ledger, found_volume(in_store(store, image)), store, "dvd", "store")
    assert [study.study_instance_uid for study in lost_studies(ledger)] == ["1.2"]


def test_nothing_is_taken_up_that_a_run_archives_at_this_moment(ledger: Ledger, image: Path) -> None:
    store = Store.open(ledger)
    found = found_volume(in_store(store, image))
    with Night.begin(ledger, "anew", RANGE) as night:
        night.claim([found.studies[1].study_instance_uid])
        with pytest.raises(ClaimLost, match="wait for its end"):
            import_volume(ledger, found, store, "dvd", "store")
    assert import_volume(ledger, found, store, "dvd", "store") == Imported("done", 6, 0)


def test_a_volume_that_was_given_up_comes_back_with_all_that_lies_on_it(ledger: Ledger, image: Path) -> None:
    """`settle --stored` would hold it for archived, and the ledger would know of nothing on it."""
    store = Store.open(ledger)
    stored = in_store(store, image)
    import_volume(ledger, found_volume(stored), store, "dvd", "store")
    withdraw(ledger, LABEL)
    settle(ledger, LABEL, Claim.FORGET, store)
    for claim in (Claim.STORED, Claim.HERE):
        with pytest.raises(VolumeNotFound, match="`mkiso archive import` its image"):
            settle(ledger, LABEL, claim, store)
    assert import_volume(ledger, found_volume(stored), store, "dvd", "store") == Imported("done", 6, 0)
    assert find(ledger, "A1")[0].holdings[0].state == "done"


def test_a_volume_in_the_data_directory_is_delivered_by_the_next_run(ledger: Ledger, image: Path) -> None:
    waiting = ledger.storage.volumes_dir / LABEL / "disc.iso"
    waiting.parent.mkdir()
    shutil.copy(image, waiting)
    store = Store.open(ledger)
    assert import_volume(ledger, found_volume(waiting), store, "dvd", "store") == Imported("mastered", 6, 0)
    with Night.begin(ledger, "run", RANGE) as night:
        (left,) = reconcile(night, ledger, store)
        assert left.remedy is Remedy.DELIVER
        deliver_to_store(night, left.volume, "{}", store)
    assert owed(ledger, store) == ()


def test_a_lost_disc_that_turns_up_is_owed_no_more(ledger: Ledger, image: Path) -> None:
    store = Store.open(ledger)
    stored = in_store(store, image)
    import_volume(ledger, found_volume(stored), store, "dvd", "store")
    withdraw(ledger, LABEL)
    assert len(lost_studies(ledger)) == 2
    assert import_volume(ledger, found_volume(stored), store, "dvd", "store") == Imported("done", 6, 0)
    assert lost_studies(ledger) == ()


def test_with_the_ledger_lost_for_good_everything_is_known_again(
    settings: Settings, copies: Copies, image: Path
) -> None:
    with Ledger.open(settings) as ledger:
        stored = in_store(Store.open(ledger), image)
    other = copies.another(settings)
    with Ledger.open(other, adopt=True) as ledger:
        store = Store.open(ledger, adopt=True)
        import_volume(ledger, found_volume(stored), store, "dvd", "store")
        assert owed(ledger, store) == ()
        assert find(ledger, "A1")


def test_a_file_that_lies_where_nobody_looks_for_it_and_a_damaged_one_are_refused(
    ledger: Ledger, image: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match="lies in a file where nobody looks for it"):
        import_volume(ledger, found_volume(image), Store.open(ledger), "dvd", "store")
    damaged = tmp_path / "damaged.iso"
    content = bytearray(image.read_bytes())
    content[content.index(b"Made for a test")] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(ProofFailed):
        found_volume(damaged)
