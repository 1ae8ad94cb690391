"""What a job tells while it runs and at its end, to its report and to a listener, without Prefect."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mkiso.config.settings import Server
from mkiso.config.storage import Storage
from mkiso.errors import JobStopped, MkisoError, PacsUnreachable, StorageFull, StorageUnreadable, Unforeseen
from mkiso.storage.progress import JobProgress, words_of_discs
from mkiso.storage.report import JobReport, failure_of, read_report, write_report
from mkiso.storage.shelf import Manifest
from mkiso.study.models import Arrival, Expected, Study
from mkiso.study.values import Found
from tests.media.discs import CREATED, passed
from tests.study.test_gate import instance

JOB = "0b0a1b2c-0000-4000-8000-000000000001"
STUDY = Study("A1", "1.2.1", "HN-1", study_description="Head", expected=Expected("series", 2))
DISC = Manifest("d1", JOB, CREATED.isoformat(), "V", "x.iso", ("A1",), "f", 2_000_000, "0" * 64, 3, "cd", 1, 2)


class Seen:
    """What operators are shown."""

    is_progress_due = False

    def __init__(self) -> None:
        self.shown: list[tuple[object, ...]] = []

    def progress(self, done: int, total: int | None, words: str) -> None:
        self.shown.append((done, total, words.partition(" images")[0]))

    def table(self, key: str, rows: Sequence[Mapping[str, object]], description: str) -> None:
        self.shown.append((key, *[(row["received"], row["expected"], row["written"]) for row in rows]))

    def link(self, key: str, address: str, words: str) -> None:
        self.shown.append((key, address, words))


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(data_dir=tmp_path)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def progress(storage: Storage, seen: Seen) -> JobProgress:
    return JobProgress(storage, JobReport(JOB, "download", ("A1",)), seen)


def arrival(number: int) -> Arrival:
    return Arrival(f"1.2.1.{number}", "", "", "1.2.1", Path("/none"), 100, "")


def test_a_report_says_how_far_each_study_has_come(progress: JobProgress, storage: Storage) -> None:
    progress.tell_found(Found(("A1",), (STUDY,), degraded=("patient_api",)))
    progress.count_kept(arrival(1))
    progress.count_arrival(arrival(2))
    progress.tell("laying out")
    told = read_report(storage, JOB)
    assert (told.stage, told.received, told.expected, told.degraded) == ("laying out", 2, 2, ("patient_api",))
    assert told.received_bytes == 100, "what an earlier attempt stored isn't moved again"
    [study] = told.studies
    assert (study.study_description, study.received, study.expected) == ("Head", 2, 2)
    assert set(told.seconds) == {"starting", "found"}


def test_a_study_that_is_retrieved_once_more_is_counted_anew(progress: JobProgress) -> None:
    progress.tell_found(Found(("A1",), (STUDY,)))
    for number in (1, 2):
        progress.count_arrival(arrival(number))
    progress.begin_study(STUDY)
    progress.count_kept(arrival(1))
    assert progress.report.received == 1


def test_of_studies_of_which_one_has_no_count_the_sum_is_unknown(progress: JobProgress) -> None:
    unknown = replace(STUDY, study_instance_uid="1.2.9", expected=Expected("none", None))
    progress.tell_found(Found(("A1",), (STUDY, unknown)))
    assert progress.report.expected is None


def test_a_retrieval_that_breaks_off_shows_how_far_it_came(progress: JobProgress, seen: Seen) -> None:
    progress.tell_found(Found(("A1",), (STUDY,)))
    progress.count_arrival(arrival(1))
    progress.tell_end(is_good=False)
    assert seen.shown == [(1, 2, "1 of 2"), ("studies", (1, 2, "unfinished"))]


def test_at_a_good_end_what_was_received_was_written(progress: JobProgress, seen: Seen) -> None:
    studies = passed([instance(1, 1), instance(1, 2)])
    progress.tell_complete(studies)
    progress.tell_written(2)
    progress.tell_end(is_good=True)
    assert (progress.report.received, progress.report.written) == (2, 2)
    assert seen.shown == [(2, 2, "2 of 2"), ("studies", (2, 2, 2))]


def test_a_part_of_a_set_has_an_address_of_its_own(progress: JobProgress, seen: Seen, storage: Storage) -> None:
    progress.tell_discs([DISC, replace(DISC, disc_id="d2", number=2)], Server(public_url="https://discs.example/"))
    assert read_report(storage, JOB).disc_ids == ("d1", "d2")
    assert seen.shown[1] == ("disc", f"https://discs.example/api/iso/jobs/{JOB}/disc?part=2", "Disc 2 of 2 (2.0 MB)")


def test_the_discs_of_an_earlier_attempt_stay_in_the_report(storage: Storage, seen: Seen) -> None:
    write_report(storage, JobReport(JOB, "download", ("A1",), disc_ids=("d1",)))
    assert JobProgress(storage, JobReport(JOB, "download", ("A1",)), seen).report.disc_ids == ("d1",)


def test_a_retry_that_finds_its_discs_says_that_they_are_a_part(progress: JobProgress, storage: Storage) -> None:
    progress.tell_discs([replace(DISC, is_part=True)], Server())  # without having found any study itself
    assert read_report(storage, progress.report.job_id).is_part


def test_words_tell_a_disc_that_is_served_again_from_a_new_one() -> None:
    assert words_of_discs([DISC], JOB).startswith("3 images of ") and words_of_discs([DISC], JOB).endswith("complete.")
    assert words_of_discs([replace(DISC, instances=1)], JOB).startswith("1 image of ")
    assert "Served again: the disc of " in words_of_discs([DISC], "another")


@pytest.mark.parametrize(
    ("error", "told", "said"),
    [
        (StorageFull("No room."), StorageFull, "No room."),
        (ValueError("Canary"), Unforeseen, "unexpected fault"),
        (OSError(errno.EROFS, "Canary", "Canary"), StorageUnreadable, "job's files: Read-only file system."),
        (OSError(errno.ENOTDIR, "Canary", "Canary"), Unforeseen, "NotADirectoryError (Not a directory)"),
        (OSError("Canary"), Unforeseen, "mkiso: OSError."),
        (KeyboardInterrupt(), JobStopped, "stopped before its end"),
    ],
)
@pytest.mark.parametrize("kind", ["download", "print"])
def test_an_end_has_words_of_its_own(error: BaseException, told: type[MkisoError], said: str, kind: str) -> None:
    failure = failure_of(error, kind)
    assert type(failure) is told and said in failure.words and "Canary" not in failure.words
    if failure is not error:
        assert ("look there before asking again" in failure.words) is (kind == "print")


def test_once_a_later_attempt_has_begun_an_earlier_one_tells_nothing_more(
    progress: JobProgress, seen: Seen, storage: Storage
) -> None:
    """Its machine had lost its connection, was taken for lost, and is back."""
    progress.tell("starting")
    assert not progress.is_superseded
    later = JobProgress(storage, JobReport(JOB, "download", ("A1",)), seen)
    later.tell("starting")
    later.write(replace(later.report, status="done", stage="done", disc_ids=("d1",)))
    assert progress.is_superseded and not later.is_superseded
    progress.tell("retrieving")
    progress.write(progress.report.failed(PacsUnreachable("The PACS can't be reached.")))
    told = read_report(storage, JOB)
    assert (told.status, told.stage, told.disc_ids, told.attempt) == ("done", "done", ("d1",), 2)
