"""A study larger than its medium comes as a set of discs (issue: Archive, item 4)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydicom.fileset import FileSet

from tests.end_to_end.conftest import Hospital, Open
from tests.end_to_end.discs import extract, instances_on, judge
from tests.peers.corpus import dataset_bytes, make_ct_series

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(240)]

CD_BYTES = 359_844 * 2048
IMAGES = 100  # of 8 MB: a CD and a bit


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_ct_series(tmp_path_factory.mktemp("study"), "LARGE1", IMAGES, size=2048)


@pytest.fixture(scope="module")
def hospital(open_hospital: Open, study: list[Path]) -> Hospital:
    return open_hospital("dcmqrscp", study)


def test_a_set_of_discs_holds_each_image_once(hospital: Hospital, study: list[Path], tmp_path: Path) -> None:
    answer = hospital.service.download("LARGE1")
    assert (answer.status_code, answer.json()["code"]) == (409, "several_discs"), answer.text
    job = hospital.service.job(answer.json()["job_id"])
    assert [disc["part"] for disc in job["discs"]] == [1, 2]
    held: dict[str, bytes] = {}
    for disc in job["discs"]:
        image = tmp_path / "disc.iso"
        with hospital.service.http.stream("GET", disc["href"]) as stream, image.open("wb") as file:
            for chunk in stream.iter_bytes(1 << 20):
                file.write(chunk)
        assert image.stat().st_size == disc["size"] <= CD_BYTES
        folder = extract(image, tmp_path / "extracted")
        judge(image, folder)
        readme = (folder / "README.TXT").read_text(encoding="utf-8", errors="replace")
        assert f"{disc['part']} of 2" in readme
        on_disc = instances_on(folder)
        assert len(FileSet(folder / "DICOMDIR")) == len(on_disc) > 0
        assert not held.keys() & on_disc.keys()
        held |= {uid: dataset_bytes(file) for uid, file in on_disc.items()}
        shutil.rmtree(folder)
    assert sorted(held.values()) == sorted(dataset_bytes(file) for file in study)


def test_without_spanning_both_sizes_and_the_medium_that_would_do_are_named(open_hospital: Open, study: list[Path]) -> None:
    hospital = open_hospital("dcmqrscp", study, {"disc": {"span": False}})
    answer = hospital.service.download("LARGE1")
    assert (answer.status_code, answer.json()["code"]) == (422, "too_large_for_medium")
    assert "CD" in answer.json()["error"] and "DVD" in answer.json()["error"]
