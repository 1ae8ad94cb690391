"""Whose disc it is, from the preview to the disc, with Orthanc."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peers.corpus import UMLAUT, make_study
from tests.end_to_end.conftest import Hospital, Open

pytestmark = [pytest.mark.end_to_end]


@pytest.fixture(scope="module")
def hospital(open_hospital: Open, tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    folder = tmp_path_factory.mktemp("studies")
    files = make_study(folder / "1", "P1", kinds={"ct": 20, "mr": 20, "dx": 2}) + make_study(
        folder / "2", "P2", patient=UMLAUT
    )
    return open_hospital("orthanc", files)


def test_a_disc_is_made_of_the_patient_who_was_shown_and_of_nobody_else(hospital: Hospital) -> None:
    http = hospital.service.http
    told = http.get("/api/iso/preview?accession_number=P1").json()
    assert told["patient"]["name"] == "Example, Anna"
    assert told["studies"][0]["images"] == 42
    assert http.get("/api/iso/download", params={"accession_number": "P1", "shown": told["shown"]}).status_code == 200
    for path in ("/api/iso/download", "/api/iso/print"):
        answer = http.get(path, params={"accession_number": "P2", "shown": told["shown"]})
        assert (answer.status_code, answer.json()["code"]) == (409, "other_patient")
    discs = [json.loads(file.read_text()) for file in hospital.service.data_dir.glob("discs/*/manifest.json")]
    assert [disc["accession_numbers"] for disc in discs] == [["P1"]]
    assert not list(hospital.service.data_dir.glob("jobs/*/instances/*"))


def test_a_question_of_a_shown_patient_joins_none_of_whoever_it_is(hospital: Hospital) -> None:
    http = hospital.service.http
    shown = http.get("/api/iso/preview?accession_number=P2").json()["shown"]
    jobs = [
        http.get("/api/iso/download", params={"accession_number": "P2", **whose}, headers={"Prefer": "respond-async"})
        for whose in ({}, {"shown": shown}, {"shown": shown})
    ]
    ids = [job.json()["job_id"] for job in jobs]
    assert ids[0] != ids[1] == ids[2]


def test_nobody_s_name_reaches_prefect(hospital: Hospital) -> None:
    for file in hospital.service.data_dir.glob("prefect/*.db*"):
        assert b"Example" not in Path(file).read_bytes()
