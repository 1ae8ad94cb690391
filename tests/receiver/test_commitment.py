"""Storage commitment of an inbox, asked for by pynetdicom: what it says to hold lies there."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import N_EVENT_REPORT_RSP
from pynetdicom.events import Event
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    CTImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from mkiso.demo.steady import steady
from mkiso.network.association import MAX_DATA_SET_BYTES
from mkiso.network.dimse import ACTION_TYPE_ID, Command, encode_data_set
from mkiso.network.pdu import ProtocolError
from mkiso.receiver import commitment
from mkiso.receiver.commitment import report_on, request_of, status_of
from mkiso.receiver.pushed import PushedStudy
from peers.corpus import make_study
from peers.patience import LONG
from peers.ports import free_port
from peers.storescu import store
from tests.receiver.conftest import Running, Start

SENDERS = {"senders": ["CT1", "STORESCU"]}
MOST = 3
Reports = Queue[tuple[int, Dataset]]


def asked(*instances: tuple[str, str]) -> Dataset:
    request = Dataset()
    request.TransactionUID = generate_uid()
    request.ReferencedSOPSequence = []
    for sop_class, uid in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        request.ReferencedSOPSequence.append(item)
    return request


def references(files: list[Path]) -> list[tuple[str, str]]:
    read = [dcmread(file, specific_tags=["SOPClassUID", "SOPInstanceUID"]) for file in files]
    return [(each.SOPClassUID, each.SOPInstanceUID) for each in read]


def taking(reports: Reports) -> Any:
    """Handlers that hand a report on once it is answered: pynetdicom answers after its handler, and an association that
    is released before that doesn't end.
    """
    come: Reports = Queue()

    def take(event: Event) -> tuple[int, None]:
        come.put((event.event_type or 0, event.event_information))
        return 0x0000, None

    def answered(event: Event) -> None:
        if isinstance(event.message, N_EVENT_REPORT_RSP):
            reports.put(come.get())

    return [(evt.EVT_N_EVENT_REPORT, take), (evt.EVT_DIMSE_SENT, answered)]


@contextmanager
def calling(running: Running, reports: Reports, called: str = "BURN") -> Iterator[Association]:
    ae = AE("CT1")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = LONG
    ae.add_requested_context(StorageCommitmentPushModel)
    association = steady(ae.associate("127.0.0.1", running.port, ae_title=called, evt_handlers=taking(reports)))
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def ask(association: Association, request: Dataset) -> int:
    status, _ = association.send_n_action(request, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    return int(status.Status)


def uids(report: Dataset, keyword: str) -> set[str]:
    return {str(item.ReferencedSOPInstanceUID) for item in report.get(keyword, [])}


@pytest.mark.peer
def test_what_is_held_is_committed_on_the_same_association(start: Start, tmp_path: Path) -> None:
    running = start(inboxes={"BURN": SENDERS})
    files = make_study(tmp_path, "A1", kinds={"ct": 3, "mr": 1})
    assert store(running.port, files[:3], called="BURN").returncode == 0
    reports: Reports = Queue()
    request = asked(*references(files))
    with calling(running, reports) as association:
        assert ask(association, request) == 0x0000
        event_type, report = reports.get(timeout=LONG)
        assert ask(association, asked(*references(files[:3]))) == 0x0000
        second_type, second = reports.get(timeout=LONG)
    assert (event_type, report.TransactionUID) == (2, request.TransactionUID)
    assert uids(report, "ReferencedSOPSequence") == {uid for _, uid in references(files[:3])}
    assert [(item.ReferencedSOPInstanceUID, item.FailureReason) for item in report.FailedSOPSequence] == [
        (references(files)[3][1], 0x0112)
    ]
    assert second_type == 1 and "FailedSOPSequence" not in second
    assert len(second.ReferencedSOPSequence) == 3


@pytest.mark.peer
def test_a_sender_that_wants_to_be_called_is_called(start: Start, tmp_path: Path) -> None:
    port = free_port()
    running = start(inboxes={"BURN": {**SENDERS, "reports": {"CT1": {"host": "127.0.0.1", "port": port}}}})
    files = make_study(tmp_path, "A1", kinds={"ct": 2})
    store(running.port, files, called="BURN")
    reports: Reports = Queue()
    ae = AE("CT1")
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=taking(reports))
    try:
        with calling(running, Queue()) as association:
            assert ask(association, asked(*references(files))) == 0x0000
        event_type, report = reports.get(timeout=LONG)
    finally:
        assert server is not None
        server.shutdown()
    assert event_type == 1
    assert uids(report, "ReferencedSOPSequence") == {uid for _, uid in references(files)}


@pytest.mark.peer
def test_a_sender_that_never_answers_ties_up_no_more_than_a_few_calls(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough = threading.Event()

    class UntilEnough:
        def __iter__(self) -> Iterator[float]:
            enough.wait(LONG)
            return iter(())

    monkeypatch.setattr(commitment, "REPORT_PAUSES_SECONDS", UntilEnough())
    place = {"host": "127.0.0.1", "port": free_port()}
    running = start(inboxes={"BURN": {**SENDERS, "reports": {"CT1": place}}})
    reports: Reports = Queue()
    with calling(running, reports) as association:
        for _ in range(commitment.MAX_CALLS + 1):
            assert ask(association, asked((CTImageStorage, "1.2.3"))) == 0x0000
        assert reports.get(timeout=LONG)[0] == 2, "the last one is told where it asks"
        assert reports.empty()
    enough.set()


@pytest.mark.peer
def test_what_came_with_different_bytes_is_not_committed(start: Start, tmp_path: Path) -> None:
    """The sender would delete what was refused."""
    running = start(inboxes={"BURN": SENDERS})
    files = make_study(tmp_path, "A1", kinds={"ct": 2})
    store(running.port, files, called="BURN")
    study = PushedStudy(running.settings.storage, "BURN", dcmread(files[0]).StudyInstanceUID)
    study.note_conflict(references(files)[0][1])
    reports: Reports = Queue()
    with calling(running, reports) as association:
        ask(association, asked(*references(files)))
        event_type, report = reports.get(timeout=LONG)
    assert (event_type, uids(report, "FailedSOPSequence")) == (2, {references(files)[0][1]})


@pytest.mark.peer
def test_jobs_commit_themselves_to_nothing(start: Start) -> None:
    with calling(start(inboxes={"BURN": SENDERS}), Queue(), called="CDRECORD") as association:
        assert not association.is_established or not association.accepted_contexts


@pytest.mark.parametrize(
    ("action", "request_set", "status"),
    [
        (1, asked((CTImageStorage, "1.2.3")), 0x0000),
        (1, asked(*[(CTImageStorage, "1.2.3")] * MOST), 0x0000),
        (1, asked(*[(CTImageStorage, "1.2.3")] * (MOST + 1)), 0x0213),
        (2, asked((CTImageStorage, "1.2.3")), 0x0123),
        (1, asked(), 0x0115),
        (1, asked((CTImageStorage, "")), 0x0115),
        (1, Dataset(), 0x0115),
    ],
)
def test_a_request_that_means_nothing_is_refused(action: int, request_set: Dataset, status: int) -> None:
    command = Command(0x0130, 1, True, {ACTION_TYPE_ID: action.to_bytes(2, "little")})
    assert status_of(command, request_of(encode_data_set(request_set), MOST), MOST) == status


def test_a_request_costs_no_more_than_what_may_be_asked_about() -> None:
    """Half a million empty items, or elements that nobody asked for, fit into what is taken."""
    size = MAX_DATA_SET_BYTES // 8 - 100
    empty, other = struct.pack("<HHI", 0xFFFE, 0xE000, 0), struct.pack("<HHI", 0x0009, 0x1000, 0)
    items = struct.pack("<HHI", 0x0008, 0x1199, 8 * size) + empty * size
    item = struct.pack("<HHIHHI", 0x0008, 0x1199, 8 * size, 0xFFFE, 0xE000, 8 * size - 8) + other * (size - 1)
    for encoded, most in ((items, MOST), (other * size, MOST), (item, MOST)):
        began = time.process_time()
        request = request_of(encoded, most)
        assert len(request.references) <= most + 1
        assert time.process_time() - began < 5


def test_whatever_bytes_come_as_a_request_no_other_error_does() -> None:
    whole = encode_data_set(asked((CTImageStorage, "1.2.3"), (CTImageStorage, "1.2.4")))
    command = Command(0x0130, 1, True, {ACTION_TYPE_ID: b"\1\0"})
    odd = [whole[:end] for end in range(len(whole))]
    odd += [whole[:at] + bytes((byte,)) + whole[at + 1 :] for at in range(len(whole)) for byte in (0, 1, 0x41, 0xFF)]
    read = 0
    for encoded in odd:
        with suppress(ProtocolError):
            request = request_of(encoded, MOST)
            if status_of(command, request, MOST) == 0:
                encode_data_set(report_on(request, {})[1])
            read += 1
    assert 0 < read < len(odd)


def test_an_instance_of_another_class_is_not_held() -> None:
    request = request_of(encode_data_set(asked((CTImageStorage, "1.2.3"), (CTImageStorage, "1.2.4"))), MOST)
    event_type, report = report_on(request, {"1.2.3": CTImageStorage, "1.2.4": "1.2.840.10008.5.1.4.1.1.4"})
    assert event_type == 2
    assert uids(report, "ReferencedSOPSequence") == {"1.2.3"}
    assert [item.FailureReason for item in report.FailedSOPSequence] == [0x0119]
