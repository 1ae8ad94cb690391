"""A retrieval is done when the PACS's own word or a fresh query proves the list, and what the receiver refuses of a
study is known to its job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import UID

from mkiso.config.settings import Settings
from mkiso.errors import MkisoError, PacsBusy, PatientMismatch, StudyIncomplete, StudyNotFound
from mkiso.sources.query import find_studies
from mkiso.sources.registry import source_of
from mkiso.sources.retrieve import GROWTH_ROUNDS, retrieve
from mkiso.study.models import Arrival, Expected, Study
from peers.corpus import make_study
from peers.scripted_pacs import MoveRequest, Script, ScriptedPacs, whole

pytestmark = pytest.mark.peer
MakeSettings = Callable[..., Settings]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return make_study(tmp_path / "files", "A1", kinds={"ct": 4})


def fetch(settings: Settings, folder: Path, **changes: Any) -> tuple[Study, list[Arrival]]:
    arrivals: list[Arrival] = []
    study = retrieve(
        source_of(settings),
        settings.identity,
        replace(find_studies(source_of(settings), "A1")[0], **changes),
        folder,
        [],
        arrivals.append,
    )
    return study, arrivals


def uids(files: list[Path]) -> set[str]:
    return {str(dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files}


def sends_all(status: int, **counts: int) -> Script:
    """Stores what was asked for and ends so, whatever it should count."""

    def script(move: MoveRequest) -> None:
        move.store(move.asked())
        move.end(status, **counts)

    return script


def never_ends(move: MoveRequest) -> None:
    move.store(move.asked())
    move.wait_for_cancel(30)


def resets(move: MoveRequest) -> None:
    move.store(move.asked())
    move.reset()


FINDS_OF_A_STUDY = ["STUDY", "SERIES", "IMAGE"]
UNPROVED = [
    sends_all(0x0000),
    sends_all(0x0000, completed=1, failed=0),
    sends_all(0x0000, completed=3, failed=1),
    sends_all(0xB000),
    sends_all(0xB000, completed=3, failed=1),
    sends_all(0xA702),
    sends_all(0xA701),
    sends_all(0xC001),
    sends_all(0xA900),
    resets,
    never_ends,
]


@pytest.fixture(autouse=True)
def no_long_wait_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkiso.sources.cmove.SETTLED_SECONDS", 0.3)
    monkeypatch.setattr("mkiso.sources.retrieve.LATE_SECONDS", 0.1)


def test_the_good_case_costs_no_further_query(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path]
) -> None:
    with ScriptedPacs(files, [whole], receiver_port) as pacs:
        fetch(settings_for(pacs), folder)
    assert pacs.finds == FINDS_OF_A_STUDY


@pytest.mark.parametrize("script", UNPROVED)
def test_without_the_pacs_own_word_the_list_is_asked_for_again(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path], script: Script
) -> None:
    with ScriptedPacs(files, [script], receiver_port) as pacs:
        study, arrivals = fetch(settings_for(pacs), folder)
    assert pacs.finds == FINDS_OF_A_STUDY * 2 and len(pacs.moves) == 1
    assert {arrival.sop_instance_uid for arrival in arrivals} == uids(files) == set(study.expected.instances or ())


@pytest.mark.parametrize("script", UNPROVED)
def test_what_grew_under_a_failure_is_taken_whole(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path], script: Script
) -> None:
    """Three were listed; the fourth comes while they are moved, is refused or never sent, and nothing counts it."""
    with ScriptedPacs(files[:3], [], receiver_port) as pacs:

        def growing(move: MoveRequest) -> None:
            move.store(move.asked())
            pacs.files = list(files)
            script(move)

        pacs.scripts = [growing, whole]
        study, arrivals = fetch(settings_for(pacs), folder)
    assert {arrival.sop_instance_uid for arrival in arrivals} == uids(files) == set(study.expected.instances or ())
    assert len(arrivals) == len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("script", UNPROVED)
def test_what_is_gone_after_a_failure_makes_no_disc(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path], script: Script
) -> None:
    with ScriptedPacs(files, [], receiver_port) as pacs:

        def shrinking(move: MoveRequest) -> None:
            move.store(files)
            pacs.files = files[:3]
            script(move)

        pacs.scripts = [shrinking, whole]
        with pytest.raises(StudyIncomplete, match="changed in the PACS"):
            fetch(settings_for(pacs), folder)


def test_a_study_that_is_gone_or_another_patients_by_then_makes_no_disc(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path]
) -> None:
    with ScriptedPacs(files, [], receiver_port) as pacs:

        def emptied(move: MoveRequest) -> None:
            move.store(files)
            pacs.files = []
            move.end(0xC001)

        def corrected(move: MoveRequest) -> None:
            move.store(files)
            pacs.find_changes = {"STUDY": {"PatientID": "ANOTHER"}}
            move.end(0xC001)

        for script, error in ((emptied, StudyNotFound), (corrected, PatientMismatch)):
            pacs.files, pacs.scripts = files, [script]
            with pytest.raises(error):
                fetch(settings_for(pacs), folder)


@pytest.mark.parametrize(
    "changes", [{"find_status": {"IMAGE": 0xA900}}, {"find_limit": {"IMAGE": 2}}, {"find_status": {"SERIES": 0xC001}}]
)
def test_a_pacs_that_no_longer_lists_proves_nothing(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path], changes: dict[str, dict[str, int]]
) -> None:
    with ScriptedPacs(files, [], receiver_port) as pacs:

        def coarser(move: MoveRequest) -> None:
            move.store(files)
            for name, value in changes.items():
                setattr(pacs, name, value)
            move.end(0xC001)

        pacs.scripts = [coarser]
        with pytest.raises(StudyIncomplete, match="no longer tells"):
            fetch(settings_for(pacs), folder)


@pytest.mark.parametrize("script", UNPROVED[2:])
def test_a_number_proves_nothing_after_a_failure(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path], script: Script
) -> None:
    """Four arrived and four are counted, but one may be a stranger's: the PACS lists none and says that it failed."""
    with ScriptedPacs(files, [script], receiver_port) as pacs:
        pacs.find_status = {"IMAGE": 0xA900}
        settings = settings_for(pacs, quiet_timeout_seconds=0.3, response_timeout_seconds=10)
        with pytest.raises(MkisoError) as failed:
            fetch(settings, folder)
    assert type(failed.value) in (StudyIncomplete, PacsBusy) or "A900" in failed.value.words
    if isinstance(failed.value, StudyIncomplete):
        assert "4 images of accession number A1 arrived" in failed.value.words or "counts 4" in failed.value.words


@pytest.mark.parametrize("script", UNPROVED[:2])
def test_a_number_after_a_success_is_asked_for_again(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path], script: Script
) -> None:
    with ScriptedPacs(files, [script], receiver_port) as pacs:
        pacs.find_status = {"IMAGE": 0xA900}
        study, arrivals = fetch(settings_for(pacs, quiet_timeout_seconds=0.3), folder)
    assert study.expected == Expected("series", 4) and len(arrivals) == 4
    assert pacs.finds == FINDS_OF_A_STUDY * 2


def test_a_study_that_grows_for_ever_is_given_up(
    settings_for: MakeSettings, receiver_port: int, folder: Path, tmp_path: Path
) -> None:
    many = make_study(tmp_path / "many", "A1", kinds={"ct": GROWTH_ROUNDS + 2})
    with ScriptedPacs(many[:1], [], receiver_port) as pacs:

        def growing(move: MoveRequest) -> None:
            asked = move.asked()
            move.store(asked)
            pacs.files = many[: len(pacs.files) + 1]
            move.end(0xB000)

        pacs.scripts = [growing]
        words = (
            f"changed in the PACS while it was retrieved: {GROWTH_ROUNDS + 1} images were listed and {GROWTH_ROUNDS}"
        )
        with pytest.raises(StudyIncomplete, match=words):
            fetch(settings_for(pacs), folder)
    assert len(pacs.moves) == GROWTH_ROUNDS


def unlisted(file: Path, folder: Path) -> Path:
    """Another instance of the same study."""
    dataset = dcmread(file)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"{dataset.SOPInstanceUID[:50]}.77")
    dataset.save_as(folder / "unlisted.dcm", enforce_file_format=True)
    return folder / "unlisted.dcm"


def test_a_refused_instance_of_the_study_is_asked_about_and_moved(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path]
) -> None:
    """The C-MOVE counts what was listed and nothing more: only the receiver knows that a fourth came."""
    with ScriptedPacs(files[:3], [], receiver_port) as pacs:

        def grown(move: MoveRequest) -> None:
            pacs.files = list(files)
            move.store(files[:3])
            assert not move.store(files[3:])
            move.end(0x0000, completed=3, failed=0, warning=0, remaining=0)

        pacs.scripts = [grown, whole]
        study, arrivals = fetch(settings_for(pacs), folder)
    assert {arrival.sop_instance_uid for arrival in arrivals} == uids(files) == set(study.expected.instances or ())


@pytest.mark.parametrize("ends", [{"completed": 4, "failed": 0}, {}])
def test_a_strangers_instance_costs_one_query_and_is_on_no_disc(
    settings_for: MakeSettings,
    receiver_port: int,
    folder: Path,
    files: list[Path],
    tmp_path: Path,
    ends: dict[str, int],
) -> None:
    strange = unlisted(files[0], tmp_path)

    def interrupted(move: MoveRequest) -> None:
        for _ in range(3):
            assert not move.store([strange])
        move.store(files)
        move.end(0x0000, **ends)

    with ScriptedPacs(files, [interrupted], receiver_port) as pacs:
        _, arrivals = fetch(settings_for(pacs), folder)
    assert pacs.finds == FINDS_OF_A_STUDY * 2 and len(pacs.moves) == 1
    assert {arrival.sop_instance_uid for arrival in arrivals} == uids(files) == {file.name for file in folder.iterdir()}


def test_what_the_pacs_itself_sends_and_doesnt_list_makes_no_disc(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path], tmp_path: Path
) -> None:
    """It counts nothing and lists four at each asking; the fifth says that it is part of our C-MOVE."""
    hidden = unlisted(files[0], tmp_path)

    def script(move: MoveRequest) -> None:
        assert not move.store_moved(hidden)
        move.store(files)
        move.end(0x0000)

    with ScriptedPacs(files, [script], receiver_port) as pacs:
        with pytest.raises(StudyIncomplete, match=r"1 image more .* than the PACS tells.*no job expects it") as failed:
            fetch(settings_for(pacs), folder)
        pacs.mover = "SOMEBODY"  # another machine's C-MOVE, or nobody's
        fetch(settings_for(pacs), folder)
    assert failed.value.details["unlisted"] == 1


def damaged(file: Path, folder: Path) -> Path:
    """The same instance, cut short inside its pixels."""
    content = file.read_bytes()
    (folder / "damaged.dcm").write_bytes(content[:-7])
    return folder / "damaged.dcm"


@pytest.mark.parametrize("source", ["study", "none"])
def test_a_damaged_image_beside_the_number_makes_no_disc(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path], tmp_path: Path, source: str
) -> None:
    """Four are counted and arrive, or none is; a fifth of the study comes damaged, and the PACS calls it a success."""
    dataset = dcmread(files[0])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"{dataset.SOPInstanceUID[:50]}.78")
    dataset.save_as(tmp_path / "fifth.dcm", enforce_file_format=True)
    broken = damaged(tmp_path / "fifth.dcm", tmp_path)

    def script(move: MoveRequest) -> None:
        move.store_moved(broken)
        move.store(files)
        move.end(0x0000)

    with ScriptedPacs(files, [script], receiver_port) as pacs:
        pacs.find_status = {"SERIES": 0xA900}
        pacs.counts = source == "study"
        settings = settings_for(pacs, quiet_timeout_seconds=0.3, require_counts=False)
        with pytest.raises(StudyIncomplete, match=r"1 image more .*cut short"):
            fetch(settings, folder)


@pytest.mark.parametrize("status", [0xB000, 0x0000, 0xA702, 0xC001])
def test_the_job_says_why_an_image_is_missing(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path], tmp_path: Path, status: int
) -> None:
    broken = damaged(files[3], tmp_path)

    def script(move: MoveRequest) -> None:
        move.store(files[:3])
        move.store_moved(broken)
        move.end(status, completed=3, failed=1, warning=0, remaining=0)

    said = r"1 of the 4 images.*mkiso refused 1 that came: .*cut short"
    with ScriptedPacs(files, [script], receiver_port) as pacs, pytest.raises(StudyIncomplete, match=said):
        fetch(settings_for(pacs, quiet_timeout_seconds=0.3), folder)


def test_an_image_that_is_refused_once_and_comes_whole_is_no_matter(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path], tmp_path: Path
) -> None:
    broken = damaged(files[3], tmp_path)

    def script(move: MoveRequest) -> None:
        move.store(files[:3])
        move.store_moved(broken)
        move.end(0xB000, completed=3, failed=1, warning=0, remaining=0)

    with ScriptedPacs(files, [script, whole], receiver_port) as pacs:
        _, arrivals = fetch(settings_for(pacs), folder)
    assert {arrival.sop_instance_uid for arrival in arrivals} == uids(files)
