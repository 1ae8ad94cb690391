"""Command sets, against pynetdicom's codec."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID
from pynetdicom.dimse_messages import C_STORE_RQ as StoreRequest
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode

from mkiso.receiver import dimse
from mkiso.receiver.dimse import parse_command, response
from mkiso.receiver.pdu import ProtocolError
from tests.receiver.raw_peer import CT, command


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
    assert request == dimse.Command(dimse.C_STORE_RQ, 7, True, CT, "1.2.3", "MKISO")


@pytest.mark.parametrize("status", [dimse.SUCCESS, dimse.OUT_OF_RESOURCES])
def test_a_response_is_read_by_pynetdicom(status: int) -> None:
    encoded = response(parse_command(store_request()), status)
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
            response(parse_command(mangled), dimse.SUCCESS)
        except ProtocolError:
            continue
