"""Every row of the outcome table, played by a PACS that misbehaves on order, with the real receiver."""

from __future__ import annotations

import itertools
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from mkiso.config.settings import Settings
from mkiso.errors import (
    InstanceConflict,
    JobStopped,
    MkisoError,
    NoDicomData,
    PacsBusy,
    PacsRefused,
    PacsSilent,
    StudyIncomplete,
)
from mkiso.network import dimse
from mkiso.sources.move import Move
from mkiso.sources.move_outcome import MoveResult
from mkiso.sources.protocol import Target
from mkiso.sources.query import find_studies
from mkiso.sources.registry import source_of
from mkiso.sources.retrieve import retrieve
from mkiso.study.models import Arrival, Expected, Study
from peers.corpus import PLAIN, make_study
from peers.patience import LONG, until
from peers.raw_peer import ABORT, RJ, RawPeer, associate_rq
from peers.scripted_pacs import MoveRequest, Script, ScriptedPacs, sections, whole

pytestmark = pytest.mark.peer
MakeSettings = Callable[..., Settings]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return make_study(tmp_path / "files", "A1", kinds={"ct": 4})


def fetch(
    settings: Settings, folder: Path, stop: threading.Event | None = None, **changes: Any
) -> tuple[Study, list[Arrival]]:
    """Find and retrieve A1; the study and what arrived."""
    arrivals: list[Arrival] = []
    study = retrieve(
        source_of(settings),
        settings.identity,
        replace(find_studies(source_of(settings), "A1")[0], **changes),
        folder,
        [],
        arrivals.append,
        stop,
    )
    return study, arrivals


def stores(count: int, status: int, *, counted: bool = True) -> Script:
    """A script that stores the first `count` of what is asked and counts the rest as failed."""

    def script(move: MoveRequest) -> None:
        asked = move.asked()
        assert move.store(asked[:count])
        counts = {"completed": count, "failed": len(asked) - count, "warning": 0, "remaining": 0} if counted else {}
        move.end(status, **counts)

    return script


def ends(status: int) -> Script:
    return lambda move: move.end(status)


def after_images(move: MoveRequest) -> None:
    """Success before anything was sent, as Orthanc does."""
    move.end(0x0000, completed=4, failed=0, warning=0, remaining=0)
    time.sleep(0.3)
    move.store(move.files)


def reset_midway(move: MoveRequest) -> None:
    move.store(move.asked()[:2])
    move.pending(completed=2, remaining=2, failed=0, warning=0)
    move.reset()


def twice(move: MoveRequest) -> None:
    move.store(move.files)
    whole(move)


def uids(files: list[Path]) -> set[str]:
    return {str(dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files}


@pytest.mark.parametrize(
    ("scripts", "moves"),
    [
        ([whole], ["STUDY"]),
        ([stores(3, 0xB000), whole], ["STUDY", "IMAGE"]),
        ([stores(3, 0x0000), whole], ["STUDY", "IMAGE"]),
        ([stores(1, 0xB000), whole], ["STUDY", "IMAGE"]),
        ([stores(4, 0x0000, counted=False)], ["STUDY"]),
        ([stores(0, 0x0000, counted=False), whole], ["STUDY", "STUDY"]),
        ([stores(3, 0xC001), whole], ["STUDY", "IMAGE"]),
        ([stores(4, 0xC001)], ["STUDY"]),
        ([ends(0xA702), whole], ["STUDY", "STUDY"]),
        ([ends(0xA701), ends(0xA702), whole], ["STUDY", "STUDY", "STUDY"]),
        ([stores(3, 0xB000), ends(0xA900), whole], ["STUDY", "IMAGE", "SERIES"]),
        ([stores(3, 0xB000), ends(0xC000), ends(0x0122), whole], ["STUDY", "IMAGE", "SERIES", "STUDY"]),
        ([reset_midway, whole], ["STUDY", "IMAGE"]),
        ([lambda move: move.reset(), whole], ["STUDY", "STUDY"]),
        ([twice], ["STUDY"]),
        ([stores(2, 0xA801), whole], ["STUDY", "IMAGE"]),
        ([stores(2, 0xA702), whole], ["STUDY", "IMAGE"]),
        ([stores(1, 0xC001), stores(0, 0xC001), whole], ["STUDY", "IMAGE", "IMAGE", "IMAGE", "IMAGE"]),
        ([ends(0xC001), ends(0xC001), ends(0xC001), whole], ["STUDY"] * 3 + ["IMAGE"] * 4),
    ],
)
def test_ends_complete(
    settings_for: MakeSettings,
    receiver_port: int,
    folder: Path,
    files: list[Path],
    scripts: list[Script],
    moves: list[str],
) -> None:
    with ScriptedPacs(files, scripts, receiver_port) as pacs:
        study, arrivals = fetch(settings_for(pacs, quiet_timeout_seconds=1), folder)
    assert [move.QueryRetrieveLevel for move in pacs.moves] == moves
    assert {arrival.sop_instance_uid for arrival in arrivals} == uids(files) == set(study.expected.instances or ())
    assert len(arrivals) == len(list(folder.iterdir())) == 4


def test_success_before_the_images_is_an_end_once_they_are_here(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path]
) -> None:
    with ScriptedPacs(files, [after_images], receiver_port) as pacs:
        fetch(settings_for(pacs, quiet_timeout_seconds=LONG), folder)
    assert [move.QueryRetrieveLevel for move in pacs.moves] == ["STUDY"]


def test_only_what_is_missing_is_asked_for_again(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path]
) -> None:
    with ScriptedPacs(files, [stores(3, 0xB000), whole], receiver_port) as pacs:
        fetch(settings_for(pacs), folder)
    assert pacs.moves[1].SOPInstanceUID == dcmread(files[3], stop_before_pixels=True).SOPInstanceUID


def test_a_rerun_moves_only_what_is_missing(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path]
) -> None:
    with ScriptedPacs(files, [stores(3, 0xB000)], receiver_port) as pacs:
        settings = settings_for(pacs, move_attempts=1)
        study = find_studies(source_of(settings), "A1")[0]
        kept: list[Arrival] = []
        with pytest.raises(StudyIncomplete):
            retrieve(source_of(settings), settings.identity, study, folder, [], kept.append)
        pacs.scripts = [whole]
        arrivals: list[Arrival] = []
        retrieve(source_of(settings), settings.identity, study, folder, kept, arrivals.append)
        retrieve(source_of(settings), settings.identity, study, folder, [*kept, *arrivals], arrivals.append)
    assert len(kept) == 3 and len(arrivals) == 1 and len(pacs.moves) == 2


@pytest.mark.parametrize(
    ("script", "error", "said", "moves"),
    [
        (ends(0xA801), PacsRefused, "doesn't know the destination CDRECORD", 1),
        (ends(0xA900), PacsRefused, "A900", 1),
        (ends(0x0120), PacsRefused, "0120", 1),
        (ends(0xFE00), PacsRefused, "FE00", 1),
        (ends(0x4711), PacsRefused, "4711", 1),
        (ends(0xA702), PacsBusy, "can't reach this machine", 3),
        (ends(0xA701), PacsBusy, "out of resources", 3),
        (ends(0xC001), StudyIncomplete, "Asked for alone.*C001", 8),
        (stores(0, 0xB000), StudyIncomplete, "4 of the 4 images.*reach this machine", 7),
        (ends(0x0000), StudyIncomplete, "4 of the 4", 3),
        (lambda move: move.reset(), StudyIncomplete, "4 of the 4.*often because CDRECORD.*reach this machine", 3),
    ],
)
def test_fails_closed(
    settings_for: MakeSettings,
    receiver_port: int,
    folder: Path,
    files: list[Path],
    script: Script,
    error: type[Exception],
    said: str,
    moves: int,
) -> None:
    with ScriptedPacs(files, [script], receiver_port) as pacs, pytest.raises(error, match=said):
        fetch(settings_for(pacs, quiet_timeout_seconds=0.2), folder)
    assert len(pacs.moves) == moves


def test_one_image_that_never_comes_is_named(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path]
) -> None:
    missing = str(dcmread(files[3], stop_before_pixels=True).SOPInstanceUID)

    def all_but_one(move: MoveRequest) -> None:
        stored = [file for file in move.asked() if file != files[3]]
        move.store(stored)
        move.end(0xB000, completed=len(stored), failed=1, warning=0, remaining=0)

    with (
        ScriptedPacs(files, [all_but_one], receiver_port) as pacs,
        pytest.raises(StudyIncomplete, match="1 of the 4 images") as failed,
    ):
        fetch(settings_for(pacs), folder)
    assert failed.value.details["missing_sop_instance_uids"] == [missing]


def unable(files: list[Path], status: int) -> Script:
    """A script that ends at the first of `files`, as a PACS that can't read or convert it."""

    def script(move: MoveRequest) -> None:
        for file in move.asked():
            if file in files:
                move.end(status)
                return
            move.store([file])
        move.end(0x0000)

    return script


@pytest.mark.parametrize("status", [0xC000, 0xA702, 0xA801, 0xB000])
def test_only_what_cant_be_sent_alone_stays_missing_and_is_named(
    settings_for: MakeSettings, receiver_port: int, folder: Path, tmp_path: Path, status: int
) -> None:
    files = make_study(tmp_path / "twenty", "A1", kinds={"ct": 20})
    bad = [files[7], files[19], *files[: status in (0xC000, 0xB000)]]
    missing = sorted(uids(bad))
    kept: list[Arrival] = []
    with (
        ScriptedPacs(files, [unable(bad, status)], receiver_port) as pacs,
        pytest.raises((StudyIncomplete, PacsBusy)) as failed,
    ):
        settings = settings_for(pacs, quiet_timeout_seconds=0.2)
        study = find_studies(source_of(settings), "A1")[0]
        retrieve(source_of(settings), settings.identity, study, folder, [], kept.append)
    assert {arrival.sop_instance_uid for arrival in kept} == uids(files) - uids(bad)
    assert "firewall" not in failed.value.words and f"{status:04X}" in failed.value.words
    assert len(pacs.moves) < 60
    if isinstance(failed.value, StudyIncomplete):
        assert failed.value.details["missing_sop_instance_uids"] == missing
        assert all(uid in failed.value.words for uid in missing)


@pytest.mark.parametrize("status", [0x0000, 0xA702, 0xC001])
@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (associate_rq(called="WRONG", calling="SCRIPTED"), "was refused: it calls 'WRONG', and our AE title is"),
        (associate_rq()[:2] + struct.pack(">I", 70) + associate_rq()[6:76], "was aborted.*ends inside an item's head"),
    ],
)
def test_the_job_says_why_the_pacss_association_was_refused(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path], sent: bytes, said: str, status: int
) -> None:
    def refused(move: MoveRequest) -> None:
        with RawPeer(receiver_port) as peer:
            peer.send(sent)
            assert peer.receive()[0] in (RJ, ABORT)
        move.end(status)

    with ScriptedPacs(files, [refused], receiver_port) as pacs, pytest.raises(StudyIncomplete, match=said) as failed:
        fetch(settings_for(pacs, quiet_timeout_seconds=0.3), folder)
    assert "reach this machine" not in failed.value.words


def test_a_pacs_that_breaks_off_at_one_image_sends_the_others(
    settings_for: MakeSettings, receiver_port: int, folder: Path, tmp_path: Path
) -> None:
    files = make_study(tmp_path / "ten", "A1", kinds={"ct": 10})
    [bad] = uids(files[4:5])
    kept: list[Arrival] = []

    def breaks_off(move: MoveRequest) -> None:
        for file in move.asked():
            move.reset() if file == files[4] else move.store([file])
        move.end(0x0000)

    with ScriptedPacs(files, [breaks_off], receiver_port) as pacs, pytest.raises(StudyIncomplete) as failed:
        settings = settings_for(pacs, quiet_timeout_seconds=0.2)
        study = find_studies(source_of(settings), "A1")[0]
        retrieve(source_of(settings), settings.identity, study, folder, [], kept.append)
    assert {arrival.sop_instance_uid for arrival in kept} == uids(files) - {bad}
    assert f"{bad} (the connection was lost)" in failed.value.words


def test_a_pacs_that_moves_no_less_than_a_study_isnt_asked_for_pieces_for_long(
    settings_for: MakeSettings, receiver_port: int, folder: Path, tmp_path: Path
) -> None:
    files = make_study(tmp_path / "many", "A1", kinds={"ct": 16})

    def only_whole(move: MoveRequest) -> None:
        if move.identifier.QueryRetrieveLevel == "STUDY":
            move.store(move.files[: 4 + 12 * (len(pacs.moves) > 1)])
        move.end(0xC000)

    with ScriptedPacs(files, [only_whole], receiver_port) as pacs:
        assert len(fetch(settings_for(pacs), folder)[1]) == 16
    levels = [move.QueryRetrieveLevel for move in pacs.moves]
    assert levels == ["STUDY", *["IMAGE"] * 5, "SERIES", "STUDY"]


def test_silence_ends_at_the_limit_and_leaves_no_thread(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path]
) -> None:
    with ScriptedPacs(files, [lambda move: move.wait_for_cancel(10 * LONG)], receiver_port) as pacs:
        settings = settings_for(pacs, response_timeout_seconds=0.5)
        study = find_studies(source_of(settings), "A1")[0]
        before, begun = threading.active_count(), time.monotonic()
        with pytest.raises(PacsSilent, match="neither answered nor sent"):
            retrieve(source_of(settings), settings.identity, study, folder, [], lambda arrival: None)
        assert time.monotonic() - begun < LONG
        until(lambda: threading.active_count() <= before + 1)  # the script's own association
    assert pacs.cancelled == 1


def test_answers_without_images_end_at_a_limit_too(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mkiso.sources.cmove.MAX_TIMEOUTS", 2)

    def for_ever(move: MoveRequest) -> None:
        while True:
            move.pending(completed=0, remaining=4, failed=0, warning=0)
            time.sleep(0.05)

    with (
        ScriptedPacs(files, [for_ever], receiver_port) as pacs,
        pytest.raises(PacsSilent, match="answered and sent no image"),
    ):
        fetch(settings_for(pacs, response_timeout_seconds=2), folder)


def test_a_flood_of_answers_keeps_nobody_from_stopping(
    settings_for: MakeSettings, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PACS that answers faster than they are read: whoever polls has its turn all the same, and cancelling ends."""
    flood = itertools.repeat(dimse.Response(1, 0xFF00, remaining=4), 100_000)
    monkeypatch.setattr("mkiso.sources.move.CANCEL_TIMEOUT_SECONDS", 0.05)
    with (
        ScriptedPacs(files, [lambda move: move.wait_for_cancel(10 * LONG)]) as pacs,
        Move(*sections(settings_for(pacs)), [Target("1.2.3")]) as move,
    ):
        monkeypatch.setattr(move._association, "receive", lambda timeout_seconds: next(flood))
        for _ in range(10):
            assert not move.poll(0)


def test_an_end_that_comes_twice_ends_no_other_move(settings_for: MakeSettings, files: list[Path]) -> None:
    def ends_twice(move: MoveRequest) -> None:
        move.end(0x0000, completed=4)
        move.end(0x0000, completed=4)

    with (
        ScriptedPacs(files, [ends_twice, lambda move: move.wait_for_cancel(10 * LONG)]) as pacs,
        pytest.raises(PacsRefused, match="isn't under way"),
        Move(*sections(settings_for(pacs)), [Target("1.2.3"), Target("1.2.4")]) as move,
    ):
        while not move.poll(0.1):
            pass
    assert move.results == [MoveResult(0x0000, completed=4)]


def test_an_image_now_and_then_is_progress(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path]
) -> None:
    def slowly(move: MoveRequest) -> None:
        for file in move.files:
            time.sleep(2.5)  # four of them are longer than the limit, and one leaves a busy machine half of it
            move.store([file])
        move.end(0x0000)

    with ScriptedPacs(files, [slowly], receiver_port) as pacs:
        assert len(fetch(settings_for(pacs, response_timeout_seconds=8), folder)[1]) == 4
    assert len(pacs.moves) == 1


def test_a_final_response_that_never_comes_isnt_waited_for_long(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mkiso.sources.cmove.SETTLED_SECONDS", 0.3)

    def speechless(move: MoveRequest) -> None:
        move.store(move.files)
        move.wait_for_cancel(10 * LONG)

    with ScriptedPacs(files, [speechless], receiver_port) as pacs:
        assert len(fetch(settings_for(pacs), folder)[1]) == 4


def test_stop_cancels_at_once(settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path]) -> None:
    def until_cancelled(move: MoveRequest) -> None:
        move.store(move.files[:1])
        move.pending(completed=1, remaining=3, failed=0, warning=0)
        move.wait_for_cancel(10 * LONG)
        move.end(0xFE00, completed=1, remaining=3, failed=0, warning=0)

    stop = threading.Event()
    with ScriptedPacs(files, [until_cancelled], receiver_port) as pacs:
        threading.Timer(0.5, stop.set).start()
        begun = time.monotonic()
        with pytest.raises(JobStopped):
            fetch(settings_for(pacs), folder, stop)
        assert time.monotonic() - begun < LONG
    assert pacs.cancelled == 1


def test_a_study_that_grows_is_taken_whole(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path]
) -> None:
    with ScriptedPacs(files[:3], [], receiver_port) as pacs:

        def grown(move: MoveRequest) -> None:
            pacs.files = list(files)
            move.store(files[:3])
            assert not move.store(files[3:])  # nobody expects it yet
            move.end(0xB000, completed=3, failed=1, warning=0, remaining=0)

        pacs.scripts = [grown, whole]
        study, arrivals = fetch(settings_for(pacs), folder)
    assert {arrival.sop_instance_uid for arrival in arrivals} == uids(files) == set(study.expected.instances or ())
    assert len(arrivals) == 4


def test_two_contents_under_one_uid(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path], tmp_path: Path
) -> None:
    other = dcmread(files[0])
    other.InstanceNumber = 99
    other.save_as(tmp_path / "other")

    def conflicting(move: MoveRequest) -> None:
        move.store(files[:1])
        move.store([tmp_path / "other"])
        move.wait_for_cancel(10 * LONG)

    with ScriptedPacs(files, [conflicting], receiver_port) as pacs, pytest.raises(InstanceConflict):
        fetch(settings_for(pacs), folder)


def test_counts_alone(settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path]) -> None:
    with ScriptedPacs(files, [stores(3, 0xB000), whole], receiver_port) as pacs:
        pacs.find_status = {"IMAGE": 0xA900}
        study, arrivals = fetch(settings_for(pacs), folder)
    assert study.expected == Expected("series", 4)
    assert len(arrivals) == 4 and [move.QueryRetrieveLevel for move in pacs.moves] == ["STUDY", "STUDY"]


@pytest.mark.parametrize("script", [whole, stores(4, 0x0000, counted=False)])
def test_nothing_known_relies_on_what_arrives(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path], script: Script
) -> None:
    with ScriptedPacs(files, [script], receiver_port) as pacs:
        settings = settings_for(pacs, require_counts=False, quiet_timeout_seconds=0.5)
        _, arrivals = fetch(settings, folder, expected=Expected("none", None))
    assert len(arrivals) == 4


def test_nothing_known_and_nothing_sent(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path]
) -> None:
    def nothing(move: MoveRequest) -> None:
        move.end(0x0000, completed=0, failed=0, warning=0, remaining=0)

    with ScriptedPacs(files, [nothing], receiver_port) as pacs, pytest.raises(NoDicomData, match="no DICOM data"):
        fetch(settings_for(pacs, require_counts=False), folder, expected=Expected("none", None))


def hides_one(pacs: ScriptedPacs, level: str) -> None:
    """Have C-FIND tell of four of five images, by their number or by their UIDs."""
    if level == "IMAGE":
        pacs.counts, pacs.find_limit = False, {"IMAGE": 4}
    else:
        pacs.find_status, pacs.find_counts = {"IMAGE": 0xA900}, {"STUDY": 4, "SERIES": 4}


def counts_one_more(move: MoveRequest) -> None:
    move.store(move.files[:4])
    move.end(0x0000, completed=5, failed=0, warning=0, remaining=0)


def announces_one_more(move: MoveRequest) -> None:
    """The fifth is large, and the client doesn't wait for it."""
    move.store(move.files[:4])
    move.pending(completed=4, remaining=1, failed=0, warning=0)
    move.wait_for_cancel(10 * LONG)


def sends_one_more_uncounted(move: MoveRequest) -> None:
    move.store(move.files)
    move.end(0x0000)


def sends_one_more_slowly(move: MoveRequest) -> None:
    move.store(move.files[:4])
    time.sleep(1)
    move.store(move.files[4:])
    move.end(0x0000)


def sends_one_more_afterwards(move: MoveRequest) -> None:
    move.store(move.files[:4])
    move.end(0x0000)
    threading.Timer(0.3, move.store, [move.files[4:]]).start()


@pytest.mark.parametrize(
    ("level", "script", "said"),
    [
        ("IMAGE", whole, "lists 4 images of accession number A1 and counts 5 to send"),
        ("IMAGE", counts_one_more, "lists 4 .* counts 5"),
        ("IMAGE", announces_one_more, "lists 4 .* counts 5"),
        ("SERIES", whole, "4 images were listed and 5 arrived"),
        ("SERIES", counts_one_more, "lists 4 .* counts 5"),
        ("SERIES", announces_one_more, "lists 4 .* counts 5"),
        ("SERIES", sends_one_more_uncounted, "4 images were listed and 5 arrived"),
        ("SERIES", sends_one_more_afterwards, "4 images were listed and 5 arrived"),
    ],
)
def test_a_pacs_that_sends_more_than_it_lists_isnt_believed(
    settings_for: MakeSettings,
    receiver_port: int,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    level: str,
    script: Script,
    said: str,
) -> None:
    monkeypatch.setattr("mkiso.sources.cmove.SETTLED_SECONDS", 0.3)
    late = 5 if script is sends_one_more_afterwards else 1
    monkeypatch.setattr("mkiso.sources.retrieve.LATE_SECONDS", late)
    with ScriptedPacs(make_study(tmp_path / "five", "A1", kinds={"ct": 5}), [script], receiver_port) as pacs:
        hides_one(pacs, level)
        settings = settings_for(pacs, quiet_timeout_seconds=late)
        assert find_studies(source_of(settings), "A1")[0].expected.count == 4
        with pytest.raises(StudyIncomplete, match=said):
            fetch(settings, folder)


def test_a_last_image_that_is_large_is_waited_for_where_only_counts_are_known(
    settings_for: MakeSettings, receiver_port: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mkiso.sources.cmove.SETTLED_SECONDS", 0.1)
    monkeypatch.setattr("mkiso.sources.retrieve.LATE_SECONDS", 0.1)
    monkeypatch.setattr("mkiso.sources.move.CANCEL_TIMEOUT_SECONDS", 0.1)
    with ScriptedPacs(
        make_study(tmp_path / "five", "A1", kinds={"ct": 5}), [sends_one_more_slowly], receiver_port
    ) as pacs:
        hides_one(pacs, "SERIES")
        with pytest.raises(StudyIncomplete, match="4 images were listed and 5 arrived"):
            fetch(settings_for(pacs, quiet_timeout_seconds=5), folder)


@pytest.mark.parametrize("level", ["IMAGE", "SERIES"])
def test_growth_is_seen_in_what_a_c_move_announces(
    settings_for: MakeSettings,
    receiver_port: int,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    level: str,
) -> None:
    monkeypatch.setattr("mkiso.sources.cmove.SETTLED_SECONDS", 0.3)
    five = make_study(tmp_path / "five", "A1", kinds={"ct": 5})
    with ScriptedPacs(five, [], receiver_port) as pacs:
        hides_one(pacs, level)

        def grown(move: MoveRequest) -> None:
            pacs.find_limit, pacs.find_counts = {}, {}
            announces_one_more(move)

        pacs.scripts = [grown, whole]
        study, arrivals = fetch(settings_for(pacs, quiet_timeout_seconds=1), folder)
    assert study.expected.count == len(arrivals) == 5
    assert {arrival.sop_instance_uid for arrival in arrivals} == uids(five)


def test_other_bytes_after_the_last_image_are_noticed(
    settings_for: MakeSettings,
    receiver_port: int,
    folder: Path,
    files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = dcmread(files[0])
    other.InstanceNumber = 99
    other.save_as(tmp_path / "other")

    def conflicting(move: MoveRequest) -> None:
        move.store([*files, tmp_path / "other"])
        move.wait_for_cancel(10 * LONG)

    monkeypatch.setattr("mkiso.sources.cmove.SETTLED_SECONDS", 10 * LONG)
    with ScriptedPacs(files, [conflicting], receiver_port) as pacs:
        begun = time.monotonic()
        with pytest.raises(InstanceConflict):
            fetch(settings_for(pacs), folder)
        assert time.monotonic() - begun < LONG


@pytest.mark.parametrize("status", [0xC001, 0xA702, 0xA900])
def test_what_the_pacs_comments_is_told_without_the_patient(
    settings_for: MakeSettings, receiver_port: int, folder: Path, files: list[Path], status: int
) -> None:
    with ScriptedPacs(files, [ends(status)], receiver_port) as pacs:
        pacs.comment = f"no disk for {PLAIN.name.upper()} {PLAIN.patient_id}"
        with pytest.raises(MkisoError, match="no disk for …") as failed:
            fetch(settings_for(pacs, quiet_timeout_seconds=0.2, move_attempts=1), folder)
    assert not any(
        part in failed.value.words.lower() for part in [PLAIN.patient_id.lower(), *PLAIN.name.lower().split("^")]
    )
