"""Association PDUs of odd peers: taken wherever dcmtk or Orthanc takes them, and the cause said where they aren't."""

from __future__ import annotations

import re
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mkiso.config.settings import Receiver
from mkiso.network.negotiation import Acceptance, decode_request, negotiate
from mkiso.network.pdu import AssociationLost
from mkiso.network.requestor import VERIFYING, Address, Requestor
from mkiso.receiver.negotiation import storage_offer
from peers.odd_associations import ANSWERS, CT, REQUESTS
from peers.orthanc import Orthanc
from peers.patience import LONG
from peers.raw_peer import AC, RELEASE_RP, RELEASE_RQ_PDU, RawPeer
from peers.storescp import Storescp

Taken = dict[str, bool]


def takes(port: int, request: bytes) -> bool:
    """Whether a Storage SCP accepts a request, and CT images in it."""
    with RawPeer(port, timeout_seconds=3) as peer:
        peer.send(request)
        try:
            kind, body = peer.receive()
        except TimeoutError:  # some requests dcmtk never answers
            return False
        if kind != AC:
            return False
        results = re.findall(rb"\x21.{2}.(.).(.).", body[68:], re.DOTALL)
        assert results
        peer.send(RELEASE_RQ_PDU)
        return peer.receive()[0] == RELEASE_RP and any(result == b"\0" for _, result in results)


@pytest.mark.peer
def test_requests_that_dcmtk_or_orthanc_takes_are_taken(tmp_path: Path) -> None:
    offer = storage_offer(Receiver(ae_title="CDRECORD"))
    with Storescp(tmp_path / "storescp", ae_title="CDRECORD") as dcmtk, Orthanc(tmp_path / "orthanc") as orthanc:
        judged = {name: (takes(dcmtk.port, pdu), takes(orthanc.port, pdu)) for name, pdu in REQUESTS.items()}
    ours = {
        name: isinstance(answer := negotiate(decode_request(pdu[6:]), offer, "10.0.0.1"), Acceptance)
        and CT.decode() in {context.abstract_syntax for context in answer.contexts.values()}
        for name, pdu in REQUESTS.items()
    }
    assert sum(map(any, judged.values())) > 30
    assert [name for name, taken in judged.items() if any(taken) and not ours[name]] == []


def test_what_was_odd_about_a_request_is_told() -> None:
    told = {name: decode_request(pdu[6:]).oddities for name, pdu in REQUESTS.items()}
    assert told["unknown user information 5A"] == ["user information of type 5A"]
    assert told["calling AE title padded with NUL"] and told["context IDs that are even"]
    assert told["version name of 64 characters"] and told["reserved bytes that are set"] == []


class OddScp:
    """Answers each association request with the same bytes, each C-ECHO with Success, and a release."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve)
        self.echoed = 0

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(LONG)
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        received = connection.makefile("rb")
        try:
            while len(head := received.read(6)) == 6:
                kind, length = struct.unpack(">BxI", head)
                body = received.read(length)
                if kind == 1:
                    connection.sendall(self._answer)
                elif kind == 4:
                    self.echoed += 1
                    number = body[body.index(b"\0\0\x10\x01\x02\0\0\0") + 8 :][:2]
                    connection.sendall(_echo_response(body[4], number))
                elif kind == 5:
                    connection.sendall(struct.pack(">BxII", 6, 4, 0))
                else:
                    return
        except OSError:
            return


def _echo_response(context_id: int, number: bytes) -> bytes:
    uid = b"1.2.840.10008.1.1\0"
    elements = struct.pack("<HHI", 0, 2, len(uid)) + uid + struct.pack("<HHIH", 0, 0x100, 2, 0x8030)
    elements += struct.pack("<HHI", 0, 0x120, 2) + number
    elements += struct.pack("<HHIH", 0, 0x800, 2, 0x101) + struct.pack("<HHIH", 0, 0x900, 2, 0)
    command = struct.pack("<HHII", 0, 0, 4, len(elements)) + elements
    return struct.pack(">BxIIBB", 4, len(command) + 6, len(command) + 2, context_id, 3) + command


@contextmanager
def odd_scp(answer: bytes) -> Iterator[OddScp]:
    scp = OddScp(answer)
    scp.thread.start()
    try:
        yield scp
    finally:
        scp.listener.shutdown(socket.SHUT_RDWR)
        scp.listener.close()
        scp.thread.join()


def echoes(port: int) -> bool:
    """Whether our client is served by it."""
    address = Address("127.0.0.1", port, "ODDPEER", "MKISO", 5, 5, 5)
    try:
        with Requestor.open(address, [VERIFYING]) as association:
            return association.echo() == 0
    except AssociationLost:
        return False


@pytest.mark.peer
def test_answers_that_dcmtk_or_orthanc_takes_are_taken(tmp_path: Path) -> None:
    judged: dict[str, tuple[bool, bool]] = {}
    ours: Taken = {}
    assert shutil.which("echoscu")
    with Orthanc(tmp_path / "orthanc") as orthanc:
        for name, pdu in ANSWERS.items():
            with odd_scp(pdu) as scp:
                asked = ["echoscu", "-to", "5", "-ta", "5", "-td", "5", "127.0.0.1", str(scp.port)]
                dcmtk = subprocess.run(asked, capture_output=True, timeout=LONG).returncode == 0
                orthanc.know("ODDPEER", "127.0.0.1", scp.port)
                answer = orthanc.http.post("/modalities/ODDPEER/echo", json={"Timeout": 5})
                judged[name] = dcmtk, answer.is_success
                ours[name] = echoes(scp.port)
    assert sum(map(any, judged.values())) > 20
    assert [name for name, taken in judged.items() if any(taken) and not ours[name]] == []


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (ANSWERS["unknown item"][:-3], "item of type 60 that claims 3 bytes"),
        (ANSWERS["unknown item"][:-5], "ends inside an item's head"),
        (ANSWERS["unknown item"][:40], "too short"),
        (b"\3\0\0\0\0\4\0\1\1\3", "calling AE title not recognised"),
    ],
)
def test_an_answer_that_cant_be_taken_is_refused_with_its_cause(answer: bytes, cause: str) -> None:
    answer = answer[:2] + struct.pack(">I", len(answer) - 6) + answer[6:]
    with odd_scp(answer) as scp, pytest.raises(AssociationLost, match=cause):
        Requestor.open(Address("127.0.0.1", scp.port, "ODDPEER", "MKISO", 5, 5, 5), [VERIFYING])
