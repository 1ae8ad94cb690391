"""The head of a Part 10 file: preamble, prefix and File Meta Information (PS3.10 7.1), written here and read here.

Where a disc is proved it is read once more, by code of its own (mkiso.formats.disc_check).
"""

from __future__ import annotations

import struct

from mkiso.dataset.elements import EXPLICIT_LITTLE, unpadded, value_so_far
from mkiso.errors import DamagedInstance
from mkiso.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

HEAD_BYTES = 144  # up to the end of the group's length
MAX_META_BYTES = 64 * 1024

_TRANSFER_SYNTAX_UID = 0x00020010
_GROUP_LENGTH = struct.pack("<HH2sH", 0x0002, 0x0000, b"UL", 4)
_PREFIX = bytes(128) + b"DICM" + _GROUP_LENGTH


def file_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """What stands before a data set. Nothing of a peer or the time is in it: the same instance is the same file."""
    meta = b"".join((
        b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01",
        _element(0x0002, b"UI", sop_class_uid),
        _element(0x0003, b"UI", sop_instance_uid),
        _element(0x0010, b"UI", transfer_syntax_uid),
        _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
        _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
    ))  # fmt: skip
    return _PREFIX + struct.pack("<I", len(meta)) + meta


def data_set_offset(head: bytes, size: int) -> int:
    """Where the data set of a file of `size` bytes begins, by its first HEAD_BYTES. Raises DamagedInstance."""
    if len(head) < HEAD_BYTES or head[128:140] != _PREFIX[128:]:
        raise DamagedInstance("The file has no DICOM File Meta Information.")
    length = int.from_bytes(head[140:144], "little")
    if length > MAX_META_BYTES or HEAD_BYTES + length > size:
        raise DamagedInstance("The file's meta information is longer than it can be.")
    return HEAD_BYTES + length


def transfer_syntax_uid_in(meta: bytes) -> str:
    """The Transfer Syntax UID in what lies between HEAD_BYTES and the data set. Raises DamagedInstance."""
    value = value_so_far(meta, EXPLICIT_LITTLE, _TRANSFER_SYNTAX_UID)
    if value is None:
        raise DamagedInstance("The file's meta information names no transfer syntax.")
    return unpadded(value)


def _element(number: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii")
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", 0x0002, number, vr, len(value)) + value
