"""What is asked of a PACS, and what is made of answers that are loose, cut, refused or late."""

from __future__ import annotations

import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from mkiso.config.disc import Identity
from mkiso.config.settings import Settings
from mkiso.errors import (
    AnswerCut,
    MkisoError,
    PacsBusy,
    PacsRefused,
    PacsSilent,
    PacsUnreachable,
    PatientMismatch,
    StudyNotFound,
)
from mkiso.network import dimse
from mkiso.sources.answers import equal_accession, expected_from, read, study_of
from mkiso.sources.find import STUDY_ROOT_FIND, identifier
from mkiso.sources.pacs import PacsAssociation, echo
from mkiso.sources.query import (
    asked_again,
    expected_instances,
    find_studies,
    find_studies_by_date,
    find_studies_by_uid,
    of_modalities,
    study_query,
)
from mkiso.sources.registry import source_of
from mkiso.study.identity import one_patient
from mkiso.study.models import Expected, Study
from peers.corpus import CYRILLIC, JAPANESE, KOREAN, PLAIN, THAI, UMLAUT, UNICODE, Person, make_study
from peers.patience import LONG
from peers.ports import free_port
from peers.scripted_pacs import ScriptedPacs, sections

MakeSettings = Callable[..., Settings]


@dataclass
class Raw:
    """Something that listens and isn't a PACS."""

    ae_title: str = "RAW"
    port: int = 0


@pytest.fixture
def settings_for() -> MakeSettings:
    def make(peer: Any, **pacs: Any) -> Settings:
        limits = {"connect_timeout_seconds": LONG, "response_timeout_seconds": LONG}
        return Settings.model_validate({"pacs": {"ae_title": peer.ae_title, "port": peer.port, **limits, **pacs}})

    return make


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return make_study(tmp_path / "files", "A1", kinds={"ct": 3, "sr": 1})


def test_a_study_and_all_its_instances(settings_for: MakeSettings, files: list[Path]) -> None:
    with ScriptedPacs(files) as pacs:
        (study,) = find_studies(source_of(settings_for(pacs)), "A1")
        assert (study.accession_number, study.patient_id, study.study_date) == ("A1", PLAIN.patient_id, "20240229")
        assert study.expected.source == "image" and study.expected.count == 4
        assert sorted(map(len, study.expected.series.values())) == [1, 3]
        assert pacs.finds == ["STUDY", "SERIES", "IMAGE", "IMAGE"]
        assert expected_instances(source_of(settings_for(pacs)), study) == study.expected


def test_unknown_accession_numbers(settings_for: MakeSettings, files: list[Path]) -> None:
    with ScriptedPacs(files) as pacs, pytest.raises(StudyNotFound, match="A2"):
        find_studies(source_of(settings_for(pacs)), "A2")


def test_several_studies_of_one_accession_number(settings_for: MakeSettings, files: list[Path], tmp_path: Path) -> None:
    more = make_study(tmp_path / "more", "A1", number=2)
    with ScriptedPacs([*files, *more]) as pacs:
        studies = find_studies(source_of(settings_for(pacs)), "A1")
    assert len(studies) == 2
    one_patient(studies, (), Identity())


def test_one_accession_number_of_two_patients(settings_for: MakeSettings, files: list[Path], tmp_path: Path) -> None:
    other = make_study(tmp_path / "other", "A1", patient=UMLAUT, number=2)
    with ScriptedPacs([*files, *other]) as pacs:
        studies = find_studies(source_of(settings_for(pacs)), "A1")
    with pytest.raises(PatientMismatch, match="A1 belongs to studies of more than one patient"):
        one_patient(studies, (), Identity())


@pytest.mark.parametrize("answered", ["a1", "A10", "A1*", "", "XA1"])
def test_answers_for_another_accession_number_dont_count(answered: str) -> None:
    answer = identifier(study_query(AccessionNumber=answered, StudyInstanceUID="1.2.3"))
    assert equal_accession(iter([study_of(answer)]), "A1") == []


def test_an_accession_number_is_compared_without_its_padding() -> None:
    answer = identifier(study_query(AccessionNumber="A1 ", StudyInstanceUID="1.2.3"))
    assert [study.accession_number for study in equal_accession(iter([study_of(answer)]), "A1")] == ["A1"]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:The value length")
@pytest.mark.parametrize("uid", ["", "../x", "1.2/3", "1" * 65, "1..2"])
def test_an_answer_without_a_usable_uid_isnt_passed_over(uid: str) -> None:
    answer = Dataset()
    answer.AccessionNumber, answer.StudyInstanceUID = "A1", uid
    whole = identifier(study_query(AccessionNumber="A1", StudyInstanceUID="1.2.3"))
    with pytest.raises(PacsRefused, match="A1 whose UID can't be used"):
        equal_accession([study_of(whole), study_of(answer)], "A1")
    assert equal_accession([study_of(answer)], "A2") == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize(("level", "expected"), [("SERIES", Expected("study", 4)), ("IMAGE", Expected("series", 4))])
def test_a_level_with_an_answer_that_is_no_uid_isnt_believed(
    settings_for: MakeSettings, files: list[Path], level: str, expected: Expected
) -> None:
    """Five answers, four of them with UIDs: the fifth stands for something."""
    with ScriptedPacs(files) as pacs:
        pacs.find_more = {level: "no uid"}
        assert find_studies(source_of(settings_for(pacs)), "A1")[0].expected == expected


def test_an_end_that_comes_twice_is_no_empty_answer(settings_for: MakeSettings, files: list[Path]) -> None:
    with ScriptedPacs(files) as pacs:
        pacs.ends_twice = "STUDY"
        with pytest.raises(PacsRefused, match="isn't under way"):
            find_studies(source_of(settings_for(pacs)), "A1")


def test_what_the_pacs_comments_isnt_told_before_the_patient_is_known(
    settings_for: MakeSettings, files: list[Path]
) -> None:
    with ScriptedPacs(files) as pacs:
        pacs.find_status, pacs.comment = {"STUDY": 0xC001}, "CANARY^NAME HN-0001"
        with pytest.raises(PacsRefused, match="C001") as refused:
            find_studies(source_of(settings_for(pacs)), "A1")
    assert "CANARY" not in refused.value.words and "HN-" not in refused.value.words


@pytest.mark.parametrize("person", [PLAIN, UMLAUT, THAI, JAPANESE, CYRILLIC, KOREAN, UNICODE])
def test_names_are_decoded_by_their_own_character_set(
    settings_for: MakeSettings, tmp_path: Path, person: Person
) -> None:
    with ScriptedPacs(make_study(tmp_path / "files", "A1", patient=person, kinds={"ct": 1})) as pacs:
        (study,) = find_studies(source_of(settings_for(pacs)), "A1")
    assert study.patient_name == person.name


@pytest.mark.parametrize(
    ("find_status", "find_limit", "counts", "expected"),
    [
        ({"IMAGE": 0xA900}, {}, True, Expected("series", 4)),
        ({"IMAGE": 0xC000}, {}, True, Expected("series", 4)),
        ({"IMAGE": 0xFE00}, {}, True, Expected("series", 4)),
        ({}, {"IMAGE": 0}, True, Expected("series", 4)),
        ({}, {"IMAGE": 2}, True, Expected("series", 4)),  # cut, and called a success
        ({"SERIES": 0xA900}, {}, True, Expected("study", 4)),
        ({}, {"SERIES": 1}, True, Expected("study", 4)),  # a whole series unsaid
        ({"IMAGE": 0xA900}, {}, False, Expected("none", None)),
        ({"SERIES": 0xC001}, {}, False, Expected("none", None)),
    ],
)
def test_the_finest_whole_level_is_believed(
    settings_for: MakeSettings,
    files: list[Path],
    find_status: dict[str, int],
    find_limit: dict[str, int],
    counts: bool,
    expected: Expected,
) -> None:
    with ScriptedPacs(files) as pacs:
        pacs.find_status, pacs.find_limit, pacs.counts = find_status, find_limit, counts
        assert find_studies(source_of(settings_for(pacs)), "A1")[0].expected == expected


def test_no_counts_but_instances(settings_for: MakeSettings, files: list[Path]) -> None:
    with ScriptedPacs(files) as pacs:
        pacs.counts = False
        assert find_studies(source_of(settings_for(pacs)), "A1")[0].expected.source == "image"


@pytest.mark.parametrize(
    ("study_count", "series_counts", "images", "expected"),
    [
        (0, {}, {}, Expected("study", 0)),
        (None, {}, {}, Expected("none", None)),
        (2, {"1": 2}, {"1": frozenset({"1.1", "1.2"})}, Expected("image", 2, {"1": frozenset({"1.1", "1.2"})})),
        (1, {"1": 1}, {"1": frozenset({"1.1", "1.2"})}, Expected("image", 2, {"1": frozenset({"1.1", "1.2"})})),
        (3, {"1": 2}, {"1": frozenset({"1.1", "1.2"})}, Expected("study", 3)),
        (None, {"1": 3, "2": None}, {"1": frozenset({"1.1"}), "2": frozenset()}, Expected("none", None)),
        (None, {"1": None, "2": None}, {"1": frozenset({"1.1"}), "2": frozenset()}, Expected("none", None)),
        (1, {"1": None, "2": None}, {"1": frozenset({"1.1"}), "2": frozenset()}, Expected("study", 1)),
        (
            None,
            {"1": 1, "2": 0},
            {"1": frozenset({"1.1"}), "2": frozenset()},
            Expected("image", 1, {"1": frozenset({"1.1"}), "2": frozenset()}),
        ),
        (None, {"1": 1, "2": 1}, {"1": frozenset({"1.1", "1.2"}), "2": frozenset()}, Expected("series", 2)),
    ],
)
def test_expected_from(
    study_count: int | None, series_counts: dict[str, int | None], images: dict[str, frozenset[str]], expected: Expected
) -> None:
    assert expected_from(study_count, series_counts, images) == expected


@pytest.mark.parametrize(
    ("twice", "limit", "counts", "expected"),
    [
        ({"IMAGE": 1}, 0, True, "image"),  # the series counts them
        ({"IMAGE": 1}, 0, False, "none"),
        ({"IMAGE": 1}, 3, False, "none"),  # three answers, one of them twice, and the third image cut off
        ({"IMAGE": 1}, 3, True, "series"),
        ({}, 3, False, "none"),  # as many as it gives at most: there may be more
        ({}, 3, True, "image"),
        ({}, 4, False, "image"),
        ({"SERIES": 1}, 0, False, "none"),
        ({"SERIES": 1}, 0, True, "image"),
    ],
)
def test_what_came_twice_or_at_the_limit_is_counted_as_it_was_sent(
    settings_for: MakeSettings, tmp_path: Path, twice: dict[str, int], limit: int, counts: bool, expected: str
) -> None:
    """One series of three images; the PACS sends some of its answers twice, and no more than its limit."""
    with ScriptedPacs(make_study(tmp_path / "three", "A1", kinds={"ct": 3})) as pacs:
        pacs.find_twice, pacs.counts = twice, counts
        pacs.find_limit = {"IMAGE": limit} if limit else {}
        assert find_studies(source_of(settings_for(pacs, find_limit=limit)), "A1")[0].expected.source == expected


def test_as_many_studies_as_the_pacs_gives_at_most_arent_known_to_be_all(
    settings_for: MakeSettings, files: list[Path], tmp_path: Path
) -> None:
    """Two answers of one study at a limit of two: the second study was cut off."""
    more = make_study(tmp_path / "more", "A1", number=2)
    with ScriptedPacs([*files, *more]) as pacs:
        pacs.find_twice, pacs.find_limit = {"STUDY": 1}, {"STUDY": 2}
        with pytest.raises(AnswerCut, match=r"gave 2 answers.*pacs\.find_limit"):
            find_studies(source_of(settings_for(pacs, find_limit=2)), "A1")
        pacs.find_twice = {}
        with pytest.raises(AnswerCut):
            find_studies(source_of(settings_for(pacs, find_limit=2)), "A1")
        assert len(find_studies(source_of(settings_for(pacs, find_limit=3)), "A1")) == 2


def test_an_answer_that_cant_be_read_may_be_the_one_that_is_meant(
    settings_for: MakeSettings, files: list[Path]
) -> None:
    with ScriptedPacs(files) as pacs:
        pacs.find_changes = {"STUDY": {"StudyDescription": "x" * 20_000}}
        with pytest.raises(PacsRefused, match="can't be read"):
            find_studies(source_of(settings_for(pacs)), "A1")


@pytest.mark.parametrize("level", ["STUDY", "SERIES", "IMAGE"])
@pytest.mark.parametrize("bound", ["MAX_ANSWERS", "MAX_ANSWER_BYTES"])
def test_answers_without_end_are_ended(
    settings_for: MakeSettings, files: list[Path], monkeypatch: pytest.MonkeyPatch, level: str, bound: str
) -> None:
    monkeypatch.setattr(f"mkiso.sources.find.{bound}", 2000)
    with ScriptedPacs(files) as pacs:
        pacs.endless = level
        with pytest.raises(AnswerCut, match="didn't end, so mkiso ended it"):
            find_studies(source_of(settings_for(pacs)), "A1")


def test_an_answer_that_takes_for_ever_is_ended(
    settings_for: MakeSettings, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mkiso.sources.find.MAX_TIMEOUTS", 0.3 / LONG)
    with ScriptedPacs(files) as pacs:
        pacs.endless = "STUDY"
        with pytest.raises(PacsSilent, match="hasn't ended its answer"):
            find_studies(source_of(settings_for(pacs)), "A1")


def test_by_date_answers_without_end_count_as_cut(
    settings_for: MakeSettings, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mkiso.sources.find.MAX_ANSWERS", 50)
    with ScriptedPacs(files) as pacs:
        pacs.endless = "STUDY"
        found = find_studies_by_date(source_of(settings_for(pacs)), "20240229")
    assert (found.sent, found.cut, len(found.studies)) == (50, True, 1)


def test_answers_that_come_in_one_pdu_are_all_had(settings_for: MakeSettings, files: list[Path]) -> None:
    with ScriptedPacs(files) as pacs:
        (apart,) = find_studies(source_of(settings_for(pacs)), "A1")
        pacs.at_once = True
        (together,) = find_studies(source_of(settings_for(pacs)), "A1")
    assert (together.expected.source, together.expected.count) == ("image", len(files))
    assert together == apart


def test_asked_again_every_level_is_asked(settings_for: MakeSettings, files: list[Path]) -> None:
    with ScriptedPacs(files[:2]) as pacs:
        (study,) = find_studies(source_of(settings_for(pacs)), "A1")
        pacs.files, pacs.finds, pacs.find_status = files, [], {"SERIES": 0xA900}
        assert asked_again(source_of(settings_for(pacs)), Identity(), study) == Expected(
            "study", 4
        )  # and not the 2 of before
        assert pacs.finds == ["STUDY", "SERIES"]
        pacs.find_changes = {"STUDY": {"PatientID": "ANOTHER"}}
        with pytest.raises(PatientMismatch, match="another patient's"):
            asked_again(source_of(settings_for(pacs)), Identity(), study)
        pacs.files = []
        with pytest.raises(StudyNotFound, match="any more"):
            asked_again(source_of(settings_for(pacs)), Identity(), study)


@pytest.mark.parametrize(
    ("level", "status", "error"),
    [
        ("STUDY", 0xA700, PacsBusy),
        ("STUDY", 0xA900, PacsRefused),
        ("STUDY", 0xC000, PacsRefused),
        ("STUDY", 0xFE00, PacsRefused),
        ("IMAGE", 0xA700, PacsBusy),
    ],
)
def test_a_query_that_ends_otherwise_isnt_whole(
    settings_for: MakeSettings, files: list[Path], level: str, status: int, error: type[MkisoError]
) -> None:
    with ScriptedPacs(files) as pacs:
        pacs.find_status = {level: status}
        with pytest.raises(error, match=f"{status:04X}|out of resources"):
            find_studies(source_of(settings_for(pacs)), "A1")


@pytest.mark.parametrize(
    ("reject", "error", "said"),
    [
        ((1, 1, 3), PacsRefused, "calling AE title CDRECORD"),
        ((1, 1, 7), PacsRefused, "another one than SCRIPTED"),
        ((1, 1, 1), PacsRefused, "rejected"),
        ((2, 3, 2), PacsBusy, "no association now"),
        ((1, 3, 1), PacsBusy, "no association now"),
    ],
)
def test_a_rejected_association_says_what_to_change(
    settings_for: MakeSettings, files: list[Path], reject: tuple[int, int, int], error: type[MkisoError], said: str
) -> None:
    with ScriptedPacs(files) as pacs:
        pacs.reject = reject
        with pytest.raises(error, match=said):
            find_studies(source_of(settings_for(pacs)), "A1")


def test_nobody_there(settings_for: MakeSettings) -> None:
    peer = Raw(port=free_port())
    with pytest.raises(PacsUnreachable, match=f"RAW at 127.0.0.1:{peer.port} can't be reached"):
        find_studies(source_of(settings_for(peer)), "A1")
    with pytest.raises(PacsUnreachable, match="can't be reached"):
        find_studies(source_of(settings_for(peer, host="no-such-host.invalid")), "A1")


@pytest.fixture
def raw(request: pytest.FixtureRequest) -> Iterator[Raw]:
    """A listener that does `request.param` with its first connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                request.param(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Raw(port=listener.getsockname()[1])
        thread.join()


def _silent(connection: socket.socket) -> None:
    connection.settimeout(LONG)
    while connection.recv(4096):
        pass


def _sends(data: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(data)
        _silent(connection)

    return serve


@pytest.mark.parametrize("raw", [_silent, _sends(b"\x02\x00\x00\x00\x10\x00half")], indirect=True)
def test_a_silent_peer_ends_at_the_limit(settings_for: MakeSettings, raw: Raw) -> None:
    begun = time.monotonic()
    with pytest.raises(PacsSilent, match=r"within 0\.6 s"):
        find_studies(source_of(settings_for(raw, connect_timeout_seconds=0.6, response_timeout_seconds=0.6)), "A1")
    assert 0.5 < time.monotonic() - begun < LONG


@pytest.mark.parametrize(
    "raw",
    [
        lambda connection: None,
        _sends(b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00"),
        _sends(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        _sends(b"\x02\x00\xff\xff\xff\xff"),
        _sends(b"\x02\x00\x00\x00\x00\x04abcd"),
    ],
    indirect=True,
)
def test_a_peer_that_isnt_a_pacs(settings_for: MakeSettings, raw: Raw) -> None:
    with pytest.raises((PacsUnreachable, PacsRefused)):
        find_studies(source_of(settings_for(raw)), "A1")


@pytest.mark.parametrize("raw", [_silent], indirect=True)
def test_an_echo_is_never_slower_than_its_limit(settings_for: MakeSettings, raw: Raw) -> None:
    begun = time.monotonic()
    with pytest.raises(PacsSilent):
        echo(*sections(settings_for(raw, connect_timeout_seconds=10 * LONG, response_timeout_seconds=10 * LONG)))
    assert time.monotonic() - begun < LONG


def test_an_echo(settings_for: MakeSettings, files: list[Path]) -> None:
    with ScriptedPacs(files) as pacs:
        assert 0 < echo(*sections(settings_for(pacs))) < LONG


def test_looking_without_waiting_doesnt_wait(settings_for: MakeSettings, files: list[Path]) -> None:
    """A thousand looks while images arrive must not cost a second."""
    with ScriptedPacs(files) as pacs, PacsAssociation(*sections(settings_for(pacs)), [STUDY_ROOT_FIND]) as association:
        waited = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        for _ in range(1000):
            assert association.receive(0) is None
        assert resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - waited < 100


def test_by_date(settings_for: MakeSettings, files: list[Path]) -> None:
    with ScriptedPacs(files) as pacs:
        whole = find_studies_by_date(source_of(settings_for(pacs)), "20240229")
        assert len(whole.studies) == whole.sent == 1 and not whole.cut and not whole.unusable
        pacs.find_status = {"STUDY": 0xA700}
        cut = find_studies_by_date(source_of(settings_for(pacs)), "20240229", "08-11")
        assert len(cut.studies) == 1 and cut.cut and cut.status == 0xA700
        pacs.find_limit = {"STUDY": 0}
        with pytest.raises(PacsBusy):
            find_studies_by_date(source_of(settings_for(pacs)), "20240229")


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_by_date_what_the_pacs_sent_is_counted_and_what_cant_be_asked_for_is_kept(
    settings_for: MakeSettings, files: list[Path]
) -> None:
    with ScriptedPacs(files) as pacs:
        pacs.find_twice, pacs.find_more = {"STUDY": 1}, {"STUDY": "../x"}
        found = find_studies_by_date(source_of(settings_for(pacs)), "20240229")
    assert (found.sent, len(found.studies)) == (3, 1)
    assert [study.accession_number for study in found.unusable] == ["A1"]


def test_by_uid_whatever_its_date_is(settings_for: MakeSettings, files: list[Path]) -> None:
    with ScriptedPacs(files) as pacs:
        uid = find_studies_by_date(source_of(settings_for(pacs)), "20240229").studies[0].study_instance_uid
        [study] = find_studies_by_uid(source_of(settings_for(pacs)), uid)
        assert study.study_instance_uid == uid
        with pytest.raises(StudyNotFound, match="nothing under the Study Instance UID"):
            find_studies_by_uid(source_of(settings_for(pacs)), f"{uid}.1")
        pacs.find_limit = {"STUDY": 0}
        pacs.find_status = {"STUDY": 0xC001}
        with pytest.raises(PacsRefused):
            find_studies_by_uid(source_of(settings_for(pacs)), uid)


def test_modalities_are_chosen_here_and_unknown_ones_kept() -> None:
    ct, mr, unknown = (
        Study("A1", f"1.{number}", "HN-1", modalities_in_study=own)
        for number, own in enumerate([("CT", "SR"), ("MR",), ()])
    )
    assert of_modalities([ct, mr, unknown], ["CT", "DX"]) == [ct, unknown]
    assert of_modalities([ct, mr, unknown], []) == [ct, mr, unknown]


def test_a_wrong_value_is_quoted_nowhere(caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> None:
    encoded = (
        struct.pack("<HHI", 0x0010, 0x0020, 70)
        + b"CANARY".ljust(70, b"X")
        + struct.pack("<HHI", 0x0010, 0x0030, 8)
        + b"CANARY70"
    )
    assert study_of(read(dimse.Response(1, 0xFF00, identifier=encoded))).patient_birth_date == "CANARY70"
    assert "CANARY" not in caplog.text and not recwarn.list
