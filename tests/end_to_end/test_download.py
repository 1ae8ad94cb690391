"""From an accession number to a proven disc image, with real PACS (issue: Download)."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.fileset import FileSet
from pydicom.uid import ExplicitVRLittleEndian

from peers.corpus import EVERY_KIND, PLAIN, THAI, make_study
from peers.discs import assert_holds_exactly, extract, instances_on, judge
from peers.patience import LONG
from tests.end_to_end.conftest import Hospital, Open

pytestmark = [pytest.mark.end_to_end]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("studies")
    return {
        "ALL1": make_study(folder, "ALL1", kinds=EVERY_KIND),
        "SECOND1": make_study(folder, "SECOND1", kinds={"mr": 4, "dx": 1}),
        "THAI1": make_study(folder, "THAI1", patient=THAI),
        "OTHER1": make_study(folder, "OTHER1", "HN-9999"),
        "SHARED1": make_study(folder / "a", "SHARED1") + make_study(folder / "b", "SHARED1", "HN-9998"),
    }


@pytest.fixture(scope="module", params=["orthanc", "dcmqrscp"])
def hospital(request: pytest.FixtureRequest, open_hospital: Open, studies: dict[str, list[Path]]) -> Hospital:
    return open_hospital(request.param, [file for files in studies.values() for file in files])


def downloaded(answer: httpx.Response, folder: Path) -> tuple[Path, Path]:
    """The image and what 7z extracts of it."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/vnd.efi.iso"
    image = folder / "disc.iso"
    image.write_bytes(answer.content)
    return image, extract(image, folder / "extracted")


def test_a_study_of_every_kind_comes_out_byte_for_byte(
    hospital: Hospital, studies: dict[str, list[Path]], tmp_path: Path
) -> None:
    image, folder = downloaded(hospital.service.download("ALL1"), tmp_path)
    assert_holds_exactly(folder, studies["ALL1"])
    judge(image, folder)
    assert len(FileSet(folder / "DICOMDIR")) == len(studies["ALL1"])
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256.TXT"], cwd=folder, check=True)


def test_several_accession_numbers_of_one_patient_become_one_disc(
    hospital: Hospital, studies: dict[str, list[Path]], tmp_path: Path
) -> None:
    answer = hospital.service.http.get(
        "/api/iso/download-multiple", params={"accession_numbers": "SECOND1,ALL1,SECOND1"}
    )
    image, folder = downloaded(answer, tmp_path)
    assert_holds_exactly(folder, studies["ALL1"] + studies["SECOND1"])
    judge(image, folder)
    assert PLAIN.name.split("^")[0] in answer.headers["content-disposition"]
    job = hospital.service.http.get(answer.headers["content-location"].rpartition("/disc")[0])
    whole = [(name, len(studies[name]), len(studies[name])) for name in ("SECOND1", "ALL1")]
    assert [
        (study["accession_number"], study["expected"], study["received"]) for study in job.json()["studies"]
    ] == whole
    assert PLAIN.name.split("^")[0] not in json.dumps(job.json()["studies"])


def test_a_request_chooses_the_language_of_its_disc(hospital: Hospital, tmp_path: Path) -> None:
    for code, words in (("de", "Wem diese Disc gehört"), ("", "Whose disc this is")):
        answer = hospital.service.http.get(
            "/api/iso/download", params={"accession_number": "THAI1", **({"language": code} if code else {})}
        )
        (tmp_path / code).mkdir(exist_ok=True)
        _, folder = downloaded(answer, tmp_path / code)
        index = (folder / "INDEX.HTM").read_text()
        assert words in index and f'<html lang="{code or "en"}"' in index
    answer = hospital.service.http.get("/api/iso/download", params={"accession_number": "THAI1", "language": "xx"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_a_request_chooses_images_that_old_programs_read(
    hospital: Hospital, studies: dict[str, list[Path]], tmp_path: Path
) -> None:
    """Of each kind, compressed or not; the disc as archived stays another one."""
    archived = hospital.service.download("ALL1")
    query = {"accession_number": "ALL1", "transfer_syntax": "explicit-le"}
    answer = hospital.service.http.get("/api/iso/download", params=query)
    image, folder = downloaded(answer, tmp_path)
    judge(image, folder)
    on_disc = {uid: dcmread(file) for uid, file in instances_on(folder).items()}
    assert len(FileSet(folder / "DICOMDIR")) == len(on_disc) == len(studies["ALL1"])
    assert {str(dataset.file_meta.TransferSyntaxUID) for dataset in on_disc.values()} == {ExplicitVRLittleEndian}
    for file in studies["ALL1"]:
        original = dcmread(file)
        if "PixelData" in original and not original.file_meta.TransferSyntaxUID.is_encapsulated:
            assert (on_disc[original.SOPInstanceUID].pixel_array == original.pixel_array).all()
    assert hospital.service.http.get("/api/iso/download", params=query).headers["etag"] == answer.headers["etag"]
    assert hospital.service.download("ALL1").headers["etag"] == archived.headers["etag"] != answer.headers["etag"]


def test_a_thai_name_is_itself_in_header_and_dicomdir(
    hospital: Hospital, studies: dict[str, list[Path]], tmp_path: Path
) -> None:
    """Scenario 23."""
    answer = hospital.service.http.get("/api/iso/download-multiple", params={"accession_numbers": "THAI1"})
    _, folder = downloaded(answer, tmp_path)
    assert_holds_exactly(folder, studies["THAI1"])
    [patient] = FileSet(folder / "DICOMDIR").find_values("PatientName")
    assert str(patient) == THAI.name
    assert (
        "filename*=UTF-8''" in answer.headers["content-disposition"] or answer.headers["content-disposition"].isascii()
    )


@pytest.mark.parametrize(
    ("accession_number", "status", "code"),
    [("UNKNOWN1", 404, "study_not_found"), ("SHARED1", 409, "patient_mismatch")],
)
def test_what_can_not_be_a_disc_says_why(hospital: Hospital, accession_number: str, status: int, code: str) -> None:
    """Scenarios 4 and 6."""
    before = hospital.pacs.log().count("C-MOVE")
    answer = hospital.service.download(accession_number)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert len(answer.json()["error"]) > 30
    assert hospital.pacs.log().count("C-MOVE") == before, "nothing was to be retrieved"


def test_two_patients_in_one_request_are_refused(hospital: Hospital) -> None:
    answer = hospital.service.http.get("/api/iso/download-multiple", params={"accession_numbers": "ALL1,OTHER1"})
    assert (answer.status_code, answer.json()["code"]) == (409, "patient_mismatch")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "accession_number=",
        "accession_number=%20",
        "accession_number=*",
        "accession_number=A%5CB",
        "accession_number=ALL%3F",
    ],
)
def test_bad_questions_never_reach_the_pacs(hospital: Hospital, query: str) -> None:
    """Scenarios 1, 2, 3."""
    before = hospital.pacs.log()
    answer = hospital.service.http.get(f"/api/iso/download?{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.json()["error"]) > 20
    assert hospital.pacs.log() == before


def test_two_jobs_at_once_never_cross(hospital: Hospital, studies: dict[str, list[Path]], tmp_path: Path) -> None:
    """Scenario 20."""
    answers: dict[str, httpx.Response] = {}

    def ask(accession_number: str) -> None:
        answers[accession_number] = hospital.service.download(accession_number)

    threads = [threading.Thread(target=ask, args=(accession_number,)) for accession_number in ("OTHER1", "SECOND1")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    for accession_number, answer in answers.items():
        folder = tmp_path / accession_number
        folder.mkdir()
        _, extracted = downloaded(answer, folder)
        assert_holds_exactly(extracted, studies[accession_number])


def test_the_same_question_is_served_again_only_while_the_pacs_says_the_same(
    hospital: Hospital, studies: dict[str, list[Path]]
) -> None:
    first, second = hospital.service.download("OTHER1"), hospital.service.download("OTHER1")
    assert first.headers["etag"] == second.headers["etag"]
    assert second.content == first.content
    part = hospital.service.download("OTHER1", Range="bytes=100-199", **{"If-Range": first.headers["etag"]})
    assert (part.status_code, part.content) == (206, first.content[100:200])


def test_nothing_of_a_finished_job_is_left(hospital: Hospital) -> None:
    job_id = hospital.service.ask("/api/iso/download", accession_number="SECOND1")
    assert hospital.service.ended(job_id)["state"] == "done"
    hospital.service.run_ended(job_id)
    assert not (hospital.service.data_dir / "jobs" / job_id).exists()
    assert not list((hospital.service.data_dir / "incoming").iterdir())
    manifest = json.loads(next((hospital.service.data_dir / "discs").glob("*-*-*-*-*/manifest.json")).read_text())
    assert manifest["instances"] > 0
