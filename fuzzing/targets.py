"""What fuzzing throws bytes at: everything that the receiver reads of a peer, each with the seeds to begin from and
what must hold.

A target returns where the bytes were read, or refused as the code under it says of itself. Whatever else comes out of
it is a finding: an exception that no docstring names, or an AssertionError where two readings of the same bytes differ.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Event

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ

from mkiso.config.settings import Receiver as ReceiverSettings
from mkiso.dataset.header import Identity, begin_identity, begin_study, read_header, read_identity
from mkiso.dataset.part10 import file_head
from mkiso.errors import DamagedInstance
from mkiso.network import dimse, pdu
from mkiso.network.dimse import Response
from mkiso.network.negotiation import ACCEPTED, Acceptance, decode_request, negotiate
from mkiso.receiver.negotiation import storage_offer
from mkiso.sources.answers import STUDY_KEYS, Answers, found_by_date, read, study_of
from mkiso.study.identity import significant
from mkiso.study.models import Study
from peers import raw_peer

MAX_PDU_BYTES = 256  # small, so that fuzzed bytes reach the bound and the buffer has to move and to grow
STALL_SECONDS = 0.002

EXPLICIT, IMPLICIT, BIG_ENDIAN, GE_IMPLICIT = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.113619.5.2",
)
DEFLATED = "1.2.840.10008.1.2.1.99"
# A data set's first byte chooses one; True: what follows is deflated here, so that the fuzzer gets past zlib.
SYNTAXES = (
    (EXPLICIT, False),
    (IMPLICIT, False),
    (BIG_ENDIAN, False),
    (GE_IMPLICIT, False),
    (DEFLATED, False),
    (DEFLATED, True),
)
IDENTIFYING = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID")
MAX_CONTINUED_BYTES = 256 * 1024  # of a data set whose beginning alone is fuzzed


@dataclass(frozen=True)
class Target:
    """`words` are byte strings that the fuzzer puts in by themselves."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    max_bytes: int
    words: tuple[bytes, ...] = ()


class _Piecewise(socket.socket):
    """A Unix socket that passes for a TCP one and gives what it has in pieces."""

    piece = 1

    def setsockopt(self, level: int, *rest: object) -> None:
        if level != socket.IPPROTO_TCP:
            super().setsockopt(level, *rest)  # type: ignore[call-overload]

    def recv_into(self, buffer: memoryview, nbytes: int = 0, flags: int = 0) -> int:  # type: ignore[override]
        return super().recv_into(buffer, min(self.piece, len(buffer)), flags)


def framing(data: bytes) -> None:
    """`Connection.next_pdu` and `pdvs`.

    The first byte says whether an association is there and whether the peer stalls, the second how large the pieces
    are.
    """
    if len(data) < 2:
        return
    associated, stalls, sent = bool(data[0] & 1), data[0] & 0xE == 0xE, data[2:]
    if stalls:
        assert _pdus(sent, 1 << 16, associated, stalls=True)[-1] in ("Stalled", "ProtocolError")
        return
    whole = _pdus(sent, 1 << 16, associated)
    assert whole == _pdus(sent, data[1] + 1, associated), "the PDUs depend on the pieces that they come in"
    assert whole[-1] in ("PeerGone", "ProtocolError")


def _pdus(sent: bytes, piece: int, associated: bool, stalls: bool = False) -> list[object]:
    """Every PDU of a stream, and the name of the exception that ended it."""
    ours, peer = socket.socketpair()
    end = _Piecewise(fileno=ours.detach())
    end.piece = piece
    connection = pdu.Connection(end, MAX_PDU_BYTES, STALL_SECONDS if stalls else 60, Event())
    found: list[object] = []
    offset = 0
    try:
        peer.sendall(sent)
        if not stalls:
            peer.shutdown(socket.SHUT_WR)
        while True:
            kind, body = connection.next_pdu(
                STALL_SECONDS if stalls else 60, pdu.ESTABLISHED if associated else pdu.REQUEST
            )
            assert (kind, bytes(body)) == (sent[offset], sent[offset + 6 : offset + 6 + len(body)]), (
                "a PDU that wasn't sent"
            )
            offset += 6 + len(body)
            found.append((kind, bytes(body)))
            if kind == pdu.P_DATA_TF:
                values = list(pdu.pdvs(body))
                assert sum(len(value.data) + 6 for value in values) == len(body)
                assert all(value.data or value.is_last for value in values), "an empty fragment counts as progress"
    except (pdu.PeerGone, pdu.ProtocolError, pdu.Stalled) as error:
        found.append(type(error).__name__)
    finally:
        peer.close()
        connection.close()
    return found


def association(data: bytes) -> None:
    """`decode_request` and `negotiate` of an A-ASSOCIATE-RQ's body; what is answered is read back with pynetdicom."""
    try:
        request = decode_request(data)
    except pdu.ProtocolError:
        return
    answer = negotiate(request, storage_offer(ReceiverSettings(ae_title="CDRECORD")), "10.0.0.1")
    if not isinstance(answer, Acceptance):
        assert answer.words
        A_ASSOCIATE_RJ().decode(answer.pdu)
        return
    assert len(answer.pdu) <= 1024 + 2 * len(data), "the answer outgrows the request"
    read = A_ASSOCIATE_AC()
    read.decode(answer.pdu)
    proposed = {item.context_id: item for item in request.proposals}
    assert [item.context_id for item in read.presentation_context] == list(proposed)
    accepted = {
        item.context_id: str(item.transfer_syntax) for item in read.presentation_context if item.result == ACCEPTED
    }
    assert accepted == {identifier: context.transfer_syntax for identifier, context in answer.contexts.items()}
    for identifier, context in answer.contexts.items():
        assert context.abstract_syntax == proposed[identifier].abstract_syntax
        assert context.transfer_syntax in proposed[identifier].transfer_syntaxes


def command(data: bytes) -> None:
    """`parse_command`, and our answer to the command read back by it."""
    try:
        request = dimse.parse_command(data)
    except pdu.ProtocolError:
        return
    answer = dimse.encode_command(dimse.answer_to(request, dimse.SUCCESS))
    assert int.from_bytes(answer[8:12], "little") == len(answer) - 12
    read = dimse.parse_command(answer)
    uids = request.affected_sop_class_uid, request.affected_sop_instance_uid
    assert (read.field, read.message_id, read.has_data_set) == (
        request.field | dimse.RESPONSE,
        request.message_id,
        False,
    )
    assert (read.affected_sop_class_uid, read.affected_sop_instance_uid) == uids


def data_set(data: bytes) -> None:
    """`begin_identity`, `begin_study`, `read_identity` and `read_header` of one data set: they say the same or refuse
    it.

    The first byte chooses the transfer syntax, the next two how much of the data set is its beginning.
    """
    if len(data) < 3:
        return
    (syntax, is_packed), encoded = SYNTAXES[data[0] % len(SYNTAXES)], data[3:]
    if is_packed:
        deflate = zlib.compressobj(1, wbits=-15)
        encoded = deflate.compress(encoded) + deflate.flush()
    identity = _identity(encoded, syntax)
    beginning = encoded[: int.from_bytes(data[1:3], "big") % (len(encoded) + 1)]
    study = begin_study(beginning, syntax)
    assert identity is None or study in ("", identity.study_instance_uid), (
        "a beginning names another study than the whole"
    )
    begun = begin_identity(beginning, syntax)
    if begun is not None:
        said, size = begun
        if size == len(encoded):
            assert said == identity, "a beginning says something else than the whole"
        if 0 < size <= MAX_CONTINUED_BYTES:
            continued = (encoded + bytes(size))[:size]
            assert said == _identity(continued, syntax), "a beginning doesn't hold for all that may follow"
    _compare_header(encoded, syntax, identity)


def answer(data: bytes) -> None:
    """A C-FIND's answer: a study, or damaged."""
    response = Response(1, 0xFF00, identifier=data)
    response.uid(0x00080018)
    found = found_by_date(Answers([response], 0))
    assert len(found.studies) + len(found.unusable) == found.sent == 1
    try:
        study = study_of(read(response))
    except DamagedInstance:
        study = Study("", "", "")
    assert (study,) == found.studies + found.unusable


def _identity(encoded: bytes, syntax: str) -> Identity | None:
    """What `read_identity` says; None where the data set is damaged."""
    file = _folder() / "data_set"
    file.write_bytes(b"head" + encoded)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return read_identity(descriptor, 4, syntax, _folder())
    except DamagedInstance:
        return None
    finally:
        os.close(descriptor)


def _compare_header(encoded: bytes, syntax: str, identity: Identity | None) -> None:
    file = _folder() / "instance"
    file.write_bytes(file_head("1.2.3", "1.2.3.1", syntax) + encoded)
    try:
        header = read_header(file)
    except DamagedInstance:
        return
    assert identity is not None, "a header of what has no identity"
    # As they lie there, before pydicom decodes them.
    values = [header.get_item(keyword).value or b"" if keyword in header else b"" for keyword in IDENTIFYING]
    assert Identity(*(value.decode("latin-1").strip(" \0") for value in values)) == identity, (
        "the header is another instance's"
    )
    # And decoded, as a job compares them; pydicom says how, once.
    str(header.get("PatientName"))
    for keyword, value in zip(IDENTIFYING, values, strict=True):
        decoded = significant(header.get(keyword))
        is_plain = (
            value.strip(b" \0").isascii() and value.strip(b" \0").decode("ascii").isprintable() and b"\\" not in value
        )
        if is_plain and (keyword != "PatientID" or "SpecificCharacterSet" not in header):
            assert decoded == value.decode("ascii").strip(" \0"), "a job reads another value than the receiver"


@cache
def _place() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


def _folder() -> Path:
    return Path(_place().name)


def _framing_seeds() -> Iterator[bytes]:
    request, echo = raw_peer.associate_rq(), raw_peer.command(0x30, sop_class=raw_peer.VERIFICATION, data_set=False)
    many = raw_peer.associate_rq(
        {f"1.2.840.10008.5.1.4.1.1.{number}": [EXPLICIT, IMPLICIT, DEFLATED] for number in range(60)}
    )
    store = raw_peer.p_data(raw_peer.command(1, sop_instance="1.2.3"), control=3)
    streams = [
        (0, request),
        (0, many),
        (0, raw_peer.ABORT_PDU),
        (1, raw_peer.p_data(echo, control=3) + raw_peer.RELEASE_RQ_PDU),
        (
            1,
            store
            + raw_peer.p_data(bytes(100), b"abc", control=0) * 3
            + raw_peer.p_data(b"", control=2)
            + raw_peer.ABORT_PDU,
        ),
        (1, raw_peer.p_data(bytes(MAX_PDU_BYTES - 6), control=0) * 20),
        (1, store[:-1]),
    ]
    for associated, stream in streams:
        for flags in (associated, associated | 0xE):
            yield bytes((flags, 40)) + stream


def _association_seeds() -> Iterator[bytes]:
    yield raw_peer.associate_rq()[6:]
    yield raw_peer.associate_rq(
        {"1.2.840.113619.4.26": [DEFLATED, "1.2.3.999"], raw_peer.CT: [IMPLICIT, EXPLICIT, BIG_ENDIAN]}
    )[6:]
    yield raw_peer.associate_rq({raw_peer.CT: [EXPLICIT]}, user_items=raw_peer.every_user_item())[6:]
    yield raw_peer.associate_rq(called="ELSE")[6:]


def _command_seeds() -> Iterator[bytes]:
    yield raw_peer.command(dimse.C_STORE_RQ, sop_instance="1.2.3.4")
    yield raw_peer.command(dimse.C_ECHO_RQ, sop_class=raw_peer.VERIFICATION, data_set=False)
    yield struct.pack("<HHIHHHIHHHIH", 0, 0x0100, 2, dimse.C_CANCEL_RQ, 0, 0x0120, 2, 9, 0, 0x0800, 2, 0x0101)


def _answer_seeds() -> Iterator[bytes]:
    from pydicom import Dataset
    from pydicom.sequence import Sequence

    from mkiso.network.dimse import encode_data_set
    from peers.corpus import JAPANESE, THAI

    for person in (JAPANESE, THAI):
        identifier = Dataset()
        identifier.SpecificCharacterSet = person.character_set
        for keyword in STUDY_KEYS:
            setattr(identifier, keyword, "")
        identifier.PatientName, identifier.StudyInstanceUID, identifier.NumberOfStudyRelatedInstances = (
            person.name,
            "1.2.3",
            12,
        )
        identifier.ModalitiesInStudy, identifier.ReferencedStudySequence = ["CT", "SR"], Sequence([Dataset()])
        yield encode_data_set(identifier)


def _corpus() -> Iterator[tuple[str, bytes]]:
    """The transfer syntax and data set of every kind of instance, but for most of its pixels."""
    from pydicom import dcmread

    from peers.corpus import EVERY_KIND, JAPANESE, dataset_bytes, make_study

    with tempfile.TemporaryDirectory() as place:
        for file in make_study(Path(place), "A1", patient=JAPANESE, kinds=dict.fromkeys(EVERY_KIND, 1)):
            whole = dcmread(file)
            if len(whole.get("PixelData", b"")) > 64 and not whole.file_meta.TransferSyntaxUID.is_compressed:
                whole.PixelData = whole.PixelData[:64]
                whole.save_as(file, enforce_file_format=True)
            yield str(whole.file_meta.TransferSyntaxUID), dataset_bytes(file)


def _data_set_seeds() -> Iterator[bytes]:
    chosen = [syntax for syntax, _ in SYNTAXES]
    cuts = random.Random(1)
    small = raw_peer.data_set("1.2.3.1", "1.2.3")
    for syntax, encoded in [*_corpus(), (EXPLICIT, small), (EXPLICIT, raw_peer.nested(3) + small)]:
        mode = chosen.index(syntax) if syntax in chosen else 0
        for cut in (len(encoded), cuts.randrange(len(encoded))):
            yield bytes((mode,)) + cut.to_bytes(3, "big")[-2:] + encoded
        if mode == 0:
            yield bytes((len(SYNTAXES) - 1, 0, 0)) + encoded


def _tags(*tags: int) -> tuple[bytes, ...]:
    return tuple(struct.pack(order + "HH", tag >> 16, tag & 0xFFFF) for tag in tags for order in "<>")


_DATA_SET_WORDS = (
    *_tags(0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x00080005, 0x00080016, 0x00080018, 0x00100020, 0x0020000D, 0x0020000E),
    *_tags(0x00081115, 0x0040A043, 0x0040A730, 0x7FE00010),
    *(name.encode() for name in ("ISO_IR 192", "ISO_IR 13", "ISO 2022 IR 149", "GBK", "hex", "idna", "utf_7")),
    b"\xff\xff\xff\xff", b"\xff\xff", b"SQ\0\0", b"UN\0\0", b"OB\0\0", b"OW\0\0", b"UT\0\0", b"UI", b"LO", b"FD", b"PN",
    b"\x1b$B",
)  # fmt: skip

_ASSOCIATION_WORDS = tuple(
    bytes((item, 0)) for item in (0x10, 0x20, 0x30, 0x40, 0x50, *range(0x51, 0x5A))
)  # PS3.8 9.3.2, PS3.7 D.3.3

TARGETS = {
    "framing": Target(framing, _framing_seeds, 16 * 1024, tuple(bytes((kind, 0, 0, 0)) for kind in range(9))),
    "association": Target(association, _association_seeds, 4096, _ASSOCIATION_WORDS),
    "command": Target(command, _command_seeds, 512, _tags(0x0002, 0x0100, 0x0110, 0x0120, 0x0800, 0x0900, 0x1000)),
    "data_set": Target(data_set, _data_set_seeds, 4096, _DATA_SET_WORDS),
    "answer": Target(answer, _answer_seeds, 2048, _DATA_SET_WORDS),
}
