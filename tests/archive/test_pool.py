"""Studies that wait for their volumes, without Prefect and without a ledger."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mkiso.archive.pool import Pool
from mkiso.config.settings import Settings
from mkiso.errors import DamagedInstance, InstanceConflict
from mkiso.storage.job import Job
from mkiso.study.gate import CompleteStudies
from mkiso.study.values import Retrieved
from peers.corpus import make_study
from tests.media.discs import instances, passed

ROOM = 10_000


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("job", "archive", Settings.model_validate({"storage": {"data_dir": str(tmp_path / "data")}}))


def study(folder: Path, accession_number: str, number: int = 1) -> CompleteStudies:
    return passed(instances(make_study(folder / accession_number, accession_number, number=number, kinds={"ct": 2})))


def test_studies_wait_until_they_fill_a_volume_and_the_last_go_all_the_same(job: Job, tmp_path: Path) -> None:
    pool = Pool(ROOM, "dvd")
    for number in (1, 2):
        pool.add(job, study(tmp_path, f"A{number}", number))
    assert pool.full_volumes(pressed=False) == ()
    assert sorted(uid for volume in pool.last_volumes() for uid in volume) == sorted(pool) and len(pool) == 2


def test_a_study_larger_than_a_volume_has_a_set_of_its_own_at_once(job: Job, tmp_path: Path) -> None:
    pool = Pool(ROOM, "dvd")
    pool.add(job, study(tmp_path, "A1"))
    [(uid, small)] = pool.items()
    pool["1.2.9"] = replace(small, parcel=replace(small.parcel, study_instance_uid="1.2.9", sectors=ROOM + 1))
    assert pool.full_volumes(pressed=False) == (("1.2.9",),)
    assert set(pool.last_volumes()) == {("1.2.9",), (uid,)}


def test_one_instance_of_two_studies_fails_the_second(job: Job, tmp_path: Path) -> None:
    pool = Pool(ROOM, "dvd")
    pool.add(job, study(tmp_path, "A1"))
    with pytest.raises(InstanceConflict, match="2 instances of A1 are also part of another study"):
        pool.add(job, study(tmp_path / "again", "A1"))


def test_a_study_of_which_all_is_on_volumes_already_waits_for_none(job: Job, tmp_path: Path) -> None:
    whole = study(tmp_path, "A1")
    uids = frozenset(each.arrival.sop_instance_uid for each in whole.instances)
    on_volumes = Retrieved(whole.retrieved.found, whole.retrieved.studies, uids)
    pool = Pool(ROOM, "dvd")
    pool.add(job, CompleteStudies(on_volumes, whole.rules))
    assert not pool and pool.last_volumes() == ()


def test_a_study_passes_the_gate_once_more_before_its_volume_is_made(job: Job, tmp_path: Path) -> None:
    whole = study(tmp_path, "A1")
    pool = Pool(ROOM, "dvd")
    pool.add(job, whole)
    [waiting] = pool.values()
    assert [each.arrival for each in waiting.complete().instances] == [each.arrival for each in whole.instances]
    waiting.arrivals[0].path.write_bytes(b"damaged meanwhile")
    with pytest.raises(DamagedInstance):
        waiting.complete()
