"""Chosen series from dcmqrscp and Orthanc by C-MOVE and C-GET, and from a DICOMweb server: these whole, and nothing
else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from mkiso.config.settings import Settings
from mkiso.errors import CountsUnknown, PacsBusy, PacsRefused, SelectionNotFound, StudyIncomplete, StudyNotFound
from mkiso.sources.choosing import FoundStudies
from mkiso.sources.collection import retrieve_study
from mkiso.sources.query import find_by_uid, find_series, find_studies
from mkiso.sources.registry import source_of, sources_of
from mkiso.sources.several import find_beside
from mkiso.storage.job import Job
from mkiso.study import gate
from mkiso.study.gate import CompleteStudies
from mkiso.study.selection import EVERYTHING, Selection
from mkiso.study.values import Retrieved
from peers.corpus import dataset_bytes, make_study
from peers.dcmqrscp import Dcmqrscp
from peers.dicomweb_server import DicomWebServer
from peers.orthanc import Orthanc
from peers.scripted_pacs import MoveRequest, ScriptedPacs, whole
from tests.study.test_rejections import WRONG_ENTRY, note

MakeSettings = Callable[..., Settings]
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
KINDS = {"ct": 8, "mr": 3, "sr": 1}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_study(tmp_path_factory.mktemp("files"), "A1", kinds=KINDS)


@pytest.fixture(params=["dcmqrscp", "orthanc"])
def peer(request: pytest.FixtureRequest, tmp_path: Path, files: list[Path], receiver_port: int) -> Iterator[Any]:
    destinations = {"CDRECORD": ("127.0.0.1", receiver_port)}
    if request.param == "dcmqrscp":
        with Dcmqrscp(tmp_path / "pacs", files, destinations=destinations, profiled=False) as dcmqrscp:
            yield dcmqrscp
    else:
        options = {"Plugins": [PLUGIN], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
        with Orthanc(tmp_path / "pacs", destinations=destinations, options=options) as orthanc:
            orthanc.store(files)
            yield orthanc


def of_series(files: list[Path], *modalities: str) -> dict[str, bytes]:
    """What the files of these series hold, by SOP Instance UID."""
    headers = [(file, dcmread(file, stop_before_pixels=True)) for file in files]
    return {str(each.SOPInstanceUID): dataset_bytes(file) for file, each in headers if each.Modality in modalities}


def series_uids(files: list[Path], *modalities: str) -> tuple[str, ...]:
    headers = [dcmread(file, stop_before_pixels=True) for file in files]
    return tuple(sorted({str(each.SeriesInstanceUID) for each in headers if each.Modality in modalities}))


def complete(settings: Settings, selection: Selection, job_id: str = "job") -> CompleteStudies:
    """The studies of A1 as a job has them."""
    source, job = source_of(settings), Job(job_id, "download", settings)
    job.open()
    found = gate.found(
        ("A1",),
        find_studies(source, "A1", selection),
        [],
        settings.identity,
        degraded=False,
        selection=selection,
    )
    job.begin(found.fingerprint)
    retrieved = tuple(retrieve_study(source, job, study, lambda _: None) for study in found.studies)
    return CompleteStudies(Retrieved(found, retrieved), settings.identity)


def held(studies: CompleteStudies) -> dict[str, bytes]:
    return {each.arrival.sop_instance_uid: dataset_bytes(each.arrival.path) for each in studies.instances}


def with_a_note(folder: Path, files: list[Path]) -> list[Path]:
    """A study in which a Key Object Selection of its own series rejects an image of the MR series."""
    [image, *_] = [file for file in files if dcmread(file, stop_before_pixels=True).Modality == "MR"]
    folder.mkdir()
    return [*files, note(folder, [image], WRONG_ENTRY)]


def refuses_notes(move: MoveRequest) -> None:
    """A PACS that has a Key Object Selection and can't send it."""
    if any(dcmread(file, stop_before_pixels=True).Modality == "KO" for file in move.asked()):
        move.end(0xA702)
    else:
        whole(move)


def test_a_note_that_cannot_be_had_makes_no_disc_of_a_series(
    settings_for: MakeSettings, receiver_port: int, files: list[Path], tmp_path: Path
) -> None:
    study = with_a_note(tmp_path / "study", files)
    with ScriptedPacs(study, [refuses_notes], receiver_port) as pacs, pytest.raises(PacsBusy) as failed:
        complete(settings_for(pacs, quiet_timeout_seconds=0.2), Selection((), series_uids(files, "MR")))
    assert "A Key Object Selection of accession number A1 may reject one of the chosen images" in failed.value.words


@pytest.mark.parametrize("chosen", ["MR", "CT"])
def test_notes_are_read_and_left_out(
    settings_for: MakeSettings, receiver_port: int, files: list[Path], tmp_path: Path, chosen: str
) -> None:
    study = with_a_note(tmp_path / "study", files)
    with ScriptedPacs(study, [whole], receiver_port) as pacs:
        studies = complete(settings_for(pacs), Selection((), series_uids(files, chosen)))
    assert held(studies) == of_series(files, chosen)
    [retrieved] = studies.retrieved.studies
    assert [header.Modality for header in retrieved.notes] == ["KO"]
    assert [each.name for each in retrieved.instances[0].arrival.path.parents[1].glob("notes*")] == []


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["cmove", "cget", "dicomweb"])
def test_chosen_series_come_whole_and_nothing_else_comes(
    settings_for: MakeSettings, peer: Any, files: list[Path], kind: str
) -> None:
    options: dict[str, Any] = {"kind": kind}
    if kind == "dicomweb":
        if isinstance(peer, Dcmqrscp):
            pytest.skip("dcmqrscp has no DICOMweb")
        options["base_url"] = f"http://127.0.0.1:{peer.http_port}/dicom-web/"
    base = settings_for(peer)
    pacs = {"kind": kind, "back_off_seconds": 0.1, "response_timeout_seconds": 10}
    where = {"base_url": options["base_url"]} if kind == "dicomweb" else {"ae_title": peer.ae_title, "port": peer.port}
    settings = Settings.model_validate({**base.model_dump(exclude={"pacs"}), "pacs": {**pacs, **where}})
    # Text SR isn't among the classes that dcmqrscp sends in the association that asks.
    wanted = ("MR",) if kind == "cget" and isinstance(peer, Dcmqrscp) else ("MR", "SR")
    chosen = series_uids(files, *wanted)
    studies = complete(settings, Selection((), chosen))
    assert held(studies) == of_series(files, *wanted)
    [study] = studies.studies
    assert (study.chosen, study.expected.of_series, studies.is_part) == (chosen, 3, True)


@pytest.mark.peer
def test_a_job_of_series_and_one_of_the_whole_at_once_get_each_its_own(
    settings_for: MakeSettings, peer: Any, files: list[Path]
) -> None:
    settings, chosen = settings_for(peer), Selection((), series_uids(files, "MR"))
    came: dict[str, CompleteStudies] = {}

    def fetch(name: str, selection: Selection) -> None:
        came[name] = complete(settings, selection, name)

    jobs = {f"whole{n}": EVERYTHING for n in range(2)} | {f"some{n}": chosen for n in range(2)}
    threads = [threading.Thread(target=fetch, args=each) for each in jobs.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: held(studies) for name, studies in came.items()} == {
        name: of_series(files, "MR") if selection else of_series(files, "CT", "MR", "SR")
        for name, selection in jobs.items()
    }


@pytest.mark.peer
def test_a_study_is_found_by_its_uid_and_its_series_are_told(
    settings_for: MakeSettings, peer: Any, files: list[Path]
) -> None:
    source = source_of(settings_for(peer))
    [by_number] = find_studies(source, "A1")
    uid = by_number.study_instance_uid
    assert find_by_uid(source, uid, Selection((uid,))) == [by_number]
    told = find_series(source, by_number)
    assert {each.modality for each in told} == {"CT", "MR", "SR"}
    assert sorted(each.series_instance_uid for each in told) == sorted(series_uids(files, "CT", "MR", "SR"))
    with pytest.raises(StudyNotFound, match="Study Instance UID"):
        find_by_uid(source, f"{uid}.9", Selection((f"{uid}.9",)))


@pytest.mark.peer
def test_what_else_an_accession_number_has_is_found_and_not_expected(
    settings_for: MakeSettings, peer: Any, tmp_path: Path
) -> None:
    other = make_study(tmp_path / "other", "A1", kinds={"ct": 1}, number=2)
    peer.store(other) if isinstance(peer, Orthanc) else pytest.skip("dcmqrscp has its files from the beginning")
    sources = sources_of(settings_for(peer))
    first, second = find_studies(sources[0], "A1")
    asked: list[str] = []
    told = find_beside(sources, [FoundStudies((first,))], asked.append)
    assert ([study.study_instance_uid for study in told.beside], told.studies) == ([second.study_instance_uid], ())
    assert (told.beside[0].expected.count, asked) == (None, ["A1"])
    assert find_beside(sources, [FoundStudies((first,)), FoundStudies((second,))], asked.append).beside == ()
    assert find_beside(sources, [FoundStudies((replace(first, accession_number="A2"),))], asked.append).beside == ()
    assert find_beside(sources, [FoundStudies((replace(first, accession_number=""),))], asked.append).beside == ()
    assert asked == ["A1", "A1", "A2"]


def test_chosen_series_come_by_dicomweb(tmp_path: Path, files: list[Path]) -> None:
    with DicomWebServer(files) as server:
        pacs = {"kind": "dicomweb", "base_url": server.base_url, "back_off_seconds": 0.05}
        storage = {"data_dir": str(tmp_path / "data"), "min_free_gib": 0}
        settings = Settings.model_validate({"pacs": pacs, "storage": storage})
        studies = complete(settings, Selection((), series_uids(files, "MR")))
    assert held(studies) == of_series(files, "MR")
    assert set(server.sent) == set(held(studies))


def test_a_series_that_grows_is_taken_whole_and_the_rest_of_the_study_stays_away(
    settings_for: MakeSettings, receiver_port: int, files: list[Path], tmp_path: Path
) -> None:
    """Between question and retrieval the study gets a new series, and the chosen one more image."""
    more = make_study(tmp_path / "more", "A1", kinds={**KINDS, "mr": 4, "dx": 2})
    later = [file for file in more if dataset_bytes(file) not in {dataset_bytes(each) for each in files}]

    def grown(move: MoveRequest) -> None:
        pacs.files += [file for file in later if file not in pacs.files]
        whole(move)

    with ScriptedPacs(files, [grown], receiver_port) as pacs:
        studies = complete(settings_for(pacs), Selection((), series_uids(files, "MR")))
    assert held(studies) == of_series([*files, *later], "MR")
    assert len(studies.instances) == 4
    [study] = studies.studies
    assert study.expected.of_series == len(series_uids([*files, *later], "CT", "MR", "SR", "DX"))
    assert {move.QueryRetrieveLevel for move in pacs.moves} <= {"SERIES", "IMAGE"}


def test_a_chosen_series_that_vanishes_makes_no_disc(
    settings_for: MakeSettings, receiver_port: int, files: list[Path]
) -> None:
    def vanishing(move: MoveRequest) -> None:
        whole(move)
        pacs.files = [file for file in files if dcmread(file, stop_before_pixels=True).Modality != "MR"]

    with ScriptedPacs(files, [vanishing], receiver_port) as pacs, pytest.raises(StudyIncomplete, match="no longer"):
        complete(settings_for(pacs), Selection((), series_uids(files, "MR")))


def test_a_pacs_that_moves_whole_studies_alone_is_refused_in_words(
    settings_for: MakeSettings, receiver_port: int, files: list[Path]
) -> None:
    def study_only(move: MoveRequest) -> None:
        move.end(0xA900)

    with ScriptedPacs(files, [study_only], receiver_port) as pacs, pytest.raises(PacsRefused, match="A900"):
        complete(settings_for(pacs), Selection((), series_uids(files, "MR")))
    assert {move.QueryRetrieveLevel for move in pacs.moves} == {"SERIES"}


def everything(move: MoveRequest) -> None:
    """A PACS that sends the whole study whatever is asked for."""
    taken = [move.store_moved(file) for file in move.files]
    move.end(0x0000 if all(taken) else 0xB000, completed=sum(taken), failed=taken.count(False), warning=0, remaining=0)


def test_what_a_pacs_sends_beyond_the_chosen_series_is_not_on_the_disc(
    settings_for: MakeSettings, receiver_port: int, files: list[Path]
) -> None:
    with ScriptedPacs(files, [everything], receiver_port) as pacs:
        studies = complete(settings_for(pacs), Selection((), series_uids(files, "MR")))
    assert held(studies) == of_series(files, "MR")


def test_by_counts_alone_only_the_chosen_series_are_taken(
    settings_for: MakeSettings, receiver_port: int, files: list[Path]
) -> None:
    with ScriptedPacs(files, [whole], receiver_port) as pacs:
        pacs.find_status["IMAGE"] = 0xA900
        studies = complete(settings_for(pacs, quiet_timeout_seconds=0.5), Selection((), series_uids(files, "MR")))
    assert held(studies) == of_series(files, "MR")
    assert studies.studies[0].expected.source == "series"


def test_series_that_the_pacs_does_not_list_cannot_be_chosen(
    settings_for: MakeSettings, receiver_port: int, files: list[Path]
) -> None:
    chosen = Selection((), series_uids(files, "MR"))
    with ScriptedPacs(files, [whole], receiver_port) as pacs:
        pacs.find_status["SERIES"] = 0xA900
        with pytest.raises((SelectionNotFound, CountsUnknown)):
            complete(settings_for(pacs), chosen)
        assert find_series(source_of(settings_for(pacs)), find_studies(source_of(settings_for(pacs)), "A1")[0]) == ()
    assert pacs.moves == []


def test_only_what_is_chosen_is_asked_of_the_pacs(
    settings_for: MakeSettings, receiver_port: int, files: list[Path], tmp_path: Path
) -> None:
    with ScriptedPacs(files, [whole], receiver_port) as pacs:
        source = source_of(settings_for(pacs))
        find_studies(source, "A1")
        all_asked, pacs.finds = pacs.finds, []
        find_studies(source, "A1", Selection((), series_uids(files, "MR")))
        some_asked, pacs.finds = pacs.finds, []
        find_studies(source, "A1", Selection(("1.2.3",)))
    assert (all_asked.count("IMAGE"), some_asked.count("IMAGE"), pacs.finds) == (3, 1, ["STUDY"])
