"""DIMSE messages as bytes, held against pynetdicom's own reading of them."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence
from pynetdicom.dsutils import decode, encode

from mkiso.network import dimse


def test_a_command_is_what_pynetdicom_reads() -> None:
    command = dimse.encode_command(
        {
            dimse.COMMAND_FIELD: dimse.C_MOVE_RQ,
            dimse.AFFECTED_SOP_CLASS_UID: "1.2.840.10008.5.1.4.1.2.2.2",
            dimse.MESSAGE_ID: 7,
            dimse.MOVE_DESTINATION: "CDRECORD1",
            dimse.COMMAND_DATA_SET_TYPE: dimse.DATA_SET,
        }
    )
    read = decode(BytesIO(command), True, True)
    assert read.CommandGroupLength == len(command) - 12
    assert (read.AffectedSOPClassUID, read.MessageID, read.MoveDestination) == (
        "1.2.840.10008.5.1.4.1.2.2.2",
        7,
        "CDRECORD1",
    )
    assert read.CommandField == 0x0021 and read.CommandDataSetType == 1


def test_a_response_of_pynetdicom_is_read() -> None:
    command = Dataset()
    command.CommandField = 0x8021
    command.MessageIDBeingRespondedTo = 7
    command.CommandDataSetType = 0x0101
    command.Status = 0xB000
    command.ErrorComment = "two of three"
    (
        command.NumberOfCompletedSuboperations,
        command.NumberOfFailedSuboperations,
        command.NumberOfWarningSuboperations,
    ) = 2, 1, 0
    encoded = encode(command, True, True)
    assert encoded is not None and not dimse.awaits_identifier(encoded)
    assert dimse.response(encoded, b"") == dimse.Response(7, 0xB000, "two of three", None, 2, 1, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 7,
        b"\0\0\0\1\xff\0\0\0",
        b"",
        dimse.encode_command({dimse.COMMAND_FIELD: dimse.C_FIND_RQ, dimse.STATUS: 0}),
    ],
)
def test_what_is_no_response_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        dimse.response(data, b"")


@pytest.mark.parametrize("undefined_length", [False, True])
def test_a_uid_is_read_with_and_without_sequences(undefined_length: bool) -> None:
    identifier, item = Dataset(), Dataset()
    item.CodeValue = "1"
    identifier.SOPInstanceUID = "1.2.3"
    identifier.ProcedureCodeSequence = Sequence([item])
    identifier["ProcedureCodeSequence"].is_undefined_length = undefined_length
    response = dimse.Response(1, 0xFF00, identifier=dimse.encode_identifier(identifier))
    assert response.uid(0x00080018) == "1.2.3"
    assert response.uid(0x0020000E) == ""


@pytest.mark.parametrize("max_pdu_bytes", [0, 7, 64, 16_384])
def test_fragments_fit_the_peer_and_make_the_message(max_pdu_bytes: int) -> None:
    command, identifier = dimse.encode_command({dimse.COMMAND_FIELD: dimse.C_FIND_RQ}), bytes(range(200))
    sent, parts, last = dimse.pdus(3, command, identifier, max_pdu_bytes), {1: b"", 0: b""}, []
    while sent:
        length = int.from_bytes(sent[2:6], "big")
        assert sent[0] == 4 and (not max_pdu_bytes or length <= max_pdu_bytes)
        for control, fragment in dimse.fragments(sent[6 : 6 + length]):
            parts[control & 1] += fragment
            last += [control] if control & 2 else []
        sent = sent[6 + length :]
    assert parts == {1: command, 0: identifier} and last == [3, 2]


@pytest.mark.parametrize("body", [b"\0\0\0", b"\0\0\0\xff\1\3x", b"\0\0\0\1\1\3", b"\0\0\0\2\1\1"])
def test_wrong_fragments_are_errors(body: bytes) -> None:
    with pytest.raises(ValueError):
        list(dimse.fragments(body))
