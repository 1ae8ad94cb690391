"""DIMSE messages as bytes (PS3.7 6.3, PS3.8 9.3.5): the command set, its identifier, and the PDUs that carry them.

Responses come by the thousand while images arrive in the same process, so a command set is read with a dozen struct
calls instead of a Dataset.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydicom import Dataset
from pynetdicom.dsutils import encode

from mkiso.dataset.elements import IMPLICIT_LITTLE
from mkiso.dataset.elements import elements as walked
from mkiso.errors import DamagedInstance

# PS3.7 E.1, group 0000: the elements that a Query/Retrieve SCU sends or reads
AFFECTED_SOP_CLASS_UID = 0x0002
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
MOVE_DESTINATION = 0x0600
PRIORITY = 0x0700
COMMAND_DATA_SET_TYPE = 0x0800
STATUS = 0x0900
ERROR_COMMENT = 0x0902
REMAINING, COMPLETED, FAILED, WARNING = 0x1020, 0x1021, 0x1022, 0x1023

C_FIND_RQ, C_MOVE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0020, 0x0021, 0x0030, 0x0FFF
NO_DATA_SET, DATA_SET = 0x0101, 0x0001

IS_COMMAND, IS_LAST = 0x01, 0x02  # the message control header (PS3.8 E.2)


@dataclass(frozen=True, slots=True)
class Response:
    """A DIMSE response: its status (PS3.7 C), the sub-operations where they are counted (C-MOVE), and the identifier's
    bytes, Implicit VR.
    """

    message_id: int
    status: int
    comment: str = ""
    remaining: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None
    identifier: bytes = b""

    @property
    def is_pending(self) -> bool:
        """FF00, and FF01: an optional key was not matched (PS3.4 C.4.1.1.4)."""
        return self.status in (0xFF00, 0xFF01)

    def uid(self, tag: int) -> str:
        """One UID of the identifier, empty where it isn't there or the identifier is damaged: a tenth of the time that
        a Dataset takes, for answers that come by the thousand."""
        data = self.identifier
        try:
            element = walked(data, 0, len(data), IMPLICIT_LITTLE, frozenset((tag,))).get(tag)
        except DamagedInstance:
            return ""
        value = b"" if element is None else data[element.offset : element.offset + element.length]
        return value.decode("ascii", "replace").strip(" \0")


def encode_command(elements: Mapping[int, int | str]) -> bytes:
    """A command set, always Implicit VR Little Endian (PS3.7 6.3.1), with its group length."""
    body = b"".join(_encode_element(element, value) for element, value in sorted(elements.items()))
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def encode_identifier(identifier: Dataset) -> bytes:
    """An identifier in Implicit VR Little Endian, the one syntax that we propose (PS3.5 10.1)."""
    encoded = encode(identifier, is_implicit_vr=True, is_little_endian=True)
    if encoded is None:
        raise ValueError("the identifier can't be encoded")
    return encoded


def elements(data: bytes) -> dict[int, bytes]:
    """The elements of a flat dataset in Implicit VR Little Endian by tag; raises ValueError where it is damaged or
    holds undefined lengths.
    """
    found: dict[int, bytes] = {}
    position = 0
    while position < len(data):
        if position + 8 > len(data):
            raise ValueError("a dataset ends within an element")
        group, element, length = struct.unpack_from("<HHI", data, position)
        position += 8
        if position + length > len(data):
            raise ValueError("an element is longer than its dataset")
        found[group << 16 | element] = data[position : position + length]
        position += length
    return found


def response(command: bytes, identifier: bytes) -> Response:
    """A response from its two parts; raises ValueError where it is none."""
    found = elements(command)
    status = _us(found.get(STATUS))
    if not (_us(found.get(COMMAND_FIELD)) or 0) & 0x8000 or status is None:
        raise ValueError("the message is no response")
    return Response(
        message_id=_us(found.get(MESSAGE_ID_BEING_RESPONDED_TO)) or 0,
        status=status,
        comment=found.get(ERROR_COMMENT, b"").decode("ascii", "replace").strip(" \0")[:64],
        remaining=_us(found.get(REMAINING)),
        completed=_us(found.get(COMPLETED)),
        failed=_us(found.get(FAILED)),
        warning=_us(found.get(WARNING)),
        identifier=identifier,
    )


def awaits_identifier(command: bytes) -> bool:
    """Whether a dataset follows this command set (PS3.7 E.1: anything but 0101)."""
    return _us(elements(command).get(COMMAND_DATA_SET_TYPE)) not in (None, NO_DATA_SET)


def pdus(context_id: int, command: bytes, identifier: bytes, max_pdu_bytes: int) -> bytes:
    """The P-DATA-TF PDUs of one message, none longer than the peer takes; 0 means no limit (PS3.8 D.1)."""
    room = max(max_pdu_bytes - 6, 1) if max_pdu_bytes else 1 << 20
    parts = [*_fragments(command, room, IS_COMMAND), *(_fragments(identifier, room, 0) if identifier else ())]
    return b"".join(
        struct.pack(">BBIIBB", 4, 0, len(part) + 6, len(part) + 2, context_id, control) + part
        for part, control in parts
    )


def fragments(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The (message control header, fragment) pairs of a P-DATA-TF PDU's body; raises ValueError where a length is
    wrong.
    """
    position = 0
    while position < len(body):
        if position + 6 > len(body):
            raise ValueError("a P-DATA-TF PDU ends within an item")
        length, _context_id, control = struct.unpack_from(">IBB", body, position)
        end = position + 4 + length
        if length < 2 or end > len(body):
            raise ValueError("a P-DATA-TF item is longer than its PDU")
        if length == 2 and not control & IS_LAST:
            raise ValueError("an empty fragment that isn't the last: endless ones would pass for progress")
        yield control, body[position + 6 : end]
        position = end


def _fragments(data: bytes, room: int, kind: int) -> Iterator[tuple[bytes, int]]:
    for start in range(0, len(data), room):
        yield data[start : start + room], kind | (IS_LAST if start + room >= len(data) else 0)


def _encode_element(element: int, value: int | str) -> bytes:
    if isinstance(value, int):
        return struct.pack("<HHIH", 0, element, 2, value)
    padding = " " if element == MOVE_DESTINATION else "\0"  # AE is padded with a space, UI with NUL (PS3.5 6.2)
    text = (value + padding * (len(value) % 2)).encode("ascii")
    return struct.pack("<HHI", 0, element, len(text)) + text


def _us(value: bytes | None) -> int | None:
    return int.from_bytes(value[:2], "little") if value else None
