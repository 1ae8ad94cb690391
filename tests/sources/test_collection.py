"""What a rerun takes up of an earlier attempt, and what it moves anew, with the real receiver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from mkiso.config.settings import Settings
from mkiso.errors import InstanceConflict, PatientMismatch, StudyIncomplete
from mkiso.sources.collection import retrieve_study
from mkiso.sources.query import find_studies
from mkiso.sources.registry import source_of
from mkiso.storage.job import Job
from mkiso.study.gate import CompleteStudies, found
from mkiso.study.identity import fingerprint
from mkiso.study.models import Instance
from mkiso.study.values import Retrieved
from peers.corpus import make_study
from peers.scripted_pacs import MoveRequest, ScriptedPacs, whole

pytestmark = pytest.mark.peer
MakeSettings = Callable[..., Settings]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return make_study(tmp_path / "files", "A1", kinds={"ct": 4})


class Attempt:
    """A run of the job from its beginning, as far as the retrieval."""

    def __init__(self, settings: Settings) -> None:
        self.studies = find_studies(source_of(settings), "A1")
        self.job = Job("job", "download", settings)
        self.job.open()
        self.job.begin(fingerprint(self.studies, None))

    def instances(self) -> dict[str, Instance]:
        """What is retrieved; it is also what lies in the folder."""
        self.moved: list[str] = []
        self.kept: list[str] = []
        retrieved = retrieve_study(
            source_of(self.job.settings),
            self.job,
            self.studies[0],
            lambda arrival: self.moved.append(arrival.sop_instance_uid),
            on_kept=lambda arrival: self.kept.append(arrival.sop_instance_uid),
        )
        found = {each.arrival.sop_instance_uid: each for each in retrieved.instances}
        assert {file.name for file in self.job.instances_dir.iterdir()} == set(found) == {*self.moved, *self.kept}
        return found


def retrieved(attempt: Attempt) -> set[str]:
    return set(attempt.instances())


def uids(files: list[Path]) -> set[str]:
    return {str(dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files}


def changed(file: Path, target: Path, **attributes: str) -> Path:
    dataset = dcmread(file)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(target)
    return target


def three_of_four(move: MoveRequest) -> None:
    move.store(move.files[:3])
    move.end(0xB000, completed=3, failed=1, warning=0, remaining=0)


def test_nothing_is_taken_up_where_only_counts_are_known(
    settings_for: MakeSettings, receiver_port: int, files: list[Path], tmp_path: Path
) -> None:
    """One image is deleted and one is added: there are as many as before."""
    with ScriptedPacs(files, [whole], receiver_port) as pacs:
        pacs.find_status = {"IMAGE": 0xA900}
        settings = settings_for(pacs)
        first = Attempt(settings)
        assert retrieved(first) == uids(files)
        pacs.files = [*files[1:], changed(files[0], tmp_path / "added", SOPInstanceUID="1.2.3.99")]
        assert retrieved(first) == uids(pacs.files), "the step is tried again in the same run"
        pacs.files = files
        again = Attempt(settings)
        assert retrieved(again) == uids(files)
        assert not again.kept


def test_only_the_gap_is_moved_while_the_pacs_says_the_same(
    settings_for: MakeSettings, receiver_port: int, files: list[Path]
) -> None:
    with ScriptedPacs(files, [three_of_four], receiver_port) as pacs:
        settings = settings_for(pacs, move_attempts=1)
        with pytest.raises(StudyIncomplete):
            retrieved(Attempt(settings))
        pacs.scripts = [whole]
        again = Attempt(settings)
        assert retrieved(again) == uids(files)
        assert set(again.kept) == uids(files[:3])
    assert [move.QueryRetrieveLevel for move in pacs.moves] == ["STUDY", "IMAGE"]


def test_what_had_grown_and_is_gone_again_is_dropped(
    settings_for: MakeSettings, receiver_port: int, files: list[Path]
) -> None:
    with ScriptedPacs(files[:3], [], receiver_port) as pacs:

        def grown(move: MoveRequest) -> None:
            pacs.files = files
            move.store(files)
            move.end(0xB000, completed=3, failed=1, warning=0, remaining=0)

        pacs.scripts = [grown, whole]
        settings = settings_for(pacs)
        assert retrieved(Attempt(settings)) == uids(files)
        pacs.files = files[:3]
        pacs.scripts = []
        again = Attempt(settings)
        assert retrieved(again) == set(again.kept) == uids(files[:3])


def test_nothing_is_taken_up_where_the_patient_was_corrected(
    settings_for: MakeSettings, receiver_port: int, files: list[Path], tmp_path: Path
) -> None:
    """Half a disc under the old name and half under the new one would be complete by every UID."""
    with ScriptedPacs(files, [three_of_four], receiver_port) as pacs:
        settings = settings_for(pacs, move_attempts=1)
        with pytest.raises(StudyIncomplete):
            retrieved(Attempt(settings))
        pacs.scripts = [whole]
        pacs.files = [
            changed(file, tmp_path / f"corrected{number}", PatientName="Corrected^Name")
            for number, file in enumerate(files)
        ]
        again = Attempt(settings)
        instances = again.instances()
        assert set(instances) == uids(files) and not again.kept
    assert {str(instance.header.PatientName) for instance in instances.values()} == {"Corrected^Name"}


def test_nothing_is_taken_up_of_a_study_that_came_in_two_ways(
    settings_for: MakeSettings, receiver_port: int, files: list[Path], tmp_path: Path
) -> None:
    """Which of two images under one UID is the PACS's nobody can say, nor which others of those that came are: a retry
    that kept them would put a stranger's images on the disc.
    """
    others = [
        changed(file, tmp_path / f"other{number}", SeriesDescription="Other") for number, file in enumerate(files[:2])
    ]

    def conflicting(move: MoveRequest) -> None:
        move.store(others)
        move.store(files)
        move.end(0x0000, completed=4, failed=0, warning=0, remaining=0)

    with ScriptedPacs(files, [conflicting, whole], receiver_port) as pacs:
        settings = settings_for(pacs)
        with pytest.raises(InstanceConflict):
            retrieved(Attempt(settings))
        again = Attempt(settings)
        instances = again.instances()
        assert set(instances) == uids(files) and not again.kept
    assert "Other" not in {str(instance.header.get("SeriesDescription")) for instance in instances.values()}


def test_a_file_of_which_nothing_is_written_down_goes(
    settings_for: MakeSettings, receiver_port: int, files: list[Path], tmp_path: Path
) -> None:
    """Killed before the first line: what lies there would be a conflict for ever."""
    uid = next(iter(uids(files[:1])))
    with ScriptedPacs(files, [whole], receiver_port) as pacs:
        job = Job("job", "download", settings_for(pacs))
        job.open()
        (job.instances_dir / uid).write_bytes(b"other bytes")
        job.note(fingerprint=fingerprint(find_studies(source_of(job.settings), "A1"), None))
        assert retrieved(Attempt(job.settings)) == uids(files)


def disc_of(settings: Settings) -> CompleteStudies:
    """A run of the job as far as the gate."""
    attempt = Attempt(settings)
    answer = found(("A1",), attempt.studies, [], settings.identity, degraded=False)
    retrieved = tuple(
        retrieve_study(source_of(settings), attempt.job, study, lambda _: None) for study in answer.studies
    )
    return CompleteStudies(Retrieved(answer, retrieved), settings.identity)


def with_issuers(files: list[Path], folder: Path, *issuers: str) -> list[Path]:
    issued = enumerate(zip(files, issuers, strict=True))
    return [changed(file, folder / f"issued{number}", IssuerOfPatientID=issuer) for number, (file, issuer) in issued]


def test_two_issuers_that_the_pacs_keeps_to_itself_are_two_patients(
    settings_for: MakeSettings, receiver_port: int, files: list[Path], tmp_path: Path
) -> None:
    """Issuer of Patient ID is an optional key: what C-FIND leaves out, the headers say."""
    one_study = with_issuers(files, tmp_path, "NORTH", "NORTH", "NORTH", "SOUTH")
    with ScriptedPacs(one_study, [whole], receiver_port) as pacs:
        pacs.silent_keys = {"IssuerOfPatientID"}
        with pytest.raises(PatientMismatch, match="more than one issuer"):
            disc_of(settings_for(pacs))
    other_study = make_study(tmp_path / "other", "A1", kinds={"ct": 1}, number=2)
    other_study = [changed(other_study[0], tmp_path / "south", IssuerOfPatientID="SOUTH")]
    with ScriptedPacs(with_issuers(files, tmp_path, *["NORTH"] * 4) + other_study, [whole], receiver_port) as pacs:
        pacs.silent_keys = {"IssuerOfPatientID"}
        with pytest.raises(PatientMismatch, match="more than one issuer"):
            disc_of(settings_for(pacs))


def test_a_disc_of_a_study_that_grew_answers_for_nothing_but_what_it_holds(
    settings_for: MakeSettings, receiver_port: int, files: list[Path]
) -> None:
    with ScriptedPacs(files[:3], [], receiver_port) as pacs:

        def grown(move: MoveRequest) -> None:
            pacs.files = files
            move.store(files)
            move.end(0xB000, completed=3, failed=1, warning=0, remaining=0)

        pacs.scripts = [grown, whole]
        settings = settings_for(pacs)
        before = fingerprint(find_studies(source_of(settings), "A1"), None, accession_numbers=["A1"])
        disc = disc_of(settings)
        assert disc.fingerprint == fingerprint(find_studies(source_of(settings), "A1"), None, accession_numbers=["A1"])
        pacs.files = files[:3]  # the fourth image is rejected again
        assert (
            fingerprint(find_studies(source_of(settings), "A1"), None, accession_numbers=["A1"])
            == before
            != disc.fingerprint
        )
