"""The steps of a night around its ledger (SQLite and PostgreSQL): what stays owed, what is named, what is left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from pathlib import Path
from socket import SHUT_RDWR
from uuid import uuid4

import pytest
from pydicom import Dataset, dcmread

from mkiso.archive.by_hand import forget_study, withdraw
from mkiso.archive.catalogue import failed_studies
from mkiso.archive.days import owe, searched
from mkiso.archive.delivery import close_night
from mkiso.archive.job import ArchiveJob
from mkiso.archive.ledger import Ledger
from mkiso.archive.night_outcome import words
from mkiso.archive.nights import Night, NightRange
from mkiso.archive.planning import HOPELESS
from mkiso.archive.schedule import Due, by_hand
from mkiso.archive.search import find, plan_night
from mkiso.config.settings import Audit, Settings
from mkiso.config.sources import Origin
from mkiso.errors import PacsRefused, PacsUnreachable, StudyIncomplete, VolumeNotFound
from mkiso.storage.job import Job
from peers.corpus import make_study
from peers.scripted_pacs import Gone, Peer, ScriptedPacs
from tests.archive.discs import RANGE, Nobody, archive, study

DAY = date(2026, 2, 12)
NEXT = DAY + timedelta(days=1)

Begin = Callable[..., ArchiveJob]


@pytest.fixture
def begin(ledger: Ledger, settings: Settings) -> Iterator[Begin]:
    """A run of the archive that has begun its night, beside whatever else the test has begun."""
    begun: list[ArchiveJob] = []

    def make(*pacs: ScriptedPacs, dates: Due | None = None, **of_first: object) -> ArchiveJob:
        one, *more = [{"ae_title": each.ae_title, "port": each.port, "find_limit": 500} for each in pacs]
        one |= of_first
        several = {name: {**keys, "ae_title": name} for name, keys in zip("ABC", (one, *more), strict=False)}
        asked_of = {"sources": several} if more else {"pacs": one}
        asked = settings.model_validate(settings.model_dump(exclude={"pacs"}) | asked_of)
        job, log = Job(str(uuid4()), "archive", asked), logging.getLogger("test")
        run = ArchiveJob(
            job, (dates.date_from if dates else None, None), datetime.now(UTC), log, Nobody(), dry_run=False
        )
        run.ledger, run.store, run.dates = ledger, None, dates or Due(frozenset({DAY}), DAY)
        covers = NightRange(run.dates.date_from, run.dates.date_to, run.scheduled)
        run.night = run.opened.enter_context(Night.begin(ledger, run.job.id, covers))
        run.began_on = NEXT
        begun.append(run)
        return run

    yield make
    for run in begun:
        run.opened.close()


def through(run: ArchiveJob) -> None:
    """A night that has nothing to retrieve."""
    for step in (find, plan_night, close_night):
        step(run)


def failed(ledger: Ledger, times: int, *, uid: str = "1.2.840.99", study_date: str = "20200101") -> None:
    with Night.begin(ledger, uuid4().hex, RANGE) as night:
        for _ in range(times):
            night.failed(
                study(uid, accession_number="LOST1", study_date=study_date), StudyIncomplete("An image is missing.")
            )


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return make_study(tmp_path / "files", "A1", study_date="20260212")


def test_the_days_of_studies_that_another_run_holds_stay_owed(
    ledger: Ledger, begin: Begin, files: list[Path], tmp_path: Path
) -> None:
    uid = str(dcmread(files[0]).StudyInstanceUID)
    owe(ledger, DAY - timedelta(days=1), NEXT)
    with ScriptedPacs(files) as pacs, Night.begin(ledger, "other", RANGE) as other:
        other.claim([uid])
        run = begin(pacs)
        run.dates = Due(frozenset({DAY - timedelta(days=1), DAY}), DAY)
        through(run)
        assert not run.waiting
        assert "Another archive run works on 1 study." in words(run.outcome)
        assert searched(ledger) == {DAY - timedelta(days=1): NEXT}
        archive(other, {uid: [str(dcmread(file).SOPInstanceUID) for file in files]})
        other.release([uid])
        run = begin(pacs)
        run.dates = Due(frozenset({DAY}), DAY, left=3)
        through(run)
    assert searched(ledger)[DAY] == NEXT
    assert "3 earlier days are still owed" in words(run.outcome)


def test_a_study_that_was_given_up_is_named_each_night_until_a_person_settles_it(
    ledger: Ledger, begin: Begin, files: list[Path]
) -> None:
    """Its date is long ago: no night comes across it any more."""
    owe(ledger, DAY, NEXT)
    uid = str(dcmread(files[0]).StudyInstanceUID)
    with Night.begin(ledger, "before", RANGE) as night:
        archive(night, {uid: [str(dcmread(file).SOPInstanceUID) for file in files]})
    failed(ledger, 4)
    with pytest.raises(VolumeNotFound, match="the nights still try it"):
        forget_study(ledger, "LOST1", 5)
    failed(ledger, 1)
    with ScriptedPacs(files) as pacs:
        for _ in range(2):
            run = begin(pacs)
            through(run)
            assert not run.outcome.is_good
            assert "tried no more after archive.max_attempts: LOST1." in words(run.outcome)
            assert "`mkiso archive settle LOST1 --forget`" in words(run.outcome)
        assert searched(ledger)[DAY] == NEXT  # its own day keeps nobody waiting
        forget_study(ledger, "LOST1", 5)
        with pytest.raises(VolumeNotFound, match="neither volume nor failed study"):
            forget_study(ledger, "LOST2", 5)
        run = begin(pacs)
        through(run)
        assert run.outcome.is_good
        (said,) = failed_studies(ledger)
        assert said.forgotten and said.attempts == 5
        through(begin(pacs, dates=by_hand(date(2020, 1, 1), date(2020, 1, 1))))  # it fails once more
        run = begin(pacs)
        through(run)
        assert run.outcome.given_up == ["LOST1"]


def test_of_a_store_that_is_lost_each_night_looks_for_some_studies(
    ledger: Ledger, begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the PACS names of years of them fits no memory. One that it has nothing of keeps none of them waiting."""
    monkeypatch.setattr("mkiso.archive.search.LOST_A_NIGHT", 2)
    files = [
        make_study(tmp_path / name, name, study_date="20200101", number=number) for number, name in enumerate("ABC")
    ]
    uids = {str(dcmread(one[0]).StudyInstanceUID) for one in files}
    with Night.begin(ledger, "before", RANGE) as night:
        volume = archive(night, {uid: [f"2.25.{n}"] for n, uid in enumerate((*uids, "1.2.840.1", "1.2.840.2"))})
        night.advance(volume.label, "done", "shelf 3")
    withdraw(ledger, volume.label)
    found: set[str] = set()
    with ScriptedPacs(list(chain.from_iterable(files))) as pacs:
        for number in range(3):
            run = begin(pacs)
            run.began_on = NEXT + timedelta(days=number)
            find(run)
            assert len(run.copies) <= 2
            found |= run.copies.keys()
    assert found == uids


@pytest.mark.parametrize("study_date", ["20260101", ""])
def test_who_asks_by_hand_tries_again_what_was_given_up_of_these_dates_or_has_none(
    ledger: Ledger, begin: Begin, tmp_path: Path, study_date: str
) -> None:
    """In the PACS it has another date by now, or none, which no range of dates matches."""
    files = make_study(tmp_path / "undated", "LOST1", study_date="")
    uid = str(dcmread(files[0]).StudyInstanceUID)
    failed(ledger, 5, uid=uid, study_date=study_date)
    with ScriptedPacs(files) as pacs:
        for dates, tried in (
            (None, False),
            (by_hand(date(2026, 1, 2), date(2026, 1, 2)), not study_date),
            (by_hand(date(2026, 1, 1), date(2026, 1, 1)), True),
        ):
            run = begin(pacs, dates=dates)
            find(run)
            plan_night(run)
            assert [each.study_instance_uid for each in run.waiting] == ([uid] if tried else [])
            run.opened.close()


def test_a_study_that_failed_and_is_complete_by_now_is_owed_no_more(
    ledger: Ledger, begin: Begin, files: list[Path]
) -> None:
    """The images that couldn't be retrieved are no longer in the PACS; the others lie on a volume."""
    uid = str(dcmread(files[0]).StudyInstanceUID)
    with Night.begin(ledger, "before", RANGE) as night:
        archive(night, {uid: [str(dcmread(file).SOPInstanceUID) for file in files]})
    failed(ledger, 5, uid=uid)
    with ScriptedPacs(files) as pacs:
        run = begin(pacs)
        through(run)
    assert run.outcome.is_good
    assert failed_studies(ledger) == ()


def test_a_study_that_another_run_retrieves_keeps_its_folder(
    ledger: Ledger, begin: Begin, files: list[Path], settings: Settings
) -> None:
    """By number it is complete: only the other one compares its instances."""
    uid = str(dcmread(files[0]).StudyInstanceUID)
    with Night.begin(ledger, "before", RANGE) as night:
        archive(night, {uid: [f"1.2.{number}" for number in range(len(files))]})
    theirs = Job(f"{uuid4()}/{uid}", "archive", settings)
    theirs.open()
    with ScriptedPacs(files) as pacs:
        with Night.begin(ledger, "other", RANGE) as other:
            other.claim([uid])
            run = begin(pacs)
            run.dates = Due(frozenset({NEXT}), DAY)
            find(run)
            assert list(run.copies) == [uid]
            plan_night(run)
            assert theirs.folder.exists()
        run.opened.close()
        run = begin(pacs)
        run.dates = Due(frozenset({NEXT}), DAY)
        find(run)
        plan_night(run)
        assert not theirs.folder.exists()


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_night_names_what_it_cant_ask_for_and_owes_its_day(ledger: Ledger, begin: Begin, files: list[Path]) -> None:
    owe(ledger, DAY - timedelta(days=1), NEXT)
    with ScriptedPacs(files) as pacs:
        pacs.find_more = {"STUDY": "no uid"}
        run = begin(pacs)
        find(run)
    assert len(run.copies) == run.outcome.found == 1
    assert run.not_done == {DAY}
    assert not run.outcome.is_good and "NOT ARCHIVED" in words(run.outcome) and ": A1. " in words(run.outcome)


def test_a_night_takes_each_study_from_the_source_that_has_it_wholly(
    begin: Begin, files: list[Path], tmp_path: Path
) -> None:
    alone = make_study(tmp_path / "alone", "A2", study_date="20260212")
    with ScriptedPacs(files[1:]) as first, ScriptedPacs([*files, *alone]) as second:
        run = begin(first, second)
        find(run)
        plan_night(run)
    assert run.outcome.found == 2 and run.outcome.is_good and not run.not_done
    taken = {study.accession_number: (study.origin.source, study.expected.count) for study in run.waiting}
    assert taken == {"A1": ("B", len(files)), "A2": ("B", len(alone))}


def dated(files: Sequence[Path], folder: Path, study_date: str) -> list[Path]:
    """The same images, of another date."""
    folder.mkdir()
    for file in files:
        image = dcmread(file)
        image.StudyDate = study_date
        image.save_as(folder / file.name)
    return list(folder.iterdir())


def test_a_source_that_dates_a_study_otherwise_is_asked_what_it_has_of_it(
    begin: Begin, files: list[Path], tmp_path: Path
) -> None:
    with ScriptedPacs(files[1:]) as first, ScriptedPacs(dated(files, tmp_path / "dated", "20200101")) as second:
        run = begin(first, second)
        find(run)
        run.job = replace(run.job, settings=run.job.settings.model_copy(update={"audit": Audit(enabled=True)}))
        plan_night(run)
    assert run.outcome.is_good and not run.not_done
    assert [(study.origin.source, study.expected.count) for study in run.waiting] == [("B", len(files))]
    queries = (run.job.settings.storage.data_dir / "audit.xml").read_text("utf-8").splitlines()
    assert len(queries) == 1 and 'UserID="B"' in queries[0]


def test_a_source_that_goes_before_it_could_be_asked_of_each_study_is_named(
    ledger: Ledger, begin: Begin, files: list[Path], tmp_path: Path
) -> None:
    alone = make_study(tmp_path / "alone", "A2", study_date="20260212")
    with ScriptedPacs([*files, *alone]) as first:
        with ScriptedPacs([]) as second:
            run = begin(first, second)
            find(run)
        plan_night(run)
    assert {study.accession_number for study in run.waiting} == {"A1", "A2"}
    assert len(run.outcome.not_asked) == 1 and DAY in run.not_done


def test_a_source_that_goes_before_it_lists_its_studies_holds_up_no_other(
    ledger: Ledger, begin: Begin, several: dict[str, list[Path]], tmp_path: Path
) -> None:
    own = [make_study(tmp_path / name, name, study_date="20260212") for name in ("B1", "B2", "B3", "B4")]
    with ScriptedPacs(list(chain.from_iterable(several.values()))) as first:
        with ScriptedPacs(list(chain.from_iterable(own))) as second:
            run = begin(second, first)
            find(run)
        plan_night(run)
    assert {study.study_instance_uid for study in run.waiting} == set(several)
    assert {each.name for each in failed_studies(ledger)} == {"B1", "B2", "B3", "B4"}
    assert {each.attempts for each in failed_studies(ledger)} == {0}
    assert len(run.outcome.not_asked) == 1 and DAY in run.not_done


def test_no_night_goes_on_without_a_source_that_must_answer(
    begin: Begin, several: dict[str, list[Path]], tmp_path: Path
) -> None:
    own = [make_study(tmp_path / name, name, study_date="20260212") for name in ("B1", "B2", "B3")]
    with ScriptedPacs(list(chain.from_iterable(several.values()))) as first:
        with ScriptedPacs(list(chain.from_iterable(own))) as second:
            run = begin(second, first, must_answer=True)
            find(run)
        with pytest.raises(PacsUnreachable):
            plan_night(run)
    assert not run.outcome.not_asked


def test_a_study_that_no_source_has_wholly_is_written_down_and_the_night_goes_on(
    ledger: Ledger, begin: Begin, files: list[Path], tmp_path: Path
) -> None:
    alone = make_study(tmp_path / "alone", "A2", study_date="20260212")
    with ScriptedPacs([*files[1:], *alone]) as first, ScriptedPacs(files[:-1]) as second:
        run = begin(first, second)
        find(run)
        plan_night(run)
    assert [study.accession_number for study in run.waiting] == ["A2"]
    [torn] = failed_studies(ledger)
    assert torn.name == "A1" and "No source holds all images" in torn.words


def test_without_a_source_the_night_goes_on_and_owes_its_days(ledger: Ledger, begin: Begin, files: list[Path]) -> None:
    owe(ledger, DAY - timedelta(days=1), NEXT)
    with ScriptedPacs(files) as first:
        with ScriptedPacs([]) as second:
            pass
        run = begin(first, second)
        find(run)
        plan_night(run)
        close_night(run)
    assert [study.accession_number for study in run.waiting] == ["A1"]
    assert DAY in run.not_done and DAY not in {day for day, when in searched(ledger).items() if when}
    assert not run.outcome.is_good and "NOT ASKED: B (The PACS B at" in words(run.outcome)


@pytest.mark.parametrize("is_away_at", ["search", "list"])
def test_a_study_that_no_night_comes_across_waits_for_a_source_that_is_away(
    ledger: Ledger, begin: Begin, files: list[Path], tmp_path: Path, is_away_at: str
) -> None:
    """It failed before, and its date is long ago: taken from another source it would never be compared again."""
    old = make_study(tmp_path / "old", "LOST1", study_date="20200101")
    uid = str(dcmread(old[0]).StudyInstanceUID)
    failed(ledger, 1, uid=uid)
    with ScriptedPacs([*files, *old[:-1]]) as first:
        with ScriptedPacs([]) as second:
            run = begin(first, second)
            if is_away_at == "list":
                find(run)
        if is_away_at == "search":
            find(run)
        plan_night(run)
    assert [study.accession_number for study in run.waiting] == ["A1"]
    assert {each.study_instance_uid: each.attempts for each in failed_studies(ledger)} == {uid: 1}
    assert run.outcome.failed == ("LOST1",)


def test_what_a_run_by_hand_finds_waits_for_a_source_that_is_away(
    ledger: Ledger, begin: Begin, files: list[Path]
) -> None:
    """Nobody owes its days: what the other source has more of a study would never be archived."""
    with ScriptedPacs(files[:-1]) as first:
        with ScriptedPacs(files) as second:
            pass
        through(run := begin(first, second, dates=by_hand(DAY, DAY)))
    assert not run.waiting and searched(ledger) == {}
    assert [(each.name, each.attempts) for each in failed_studies(ledger)] == [("A1", 0)]
    assert "when this one answers, ask for these days by hand again" in words(run.outcome)


def test_earlier_failures_of_a_source_that_is_away_keep_nothing_of_another_waiting(
    ledger: Ledger, begin: Begin, files: list[Path]
) -> None:
    for number in range(HOPELESS):
        failed(ledger, 1, uid=f"1.2.840.{number}")
    with ScriptedPacs(files) as first:
        with ScriptedPacs([]) as second:
            pass
        run = begin(first, second)
        find(run)
        plan_night(run)
    assert not run.outcome.stopped and len(run.outcome.failed) == HOPELESS
    assert [study.accession_number for study in run.studies()] == ["A1"]


class FailsAt(ScriptedPacs):
    """Breaks the connection at questions of a level about some studies, for each of them so many times."""

    ae_title = "FAILS"

    def __init__(
        self, files: Sequence[Path], studies: Collection[str], times: int = 1000, level: str = "SERIES"
    ) -> None:
        super().__init__(files)
        self._level = level
        self._left = dict.fromkeys(studies, times)

    def _find(self, peer: Peer, command: Dataset, identifier: Dataset) -> None:
        uid = str(identifier.get("StudyInstanceUID"))
        if identifier.QueryRetrieveLevel == self._level and self._left.get(uid, 0):
            self._left[uid] -= 1
            peer.socket.shutdown(SHUT_RDWR)
            raise Gone
        super()._find(peer, command, identifier)


@pytest.fixture
def several(tmp_path: Path) -> dict[str, list[Path]]:
    """By Study Instance UID, in the order of these."""
    numbers = [f"A{number}" for number in range(6)]
    made = [make_study(tmp_path / number, number, study_date="20260212") for number in numbers]
    return dict(sorted((str(dcmread(study[0]).StudyInstanceUID), study) for study in made))


def test_studies_that_the_pacs_fails_at_keep_none_of_the_others(
    ledger: Ledger, begin: Begin, several: dict[str, list[Path]]
) -> None:
    bad = list(several)[::2]
    with FailsAt(list(chain.from_iterable(several.values())), bad) as pacs:
        run = begin(pacs)
        find(run)
        run.copies = {uid: run.copies[uid] for uid in several}
        plan_night(run)
    assert {study.study_instance_uid for study in run.studies()} == set(several) - set(bad)
    assert {each.study_instance_uid: each.attempts for each in failed_studies(ledger)} == dict.fromkeys(bad, 0)
    assert not run.outcome.is_good and "NOT ARCHIVED: 3 of 6 studies" in words(run.outcome)


def test_a_failed_study_that_the_pacs_fails_at_keeps_none_of_the_others(
    ledger: Ledger, begin: Begin, files: list[Path]
) -> None:
    uids = [f"1.2.840.{number}" for number in range(HOPELESS - 1)]
    for uid in uids:
        failed(ledger, 1, uid=uid)
    with FailsAt(files, uids, level="STUDY") as pacs:
        run = begin(pacs)
        find(run)
        plan_night(run)
    assert len(list(run.studies())) == 1 and len(run.outcome.failed) == len(uids)
    assert {each.attempts for each in failed_studies(ledger)} == {1}


def test_a_dry_run_says_of_which_studies_it_knows_nothing(begin: Begin, several: dict[str, list[Path]]) -> None:
    with FailsAt(list(chain.from_iterable(several.values())), list(several)[:1]) as pacs:
        run = begin(pacs)
        run.dry_run = True
        find(run)
        plan_night(run)
    number = str(dcmread(several[next(iter(several))][0]).AccessionNumber)
    assert "of which 5 would be archived" in run.words
    assert f"What the PACS holds of these couldn't be found out: {number}." in run.words


def test_a_study_whose_list_comes_when_it_is_asked_for_again_is_archived(
    begin: Begin, several: dict[str, list[Path]]
) -> None:
    with FailsAt(list(chain.from_iterable(several.values())), list(several)[:1], times=1) as pacs:
        run = begin(pacs)
        find(run)
        plan_night(run)
    assert run.outcome.is_good and len(list(run.studies())) == len(several)


def test_a_pacs_that_fails_at_each_study_ends_the_step(begin: Begin, several: dict[str, list[Path]]) -> None:
    with FailsAt(list(chain.from_iterable(several.values())), several) as pacs:
        run = begin(pacs)
        find(run)
        with pytest.raises(PacsUnreachable):
            plan_night(run)


def test_a_source_that_sends_nothing_keeps_nothing_of_another_waiting(ledger: Ledger, begin: Begin) -> None:
    with ScriptedPacs([]) as pacs:
        run = begin(pacs)
    of = {number: "B" if number < 5 else "A" for number in range(8)}
    run.waiting.extend(replace(study(f"1.2.{number}"), origin=Origin(source)) for number, source in of.items())
    tried = []
    for each in run.studies():
        tried.append(each.origin.source)
        with run.attempt(each):
            if each.origin.source == "B":
                raise PacsRefused("It doesn't know CDRECORD.")
    assert tried == [*"BBB", *"AAA"]
    assert words(run.outcome).startswith("The night went on without B, with 2 studies to go: It doesn't know")
    owe(ledger, DAY, NEXT)
    close_night(run)
    assert DAY not in {day for day, when in searched(ledger).items() if when}
