"""A-ASSOCIATE-RQ, -AC and -RJ as bytes (PS3.8 9.3.2-9.3.4, PS3.7 D.3), for both roles.

Our own, since pynetdicom's codec refuses what dcmtk and Orthanc take: names padded with NUL or in Latin-1, long version
names, items that nobody knows. What is read is no stricter than it has to be: an item of an unknown kind is skipped
(PS3.8 9.3.1), and so is a malformed one that nothing depends on. What was unusual is told in `oddities`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mkiso.network.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, ProtocolError

APPLICATION_CONTEXT_NAME = "1.2.840.10008.3.1.1.1"

_APPLICATION_CONTEXT, _PROPOSED_CONTEXT, _ANSWERED_CONTEXT = 0x10, 0x20, 0x21
_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX, _USER_INFORMATION = 0x30, 0x40, 0x50
_MAXIMUM_LENGTH, _IMPLEMENTATION_CLASS_UID, _WINDOW, _ROLE, _IMPLEMENTATION_VERSION_NAME, _EXTENDED = range(0x51, 0x57)
_KNOWN_USER_ITEMS = range(0x51, 0x5A)

_FIXED = struct.Struct(">H2x16s16s32s")
_HEAD = struct.Struct(">BxI")
_ITEM = struct.Struct(">BxH")
_MAX_ODDITIES = 8


class Proposal(NamedTuple):
    """A presentation context that is proposed."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: list[str]


class Result(NamedTuple):
    """The answer to a proposal (PS3.8 9.3.3.2)."""

    context_id: int
    result: int
    transfer_syntax: str


@dataclass(slots=True)
class UserInformation:
    """What one side says of itself (PS3.7 D.3.3). `max_pdu_bytes` 0: any. `roles`: whether the requestor is SCU, and
    SCP, of a SOP class; `extended` as it stands."""

    max_pdu_bytes: int = 0
    implementation_class_uid: str = ""
    implementation_version_name: str = ""
    window: tuple[int, int] | None = None
    roles: dict[str, tuple[bool, bool]] = field(default_factory=dict)
    extended: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Associate:
    """An A-ASSOCIATE-RQ or -AC. The AE titles as they came, 16 bytes each; of a request `proposals`, of an answer
    `results`."""

    protocol_version: int
    called: bytes
    calling: bytes
    application_context_name: str = ""
    proposals: list[Proposal] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    user: UserInformation = field(default_factory=UserInformation)
    oddities: list[str] = field(default_factory=list)

    @property
    def called_ae_title(self) -> str:
        return ae_title(self.called)

    @property
    def calling_ae_title(self) -> str:
        return ae_title(self.calling)

    def odd(self, words: str) -> None:
        if words not in self.oddities and len(self.oddities) < _MAX_ODDITIES:
            self.oddities.append(words)


def ae_title(padded: bytes) -> str:
    """An AE title without its padding, which some end with NUL; Latin-1, since each byte is a character there."""
    return padded.partition(b"\0")[0].decode("latin-1").strip()


def decode(body: bytes | memoryview, kind: int) -> Associate:
    """The body of an A-ASSOCIATE-RQ or -AC, which `kind` says. Raises ProtocolError with the cause where it can't be
    read."""
    name = "association request" if kind == A_ASSOCIATE_RQ else "answer to the association request"
    body = bytes(body)
    if len(body) < _FIXED.size:
        raise ProtocolError(f"sent an {name} of {len(body)} bytes, which is too short")
    version, called, calling, _ = _FIXED.unpack_from(body)
    read = Associate(version, called, calling)
    if any(b"\0" in title or not title.isascii() for title in (called, calling)):
        read.odd("AE titles with NUL or beyond ASCII")
    for item, value in _items(body[_FIXED.size :], name):
        if item == _APPLICATION_CONTEXT:
            read.application_context_name = _uid(value)
        elif item == _PROPOSED_CONTEXT and kind == A_ASSOCIATE_RQ:
            _take_proposal(read, value, name)
        elif item == _ANSWERED_CONTEXT and kind == A_ASSOCIATE_AC:
            _take_result(read, value, name)
        elif item == _USER_INFORMATION:
            _take_user_information(read, value, name)
        else:
            read.odd(f"an item of type {item:02X}")
    return read


def encode(associate: Associate, kind: int) -> bytes:
    """An A-ASSOCIATE-RQ or -AC."""
    items = [_item(_APPLICATION_CONTEXT, associate.application_context_name.encode("latin-1"))]
    for context_id, abstract_syntax, transfer_syntaxes in associate.proposals:
        syntaxes = [(_ABSTRACT_SYNTAX, abstract_syntax), *((_TRANSFER_SYNTAX, syntax) for syntax in transfer_syntaxes)]
        inside = b"".join(_item(each, uid.encode("latin-1")) for each, uid in syntaxes)
        items.append(_item(_PROPOSED_CONTEXT, struct.pack(">B3x", context_id) + inside))
    for context_id, result, transfer_syntax in associate.results:
        inside = _item(_TRANSFER_SYNTAX, transfer_syntax.encode("latin-1"))
        items.append(_item(_ANSWERED_CONTEXT, struct.pack(">BxBx", context_id, result) + inside))
    items.append(_item(_USER_INFORMATION, b"".join(_user_items(associate.user))))
    fixed = _FIXED.pack(associate.protocol_version, associate.called, associate.calling, bytes(32))
    body = fixed + b"".join(items)
    return _HEAD.pack(kind, len(body)) + body


def rejection_pdu(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    return _HEAD.pack(A_ASSOCIATE_RJ, 4) + bytes((0, result, source, reason))


def padded_ae_title(title: str) -> bytes:
    """An AE title as PS3.8 9.3.2 has it."""
    return title.encode("latin-1").ljust(16)[:16]


def _user_items(user: UserInformation) -> Iterator[bytes]:
    yield _item(_MAXIMUM_LENGTH, struct.pack(">I", user.max_pdu_bytes))
    yield _item(_IMPLEMENTATION_CLASS_UID, user.implementation_class_uid.encode("ascii"))
    if user.window is not None:
        yield _item(_WINDOW, struct.pack(">HH", *user.window))
    for uid, (scu, scp) in user.roles.items():
        yield _item(_ROLE, _counted(uid) + bytes((scu, scp)))
    yield _item(_IMPLEMENTATION_VERSION_NAME, user.implementation_version_name.encode("ascii"))
    for uid, information in user.extended.items():
        yield _item(_EXTENDED, _counted(uid) + information)


def _take_proposal(read: Associate, value: bytes, name: str) -> None:
    if len(value) < 4:
        raise ProtocolError(f"sent an {name} with a presentation context that is cut short")
    abstract_syntaxes, transfer_syntaxes = [], []
    for item, uid in _items(value[4:], name):
        if item == _ABSTRACT_SYNTAX:
            abstract_syntaxes.append(_uid(uid))
        elif item == _TRANSFER_SYNTAX:
            transfer_syntaxes.append(_uid(uid))
        else:
            read.odd(f"an item of type {item:02X} in a presentation context")
    context_id = value[0]
    if context_id % 2 == 0:
        read.odd("presentation context IDs that are even")
    if len(abstract_syntaxes) != 1:
        read.odd("a presentation context without one abstract syntax")
    if any(context_id == proposal.context_id for proposal in read.proposals):  # at most 256, by their byte
        read.odd("a presentation context ID twice")
        return
    read.proposals.append(Proposal(context_id, abstract_syntaxes[0] if abstract_syntaxes else "", transfer_syntaxes))


def _take_result(read: Associate, value: bytes, name: str) -> None:
    if len(value) < 4:
        raise ProtocolError(f"sent an {name} with a presentation context that is cut short")
    # What stands in a context that is refused isn't significant (PS3.8 9.3.3.2).
    syntaxes = [_uid(uid) for item, uid in _items(value[4:], name) if item == _TRANSFER_SYNTAX] if not value[2] else []
    read.results.append(Result(value[0], value[2], syntaxes[0] if syntaxes else ""))


def _take_user_information(read: Associate, value: bytes, name: str) -> None:
    user = read.user
    for item, data in _items(value, name):
        try:
            if item == _MAXIMUM_LENGTH:
                (user.max_pdu_bytes,) = struct.unpack(">I", data)
            elif item == _IMPLEMENTATION_CLASS_UID:
                user.implementation_class_uid = _uid(data)
            elif item == _IMPLEMENTATION_VERSION_NAME:
                user.implementation_version_name = data.decode("latin-1").strip(" \0")
                if not 0 < len(data) <= 16 or not data.isascii() or b"\0" in data:
                    read.odd("an implementation version name that isn't one")
            elif item == _WINDOW:
                invoked, performed = struct.unpack(">HH", data)
                user.window = invoked, performed
            elif item == _ROLE:
                uid, rest = _split(data)
                user.roles[uid] = bool(rest[0]), bool(rest[1])
            elif item == _EXTENDED:
                uid, user.extended[uid] = _split(data)
            elif item not in _KNOWN_USER_ITEMS:
                read.odd(f"user information of type {item:02X}")
        except (struct.error, IndexError):
            read.odd(f"malformed user information of type {item:02X}")


def _items(data: bytes, name: str) -> Iterator[tuple[int, bytes]]:
    """Items or sub-items: kind and value."""
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < _ITEM.size:
            raise ProtocolError(f"sent an {name} that ends inside an item's head")
        kind, length = _ITEM.unpack_from(data, offset)
        offset += _ITEM.size
        if length > end - offset:
            raise ProtocolError(f"sent an {name} with an item of type {kind:02X} that claims {length} bytes")
        yield kind, data[offset : offset + length]
        offset += length


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _counted(uid: str) -> bytes:
    return struct.pack(">H", len(uid)) + uid.encode("latin-1")


def _split(data: bytes) -> tuple[str, bytes]:
    """A UID with its length before it, and what follows. Raises struct.error, IndexError."""
    (length,) = struct.unpack_from(">H", data)
    if length > len(data) - 2:
        raise IndexError
    return _uid(data[2 : 2 + length]), data[2 + length :]


def _uid(value: bytes) -> str:
    return value.decode("latin-1").strip(" \0")
