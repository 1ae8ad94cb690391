"""Two PACSs, one asked by C-MOVE and one over DICOMweb, through the whole service: what a clerk and a program get."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread

from peers.corpus import make_study
from peers.discs import assert_holds_exactly, extract
from peers.orthanc import Orthanc
from peers.ports import free_port
from peers.service import AE_TITLE, Service, job_at

pytestmark = [pytest.mark.end_to_end]

KEY = "k" * 32
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
WEB = {"Plugins": [PLUGIN], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}


@dataclass
class Site:
    """mkiso between its two PACSs, and the studies by accession number."""

    service: Service
    main: Orthanc
    cloud: Orthanc
    studies: dict[str, list[Path]]

    def disc(self, accession_number: str, folder: Path) -> httpx.Response:
        """The disc, which holds exactly the study."""
        answer = self.service.download(accession_number)
        assert answer.status_code == 200, answer.text
        (folder / "disc.iso").write_bytes(answer.content)
        assert_holds_exactly(extract(folder / "disc.iso", folder / "extracted"), self.studies[accession_number])
        return answer

    def sources_in(self, answer: httpx.Response) -> list[str]:
        """Where the job of a disc had its studies."""
        job = self.service.job(job_at(answer.headers["content-location"]))
        return [study["source"] for study in job["studies"]]


def issued(files: list[Path], issuer: str) -> list[Path]:
    for file in files:
        dataset = dcmread(file)
        dataset.IssuerOfPatientID = issuer
        dataset.save_as(file)
    return files


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, receiver_port = tmp_path_factory.mktemp("sources"), free_port()
    kinds = {"ct": 4, "sr": 1}
    studies = {number: make_study(folder / number, number, kinds=kinds) for number in ("S1", "S2", "S3", "S4")}
    torn = make_study(folder / "T1", "T1", kinds=kinds)
    north = issued(make_study(folder / "I1", "I1", kinds=kinds), "NORTH")
    south = issued(make_study(folder / "I2", "I2", kinds=kinds), "SOUTH")
    known = {AE_TITLE: ("127.0.0.1", receiver_port)}
    with (
        Orthanc(folder / "main", ae_title="MAIN", destinations=known) as main,
        Orthanc(folder / "cloud", ae_title="CLOUD", options=WEB) as cloud,
    ):
        main.store([*studies["S1"], *studies["S3"][1:], *studies["S4"], *torn[1:], *north])
        cloud.store([*studies["S2"], *studies["S3"], *studies["S4"], *torn[:-1], *south])
        sources: list[dict[str, Any]] = [
            {"name": "main", "ae_title": "MAIN", "port": main.port, "quiet_timeout_seconds": 3, "patient_domain": "x"},
            {"name": "cloud", "kind": "dicomweb", "base_url": f"http://127.0.0.1:{cloud.http_port}/dicom-web"},
        ]
        sources[1]["patient_domain"] = "x"
        sections: dict[str, dict[str, Any]] = {"auth": {"enabled": True, "api_key": KEY}, "audit": {"enabled": True}}
        service = Service(folder / "mkiso", ("", 0), sections, receiver_port=receiver_port, sources=sources, warm=True)
        service.http.headers["X-API-Key"] = KEY
        with service:
            yield Site(service, main, cloud, studies)


@pytest.mark.parametrize(
    ("number", "source", "degraded"),
    [("S1", "main", None), ("S2", "cloud", None), ("S3", "cloud", "sources_differ:main"), ("S4", "main", None)],
)
def test_a_disc_is_made_of_the_first_source_that_has_it_wholly(
    site: Site, tmp_path: Path, number: str, source: str, degraded: str | None
) -> None:
    answer = site.disc(number, tmp_path)
    assert answer.headers.get("x-mkiso-degraded") == degraded
    assert site.sources_in(answer) == [source]
    [again] = {site.service.download(number).headers["content-location"] for _ in range(2)}
    assert again == answer.headers["content-location"]  # served again, while both say the same


def test_studies_of_both_are_one_disc_where_the_sources_have_one_domain(site: Site) -> None:
    answer = site.service.http.get("/api/iso/download-multiple", params={"accession_numbers": "S1,S2"})
    assert answer.status_code == 200, answer.text
    assert site.sources_in(answer) == ["main", "cloud"]


def test_two_issuers_of_one_patient_id_are_two_patients(site: Site) -> None:
    answer = site.service.http.get("/api/iso/download-multiple", params={"accession_numbers": "I1,I2"})
    assert (answer.status_code, answer.json()["code"]) == (409, "patient_mismatch")


def test_what_no_source_has_wholly_is_no_disc(site: Site) -> None:
    answer = site.service.download("T1")
    assert (answer.status_code, answer.json()["code"]) == (502, "study_incomplete")
    assert "(main 4, cloud 4, together 5)" in answer.json()["error"]
    assert site.service.http.get("/api/iso/preview?accession_number=T1").json()["code"] == "study_incomplete"


def test_preview_search_health_and_audit_know_both(site: Site) -> None:
    http = site.service.http
    preview = http.get("/api/iso/preview?accession_number=S3").json()
    assert (preview["studies"][0]["source"], preview["degraded"]) == ("cloud", ["sources_differ:main"])
    found = http.get("/api/studies?accession_number=S3").json()
    assert sorted((study["source"], study["images"]) for study in found["studies"]) == [("cloud", 5), ("main", 4)]
    assert found["not_asked"] == []
    health = http.get("/api/health").json()["dependencies"]
    assert health["source:main"]["ok"] and health["source:cloud"]["ok"] and "pacs" not in health
    audit = (site.service.data_dir / "audit.xml").read_text(encoding="utf-8")
    assert 'UserID="MAIN"' in audit and f'UserID="http://127.0.0.1:{site.cloud.http_port}/dicom-web"' in audit


def test_with_one_down_there_is_a_disc_and_a_word_or_an_error_that_says_so(site: Site, tmp_path: Path) -> None:
    """The last: main stays down."""
    site.main.kill()
    answer = site.disc("S4", tmp_path)
    assert answer.headers["x-mkiso-degraded"] == "source_down:main"
    assert site.sources_in(answer) == ["cloud"]
    answer = site.service.download("S1")
    assert (answer.status_code, answer.json()["code"]) == (502, "not_asked_everywhere")
    assert "main: The PACS MAIN at" in answer.json()["error"]
    found = site.service.http.get("/api/studies?accession_number=S4").json()
    assert [study["source"] for study in found["studies"]] == ["cloud"]
    assert [(each["source"], each["code"]) for each in found["not_asked"]] == [("main", "pacs_unreachable")]

    def degraded() -> list[str]:  # told for ten seconds
        return list(site.service.http.get("/api/health").json()["degraded"])

    site.service.when(lambda: "source:main" in degraded())
    assert "source:cloud" not in degraded()
