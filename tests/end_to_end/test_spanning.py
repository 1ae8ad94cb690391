"""A study larger than its medium comes as a set of discs (issue: Archive, item 4)."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.fileset import FileSet

from peers.corpus import dataset_bytes, make_ct_series, ramp
from peers.dcmqrscp import Dcmqrscp
from peers.discs import extract, instances_on, judge
from tests.end_to_end.conftest import Hospital, Open

pytestmark = [pytest.mark.end_to_end]

CD_BYTES = 359_844 * 2048
SIZE = 2048
IMAGES = 100  # of 8 MB: a CD and a bit
LATER = 22  # images that come before these in their series, but later to the PACS


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_ct_series(
        tmp_path_factory.mktemp("study"), "LARGE1", IMAGES, size=SIZE, first=LATER + 1, pixels=ramp(SIZE)
    )


@pytest.fixture(scope="module")
def hospital(open_hospital: Open, study: list[Path]) -> Hospital:
    return open_hospital("dcmqrscp", study, {"disc": {"pictures": "none"}})


def test_a_set_that_is_fetched_while_the_study_grows_is_one_set(
    hospital: Hospital, study: list[Path], tmp_path: Path
) -> None:
    """The first disc of the old set and the second of the new one lacked 22 images, and both were 200."""
    answer = hospital.service.download("LARGE1")
    assert (answer.status_code, answer.json()["code"]) == (409, "several_discs"), answer.text
    question = "/api/iso/download?accession_number=LARGE1"
    first = hospital.service.http.head(f"{question}&part=1", follow_redirects=True)
    assert first.status_code == 200 and "-1of2-" in first.headers["content-disposition"]
    come = make_ct_series(tmp_path / "come", "LARGE1", LATER, size=SIZE, pixels=ramp(SIZE))
    assert isinstance(hospital.pacs, Dcmqrscp)
    hospital.pacs.index([Path(shutil.copy(file, hospital.pacs.storage / file.name)) for file in come])
    second = hospital.service.http.get(f"{question}&part=2", follow_redirects=True)
    assert (second.status_code, second.json()["code"]) == (409, "other_set")
    newest, older = second.json()["sets"]
    assert older["parts"][0]["sha256"] == first.headers["etag"].strip('"') and older["set"] != newest["set"]
    assert held_by(hospital, newest["job_id"], tmp_path) == bytes_by_uid([*study, *come])
    assert held_by(hospital, older["job_id"], tmp_path) == bytes_by_uid(study)
    assert hospital.service.http.get(f"{question}&part=2&set={older['set']}").json()["code"] == "other_set"


def bytes_by_uid(files: list[Path]) -> dict[str, str]:
    """The data set of each instance, as a hash, by its UID."""
    return {str(dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID): digest(file) for file in files}


def digest(file: Path) -> str:
    return hashlib.sha256(dataset_bytes(file)).hexdigest()


def held_by(hospital: Hospital, job_id: str, tmp_path: Path) -> dict[str, str]:
    """What the two discs of a job hold; each is judged."""
    job = hospital.service.job(job_id)
    assert [disc["part"] for disc in job["discs"]] == [1, 2] and len({disc["set"] for disc in job["discs"]}) == 1
    held: dict[str, str] = {}
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
        held |= {uid: digest(file) for uid, file in on_disc.items()}
        shutil.rmtree(folder)
    return held


def test_without_spanning_both_sizes_and_the_medium_that_would_do_are_named(
    open_hospital: Open, study: list[Path]
) -> None:
    hospital = open_hospital("dcmqrscp", study, {"disc": {"span": False, "pictures": "none"}})
    answer = hospital.service.download("LARGE1")
    assert (answer.status_code, answer.json()["code"]) == (422, "too_large_for_medium")
    assert "CD" in answer.json()["error"] and "DVD" in answer.json()["error"]
