"""Command sets and identifiers as bytes, held against pynetdicom's codec."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID
from pynetdicom.dimse_messages import C_STORE_RQ as StoreRequest
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode, encode

from mkiso.network import dimse
from mkiso.network.dimse import answer_to, encode_command, parse_command
from mkiso.network.pdu import ProtocolError
from peers.raw_peer import CT, command


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
    assert encoded is not None and not parse_command(encoded).has_data_set
    assert dimse.response(parse_command(encoded), b"") == dimse.Response(7, 0xB000, "two of three", None, 2, 1, 0)


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
    with pytest.raises(ProtocolError):
        dimse.response(parse_command(data), b"")


@pytest.mark.parametrize("undefined_length", [False, True])
def test_a_uid_is_read_with_and_without_sequences(undefined_length: bool) -> None:
    identifier, item = Dataset(), Dataset()
    item.CodeValue = "1"
    identifier.SOPInstanceUID = "1.2.3"
    identifier.ProcedureCodeSequence = Sequence([item])
    identifier["ProcedureCodeSequence"].is_undefined_length = undefined_length
    response = dimse.Response(1, 0xFF00, identifier=dimse.encode_data_set(identifier))
    assert response.uid(0x00080018) == "1.2.3"
    assert response.uid(0x0020000E) == ""


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\\^="), min_size=1, max_size=64))
@example("Doe")
@example("Müller")
@example("สมชาย")
def test_text_is_sent_as_what_it_is(name: str) -> None:
    identifier, item = Dataset(), Dataset()
    identifier.PatientName = item.PatientName = f"a{name}b"
    identifier.ReferencedPatientSequence = Sequence([item])
    encoded = dimse.encode_data_set(identifier)
    told = dimse.decode_data_set(encoded)
    assert told.PatientName == told.ReferencedPatientSequence[0].PatientName == f"a{name}b"
    latin_1 = name.encode("latin-1", "ignore").decode("latin-1") == name
    term = "" if name.isascii() else "ISO_IR 100" if latin_1 else "ISO_IR 192"
    assert told.get("SpecificCharacterSet", "") == term
    assert "SpecificCharacterSet" not in identifier


def store_request() -> bytes:
    primitive = C_STORE()
    primitive.MessageID, primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID, primitive.Priority = (
        7,
        CT,
        "1.2.3",
        1,
    )
    primitive.MoveOriginatorApplicationEntityTitle, primitive.MoveOriginatorMessageID = "MKISO", 3
    primitive.DataSet = BytesIO(b"\0\0")
    message: DIMSEMessage = StoreRequest()
    message.primitive_to_message(primitive)
    pdu = next(message.encode_msg(1, 16382))
    return bytes(pdu.presentation_data_value_list[0][1][1:])


def test_a_request_of_pynetdicom_is_read() -> None:
    request = parse_command(store_request())
    assert (request.field, request.message_id, request.has_data_set) == (dimse.C_STORE_RQ, 7, True)
    assert (request.affected_sop_class_uid, request.affected_sop_instance_uid, request.text(dimse.MOVE_ORIGINATOR)) == (
        CT,
        "1.2.3",
        "MKISO",
    )


@pytest.mark.parametrize("status", [dimse.SUCCESS, dimse.OUT_OF_RESOURCES])
def test_a_response_is_read_by_pynetdicom(status: int) -> None:
    encoded = encode_command(answer_to(parse_command(store_request()), status))
    answered = decode(BytesIO(encoded), True, True)
    assert answered.CommandGroupLength == len(encoded) - 12
    assert (
        answered.CommandField,
        answered.MessageIDBeingRespondedTo,
        answered.CommandDataSetType,
        answered.Status,
    ) == (0x8001, 7, 0x0101, status)
    assert (answered.AffectedSOPClassUID, answered.AffectedSOPInstanceUID) == (UID(CT), UID("1.2.3"))


@pytest.mark.parametrize(
    "encoded", [b"", b"\0" * 7, command(1)[:-1], command(1)[12:20], b"\0\0\0\1\4\0\0\0\1\0\0\0" + command(1)[22:]]
)
def test_what_is_no_command_set_is_a_protocol_error(encoded: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_command(encoded)


@given(st.binary(max_size=200), st.integers(0, 100))
def test_no_bytes_raise_anything_else(encoded: bytes, kept: int) -> None:
    for mangled in (encoded, command(1, sop_instance="1.2")[:kept] + encoded):
        try:
            encode_command(answer_to(parse_command(mangled), dimse.SUCCESS))
        except ProtocolError:
            continue
