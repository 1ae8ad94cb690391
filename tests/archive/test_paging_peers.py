"""Real PACSs are asked in pages: the times that a study may have all fall into one, and cut answers are noticed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from mkiso.archive.paging import Answer, Page, find_all
from mkiso.demo.steady import steady
from mkiso.study.models import Study
from peers.corpus import make_study
from peers.dcmqrscp import Dcmqrscp
from peers.orthanc import Orthanc

DAY = date(2024, 2, 29)
TIMES = [
    "000000",
    "08",
    "0800",
    "080059.999999",
    "0859",
    "085959",
    "085959.5",
    "090000",
    "1200",
    "235959.999999",
    "090001",
    "093000",
]

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("studies")
    made = []
    for number, time in enumerate([*TIMES, ""]):
        (path,) = make_study(folder, f"T{number}", f"P{number}", kinds={"ct": 1})
        dataset = dcmread(path)
        dataset.StudyTime = time
        dataset.save_as(path, enforce_file_format=True)
        made.append(path)
    return made


class Asker:
    """C-FIND by pynetdicom; keeps what it asked."""

    def __init__(self, host: str, port: int, ae_title: str) -> None:
        self.address, self.ae_title, self.asked = (host, port), ae_title, list[Page]()

    def __call__(self, page: Page) -> Answer:
        self.asked.append(page)
        entity = AE("TEST")
        entity.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
        association = steady(entity.associate(*self.address, ae_title=self.ae_title))
        assert association.is_established
        identifier = Dataset()
        identifier.QueryRetrieveLevel, identifier.StudyInstanceUID, identifier.AccessionNumber = "STUDY", "", ""
        identifier.StudyDate, identifier.StudyTime = page.study_date, page.study_time
        answers = list(association.send_c_find(identifier, StudyRootQueryRetrieveInformationModelFind))
        association.release()
        found = [answer for status, answer in answers if status.Status in (0xFF00, 0xFF01) and answer]
        studies = [
            Study(
                entry.AccessionNumber,
                entry.StudyInstanceUID,
                "",
                study_date=entry.StudyDate,
                study_time=str(entry.get("StudyTime", "")),
            )
            for entry in found
        ]
        return Answer(studies, len(found), answers[-1][0].Status)


@pytest.fixture(scope="module")
def orthanc(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc"), verbose=False) as pacs:
        pacs.store(files)
        yield pacs


def test_as_many_answers_as_the_limit_are_asked_for_in_parts(orthanc: Orthanc) -> None:
    ask = Asker("127.0.0.1", orthanc.port, orthanc.ae_title)
    found = find_all([Page(DAY, DAY)], ask, limit=len(TIMES) + 1)
    assert len(ask.asked) == 25
    assert sorted(study.accession_number for study in found.studies) == sorted(
        f"T{number}" for number in range(len(TIMES) + 1)
    )
    assert found.doubtful == (DAY,)  # one study has no time


def test_each_time_is_in_one_hour_of_orthanc(orthanc: Orthanc) -> None:
    ask = Asker("127.0.0.1", orthanc.port, orthanc.ae_title)
    found = [
        study.accession_number for hour in Page(DAY, DAY).parts() for study in ask(hour).studies if hour.time != "08"
    ]
    found += [
        study.accession_number
        for hour in Page(DAY, DAY).parts()[8:9]
        for minute in hour.parts()
        for study in ask(minute).studies
    ]
    assert sorted(found) == sorted(f"T{number}" for number in range(len(TIMES)))


def test_each_time_is_in_one_hour_of_dcmqrscp(files: list[Path], tmp_path: Path) -> None:
    with Dcmqrscp(tmp_path, files) as pacs:
        ask = Asker("127.0.0.1", pacs.port, pacs.ae_title)
        found = [study.accession_number for hour in Page(DAY, DAY).parts() for study in ask(hour).studies]
        assert sorted(found) == sorted(f"T{number}" for number in range(len(TIMES)))
        minutes = [
            study.accession_number for minute in Page(DAY, DAY).parts()[8].parts() for study in ask(minute).studies
        ]
        assert sorted(minutes) == sorted(f"T{number}" for number, time in enumerate(TIMES) if time.startswith("08"))
