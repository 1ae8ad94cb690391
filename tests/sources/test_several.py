"""Several sources: which are asked, what is told of those that can't be, and when there is no disc."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from mkiso.config.settings import Settings
from mkiso.config.sources import AnySource
from mkiso.errors import (
    MkisoError,
    NotAskedEverywhere,
    PacsBusy,
    PacsRefused,
    PacsSilent,
    PacsUnreachable,
    PatientMismatch,
    StudyIncomplete,
    StudyNotFound,
)
from mkiso.sources.answers import Answers
from mkiso.sources.choosing import chosen, found_together
from mkiso.sources.protocol import Query, Search
from mkiso.sources.registry import source_of, sources_of
from mkiso.sources.retrieve import retrieve
from mkiso.sources.search import Criteria
from mkiso.sources.several import find_beside, find_everywhere, find_everywhere_by_uid, rules_of, search_everywhere
from mkiso.study import gate
from mkiso.study.models import Arrival, Study, as_day
from mkiso.study.selection import Selection
from mkiso.study.values import Found
from peers.corpus import PLAIN, dataset_bytes, make_study
from peers.dicomweb_server import DicomWebServer
from peers.orthanc import Orthanc
from peers.ports import free_port
from tests.sources.test_choosing import copy
from tests.sources.test_source import FolderSource

TODAY = date(2026, 3, 1)


@pytest.mark.parametrize(
    ("rules", "told", "is_for"),
    [
        ({}, {"modalities": ["CT"], "study_date": "19990101"}, True),
        ({"modalities": ("SM", "XC")}, {"modalities": ["CT", "XC"]}, True),
        ({"modalities": ("SM",)}, {"modalities": ["CT"]}, False),
        ({"modalities": ("SM",)}, {"modalities": []}, True),
        ({"newer_than_days": 1}, {"study_date": "20260228"}, True),
        ({"newer_than_days": 1}, {"study_date": "20260227"}, False),
        ({"newer_than_days": 0}, {"study_date": "20260302"}, True),
        ({"older_than_days": 1}, {"study_date": "20260228"}, False),
        ({"older_than_days": 1}, {"study_date": "20260227"}, True),
        ({"older_than_days": 1}, {"study_date": ""}, True),
        ({"older_than_days": 1}, {"study_date": "2026.2.2"}, True),
        ({"older_than_days": 1}, {"study_date": "20269999"}, True),
        ({"older_than_days": 1, "newer_than_days": 3}, {"study_date": "20260226"}, True),
        ({"older_than_days": 1, "newer_than_days": 3}, {"study_date": "20260225"}, False),
        ({"older_than_days": 1, "modalities": ("SM",)}, {"modalities": ["CT"], "study_date": "20260227"}, False),
    ],
)
def test_a_rule_is_for_what_it_says_and_for_what_isnt_told(
    rules: dict[str, Any], told: dict[str, Any], is_for: bool
) -> None:
    assert AnySource(**rules).is_for(told.get("modalities", ()), as_day(told.get("study_date", "")), TODAY) is is_for


@pytest.mark.parametrize(
    ("rules", "copies", "taken"),
    [
        ({"a": {"modalities": ("SM",)}}, [copy("a", "1"), copy("b", "1")], "b"),
        ({"a": {"modalities": ("SM",)}}, [copy("a", "1", "2"), copy("b", "1")], "a"),
        ({"a": {"modalities": ("SM",)}}, [copy("a", "1")], "a"),
        ({"a": {"modalities": ("SM",)}, "b": {"modalities": ("US",)}}, [copy("a", "1"), copy("b", "1")], "a"),
        ({"a": {"older_than_days": 30}, "b": {"newer_than_days": 30}}, [copy("a", "1"), copy("b", "1")], "b"),
        ({"b": {"modalities": ("CT",)}}, [copy("a", "1"), copy("b", "1")], "a"),
    ],
)
def test_a_rule_decides_between_whole_copies_and_leaves_none_out(
    rules: dict[str, Any], copies: list[Study], taken: str
) -> None:
    copies = [replace(each, modalities_in_study=("CT",), study_date="20260228") for each in copies]
    sources = [Named(name, **rules.get(name, {})) for name in ("a", "b")]
    [study] = chosen(copies, is_for=rules_of(sources, TODAY)).studies
    assert study.origin.source == taken


def test_sources_with_rules_are_all_asked_and_the_one_for_it_is_taken(files: list[Path]) -> None:
    sources = [Named("a", files, newer_than_days=1), Named("b", files), Named("c", error=GONE, newer_than_days=1)]
    found = find_everywhere(sources, "A1")
    assert ([study.origin.source for study in found.studies], found.degraded) == (["b"], ("source_down:c",))
    assert find_everywhere([sources[0], Named("b")], "A1").studies[0].origin.source == "a"


def test_rules_that_no_study_meets_or_of_the_only_source_are_refused() -> None:
    with pytest.raises(ValueError, match="no study is both"):
        AnySource(older_than_days=3, newer_than_days=3)
    with pytest.raises(ValueError, match=r"pacs\.modalities"):
        Settings.model_validate({"pacs": {"modalities": ["CT"]}})


class Named(FolderSource):
    """A folder that is one of several sources; with `error` it can't be asked."""

    def __init__(self, name: str, files: Sequence[Path] = (), error: MkisoError | None = None, **keys: Any) -> None:
        super().__init__(files)
        self.settings = AnySource(name=name, **keys)
        self.error = error

    @contextmanager
    def searching(self) -> Iterator[Search]:
        if self.error:
            raise self.error
        yield self._search


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_study(tmp_path_factory.mktemp("files"), "A1", kinds={"ct": 3, "sr": 1})


GONE = PacsUnreachable("It can't be reached.")


def test_a_source_that_is_down_is_told_and_the_disc_is_made(files: list[Path]) -> None:
    found = find_everywhere([Named("a", error=GONE), Named("b", files), Named("c", error=PacsSilent("x"))], "A1")
    assert [study.origin.source for study in found.studies] == ["b"]
    assert found.degraded == ("source_down:a", "source_down:c")
    assert found.reasons == ("a: It can't be reached.", "c: x")


def test_why_the_only_source_has_nothing_is_said_in_its_own_words(files: list[Path]) -> None:
    with pytest.raises(PacsUnreachable, match=r"^It can't be reached"):
        find_everywhere([Named("a", error=GONE)], "A1")
    with pytest.raises(PacsUnreachable):
        search_everywhere([Named("a", error=GONE)], Criteria(accession_number="A1"))
    with pytest.raises(StudyNotFound, match=r"^(?!No source)"):
        find_everywhere([Named("a", files)], "A2")
    assert find_everywhere([Named("a", files)], "A1").degraded == ()


def test_what_is_nowhere_while_a_source_is_down_isnt_not_found(files: list[Path]) -> None:
    with pytest.raises(NotAskedEverywhere, match=r"A2 is in b, and .*a: It can't be reached") as told:
        find_everywhere([Named("a", error=GONE), Named("b", files)], "A2")
    assert told.value.retriable and told.value.details["not_asked"] == ["a"]
    with pytest.raises(StudyNotFound, match=r"\(asked: a, b\)"):
        find_everywhere([Named("a"), Named("b", files)], "A2")
    with pytest.raises(NotAskedEverywhere, match=r"a: It can't be reached. b: It can't"):
        find_everywhere([Named("a", error=GONE), Named("b", error=GONE)], "A1")


def test_what_is_known_by_its_uid_is_had_from_the_one_that_has_it_wholly(files: list[Path]) -> None:
    uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    found = find_everywhere_by_uid([Named("a", files[1:]), Named("b", files)], uid)
    assert ([study.origin.source for study in found.studies], found.degraded) == (["b"], ("sources_differ:a",))
    assert find_everywhere_by_uid([Named("a"), Named("b")], uid).studies == ()
    with pytest.raises(NotAskedEverywhere, match="a: It can't"):
        find_everywhere_by_uid([Named("a", error=GONE), Named("b")], uid)
    found = find_everywhere_by_uid([Named("a", error=GONE), Named("b", files)], uid, Selection((uid,)))
    assert (len(found.studies), found.degraded) == (1, ("source_down:a",))
    with pytest.raises(StudyNotFound):
        find_everywhere_by_uid([Named("a"), Named("b")], uid, Selection((uid,)))


def test_a_source_that_must_answer_or_answers_wrongly_ends_the_question(files: list[Path]) -> None:
    with pytest.raises(PacsUnreachable):
        find_everywhere([Named("a", error=GONE, must_answer=True), Named("b", files)], "A1")
    with pytest.raises(PacsRefused):
        find_everywhere([Named("a", files), Named("b", error=PacsRefused("It refuses."))], "A1")


def test_what_else_a_number_has_is_asked_where_its_study_is_whatever_the_pattern(tmp_path: Path) -> None:
    """Found by UID, the study is of a source that isn't asked for its number; the disc carries it all the same."""
    files = [file for number in (1, 2) for file in make_study(tmp_path, "X1", kinds={"ct": 1}, number=number)]
    of_others: dict[str, Any] = {"accession_numbers": ("N*",)}
    new, old = Named("new", **of_others), Named("old", files, **of_others)
    uids = [str(dcmread(file, stop_before_pixels=True).StudyInstanceUID) for file in files]
    sources = [new, old, Named("down", error=GONE, **of_others)]
    answers = [replace(find_everywhere_by_uid([new, old], uids[0]), degraded=())]
    heard: list[str] = []
    told = find_beside(sources, answers, heard.append)
    assert heard == ["X1"]
    assert ([study.study_instance_uid for study in told.beside], told.degraded) == ([uids[1]], ())
    found = found_together((), [*answers, told], [], Settings().identity, Selection((uids[0],)))
    assert ([study.study_instance_uid for study in found.studies], found.is_part) == ([uids[0]], True)
    whole = found_together(("X1",), [*answers, told], [], Settings().identity)
    assert ([study.study_instance_uid for study in whole.studies], whole.is_part) == ([uids[0]], True)
    others = replace(told, beside=tuple(replace(study, patient_id="P2") for study in told.beside))
    with pytest.raises(PatientMismatch):
        found_together(("X1",), [*answers, others], [], Settings().identity)
    old.error = GONE
    with pytest.raises(PacsUnreachable):
        find_beside(sources, answers, lambda _: None)


class Hearing(Named):
    """It remembers which accession numbers it was asked for."""

    def __init__(self, name: str, files: Sequence[Path] = (), **keys: Any) -> None:
        super().__init__(name, files, **keys)
        self.heard: list[str] = []

    def _search(self, query: Query, most: int | None = None, /) -> Answers:
        self.heard.append(str(dict(query.keys).get("AccessionNumber", "")))
        return super()._search(query, most)


def test_a_number_is_asked_for_where_its_study_is_and_wherever_it_may_be(tmp_path: Path) -> None:
    of_others: dict[str, Any] = {"accession_numbers": ("N*",)}
    north = Hearing("north", make_study(tmp_path, "X1", kinds={"ct": 1}), **of_others)
    south = Hearing("south", make_study(tmp_path, "Y1", kinds={"ct": 1}, number=2), **of_others)
    everywhere = Hearing("everywhere")
    sources = [north, south, everywhere]
    uids = [str(dcmread(file, stop_before_pixels=True).StudyInstanceUID) for file in sorted(tmp_path.glob("*.dcm"))]
    answers = [find_everywhere_by_uid(sources, uid) for uid in uids]
    for source in sources:
        source.heard.clear()
    assert find_beside(sources, answers, lambda _: None).beside == ()
    assert [set(source.heard) for source in sources] == [{"X1"}, {"Y1"}, {"X1", "Y1"}]


def test_a_search_that_one_source_cut_is_cut(tmp_path: Path) -> None:
    files = [file for number in (1, 2) for file in make_study(tmp_path, "A1", kinds={"ct": 1}, number=number)]
    assert search_everywhere([Named("a", files)], Criteria(patient_id=PLAIN.patient_id), most=1)[0].cut


class Listless(Named):
    """It names its studies, and then `error` keeps it from listing them, so many times."""

    def __init__(self, name: str, files: Sequence[Path], error: MkisoError, times: int = 100) -> None:
        super().__init__(name, files)
        self.left, self.why = times, error

    def _search(self, query: Query, most: int | None = None, /) -> Answers:
        if query.level != "STUDY" and self.left:
            self.left -= 1
            raise self.why
        return super()._search(query, most)


def test_a_source_that_has_the_study_and_does_not_list_it_is_not_passed_over(files: list[Path]) -> None:
    """It may have images that the other one lacks, and is known to have the study."""
    silent = [Listless("a", files, PacsSilent("It is silent.")), Named("b", files[1:])]
    with pytest.raises(PacsSilent):
        find_everywhere(silent, "A1")
    with pytest.raises(PacsSilent):
        find_everywhere_by_uid(silent, str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID))


def test_a_source_that_has_no_time_is_asked_again(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    monkeypatch.setattr("mkiso.sources.several.time.sleep", paused.append)
    found = find_everywhere([Listless("a", files, PacsBusy("No time."), 2), Named("b", files[1:])], "A1")
    assert ([study.origin.source for study in found.studies], found.degraded) == (["a"], ("sources_differ:b",))
    assert paused == [1.0, 3.0]
    found = find_everywhere([Named("a", files), Renumbered("b", files, PacsBusy("No time."), 2)], "A1")
    assert found.degraded == () and paused == 2 * [1.0, 3.0]


class Renumbered(Named):
    """It has its studies under numbers of its own; with `why` it can't be asked by UID, so many times, or with
    `names_it` names a study and can't list it.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Path],
        why: MkisoError | None = None,
        times: int = 100,
        *,
        names_it: bool = False,
        **keys: Any,
    ) -> None:
        super().__init__(name, files, **keys)
        self.why, self.left, self.names_it = why, times, names_it

    def _search(self, query: Query, most: int | None = None, /) -> Answers:
        if query.level == "STUDY" and not dict(query.keys).get("StudyInstanceUID"):
            return Answers((), 0)
        if self.why and self.left and not (self.names_it and query.level == "STUDY"):
            self.left -= 1
            raise self.why
        answers = super()._search(query, most)
        renumbered = [each._replace(identifier=each.identifier.replace(b"A1", b"B1")) for each in answers.responses]
        return replace(answers, responses=renumbered)


def test_a_source_with_more_of_a_study_under_another_number_is_not_passed_over(files: list[Path]) -> None:
    part = Named("a", files[1:])
    found = find_everywhere([part, Renumbered("b", files)], "A1")
    told = [(study.origin.source, study.accession_number, study.expected.count) for study in found.studies]
    assert (told, found.degraded) == ([("b", "A1", len(files))], ("sources_differ:a",))
    assert find_everywhere([Named("a", files), Renumbered("b", files)], "A1").degraded == ()
    with pytest.raises(StudyIncomplete):
        find_everywhere([part, Renumbered("b", files[:-1])], "A1")


def test_a_source_that_is_down_and_may_have_it_under_another_number_is_told(files: list[Path]) -> None:
    found = find_everywhere([Named("a", files), Renumbered("b", files, GONE)], "A1")
    assert (len(found.studies), found.degraded) == (1, ("source_down:b",))
    with pytest.raises(PacsUnreachable):
        find_everywhere([Named("a", files), Renumbered("b", files, GONE, must_answer=True)], "A1")
    with pytest.raises(PacsUnreachable):
        find_everywhere([Named("a", files[1:]), Renumbered("b", files, PacsUnreachable("Gone."), names_it=True)], "A1")


def test_only_those_are_asked_whose_numbers_it_may_be(files: list[Path]) -> None:
    others = Named("a", error=GONE, accession_numbers=("N*",))
    assert find_everywhere([others, Named("b", files)], "A1").degraded == ()
    assert find_everywhere([Named("a", files, accession_numbers=("N*", "A?"))], "A1").studies
    with pytest.raises(StudyNotFound, match="No source is asked"):
        find_everywhere([others], "A1")
    with pytest.raises(StudyNotFound, match=r"asked: b; not asked, because of its accession_numbers: a\)"):
        find_everywhere([others, Named("b", files)], "A2")


def test_a_search_names_the_source_of_each_study_and_who_wasnt_asked(files: list[Path]) -> None:
    sources = [Named("a", files), Named("b", error=GONE), Named("c", files, accession_numbers=("N*",))]
    hits, down = search_everywhere(sources, Criteria(patient_id=PLAIN.patient_id))
    assert [study.origin.source for study in hits.studies] == ["a", "c"]
    assert not hits.cut and down == {"b": GONE}
    assert search_everywhere(sources, Criteria(patient_id=PLAIN.patient_id), most=1)[0].cut
    assert not search_everywhere(sources, Criteria(patient_id=PLAIN.patient_id), most=2)[0].cut
    hits, _ = search_everywhere(sources, Criteria(accession_number="A1"))
    assert ([study.origin.source for study in hits.studies], hits.source) == (["a"], "")
    assert search_everywhere(sources[:1], Criteria(accession_number="A1"))[0].source == "The folder"
    nobody, _ = search_everywhere(sources[2:], Criteria(accession_number="A1"))
    assert (nobody.studies, nobody.cut) == ((), False)
    with pytest.raises(NotAskedEverywhere):
        search_everywhere([Named("a", error=GONE), Named("b", error=GONE)], Criteria(accession_number="A1"))


class Pair:
    """Two Orthancs, north and south, and the settings that ask both, one by C-MOVE and one by C-GET."""

    def __init__(self, north: Orthanc, south: Orthanc, tmp_path: Path, receiver_port: int) -> None:
        self.north, self.south = north, south
        self.folder = tmp_path / "data" / "jobs" / "job" / "instances"
        self.folder.mkdir(parents=True)
        limits = {"connect_timeout_seconds": 2, "quiet_timeout_seconds": 2, "back_off_seconds": 0.1}
        self.settings = Settings.model_validate(
            {
                "sources": {
                    "north": {"ae_title": north.ae_title, "port": north.port, **limits},
                    "south": {"kind": "cget", "ae_title": south.ae_title, "port": south.port, **limits},
                },
                "receiver": {"host": "127.0.0.1", "port": receiver_port},
                "storage": {"data_dir": str(tmp_path / "data"), "min_free_gib": 0},
            }
        )

    def find(self, accession_number: str = "A1") -> Found:
        told = find_everywhere(sources_of(self.settings), accession_number)
        rules, lacks = self.settings.identity, told.degraded
        return gate.found((accession_number,), told.studies, [], rules, degraded=False, without=lacks)

    def fetch(self, study: Study) -> dict[str, bytes]:
        arrivals: list[Arrival] = []
        source = source_of(self.settings, study.origin.source)
        retrieve(source, self.settings.identity, study, self.folder, [], arrivals.append)
        return {arrival.sop_instance_uid: dataset_bytes(arrival.path) for arrival in arrivals}


@pytest.fixture
def pair(tmp_path: Path, receiver_port: int) -> Iterator[Pair]:
    known = {"CDRECORD": ("127.0.0.1", receiver_port)}
    allowed = {"DicomAlwaysAllowGet": True}
    with (
        Orthanc(tmp_path / "north", ae_title="NORTH", destinations=known) as north,
        Orthanc(tmp_path / "south", ae_title="SOUTH", options=allowed) as south,
    ):
        yield Pair(north, south, tmp_path, receiver_port)


def held(files: Sequence[Path]) -> dict[str, bytes]:
    return {str(dcmread(file, stop_before_pixels=True).SOPInstanceUID): dataset_bytes(file) for file in files}


@pytest.mark.peer
def test_a_study_on_the_second_is_had_from_the_second(pair: Pair, files: list[Path]) -> None:
    pair.south.store(files)
    found = pair.find()
    assert (found.degraded, [study.origin.source for study in found.studies]) == ((), ["south"])
    assert pair.fetch(found.studies[0]) == held(files)


@pytest.mark.peer
@pytest.mark.parametrize("whole", ["north", "south"])
def test_of_two_that_hold_it_the_whole_one_is_taken(pair: Pair, files: list[Path], whole: str) -> None:
    pair.north.store(files[whole == "south" :])
    pair.south.store(files[whole == "north" :])
    found = pair.find()
    other = {"north": "south", "south": "north"}[whole]
    assert (found.degraded, found.studies[0].origin.source) == ((f"sources_differ:{other}",), whole)
    assert pair.fetch(found.studies[0]) == held(files)


@pytest.mark.peer
def test_with_the_first_down_there_is_a_disc_and_a_word(pair: Pair, files: list[Path]) -> None:
    pair.south.store(files)
    pair.north.kill()
    found = pair.find()
    assert (found.degraded, found.studies[0].origin.source) == (("source_down:north",), "south")
    assert pair.fetch(found.studies[0]) == held(files)
    with pytest.raises(NotAskedEverywhere):
        pair.find("A2")


@pytest.mark.peer
def test_one_patient_id_of_two_issuers_is_two_patients(pair: Pair, tmp_path: Path) -> None:
    for place, issuer in (("north", "CITY"), ("south", "COUNTY")):
        [file] = make_study(tmp_path / place, "A1", kinds={"ct": 1})
        dataset = dcmread(file)
        dataset.IssuerOfPatientID = issuer
        dataset.StudyInstanceUID, dataset.SOPInstanceUID = generate_uid(), generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(file)
        getattr(pair, place).store([file])
    with pytest.raises(PatientMismatch, match="more than one patient"):
        pair.find()


@pytest.mark.peer
def test_two_sources_of_two_kinds_are_asked_at_once(tmp_path: Path, files: list[Path]) -> None:
    """A DICOMweb server that has the study, beside a PACS that isn't there."""
    with DicomWebServer(files) as server:
        settings = Settings.model_validate(
            {
                "sources": {
                    "pacs": {"ae_title": "GONE", "port": free_port(), "connect_timeout_seconds": 1},
                    "cloud": {"kind": "dicomweb", "base_url": server.base_url},
                },
                "storage": {"data_dir": str(tmp_path), "min_free_gib": 0},
            }
        )
        found = find_everywhere(sources_of(settings), "A1")
    assert (found.studies[0].origin.source, found.degraded) == ("cloud", ("source_down:pacs",))
