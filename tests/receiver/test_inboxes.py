"""What comes to an inbox of the receiver: on the disk when it is acknowledged, and for no job; sent by dcmtk."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any, Literal

import pytest
from pydicom import dcmread

from mkiso.errors import DamagedInstance
from mkiso.receiver import inbox
from mkiso.receiver.client import receiver_status
from mkiso.receiver.pushed import PushedStudy, studies_in
from mkiso.storage.files import sha256_of
from mkiso.storage.room import GIB
from mkiso_service.checks.check import Finding, Site, examine
from mkiso_service.checks.registry import checks_of
from peers.corpus import dataset_bytes, make_study, write
from peers.patience import LONG
from peers.storescu import store
from tests.receiver.conftest import Running, Start, eventually

pytestmark = pytest.mark.peer

MIXED = {"ct": 3, "sr": 1, "jpeg_2000": 1, "deflated": 1}
OPEN = {"senders": ["STORESCU"]}


def uid_of(file: Path, keyword: str = "SOPInstanceUID") -> str:
    return str(dcmread(file, specific_tags=[keyword]).get(keyword))


def study_of(running: Running, files: list[Path], inbox: str = "BURN") -> PushedStudy:
    return PushedStudy(running.settings.storage, inbox, uid_of(files[0], "StudyInstanceUID"))


def begun(start: Start, **rules: Any) -> Running:
    return start(inboxes={"BURN": {**OPEN, **rules}, "OTHER": {"senders": ["10.0.0.0/8"]}})


def test_what_is_acknowledged_lies_there_byte_for_byte(start: Start, tmp_path: Path) -> None:
    running = begun(start)
    files = make_study(tmp_path, "A1", kinds=MIXED)
    assert store(running.port, files, called="BURN").returncode == 0
    sent = study_of(running, files).read()
    assert {each.sop_instance_uid: dataset_bytes(each.path) for each in sent.instances} == {
        uid_of(file): dataset_bytes(file) for file in files
    }
    assert sent.senders == ("STORESCU@127.0.0.1",)
    for each in sent.instances:
        held = dcmread(each.path, specific_tags=["SOPClassUID"])
        assert (each.sop_class_uid, each.transfer_syntax_uid) == (held.SOPClassUID, held.file_meta.TransferSyntaxUID)
    nothing = {"last_refusal": "", "last_refusal_sender": "", "last_refusal_cause": "", "last_refusal_time": 0.0}
    counts = {"stored": len(files), "refused": 0, **nothing}
    eventually(lambda: receiver_status(running.settings.storage.receiver_socket)["inboxes"]["BURN"] == counts)


def test_it_is_the_same_without_what_was_written_beside_it(start: Start, tmp_path: Path) -> None:
    """A power cut may take the lines; the files have reached the disk."""
    running = begun(start)
    files = make_study(tmp_path, "A1", kinds=MIXED)
    store(running.port, files, called="BURN")
    study = study_of(running, files)
    before = study.read()
    (study.folder / "arrivals.jsonl").write_text('{"sop_insta')
    assert study.read().instances == before.instances
    assert study.read().fingerprint == before.fingerprint


def test_an_inbox_takes_nothing_for_a_job_and_a_job_nothing_for_an_inbox(start: Start, tmp_path: Path) -> None:
    running = begun(start)
    files = make_study(tmp_path, "A1", kinds={"ct": 2})
    study = uid_of(files[0], "StudyInstanceUID")
    with running.expect(study) as expectation:
        assert store(running.port, files, called="BURN").returncode == 0
        expectation.catch_up()
        assert expectation.next_arrival(0) is None and expectation.refusals == []
        assert not list(running.folder().iterdir())
        assert store(running.port, files[:1]).returncode == 0
        assert expectation.next_arrival(LONG) is not None
    assert len(study_of(running, files).read().instances) == 2
    assert store(running.port, files).returncode != 0, "nobody expects it, and the inbox isn't called"


@pytest.mark.parametrize("called", ["OTHER", "NOBODY"])
def test_who_may_not_send_is_rejected(start: Start, tmp_path: Path, called: str) -> None:
    running = begun(start)
    sent = store(running.port, make_study(tmp_path, "A1"), called=called)
    assert sent.returncode != 0 and "Rejected" in sent.stdout + sent.stderr
    assert studies_in(running.settings.storage, called) == []


def test_other_bytes_under_a_uid_are_refused_and_the_first_stay(start: Start, tmp_path: Path) -> None:
    running = begun(start)
    [first] = make_study(tmp_path, "A1", kinds={"ct": 1})
    changed = dcmread(first)
    changed.SeriesDescription = "another"
    other = write(changed, tmp_path / "other.dcm")
    study = study_of(running, [first])
    assert store(running.port, [first], called="BURN").returncode == 0
    once = study.read()
    assert store(running.port, [first], called="BURN").returncode == 0, "the same again is well"
    assert study.read() == once
    sent = store(running.port, [other], called="BURN")
    assert "Error: CannotUnderstand" in sent.stdout + sent.stderr
    twice = study.read()
    assert twice.instances == once.instances and twice.conflicts == {uid_of(first)}
    assert twice.fingerprint != once.fingerprint


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"max_studies": 1}, "max_studies is 1"),
        ({"max_instances": 2}, "max_instances is 2"),
        ({"max_gib": 0.0001}, "max_gib is 0.0001"),
    ],
    ids=str,
)
def test_a_full_inbox_refuses_with_a700_and_says_why(
    start: Start, tmp_path: Path, rules: dict[str, Any], words: str
) -> None:
    running = begun(start, **rules)
    files = make_study(tmp_path, "A1", kinds={"ct": 3}) + make_study(tmp_path, "A2", kinds={"mr": 12})
    sent = store(running.port, files, called="BURN", options=["--no-halt"])
    assert "Refused: OutOfResources" in sent.stdout + sent.stderr

    def told() -> str:
        return str(receiver_status(running.settings.storage.receiver_socket)["inboxes"]["BURN"]["last_refusal"])

    eventually(lambda: words in told())


def test_many_senders_at_once_lose_nothing(start: Start, tmp_path: Path) -> None:
    running = begun(start)
    studies = [make_study(tmp_path, f"A{number}", kinds={"ct": 4}) for number in range(6)]
    mixed = [[study[index] for study in studies] for index in range(4)] * 2  # each twice, from two senders
    threads = [threading.Thread(target=store, args=(running.port, files), kwargs={"called": "BURN"}) for files in mixed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(studies_in(running.settings.storage, "BURN")) == len(studies)
    for files in studies:
        assert study_of(running, files).read().uids == {uid_of(file) for file in files}


def test_what_was_sent_outlives_the_receiver(start: Start, tmp_path: Path) -> None:
    running = begun(start)
    files = make_study(tmp_path, "A1", kinds={"ct": 3})
    store(running.port, files[:2], called="BURN")
    running.end()
    again = begun(start)
    store(again.port, files[1:], called="BURN")
    assert study_of(again, files).read().uids == {uid_of(file) for file in files}
    again.end()


def test_what_is_cleared_away_goes_and_what_was_asked_stays(start: Start, tmp_path: Path) -> None:
    running = begun(start)
    files = make_study(tmp_path, "A1", kinds={"ct": 2})
    store(running.port, files, called="BURN")
    study = study_of(running, files)
    assert study.seconds_quiet is not None
    study.note_asked([])
    assert study.clear(lambda: "instances")
    assert study.seconds_quiet is None and study.read().instances == ()
    assert study.read().gone == {uid_of(file) for file in files}
    assert (study.folder / "asked.json").exists()
    assert store(running.port, files, called="BURN").returncode == 0
    assert (len(study.read().instances), study.read().gone) == (2, frozenset())
    assert study.clear(lambda: "wholly")
    assert studies_in(running.settings.storage, "BURN") == []


def test_the_doctor_says_what_came_and_what_was_refused_last(start: Start, tmp_path: Path) -> None:
    running = begun(start, max_instances=2)
    store(running.port, make_study(tmp_path, "A1", kinds={"ct": 3}), called="BURN", options=["--no-halt"])
    [check] = [each for each in checks_of(running.settings) if each.name == "inboxes"]

    def told(*, inside: bool) -> Finding:
        return examine(check, Site(running.settings, lambda what: None, 5.0, inside=inside))  # type: ignore[arg-type]

    eventually(lambda: "BURN: 2 images came, 1 refused" in told(inside=True).words)
    assert ", the last refusal STORESCU@127.0.0.1: A700, its study is too large" in told(inside=True).words
    assert "1 study waits" in told(inside=True).words and told(inside=True).well
    assert told(inside=False).words == "2 images came, 1 refused"


def test_nothing_is_taken_that_the_disk_has_no_room_for(start: Start, tmp_path: Path) -> None:
    free_gib = shutil.disk_usage(tmp_path).free / GIB
    running = start({"min_free_gib": 2 * free_gib}, {"BURN": OPEN})
    files = make_study(tmp_path, "A1", kinds={"ct": 1})
    sent = store(running.port, files, called="BURN")
    assert sent.returncode != 0 and "OutOfResources" in sent.stdout + sent.stderr, sent.stdout + sent.stderr
    assert study_of(running, files).read().instances == ()
    status = running.settings.storage.receiver_socket
    eventually(lambda: "A700, less would be free" in receiver_status(status)["inboxes"]["BURN"]["last_refusal"])
    assert receiver_status(status)["inboxes"]["BURN"]["last_refusal_cause"] == "no_room"


def test_who_may_not_send_is_named_with_the_inbox(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    running = begun(start)
    begin = time.time()
    with caplog.at_level("INFO"):
        assert store(running.port, make_study(tmp_path, "A1", kinds={"ct": 1}), called="OTHER").returncode != 0
        status = running.settings.storage.receiver_socket
        eventually(lambda: receiver_status(status)["inboxes"]["OTHER"]["last_refusal"] != "")
    words = "it isn't one of inboxes.OTHER.senders"
    other = receiver_status(status)["inboxes"]["OTHER"]
    assert other["last_refusal"] == f"STORESCU@127.0.0.1: {words}"
    assert (other["last_refusal_sender"], other["last_refusal_cause"]) == ("STORESCU@127.0.0.1", "unknown_sender")
    assert begin <= other["last_refusal_time"] <= time.time()
    [line] = [each for each in caplog.messages if words in each]
    assert line.startswith("Association with 127.0.0.1 (STORESCU) at the inbox OTHER: 0 stored, 0 refused")


def test_nobody_waits_while_what_came_again_is_read(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of 8 GiB is read for half a minute. Here it is read until the test says so."""
    running, reading, go_on = begun(start), threading.Event(), threading.Event()
    first, other = (make_study(tmp_path / name, name, kinds={"ct": 1}) for name in ("A1", "A2"))
    assert store(running.port, first, called="BURN").returncode == 0

    def slowly(path: Path) -> str:
        reading.set()
        assert go_on.wait(10 * LONG)
        return sha256_of(path)

    monkeypatch.setattr(inbox, "sha256_of", slowly)
    again: list[int] = []
    sender = threading.Thread(target=lambda: again.append(store(running.port, first, called="BURN").returncode))
    sender.start()
    try:
        assert reading.wait(LONG)
        assert store(running.port, other, called="BURN").returncode == 0
        assert len(study_of(running, other).read().instances) == 1
    finally:
        go_on.set()
        sender.join()
    assert again == [0]


def test_what_comes_while_a_study_is_cleared_away_waits_and_stays(start: Start, tmp_path: Path) -> None:
    running = begun(start)
    [first, second] = make_study(tmp_path, "A1", kinds={"ct": 2})
    store(running.port, [first], called="BURN")
    study, answered = study_of(running, [first]), threading.Event()

    def send() -> None:
        store(running.port, [second], called="BURN")
        answered.set()

    sending = threading.Thread(target=send)

    def deciding() -> Literal["instances"]:
        sending.start()
        assert not answered.wait(1)
        return "instances"

    assert study.clear(deciding)
    sending.join()
    assert study.read().uids == {uid_of(second)}


def test_what_is_sent_again_is_not_cleared_away_before_the_answer(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = begun(start)
    files = make_study(tmp_path, "A1", kinds={"ct": 1})
    store(running.port, files, called="BURN")
    study, cleared = study_of(running, files), []

    def meanwhile(path: Path) -> str:
        cleared.append(study.clear(lambda: "instances"))
        return sha256_of(path)

    monkeypatch.setattr(inbox, "sha256_of", meanwhile)
    assert store(running.port, files, called="BURN").returncode == 0
    assert cleared == [False] and len(study.read().instances) == 1


def test_a_list_of_conflicts_that_cannot_be_read_is_not_taken_for_none(start: Start, tmp_path: Path) -> None:
    running = begun(start)
    files = make_study(tmp_path, "A1", kinds={"ct": 1})
    store(running.port, files, called="BURN")
    study = study_of(running, files)
    for _ in range(3):
        study.note_conflict(uid_of(files[0]))
    assert (study.folder / "conflicts").read_text() == f"{uid_of(files[0])}\n"
    (study.folder / "conflicts").unlink()
    (study.folder / "conflicts").mkdir()
    with pytest.raises(DamagedInstance):
        study.read()
