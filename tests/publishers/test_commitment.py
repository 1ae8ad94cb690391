"""Storage commitment where the publisher ends the association of the request before it reports."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset

from mkiso.config.publishers import CStore
from mkiso.errors import PrintUncertain
from mkiso.network import dimse
from mkiso.network.association import Association, Message, accept
from mkiso.network.negotiation import STORAGE_COMMITMENT_PUSH, Acceptance, Offer
from mkiso.network.pdu import AssociationLost, Connection, ProtocolError
from mkiso.network.requestor import Address, Requestor
from mkiso.publishers import Watch
from mkiso.publishers.commitment import commit, uncommitted
from mkiso.receiver.commitment import COMMITTING
from peers.patience import LONG, until
from peers.ports import free_port
from tests.publishers.orders import order_of, settings_of, study

EVENT: dict[int, dimse.Value] = {
    dimse.COMMAND_FIELD: dimse.N_EVENT_REPORT_RQ,
    dimse.AFFECTED_SOP_CLASS_UID: COMMITTING.abstract_syntax,
    dimse.AFFECTED_SOP_INSTANCE_UID: STORAGE_COMMITMENT_PUSH,
    dimse.EVENT_TYPE_ID: 1,
}


@contextmanager
def ending(
    report_to: int | None, before: Callable[[], object] = lambda: None, *, reports: bool = False
) -> Iterator[int]:
    """A publisher that says yes to the request, goes, and calls with its report where it has a port to. `before`: what
    else calls there first; `reports`: it reports before it goes, and then breaks the connection off.
    """

    def serve() -> None:
        sock, _ = listener.accept()
        connection = Connection(sock, 65_536, 5)
        offer = Offer(None, 65_536, lambda abstract, proposed: proposed[0])
        answer = accept(connection, offer, "127.0.0.1", 5)
        assert isinstance(answer, Acceptance)
        association = Association(connection, answer.contexts, answer.peer_pdu_bytes)
        message = association.next_message(lambda: 5)
        assert message is not None
        association.answer(message, dimse.SUCCESS)
        if reports:
            numbered = {**EVENT, dimse.MESSAGE_ID: 1, dimse.COMMAND_DATA_SET_TYPE: dimse.DATA_SET}
            association.send(message.context_id, numbered, BytesIO(message.kept))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
            return
        connection.close(0)
        before()
        if report_to is not None:
            report(dimse.decode_data_set(message.kept), report_to)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(LONG)
        assert not thread.is_alive()


def report(request: Dataset, port: int, *, times: int = 1, told: threading.Event | None = None) -> None:
    """N-EVENT-REPORT that all is held (PS3.4 J.3.3), over and over."""
    with Requestor.open(Address("127.0.0.1", port, "ANY", "ROBOT", 5, 5, 5), [COMMITTING]) as association:
        encoded = dimse.encode_data_set(request)
        for _ in range(times):
            answer = association.ask(COMMITTING, EVENT, BytesIO(encoded))
            assert answer.command.status == dimse.SUCCESS
            if told:
                told.set()


def committed(folder: Path, port: int, commitment_port: int | None) -> None:
    settings = settings_of(folder, port=port, commitment_port=commitment_port).publishers["robot"]
    address = Address("127.0.0.1", port, "ROBOT", "MKISO", 5, 5, 5)
    assert isinstance(settings, CStore)
    commit("robot", settings, address, order_of(study(folder, {"ct": 2})), Watch())


def test_a_report_comes_on_an_association_of_its_own_for_one_job_after_another(tmp_path: Path) -> None:
    port = free_port()
    for job in ("first", "second"):
        with ending(port) as publisher:
            committed(tmp_path / job, publisher, port)


def test_a_publisher_that_goes_without_a_report_leaves_it_unknown(tmp_path: Path) -> None:
    with ending(None) as publisher, pytest.raises(PrintUncertain, match="closed the connection"):
        committed(tmp_path, publisher, None)


def test_a_publisher_that_breaks_off_once_it_has_reported_has_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Association.answer

    def late(self: Association, message: Message, status: int) -> None:
        time.sleep(0.2)  # the connection is broken by then
        answer(self, message, status)

    with ending(None, reports=True) as publisher:
        monkeypatch.setattr("mkiso.publishers.commitment.Association.answer", late)
        committed(tmp_path, publisher, None)


def test_reports_of_strangers_are_answered_and_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of empty items took ten seconds of a processor."""
    decoded: list[int] = []

    def decode(encoded: bytes) -> Dataset:
        decoded.append(len(encoded))
        return decode_data_set(encoded)

    decode_data_set = dimse.decode_data_set
    port, stranger = free_port(), Dataset()
    stranger.TransactionUID = "1.2.3"
    stranger.FailedSOPSequence = [Dataset()] * 50_000
    with ending(port, before=lambda: report(stranger, port)) as publisher:
        monkeypatch.setattr(dimse, "decode_data_set", decode)
        committed(tmp_path, publisher, port)
    assert max(decoded) < 2000 and len(decoded) == 2  # what the publisher was asked, and its report


def test_strangers_who_call_take_neither_threads_nor_the_publishers_place(tmp_path: Path) -> None:
    port, before = free_port(), threading.active_count()
    held: list[socket.socket] = []
    threads: list[int] = []

    def call() -> None:
        held.extend(socket.create_connection(("127.0.0.2", port), 5, ("127.0.0.2", 0)) for _ in range(100))
        until(lambda: threading.active_count() > before + 4)
        threads.append(threading.active_count() - before)

    with ending(port, before=call) as publisher:
        committed(tmp_path, publisher, port)
    for each in held:
        each.close()
    assert threads[0] < 15


@pytest.mark.timeout(10 * LONG)
def test_a_stranger_who_reports_without_end_is_not_waited_for(tmp_path: Path) -> None:
    port, stranger = free_port(), Dataset()
    stranger.TransactionUID = "1.2.3"
    begun = threading.Event()

    def call() -> None:
        with suppress(AssociationLost):
            report(stranger, port, times=1_000_000, told=begun)

    calling = threading.Thread(target=call)

    def before() -> None:
        calling.start()
        assert begun.wait(LONG)

    with ending(port, before=before) as publisher:
        committed(tmp_path, publisher, port)
    calling.join(LONG)
    assert not calling.is_alive()


def test_an_item_of_a_report_that_names_no_instance_says_nothing(tmp_path: Path) -> None:
    instances = study(tmp_path, {"ct": 1})
    told = Dataset()
    told.ReferencedSOPSequence = told.FailedSOPSequence = [Dataset()]
    assert uncommitted(told, instances) == {instances[0].sop_instance_uid}


def test_a_report_that_is_damaged_inside_an_item_is_none() -> None:
    """Found when it comes, and not when somebody reads it: there an OSError would be mkiso's own disk."""
    damaged = struct.pack("<HHIH", 0x0008, 0x1199, 2, 0xFFFE)
    with pytest.raises(ProtocolError):
        dimse.decode_data_set(damaged)
