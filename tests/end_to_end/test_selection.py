"""Discs of chosen series and studies, from a real PACS, over HTTP: each holds just that, and says so everywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread

from mkiso.formats.disc_check import verify_disc
from mkiso.study.priors import INCOMPLETE
from mkiso.study.priors import WORDS as WORDS_OF_PRIORS
from peers.corpus import make_study
from peers.discs import assert_holds_exactly, extract
from peers.folder_robots import JsonRobot
from peers.orthanc import Orthanc
from peers.storescp import Storescp
from tests.end_to_end.conftest import Hospital, Open
from tests.study.test_rejections import WRONG_ENTRY, note

pytestmark = [pytest.mark.end_to_end]
WORDS = "Not everything is on this disc."


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("studies")
    kinds = {"ct": 4, "mr": 3, "sr": 1}
    return {
        "A1": make_study(folder / "1", "A1", kinds=kinds),
        "": make_study(folder / "2", "", kinds={"ct": 2}),
        "N1": rejected_in_part(folder / "N1"),
        "B1": make_study(folder / "3", "B1", kinds={"ct": 2}),
        "B1, the other": make_study(folder / "4", "B1", kinds={"mr": 2}, number=2),
        **{
            number: of_the_chest(make_study(folder / number, number, "HN-0100", study_date=day, kinds={kind: 3}))
            for number, day, kind in (
                ("R1", "20240229", "ct"),
                ("R2", "20230101", "ct"),
                ("R3", "20220101", "ct"),
                ("R4", "20210101", "mr"),
                ("R5", "20250101", "ct"),
            )
        },
    }


def rejected_in_part(folder: Path) -> list[Path]:
    """A study whose note says that one of its CT images was taken of another patient."""
    files = make_study(folder, "N1", kinds={"ct": 3, "mr": 2})
    return [*files, note(folder, series_of(files, "CT")[1][:1], WRONG_ENTRY)]


def of_the_chest(files: list[Path]) -> list[Path]:
    for file in files:
        dataset = dcmread(file)
        dataset.BodyPartExamined = "CHEST"
        dataset.save_as(file)
    return files


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JsonRobot]:
    with JsonRobot(tmp_path_factory.mktemp("robot"), step_seconds=0.1) as robot:
        yield robot


@pytest.fixture(scope="module")
def hospital(
    open_hospital: Open,
    studies: dict[str, list[Path]],
    robot: JsonRobot,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Hospital]:
    with Storescp(tmp_path_factory.mktemp("storescp")) as storescp:
        publishers = {
            "robot": {"kind": "folder", "directory": str(robot.folder)},
            "device": {"kind": "cstore", "ae_title": "RIMAGE", "port": storescp.port, "settle_seconds": 0},
        }
        files = [file for each in studies.values() for file in each]
        sections = {
            "publishers": publishers,
            "print": {"publisher": "robot"},
            "priors": {"count": 2},
            "deidentified": {"secret": "a secret of this site that nobody guesses"},
        }
        yield open_hospital("orthanc", files, sections, options={"MaximumStorageCacheSize": 0})
        assert not storescp.files()


def series_of(files: list[Path], modality: str) -> tuple[str, list[Path]]:
    headers = {file: dcmread(file, stop_before_pixels=True) for file in files}
    own = [file for file in files if headers[file].Modality == modality]
    return str(headers[own[0]].SeriesInstanceUID), own


@pytest.mark.parametrize("form", ["iso", "zip"])
def test_a_disc_of_a_series_holds_it_alone_and_says_so(
    hospital: Hospital, studies: dict[str, list[Path]], tmp_path: Path, form: str
) -> None:
    http, (uid, files) = hospital.service.http, series_of(studies["A1"], "MR")
    query = {"accession_number": "A1", "format": form}
    whole = http.get("/api/iso/download", params=query)
    answer = http.get("/api/iso/download", params={**query, "series_uid": uid})
    assert (whole.status_code, answer.status_code) == (200, 200), answer.text
    assert f'filename="A1-selected.{form}"' in answer.headers["content-disposition"]
    assert f'filename="A1.{form}"' in whole.headers["content-disposition"]
    for name, told, held in (("whole", whole, studies["A1"]), ("part", answer, files)):
        image = tmp_path / f"{name}.{form}"
        image.write_bytes(told.content)
        assert verify_disc(image).instances == len(held)
        folder = extract(image, tmp_path / name)
        assert_holds_exactly(folder, held)
        texts = [(folder / page).read_text("utf-8-sig") for page in ("INDEX.HTM", "README.TXT")]
        assert all((WORDS in text) == (name == "part") for text in texts)
        assert all(("3 series" in text) == (name == "part") for text in texts)
    job = http.get(f"/api/iso/jobs/{answer.headers['content-location'].split('/')[4]}").json()
    assert (job["is_part"], job["selection"]["series"]) == (True, [uid])
    assert [(study["series"], study["of_series"]) for study in job["studies"]] == [(1, 3)]
    assert http.get("/api/iso/download", params=query).headers["etag"] == whole.headers["etag"]
    assert http.get("/api/iso/download", params={**query, "series_uid": uid}).headers["etag"] == answer.headers["etag"]
    letter = http.get(f"/api/iso/jobs/{job['job_id']}/letter.pdf")
    assert letter.status_code == 200


def test_a_note_in_a_series_that_is_not_chosen_is_heeded(
    hospital: Hospital, studies: dict[str, list[Path]], tmp_path: Path
) -> None:
    http = hospital.service.http
    for chosen in ({}, {"series_uid": series_of(studies["N1"], "CT")[0]}):
        refused = http.get("/api/iso/download", params={"accession_number": "N1", **chosen})
        assert (refused.status_code, refused.json()["code"]) == (409, "patient_mismatch")
        assert "rejected for an incorrect modality worklist entry" in refused.json()["error"]
    uid, files = series_of(studies["N1"], "MR")
    answer = http.get("/api/iso/download", params={"accession_number": "N1", "series_uid": uid})
    assert answer.status_code == 200, answer.text
    (tmp_path / "disc.iso").write_bytes(answer.content)
    assert_holds_exactly(extract(tmp_path / "disc.iso", tmp_path / "disc"), files)
    job = http.get(f"/api/iso/jobs/{answer.headers['content-location'].split('/')[4]}").json()
    assert [(study["received"], study["series"], study["of_series"]) for study in job["studies"]] == [(2, 1, 3)]


def test_a_study_without_a_number_has_a_disc(
    hospital: Hospital, studies: dict[str, list[Path]], tmp_path: Path
) -> None:
    uid = str(dcmread(studies[""][0], stop_before_pixels=True).StudyInstanceUID)
    answer = hospital.service.http.get("/api/iso/download", params={"study_uid": uid})
    assert answer.status_code == 200, answer.text
    image = tmp_path / "disc.iso"
    image.write_bytes(answer.content)
    folder = extract(image, tmp_path / "disc")
    assert_holds_exactly(folder, studies[""])
    assert WORDS not in (folder / "INDEX.HTM").read_text("utf-8")


def test_a_disc_of_one_of_a_number_s_studies_says_so_however_it_was_asked_for(
    hospital: Hospital, studies: dict[str, list[Path]], tmp_path: Path
) -> None:
    http = hospital.service.http
    first, second = (
        str(dcmread(studies[name][0], stop_before_pixels=True).StudyInstanceUID) for name in ("B1", "B1, the other")
    )
    for uids, held, is_part in (
        ((first,), studies["B1"], True),
        ((first, second), studies["B1"] + studies["B1, the other"], False),
    ):
        query = {"study_uid": list(uids)}
        preview = http.get("/api/iso/preview", params=query).json()
        answer = http.get("/api/iso/download-multiple", params={**query, "shown": preview["shown"]})
        assert answer.status_code == 200, answer.text
        assert (preview["is_part"], "B1-selected" in answer.headers["content-disposition"]) == (is_part, is_part)
        image = tmp_path / f"{len(uids)}.iso"
        image.write_bytes(answer.content)
        folder = extract(image, tmp_path / str(len(uids)))
        assert_holds_exactly(folder, held)
        assert (WORDS in (folder / "INDEX.HTM").read_text("utf-8")) == is_part
        job = http.get(f"/api/iso/jobs/{answer.headers['content-location'].split('/')[4]}").json()
        assert job["is_part"] == is_part


def test_a_robot_s_label_says_that_it_is_a_part_and_a_device_that_cannot_gets_none(
    hospital: Hospital, studies: dict[str, list[Path]], robot: JsonRobot, tmp_path: Path
) -> None:
    http, (uid, files) = hospital.service.http, series_of(studies["A1"], "CT")
    query = {"accession_number": "A1", "series_uid": uid}
    refused = http.get("/api/iso/print", params={**query, "publisher": "device"})
    assert (refused.status_code, refused.json()["code"]) == (409, "selection_not_told"), refused.text
    answer = http.get("/api/iso/print", params={**query, "publisher": "robot"})
    assert answer.status_code == 200, answer.text
    assert hospital.service.ended(answer.json()["job_id"])["proves"] == "done"
    [image] = robot.discs.glob("*.iso")
    assert_holds_exactly(extract(image, tmp_path / "disc"), files)
    [ticket] = robot.folder.glob("*.DONE")
    assert json.loads(ticket.read_text())["label"]["accession_number"] == "A1 (not the whole examination)"


def test_a_series_that_is_not_there_makes_no_disc(hospital: Hospital) -> None:
    answer = hospital.service.http.get("/api/iso/download", params={"accession_number": "A1", "series_uid": "1.2.3.4"})
    assert (answer.status_code, answer.json()["code"]) == (404, "selection_not_found"), answer.text


def test_a_de_identified_copy_is_never_a_patients_disc(
    hospital: Hospital, studies: dict[str, list[Path]], tmp_path: Path
) -> None:
    http = hospital.service.http
    (ct, slices), (mr, sections) = (series_of(studies["A1"], modality) for modality in ("CT", "MR"))
    chosen = {"accession_number": "A1", "series_uid": [ct, mr]}
    copied = {**chosen, "deidentified": "true"}
    whole = http.get("/api/iso/download", params={"accession_number": "A1", "deidentified": "true"})
    assert (whole.status_code, whole.json()["code"]) == (422, "not_deidentifiable")
    answers = [http.get("/api/iso/download", params=query) for query in (copied, chosen, copied)]
    assert [answer.status_code for answer in answers] == [200] * 3, answers[0].text
    assert len({answer.headers["etag"] for answer in answers}) == 3
    assert "DEIDENTIFIED_" in answers[0].headers["content-disposition"]
    assert 'filename="A1-selected.iso"' in answers[1].headers["content-disposition"]
    image = tmp_path / "disc.iso"
    image.write_bytes(answers[0].content)
    assert verify_disc(image).instances == len(slices) + len(sections)
    header = dcmread(slices[0], stop_before_pixels=True)
    told = [
        header.PatientID,
        *str(header.PatientName).split("^"),
        "Referrer",
        "20240229",
        "19700102",
        "Made for a test",
    ]
    told += [header.StudyInstanceUID, ct, mr, header.SOPInstanceUID, "A1-"]
    assert not [text for text in told if str(text).encode() in answers[0].content]
    assert b"De-identified copy." in answers[0].content
    address = f"/api/iso/jobs/{answers[0].headers['content-location'].split('/')[4]}"
    job = http.get(address).json()
    assert job["deidentified"] and not http.get("/api/iso/jobs").json()["jobs"][0]["patient_name"]
    assert [(study["study_date"], study["study_instance_uid"]) for study in job["studies"]] == [("", "")]
    assert http.get(f"{address}/letter.pdf").status_code == 400
    printed = http.post("/api/iso/print", params=copied)
    assert (printed.status_code, printed.json()["code"]) == (400, "invalid_request")
    assert http.get("/api/iso/download", params={**copied, "priors": "true"}).status_code == 400
    assert "a secret of this site" not in hospital.service.log()


def test_earlier_studies_go_beside_where_they_are_asked_for(
    hospital: Hospital, studies: dict[str, list[Path]], robot: JsonRobot, tmp_path: Path
) -> None:
    http, query = hospital.service.http, {"accession_number": "R1"}
    preview = http.get("/api/iso/preview", params={**query, "priors": "true"}).json()
    assert [study["accession_number"] for study in preview["studies"]] == ["R1"]
    assert [(study["accession_number"], study["images"]) for study in preview["priors"]] == [("R2", 3), ("R3", 3)]
    alone = http.get("/api/iso/download", params=query)
    beside = http.get("/api/iso/download", params={**query, "priors": "true", "shown": preview["shown"]})
    assert (alone.status_code, beside.status_code) == (200, 200), beside.text
    every = studies["R1"] + studies["R2"] + studies["R3"]
    for name, told, held in (("alone", alone, studies["R1"]), ("beside", beside, every)):
        assert 'filename="R1.iso"' in told.headers["content-disposition"]
        folder = kept(told, tmp_path / name)
        assert_holds_exactly(folder, held)
        assert (folder / "INDEX.HTM").read_text("utf-8").count("Earlier examination") == (name == "beside") * 2
    job = http.get(f"/api/iso/jobs/{beside.headers['content-location'].split('/')[4]}").json()
    assert (job["selection"]["priors"], job["is_part"]) == (True, False)
    assert {study["accession_number"]: study["is_prior"] for study in job["studies"]} == {
        "R1": False,
        "R2": True,
        "R3": True,
    }
    for asked, told in ((query, alone), ({**query, "priors": "false"}, alone), ({**query, "priors": "true"}, beside)):
        assert http.get("/api/iso/download", params=asked).headers["etag"] == told.headers["etag"]

    before = set(robot.discs.glob("*.iso"))
    printed = http.get("/api/iso/print", params={**query, "priors": "true", "publisher": "robot"})
    assert printed.status_code == 200, printed.text
    assert hospital.service.ended(printed.json()["job_id"])["proves"] == "done"
    [image] = set(robot.discs.glob("*.iso")) - before
    assert_holds_exactly(extract(image, tmp_path / "printed"), every)
    ordered = [http.get("/api/iso/preview", params={"accession_number": number}).json() for number in ("R1", "R2")]
    assert [each["ordered"] and each["ordered"]["publisher"] for each in ordered] == ["robot", None]
    again = {**query, "priors": "true", "publisher": "robot", "confirm_reprint": "true"}
    refused = http.get("/api/iso/print", params={**again, "orders_told": "0"})
    assert (refused.status_code, refused.json()["code"]) == (409, "ordered_meanwhile")
    told = http.get("/api/iso/print", params={**again, "orders_told": str(ordered[0]["ordered"]["orders"])})
    assert hospital.service.ended(told.json()["job_id"])["proves"] == "done"
    assert len(set(robot.discs.glob("*.iso")) - before) == 2


def test_a_disc_is_made_without_an_earlier_study_that_lacks_an_image_and_says_so(
    hospital: Hospital, studies: dict[str, list[Path]], tmp_path: Path
) -> None:
    """Last, since the archive has lost the image then: it lists it, and can't send it."""
    http, pacs = hospital.service.http, hospital.pacs
    assert isinstance(pacs, Orthanc)
    pacs.lose(str(dcmread(studies["R2"][-1], stop_before_pixels=True).SOPInstanceUID))
    answer = http.get("/api/iso/download", params={"accession_number": "R1", "format": "zip", "priors": "true"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-mkiso-degraded"] == "prior_left_out:incomplete"
    folder = kept(answer, tmp_path / "disc", "zip")
    assert_holds_exactly(folder, studies["R1"] + studies["R3"])
    assert WORDS_OF_PRIORS[INCOMPLETE] in (folder / "INDEX.HTM").read_text("utf-8")
    job = http.get(f"/api/iso/jobs/{answer.headers['content-location'].split('/')[4]}").json()
    assert [study["accession_number"] for study in job["studies"]] == ["R1", "R3"]
    refused = http.get("/api/iso/download", params={"accession_number": "R2", "priors": "true"})
    assert (refused.status_code, refused.json()["code"]) == (502, "study_incomplete"), refused.text


def kept(answer: httpx.Response, folder: Path, form: str = "iso") -> Path:
    """The files of a disc, checked by itself."""
    image = folder.with_suffix(f".{form}")
    image.write_bytes(answer.content)
    verify_disc(image)
    return extract(image, folder)
