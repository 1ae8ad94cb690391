"""What a relay decides without a connection, and what it makes of publishers that answer nonsense."""

from __future__ import annotations

import hashlib
import socket
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from mkiso.config.publishers import Robot
from mkiso.config.settings import Settings
from mkiso.errors import ConfigurationError, ProofFailed
from mkiso.network.negotiation import Context
from mkiso.network.pdu import AssociationLost
from mkiso.publishers import publisher_of
from mkiso.publishers.cstore import back_off_seconds, data_set_offset, store
from mkiso.publishers.relay import by_association, sent_as, status_words, unaccepted_words, verdict, wanted_pairs
from mkiso.storage.files import sha256_of
from mkiso.study.models import Arrival
from peers.open_association import requestor_to

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
PLAIN, J2K = str(ExplicitVRLittleEndian), str(JPEG2000Lossless)


def arrival(sop_class: str = CT, syntax: str = PLAIN, number: int = 1) -> Arrival:
    return Arrival(f"1.2.{number}", sop_class, syntax, "1.2", Path("x"), 1, "")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0x0000, "accepted"),
        (0xB000, "warning"),
        (0xB006, "warning"),
        (0xB007, "warning"),
        (0xBFFF, "warning"),
        (0xA700, "busy"),
        (0xA7FF, "busy"),
        (0xA900, "refused"),
        (0xC000, "refused"),
        (0x0122, "refused"),
        (0x0124, "refused"),
        (0x0001, "refused"),
        (0xFF00, "refused"),
        (0xFE00, "refused"),
        (0x1234, "refused"),
    ],
)
def test_statuses(status: int, expected: str) -> None:
    assert verdict(status) == expected


def test_a_status_is_named() -> None:
    assert status_words(0xA700, "disk full") == "A700 Refused: Out of Resources (disk full)"
    assert status_words(0x1234) == "1234 unknown status"


def test_contexts_are_of_what_is_there() -> None:
    study = [arrival(), arrival(number=2), arrival(MR, J2K, 3)]
    assert wanted_pairs(study, False) == [(CT, PLAIN), (MR, J2K)]
    assert wanted_pairs(study, True) == [(CT, PLAIN), (MR, J2K), (MR, PLAIN)]


@given(kinds=st.integers(1, 300), transcode=st.booleans())
def test_as_few_associations_as_the_contexts_need(kinds: int, transcode: bool) -> None:
    study = [arrival(f"1.2.840.{kind}", J2K, kind) for kind in range(kinds)] + [arrival("1.2.840.0", J2K, 999)]
    groups = by_association(study, transcode)
    assert sorted(each.sop_instance_uid for group in groups for each in group) == sorted(
        each.sop_instance_uid for each in study
    )
    assert all(len(wanted_pairs(group, transcode)) <= 128 for group in groups)
    per_association = 64 if transcode else 128
    assert len(groups) == -(-kinds // per_association)


def test_an_instance_is_sent_as_it_is_or_not_at_all() -> None:
    assert sent_as((MR, J2K), {(MR, J2K), (MR, PLAIN)}, True) == (MR, J2K)
    assert sent_as((MR, J2K), {(MR, PLAIN)}, True) == (MR, PLAIN)
    assert sent_as((MR, J2K), {(MR, PLAIN)}, False) is None
    assert sent_as((MR, J2K), set(), True) is None


def test_what_is_not_taken_is_named_and_counted() -> None:
    instances = [arrival(MR, J2K), arrival(MR, J2K, 2), arrival("1.2.3.4", "1.2.3.5", 3)]
    words = unaccepted_words("robot", instances, "nothing was sent")
    assert "MR Image Storage in JPEG 2000 Image Compression (Lossless Only) (2)" in words
    assert "1.2.3.5 (1)" in words
    assert "nothing was sent" in words


def test_back_off_stays_below_a_quiet_time() -> None:
    assert [back_off_seconds(attempt) for attempt in range(5)] == [1, 3, 9, 27, 30]


def test_only_whole_part_10_files_are_sent(tmp_path: Path) -> None:
    file = tmp_path / "a.dcm"
    meta = struct.pack("<HH2sHI", 2, 0, b"UL", 4, 10) + b"0123456789"
    file.write_bytes(bytes(128) + b"DICM" + meta + b"dataset")
    assert file.read_bytes()[data_set_offset(file) :] == b"dataset"
    for broken in (b"", bytes(500), bytes(128) + b"DICM" + b"\x08" * 20, bytes(128) + b"DICM" + meta[:-1]):
        file.write_bytes(broken)
        with pytest.raises(ProofFailed):
            data_set_offset(file)


def test_a_publisher_that_is_not_configured() -> None:
    with pytest.raises(ConfigurationError, match="configured are rimage"):
        publisher_of("other", Settings())
    with pytest.raises(ValueError, match="no text encoding"):
        Robot(kind="epson", directory=Path("in"), label_encoding="ansi-thai")


CT_PLAIN = Context(CT, PLAIN)


def _pdv(context_id: int, header: int, fragment: bytes) -> bytes:
    return struct.pack(">BxIIBB", 4, len(fragment) + 6, len(fragment) + 2, context_id, header) + fragment


def _response(message_id: int, status: int) -> bytes:
    elements = b"".join(
        struct.pack("<HHIH", 0, element, 2, value)
        for element, value in ((0x0100, 0x8001), (0x0120, message_id), (0x0800, 0x0101), (0x0900, status))
    )
    return struct.pack("<HHII", 0, 0, 4, len(elements)) + elements


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (_pdv(1, 3, _response(7, 0)), "another message"),
        (_pdv(3, 3, _response(1, 0)), "context 3, which isn't accepted"),
        (_pdv(1, 3, b"nonsense"), "malformed|another"),
        (_pdv(1, 2, b"a dataset"), "a data set without a command"),
        (struct.pack(">BxI", 4, 8) + b"\xff" * 8, "a PDV that claims"),
        (struct.pack(">BxI", 5, 4) + bytes(4), "ended the association"),
        (struct.pack(">BxI", 7, 4) + bytes(4), "aborted"),
        (b"", "closed the connection"),
    ],
)
def test_nonsense_instead_of_a_response_is_a_lost_association(tmp_path: Path, answer: bytes, words: str) -> None:
    (tmp_path / "dataset").write_bytes(b"dataset")
    with requestor_to({1: CT_PLAIN}, 16_384) as (association, theirs):
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(AssociationLost, match=words):
            store(association, CT_PLAIN, "1.2.3", tmp_path / "dataset", 0, sha256_of(tmp_path / "dataset"))


@given(size=st.integers(0, 5000), offset=st.integers(0, 50), peer_pdu_bytes=st.sampled_from([0, 128, 1000, 16_384]))
def test_the_last_fragment_of_what_was_not_proved_never_leaves(size: int, offset: int, peer_pdu_bytes: int) -> None:
    with requestor_to({1: CT_PLAIN}, peer_pdu_bytes) as (association, theirs), tempfile.NamedTemporaryFile() as file:
        file.write(bytes(offset + size))
        file.flush()
        with pytest.raises(ProofFailed):
            store(association, CT_PLAIN, "1.2.3", Path(file.name), offset, hashlib.sha256(b"else").hexdigest())
        association.connection._socket.shutdown(socket.SHUT_WR)
        received = b""
        while part := theirs.recv(65_536):
            received += part
    headers = []
    while received:
        _, length, _, _, header = struct.unpack(">BxIIBB", received[:12])
        headers.append(header)
        received = received[6 + length :]
    assert 2 not in headers


@given(size=st.integers(0, 5000), offset=st.integers(0, 50), peer_pdu_bytes=st.sampled_from([0, 128, 1000, 16_384]))
def test_the_bytes_that_leave_are_those_of_the_file_in_pdus_that_the_peer_takes(
    size: int, offset: int, peer_pdu_bytes: int
) -> None:
    content = bytes(index % 251 for index in range(offset + size))
    with requestor_to({1: CT_PLAIN}, peer_pdu_bytes) as (association, theirs), tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        theirs.sendall(_pdv(1, 1, _response(1, 0xB000)[:20]) + _pdv(1, 3, _response(1, 0xB000)[20:]))
        sha256 = hashlib.sha256(content).hexdigest()
        answer = store(association, CT_PLAIN, "1.2.3", Path(file.name), offset, sha256)
        assert answer.status == 0xB000
        association.connection._socket.shutdown(socket.SHUT_WR)
        received = b""
        while part := theirs.recv(65_536):
            received += part
    command, dataset, last = b"", b"", []
    while received:
        kind, length, pdv_length, context_id, header = struct.unpack(">BxIIBB", received[:12])
        assert (kind, pdv_length, context_id) == (4, length - 4, 1)
        assert length <= (peer_pdu_bytes or 1_000_000)
        fragment, received = received[12 : 6 + length], received[6 + length :]
        command, dataset = (command + fragment, dataset) if header & 1 else (command, dataset + fragment)
        last.append(header)
    assert dataset == content[offset:]
    assert b"1.2.3" in command
    assert sorted(header for header in last if header & 2) == [2, 3]
    assert last[-1] == 2
