"""A small archive run: what flows/archive.py does, with bytes for images and without a PACS. Tests kill it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TypeVar

from mkiso.archive.catalogue import archived
from mkiso.archive.ledger import Ledger
from mkiso.archive.lifecycle import Remedy
from mkiso.archive.manifest import manifest_of
from mkiso.archive.nights import Night
from mkiso.archive.owed import owed, undelivered
from mkiso.archive.planning import plan
from mkiso.archive.reconcile import reconcile
from mkiso.archive.store import MARK, Store, deliver_to_store
from mkiso.config.settings import Settings
from tests.archive.discs import DAY, RANGE, master, study

T = TypeVar("T")

STUDIES_A_VOLUME = 3
INSTANCES_A_VOLUME = 9


def run(settings: Settings, run_id: str, pacs: Mapping[str, Sequence[str]]) -> None:
    """Archive every study of `pacs` (UID to SOP Instance UIDs); one with more instances than a volume holds becomes a
    set.
    """
    with Ledger.open(settings) as ledger, Night.begin(ledger, run_id, RANGE) as night:
        _deliver(night, ledger)
        wanted = plan([study(uid, *uids) for uid, uids in pacs.items()], archived(ledger, pacs), {}, 5).to_archive
        for some in portions(wanted, STUDIES_A_VOLUME):
            contents = {work.study.study_instance_uid: sorted(work.wanted or ()) for work in some}
            assert night.claim(list(contents)) == frozenset(contents)
            large = {uid: uids for uid, uids in contents.items() if len(uids) > INSTANCES_A_VOLUME}
            for uid, uids in large.items():
                parts = list(portions(uids, INSTANCES_A_VOLUME))
                volumes = night.plan("dvd", "store", DAY, total=len(parts))
                night.mastered([master(volume, {uid: part}) for volume, part in zip(volumes, parts, strict=True)])
            if small := {uid: uids for uid, uids in contents.items() if uid not in large}:
                (volume,) = night.plan("dvd", "store", DAY)
                night.mastered([master(volume, small)])
            _deliver(night, ledger)
        night.finish(len(pacs))


def portions(values: Sequence[T], size: int) -> list[Sequence[T]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _deliver(night: Night, ledger: Ledger) -> None:
    store = Store.open(ledger)
    for left in reconcile(night, ledger, store):
        if left.remedy is not Remedy.CLOSE:  # it was stored before the kill
            assert left.remedy is Remedy.DELIVER
            deliver_to_store(night, left.volume, manifest_of(ledger, left.volume), store)


def check(settings: Settings, pacs: Mapping[str, Sequence[str]]) -> None:
    """Every instance on exactly one stored volume, nothing half made, and the ledger says what the folders hold."""
    directory = settings.archive.directory
    assert [entry.name for entry in settings.storage.volumes_dir.iterdir()] == [".place"]
    assert sorted(entry.name for entry in directory.iterdir() if entry.name.startswith(".")) == [MARK]
    on_shelf = {folder.name: (folder / f"{folder.name}.iso").read_text().split("\n") for folder in directory.glob("A*")}
    assert sorted(chain.from_iterable(on_shelf.values())) == sorted(chain.from_iterable(pacs.values()))
    with Ledger.open(settings) as ledger, ledger.reading() as connection:
        rows = connection.exec_driver_sql(
            "SELECT label, state, sop_instance_uid FROM volumes JOIN instances ON volume_id = volumes.id"
        ).all()
        assert {row.state for row in rows} == {"done"}
        assert owed(ledger, Store.visible(ledger)) == undelivered(ledger) == ()
        assert {(row.label, row.sop_instance_uid) for row in rows} == {
            (label, uid) for label, uids in on_shelf.items() for uid in uids
        }
        assert connection.exec_driver_sql("SELECT count(*) FROM volumes").scalar() == len(on_shelf)
    with Ledger.open(settings) as ledger, Night.begin(ledger, "check", RANGE) as night:
        assert night.claim(list(pacs)) == frozenset(pacs)
        assert archived(ledger, pacs) == {uid: frozenset(uids) for uid, uids in pacs.items()}
