"""Scenarios 1 to 6: questions that can't be right, accession numbers that nobody or several people have, and a patient
API that is down.

What else is held elsewhere: every bad query against the webhook alone in tests/webhook/test_doors.py, nginx in front in
tests/webhook/test_nginx.py, the patient API's own faults in tests/patient_api/test_patient_api.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom import dcmread

from peers.house import House
from peers.patient_api import ScriptedPatientApi
from peers.scripted_pacs import MoveRequest, whole

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("the_next_job_passes_and_nothing_is_left")]

DOWNLOAD, MULTIPLE, PRINT = (
    "/api/iso/download?accession_number=",
    "/api/iso/download-multiple?accession_numbers=",
    "/api/iso/print?accession_number=",
)


def assert_refused_at_the_door(house: House, addresses: list[str]) -> None:
    """400 in JSON; no run, no connection to the PACS, nothing on the disk."""
    shelf, connections, runs = house.shelf(), house.link.connections, runs_in_prefect(house)
    for address in addresses:
        answer = house.service.http.get(address)
        assert answer.status_code == 400, address
        assert answer.headers["content-type"] == "application/json"
        assert len(answer.json()["error"]) > 20 and answer.json()["code"].startswith(("invalid", "too_many"))
    assert (house.shelf(), house.link.connections, runs_in_prefect(house)) == (shelf, connections, runs)


def runs_in_prefect(house: House) -> int:
    return int(house.service.prefect.post("/flow_runs/count", json={}).raise_for_status().json())


def test_01_a_wildcard_never_reaches_a_pacs_that_would_send_its_whole_archive(house: House) -> None:
    house.ask_of("dcmqrscp")
    log = house.pacs["dcmqrscp"].log()
    numbers = ["*", "GOOD?", "GOOD*", "?", "%EF%BC%8A", "%252A", "%2A", "GOOD1%00", "GOOD1%0D%0AX", "G" * 17]
    assert_refused_at_the_door(house, [base + number for base in (DOWNLOAD, MULTIPLE, PRINT) for number in numbers])
    assert_refused_at_the_door(house, [MULTIPLE + "GOOD1,*", PRINT + "GOOD1,GOOD?"])
    assert house.pacs["dcmqrscp"].log() == log


def test_02_an_empty_question_is_no_question(house: House) -> None:
    house.ask_of("dcmqrscp")
    numbers = ["", "%20", "%20%09", "%C2%A0", "%E3%80%80"]
    assert_refused_at_the_door(house, ["/api/iso/download", "/api/iso/download-multiple", "/api/iso/print"])
    assert_refused_at_the_door(house, [base + number for base in (DOWNLOAD, MULTIPLE, PRINT) for number in numbers])
    assert_refused_at_the_door(house, [MULTIPLE + ",", MULTIPLE + "%20,%20"])


def test_03_a_backslash_is_not_two_accession_numbers(house: House) -> None:
    """Orthanc would expand it to both studies."""
    log = house.pacs["orthanc"].log()
    assert_refused_at_the_door(
        house,
        [base + number for base in (DOWNLOAD, MULTIPLE, PRINT) for number in ("GOOD1%5CTHAI1", "GOOD1%5C", "%5C")],
    )
    assert house.pacs["orthanc"].log() == log


@pytest.mark.parametrize("pacs", ["dcmqrscp", "orthanc"])
def test_04_an_unknown_accession_number(house: House, pacs: str) -> None:
    house.ask_of(pacs)
    log = house.pacs[pacs].log()
    house.refused("UNKNOWN1", 404, "study_not_found", "UNKNOWN1")
    seen = house.pacs[pacs].log()[len(log) :]
    assert seen and not re.search(r"Move SCP RQ|Received Move", seen), seen


@pytest.mark.parametrize("fault", ["fails", "hangs", "redirects"])
def test_05_without_the_patient_api_the_disc_is_made_and_says_so(house: House, fault: str, tmp_path: Path) -> None:
    with ScriptedPatientApi() as elsewhere:
        scripts = {
            "fails": house.patient_api.fails,
            "hangs": house.patient_api.hangs,
            "redirects": house.patient_api.redirects_to(f"{elsewhere.url.replace('127.0.0.1', 'localhost')}/patients"),
        }
        house.patient_api.script = scripts[fault]
        house.patient_api.asked.clear()
        answer = house.disc("GOOD1", tmp_path / "disc")
        assert elsewhere.asked == [], "a redirect to another host was followed"
    assert answer.headers["x-mkiso-degraded"] == "patient_api"
    assert len(house.patient_api.asked) == (1 if fault == "redirects" else 2)
    job = house.service.job(str(answer.headers["content-location"]).split("/")[4])
    assert (job["state"], job["degraded"]) == ("done", ["patient_api"])
    assert house.service.run(job["job_id"])["state_type"] == "COMPLETED"


@pytest.mark.parametrize("pacs", ["dcmqrscp", "orthanc"])
def test_06_an_accession_number_of_two_patients(house: House, pacs: str) -> None:
    house.ask_of(pacs)
    back = house.back.connections
    house.refused("TWO1", 409, "patient_mismatch", "TWO1.*more than one patient")
    assert house.back.connections == back, "something was retrieved"


def test_06_the_patient_api_names_another_patient_than_the_pacs(house: House) -> None:
    house.patient_api.script = house.patient_api.answers(hn="SOMEBODYELSE", name="Else^Somebody")
    back = house.back.connections
    house.refused("GOOD1", 409, "patient_mismatch", "different patients")
    assert house.back.connections == back


def test_06_an_image_of_another_patient_under_an_expected_uid(house: House, tmp_path: Path) -> None:
    """The PACS lists one patient and sends another: nothing is kept, also not for a rerun."""
    wrong = dcmread(house.studies["GOOD1"][2])
    wrong.PatientID = "SOMEBODYELSE"
    wrong.save_as(tmp_path / "wrong.dcm", enforce_file_format=True)

    def sends(move: MoveRequest) -> None:
        assert move.store([*move.files[:2], tmp_path / "wrong.dcm"])
        move.end(0x0000, completed=3, failed=0, warning=0, remaining=0)

    house.play("GOOD1", sends)
    house.refused("GOOD1", 409, "patient_mismatch", "another patient's ID")


@pytest.mark.parametrize("keyword", ["IssuerOfPatientID", "PatientBirthDate", "PatientSex"])
def test_06_headers_that_contradict_each_other_under_one_patient_id(house: House, tmp_path: Path, keyword: str) -> None:
    """The PACS answers no optional key, so only the headers together show that it is two patients."""
    pacs = house.play("GOOD1", whole)
    other = dcmread(pacs.files[2])
    for dataset, value in ((dcmread(pacs.files[1]), "19010101"), (other, "19020202")):
        setattr(dataset, keyword, "FM"[value == "19020202"] if keyword == "PatientSex" else value)
        dataset.save_as(tmp_path / value, enforce_file_format=True)
    pacs.files = [pacs.files[0], tmp_path / "19010101", tmp_path / "19020202"]
    pacs.silent_keys = {keyword}
    try:
        house.refused(
            "GOOD1",
            409,
            "patient_mismatch",
            "more than one issuer" if keyword == "IssuerOfPatientID" else f"contradict.*{keyword}",
        )
    finally:
        pacs.silent_keys = set()
