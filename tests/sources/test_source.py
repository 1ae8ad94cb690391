"""What finds, retrieves and proves knows no kind of source: one of another kind needs no receiver and no PACS."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from mkiso.config.settings import Settings
from mkiso.config.sources import AnySource
from mkiso.errors import PacsRefused, StudyIncomplete
from mkiso.network.dimse import Response, encode_data_set
from mkiso.sources.answers import Answers
from mkiso.sources.collection import retrieve_study
from mkiso.sources.move_outcome import MoveResult
from mkiso.sources.protocol import Query, Search, Source, Target
from mkiso.sources.query import find_studies
from mkiso.sources.sink import Sink
from mkiso.storage.job import Job
from mkiso.study import gate
from mkiso.study.gate import CompleteStudies
from mkiso.study.identity import fingerprint
from mkiso.study.models import Arrival, Study
from mkiso.study.values import Retrieved
from peers.corpus import make_study

UIDS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


class FolderSource:
    """A folder of Part 10 files. It ends as a C-GET or a WADO-RS request does: when it has ended, nothing more comes.
    `sends` of what is asked are sent at most.
    """

    name = "The folder"
    hint = "Look into the folder."
    settings = AnySource(back_off_seconds=0.01)
    quiet_seconds = 0.0

    def __init__(self, files: Sequence[Path], sends: int = 100) -> None:
        self.held = [(file, dcmread(file, stop_before_pixels=True)) for file in files]
        self.sends = sends

    @contextmanager
    def searching(self) -> Iterator[Search]:
        yield self._search

    def _search(self, query: Query, most: int | None = None, /) -> Answers:
        wanted = {keyword: value for keyword, value in query.keys.items() if value}
        found = [head for _, head in self.held if all(head[name].value == value for name, value in wanted.items())]
        answers = {head[UIDS[query.level]].value: head for head in found}.values()
        return Answers([Response(0, 0xFF00, identifier=self._told(query, head)) for head in answers], 0x0000)

    def _told(self, query: Query, head: Dataset) -> bytes:
        told = Dataset()
        for keyword in query.keys:
            if keyword in head:
                told[keyword] = head[keyword]
        return encode_data_set(told)

    @contextmanager
    def retrieving(self, sink: Sink) -> Iterator[FolderSource]:
        self.sink = sink
        yield self

    def retrieve(self, wanted: Sequence[Target]) -> list[MoveResult]:
        return [self._send(target) for target in wanted]

    def _send(self, target: Target) -> MoveResult:
        asked = [
            (file, head)
            for file, head in self.held
            if head.StudyInstanceUID == target.study_instance_uid
            and (not target.series or head.SeriesInstanceUID in target.series)
            and (not target.instances or head.SOPInstanceUID in target.instances)
        ]
        for file, head in asked[: self.sends]:
            uid, syntax = str(head.SOPInstanceUID), str(head.file_meta.TransferSyntaxUID)
            path = Path(shutil.copy(file, self.sink.folder / uid))
            content = path.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            study = str(head.StudyInstanceUID)
            self.sink.take(Arrival(uid, str(head.SOPClassUID), syntax, study, path, len(content), sha256))
        sent = min(len(asked), self.sends)
        return MoveResult(0x0000 if sent == len(asked) else 0xB000, completed=sent, failed=len(asked) - sent)

    def take(self, timeout_seconds: float) -> bool:
        return False

    def catch_up(self) -> None:
        pass

    def failure(self, result: MoveResult, study: Study, arrived: int) -> PacsRefused | None:
        return None

    def check(self, limit_seconds: float, *, inside: bool = False) -> str:
        return "is there"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return make_study(tmp_path / "files", "A1", kinds={"ct": 3, "sr": 1})


def complete_studies(source: Source, tmp_path: Path) -> CompleteStudies:
    """From the question through the gate."""
    settings = Settings.model_validate({"storage": {"data_dir": str(tmp_path / "data")}})
    studies = find_studies(source, "A1")
    found = gate.found(("A1",), studies, [], settings.identity, degraded=False)
    job = Job("job", "download", settings)
    job.open()
    job.begin(fingerprint(studies, None))
    retrieved = tuple(retrieve_study(source, job, study, lambda _: None) for study in found.studies)
    return CompleteStudies(Retrieved(found, retrieved), settings.identity)


def test_a_source_of_another_kind_is_found_retrieved_and_proved(tmp_path: Path, files: list[Path]) -> None:
    studies = complete_studies(FolderSource(files), tmp_path)
    held = {str(dcmread(file, stop_before_pixels=True).SOPInstanceUID): file for file in files}
    assert {each.arrival.sop_instance_uid for each in studies.instances} == set(held)
    for each in studies.instances:
        assert each.arrival.path.read_bytes() == held[each.arrival.sop_instance_uid].read_bytes()


def test_what_a_source_of_another_kind_lacks_is_asked_again(tmp_path: Path, files: list[Path]) -> None:
    assert len(complete_studies(FolderSource(files, sends=3), tmp_path).instances) == 4


def test_a_source_of_another_kind_that_sends_too_little_fails(tmp_path: Path, files: list[Path]) -> None:
    with pytest.raises(StudyIncomplete, match=r"4 of the 4 images.*Look into the folder"):
        complete_studies(FolderSource(files, sends=0), tmp_path)
