"""Studies by what a person knows of them: what may be asked, and what dcmqrscp and Orthanc tell."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mkiso.config.settings import Settings
from mkiso.errors import InvalidRequest, PacsSilent
from mkiso.sources.query import find_studies
from mkiso.sources.registry import source_of
from mkiso.sources.search import Criteria, search
from mkiso.study.text import readable_name
from peers.corpus import PLAIN, THAI, UMLAUT, UNICODE, make_study
from peers.dcmqrscp import Dcmqrscp
from peers.orthanc import Orthanc
from peers.scripted_pacs import ScriptedPacs
from tests.sources.test_choosing import counted

MakeSettings = Callable[..., Settings]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"modality": "CT"},
        {"birth_date": "19700102"},
        {"patient_id": "*"},
        {"patient_name": "?"},
        {"patient_name": "＊＊"},
        {"patient_id": "A\\B"},
        {"patient_name": "A"},
        {"patient_name": "^^"},
        {"patient_name": "A, "},
        {"patient_name": ", , Junior"},
        {"patient_name": " / Doe"},
        {"patient_id": "A\nB"},
        {"patient_id": "1" * 65},
        {"study_date": "2024"},
        {"patient_id": " "},
        {"study_date": "20240230"},
        {"study_date": "-"},
        {"study_date": "2024010120240102"},
        {"study_date": "20240102-20240101"},
        {"patient_id": "1", "birth_date": "20240101-20240102"},
        {"patient_id": "1", "modality": "C/T"},
        {"accession_number": "A*"},
    ],
)
def test_what_selects_nothing_or_too_much_isnt_asked(asked: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        Criteria(**asked)


def test_a_name_is_asked_for_in_each_way_that_it_may_be_written() -> None:
    def asked(name: str) -> list[str]:
        return [keys["PatientName"] for keys in Criteria(patient_name=name).spellings]

    assert asked("doe^peter") == ["doe^peter*", "DOE^PETER*", "Doe^Peter*"]
    assert asked("McDonald") == ["McDonald*", "MCDONALD*", "Mcdonald*"]
    assert asked("สมชาย") == ["สมชาย*"]
    assert Criteria(patient_id="a1").spellings == ({"PatientID": "a1"},)


@pytest.mark.parametrize(
    ("asked", "keys"),
    [
        ({"patient_name": "Smith"}, {"PatientName": "Smith*"}),
        ({"patient_name": "Dupont Marie"}, {"PatientName": "Dupont?Marie*"}),
        ({"patient_name": "Dupont, Marie"}, {"PatientName": "Dupont^Marie*"}),
        ({"patient_name": "de la Cruz ,Ana  Maria, Dr"}, {"PatientName": "de?la?Cruz^Ana?Maria*"}),
        ({"patient_name": "Dupont,"}, {"PatientName": "Dupont*"}),
        ({"patient_name": "Yamada, Tarou / 山田, 太郎"}, {"PatientName": "Yamada^Tarou*"}),
        ({"patient_name": "山田　太郎"}, {"PatientName": "山田?太郎*"}),
        ({"patient_id": "7", "modality": " "}, {"PatientID": "7"}),
        ({"patient_id": " 7 ", "modality": "ct"}, {"PatientID": "7", "ModalitiesInStudy": "CT"}),
        ({"study_date": "20240101-"}, {"StudyDate": "20240101-"}),
        ({"study_date": "-20240101"}, {"StudyDate": "-20240101"}),
        ({"study_date": "20240101-20240131"}, {"StudyDate": "20240101-20240131"}),
    ],
)
def test_what_is_asked(asked: dict[str, str], keys: dict[str, str]) -> None:
    assert Criteria(**asked).keys == keys


@pytest.mark.parametrize(
    ("name", "is_meant"),
    [
        ("DUPONT^MARIE^ANNE", True),
        ("Dupont Marie^Anne", True),
        ("Dupont-Marie^Anne", True),
        ("X=Dupont^Marie", True),
        ("DupontXMarie^Anne", False),
        ("Ducreux^Marie", True),  # a PACS that finds names by their sound, too
        ("", True),
    ],
)
def test_a_name_that_a_space_was_asked_for_is_divided_there(name: str, is_meant: bool) -> None:
    assert Criteria(patient_name="Dupont Marie").may_mean(counted("a", 1, patient_name=name)) == is_meant
    assert Criteria(patient_name="Dupont").may_mean(counted("a", 1, patient_name=name))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    return [
        *make_study(folder / "1", "A1001", patient=THAI, kinds={"ct": 3, "sr": 1}),
        *make_study(folder / "2", "A1002", kinds={"ct": 2}),
        *make_study(folder / "3", "A1003", kinds={"mr": 1}),
    ]


@pytest.fixture(params=["dcmqrscp", "orthanc"])
def peer(request: pytest.FixtureRequest, tmp_path: Path, files: list[Path]) -> Iterator[Dcmqrscp | Orthanc]:
    if request.param == "dcmqrscp":
        with Dcmqrscp(tmp_path / "pacs", files) as dcmqrscp:
            yield dcmqrscp
    else:
        with Orthanc(tmp_path / "pacs") as orthanc:
            orthanc.store(files)
            yield orthanc


@pytest.mark.peer
def test_studies_are_found_by_what_a_person_knows(settings_for: MakeSettings, peer: Dcmqrscp | Orthanc) -> None:
    source = source_of(settings_for(peer))

    def numbers(**asked: str) -> list[str]:
        hits = search(source, Criteria(**asked))
        assert not hits.cut and peer.ae_title in hits.source
        return sorted(study.accession_number for study in hits.studies)

    assert numbers(patient_id=PLAIN.patient_id) == ["A1002", "A1003"]
    # dcmqrscp tells no modalities, so nothing says that the CT isn't meant.
    with_mr = ["A1003"] if isinstance(peer, Orthanc) else ["A1002", "A1003"]
    assert numbers(patient_id=PLAIN.patient_id, modality="MR") == with_mr
    assert numbers(patient_id=PLAIN.patient_id[:-1]) == []
    assert numbers(patient_name=PLAIN.name[:4], birth_date=PLAIN.birth_date) == ["A1002", "A1003"]
    names = (PLAIN.name.lower(), PLAIN.name.upper(), PLAIN.name[:4].lower())
    for name in (*names, PLAIN.name.replace("^", " "), readable_name(PLAIN.name), readable_name(PLAIN.name).lower()):
        assert numbers(patient_name=name) == ["A1002", "A1003"]
    assert numbers(patient_id=PLAIN.patient_id, birth_date="19000101") == []
    assert numbers(study_date="20240229") == numbers(study_date="20240201-") == ["A1001", "A1002", "A1003"]
    assert numbers(study_date="-20240228") == []
    assert numbers(accession_number="A1001") == ["A1001"]
    [study] = search(source, Criteria(accession_number="A1002")).studies
    assert (study.patient_id, study.patient_birth_date, study.study_date) == (
        PLAIN.patient_id,
        PLAIN.birth_date,
        "20240229",
    )


@pytest.mark.peer
def test_a_name_beyond_ascii_finds_that_patient_alone(settings_for: MakeSettings, tmp_path: Path) -> None:
    """Without a Specific Character Set each Thai letter was ?, and whose name is as long was found too."""
    files = [
        *(make_study(tmp_path / "1", "A1", patient=THAI, kinds={"ct": 1})),
        *(make_study(tmp_path / "2", "A2", patient=UMLAUT, kinds={"ct": 1})),
        *(make_study(tmp_path / "3", "A3", patient=UNICODE, kinds={"ct": 1})),
        *(make_study(tmp_path / "4", "A4", patient=replace(PLAIN, name="Abcdefgh^Ijklmnop"), kinds={"ct": 1})),
    ]
    with Dcmqrscp(tmp_path / "dcmqrscp", files) as dcmqrscp, Orthanc(tmp_path / "orthanc") as orthanc:
        orthanc.store(files)
        for peer in (dcmqrscp, orthanc):
            source = source_of(settings_for(peer))
            for number, person in (("A1", THAI), ("A2", UMLAUT), ("A3", UNICODE)):
                name = person.name.partition("^")[0]
                found = search(source, Criteria(patient_name=name)).studies
                assert [study.accession_number for study in found] == [number], (peer, name)


@pytest.mark.peer
def test_an_answer_that_is_cut_says_so(settings_for: MakeSettings, peer: Dcmqrscp | Orthanc) -> None:
    source = source_of(settings_for(peer))
    hits = search(source, Criteria(study_date="20240229"), most=2)
    assert hits.cut and len(hits.studies) == 2
    assert not search(source, Criteria(study_date="20240229"), most=3).cut


@pytest.mark.peer
def test_an_answer_without_end_is_ended(settings_for: MakeSettings, files: list[Path]) -> None:
    with ScriptedPacs(files) as pacs:
        pacs.endless = "STUDY"
        hits = search(source_of(settings_for(pacs)), Criteria(study_date="20240229"), most=10)
    assert hits.cut and 0 < len(hits.studies) <= 10


@pytest.mark.peer
def test_what_is_told_loosely_isnt_told_on(settings_for: MakeSettings, files: list[Path]) -> None:
    """This PACS matches no patient's ID: it answers with everybody's studies."""
    with ScriptedPacs(files) as pacs:
        hits = search(source_of(settings_for(pacs)), Criteria(patient_id=THAI.patient_id))
    assert [study.accession_number for study in hits.studies] == ["A1001"]


@pytest.mark.peer
@pytest.mark.parametrize("seconds", [0, 1])
def test_whoever_has_only_so_long_gets_an_end_by_then(
    settings_for: MakeSettings, files: list[Path], seconds: int
) -> None:
    """This PACS answers one question for ever: no single answer is late."""
    with ScriptedPacs(files) as pacs:
        pacs.endless = "STUDY"
        with pytest.raises(PacsSilent):
            find_studies(source_of(settings_for(pacs), until=time.monotonic() + seconds), "A1001")
