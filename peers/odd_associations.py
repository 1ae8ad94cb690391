"""Association PDUs as odd peers send them, byte by byte, by no codec: what devices and libraries do beside PS3.8.

Each name in `REQUESTS` is an A-ASSOCIATE-RQ for CT Image Storage and Verification to CDRECORD, each in `ANSWERS` an
A-ASSOCIATE-AC to a request with Verification as context 1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

CT, VERIFICATION = b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.1.1"
IMPLICIT, EXPLICIT = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1"
APPLICATION = b"1.2.840.10008.3.1.1.1"
IMPLEMENTATION = b"1.2.3.4"


def item(kind: int, value: bytes, reserved: int = 0) -> bytes:
    return struct.pack(">BBH", kind, reserved, len(value)) + value


def counted(uid: bytes, rest: bytes) -> bytes:
    return struct.pack(">H", len(uid)) + uid + rest


APPLICATION_CONTEXT = item(0x10, APPLICATION)
MAXIMUM, CLASS, VERSION = item(0x51, struct.pack(">I", 16384)), item(0x52, IMPLEMENTATION), item(0x55, b"ODD_1")


def context(number: int, abstract_syntax: bytes, *syntaxes: bytes, more: bytes = b"", reserved: int = 0) -> bytes:
    inside = b"".join([item(0x30, abstract_syntax), *(item(0x40, syntax) for syntax in syntaxes)])
    return item(0x20, bytes((number, reserved, reserved, reserved)) + inside + more)


CONTEXTS = context(1, CT, EXPLICIT, IMPLICIT) + context(3, VERIFICATION, IMPLICIT)


def user(*more: bytes) -> bytes:
    return item(0x50, b"".join([MAXIMUM, CLASS, *(more or (VERSION,))]))


def pdu(
    kind: int,
    items: Iterable[bytes],
    called: bytes,
    calling: bytes,
    *,
    version: int = 1,
    reserved: bytes = bytes(32),
    head: int = 0,
) -> bytes:
    body = struct.pack(">HH", version, head) + called.ljust(16) + calling.ljust(16) + reserved + b"".join(items)
    return struct.pack(">BBI", kind, head & 0xFF, len(body)) + body


def request(
    *items: bytes,
    called: bytes = b"CDRECORD",
    calling: bytes = b"ODDPEER",
    version: int = 1,
    reserved: bytes = bytes(32),
) -> bytes:
    return pdu(
        1,
        items or (APPLICATION_CONTEXT, CONTEXTS, user()),
        called,
        calling,
        version=version,
        reserved=reserved,
    )


def of_user(*more: bytes) -> bytes:
    return request(APPLICATION_CONTEXT, CONTEXTS, user(*more))


def of_contexts(*contexts: bytes) -> bytes:
    return request(APPLICATION_CONTEXT, *contexts, user())


REQUESTS: Mapping[str, bytes] = {
    "called AE title padded with NUL": request(called=b"CDRECORD".ljust(16, b"\0")),
    "calling AE title padded with NUL": request(calling=b"ODDPEER".ljust(16, b"\0")),
    "both AE titles padded with NUL": request(called=b"CDRECORD".ljust(16, b"\0"), calling=b"ODDPEER".ljust(16, b"\0")),
    "AE title, NUL, then what was there before": request(called=b"CDRECORD\0GARBAGE"),
    "calling AE title in Latin-1": request(calling="RÖNTGEN".encode("latin-1")),
    "calling AE title in UTF-8": request(calling="RÖNTGEN".encode()),
    "calling AE title of NUL alone": request(calling=bytes(16)),
    "calling AE title empty": request(calling=b""),
    "calling AE title with spaces before it": request(calling=b"   ODDPEER"),
    "calling AE title with a control character": request(calling=b"ODD\x07PEER"),
    "calling AE title with a backslash": request(calling=b"ODD\\PEER"),
    "reserved bytes that are set": request(reserved=bytes(range(32))),
    "version name of 17 characters": of_user(item(0x55, b"V" * 17)),
    "version name of 64 characters": of_user(item(0x55, b"V" * 64)),
    "version name padded with NUL": of_user(item(0x55, b"ODD_1".ljust(16, b"\0"))),
    "version name in Latin-1": of_user(item(0x55, "RÖNTGEN".encode("latin-1"))),
    "version name in UTF-8": of_user(item(0x55, "RÖNTGEN".encode())),
    "version name empty": of_user(item(0x55, b"")),
    "no version name": request(APPLICATION_CONTEXT, CONTEXTS, item(0x50, MAXIMUM + CLASS)),
    "no implementation class UID": request(APPLICATION_CONTEXT, CONTEXTS, item(0x50, MAXIMUM)),
    "implementation class UID padded with NUL": request(
        APPLICATION_CONTEXT, CONTEXTS, item(0x50, MAXIMUM + item(0x52, b"1.2.3.45\0"))
    ),
    "implementation class UID that is none": request(
        APPLICATION_CONTEXT, CONTEXTS, item(0x50, MAXIMUM + item(0x52, b"ODD TOOLKIT"))
    ),
    "implementation class UID empty": request(APPLICATION_CONTEXT, CONTEXTS, item(0x50, MAXIMUM + item(0x52, b""))),
    "implementation class UID of 70 characters": request(
        APPLICATION_CONTEXT, CONTEXTS, item(0x50, MAXIMUM + item(0x52, b"1." + b"2" * 68))
    ),
    "unknown item at the end": request(APPLICATION_CONTEXT, CONTEXTS, user(), item(0x60, b"odd")),
    "unknown item at the beginning": request(item(0x0F, b"odd"), APPLICATION_CONTEXT, CONTEXTS, user()),
    "unknown user information 5A": of_user(item(0x5A, b"odd")),
    "unknown user information FF": of_user(item(0xFF, b"odd"), VERSION),
    "unknown user information, empty": of_user(item(0x70, b"")),
    "unknown item inside a context": of_contexts(context(1, CT, EXPLICIT, more=item(0x45, b"odd"))),
    "user identity of unknown type": of_user(item(0x58, b"\x09\x00" + counted(b"odd", counted(b"", b"")))),
    "user identity with an empty name": of_user(item(0x58, b"\x01\x00" + counted(b"", counted(b"", b"")))),
    "user identity of two fields and type 1": of_user(item(0x58, b"\x01\x01" + counted(b"a", counted(b"b", b"")))),
    "context IDs that are even": of_contexts(context(2, CT, EXPLICIT), context(4, VERIFICATION, IMPLICIT)),
    "context ID 0": of_contexts(context(0, CT, EXPLICIT), context(3, VERIFICATION, IMPLICIT)),
    "context ID twice, with the same": of_contexts(context(1, CT, EXPLICIT), context(1, CT, EXPLICIT)),
    "context ID twice, with something else": of_contexts(context(1, CT, EXPLICIT), context(1, VERIFICATION, IMPLICIT)),
    "context IDs in falling order": of_contexts(context(5, CT, EXPLICIT), context(3, VERIFICATION, IMPLICIT)),
    "context with reserved bytes set": of_contexts(context(1, CT, EXPLICIT, reserved=0xFF)),
    "UIDs padded with NUL": of_contexts(context(1, CT + b"\0", EXPLICIT + b"\0")),
    "transfer syntax that is no UID beside one": of_contexts(context(1, CT, b"odd", EXPLICIT)),
    "no user information": request(APPLICATION_CONTEXT, CONTEXTS),
    "no maximum length": request(APPLICATION_CONTEXT, CONTEXTS, item(0x50, CLASS + VERSION)),
    "maximum length 0": request(APPLICATION_CONTEXT, CONTEXTS, item(0x50, item(0x51, bytes(4)) + CLASS + VERSION)),
    "protocol version 3": request(version=3),
    "user information before the contexts": request(APPLICATION_CONTEXT, user(), CONTEXTS),
}


def answered(number: int, syntax: bytes = IMPLICIT, result: int = 0, more: bytes = b"", reserved: int = 0) -> bytes:
    inside = item(0x40, syntax) if syntax else b""
    return item(0x21, bytes((number, reserved, result, reserved)) + inside + more)


def answer(
    *items: bytes, called: bytes = b"ODDPEER", calling: bytes = b"MKISO", version: int = 1, reserved: bytes = bytes(32)
) -> bytes:
    parts = items or (APPLICATION_CONTEXT, answered(1), user())
    return pdu(2, parts, called, calling, version=version, reserved=reserved)


def by_user(*more: bytes) -> bytes:
    return answer(APPLICATION_CONTEXT, answered(1), user(*more))


def by_contexts(*contexts: bytes) -> bytes:
    return answer(APPLICATION_CONTEXT, *contexts, user())


ANSWERS: Mapping[str, bytes] = {
    "AE titles padded with NUL": answer(called=b"ODDPEER".ljust(16, b"\0"), calling=b"MKISO".ljust(16, b"\0")),
    "AE titles of NUL alone": answer(called=bytes(16), calling=bytes(16)),
    "AE titles of somebody else": answer(called=b"ELSE", calling=b"OTHER"),
    "AE titles in Latin-1": answer(called="RÖNTGEN".encode("latin-1"), calling="GERÄT".encode("latin-1")),
    "reserved bytes that are set": answer(reserved=bytes(range(32))),
    "version name of 17 characters": by_user(item(0x55, b"V" * 17)),
    "version name of 64 characters": by_user(item(0x55, b"V" * 64)),
    "version name padded with NUL": by_user(item(0x55, b"ODD_1".ljust(16, b"\0"))),
    "version name in Latin-1": by_user(item(0x55, "RÖNTGEN".encode("latin-1"))),
    "version name empty": by_user(item(0x55, b"")),
    "no version name": answer(APPLICATION_CONTEXT, answered(1), item(0x50, MAXIMUM + CLASS)),
    "no implementation class UID": answer(APPLICATION_CONTEXT, answered(1), item(0x50, MAXIMUM)),
    "implementation class UID padded with NUL": answer(
        APPLICATION_CONTEXT, answered(1), item(0x50, MAXIMUM + item(0x52, b"1.2.3.45\0"))
    ),
    "implementation class UID that is none": answer(
        APPLICATION_CONTEXT, answered(1), item(0x50, MAXIMUM + item(0x52, b"ODD TOOLKIT"))
    ),
    "unknown item": answer(APPLICATION_CONTEXT, answered(1), user(), item(0x60, b"odd")),
    "unknown user information 5A": by_user(item(0x5A, b"odd")),
    "unknown user information FF": by_user(item(0xFF, b"odd"), VERSION),
    "unknown item inside a context": by_contexts(answered(1, more=item(0x45, b"odd"))),
    "a user identity that nobody asked for": by_user(item(0x59, counted(b"odd", b""))),
    "a role that nobody asked for": by_user(item(0x54, counted(CT, b"\x01\x01"))),
    "a window that nobody asked for": by_user(item(0x53, struct.pack(">HH", 8, 8))),
    "transfer syntax padded with NUL": by_contexts(answered(1, IMPLICIT + b"\0")),
    "context with reserved bytes set": by_contexts(answered(1, reserved=0xFF)),
    "a context that was never proposed": by_contexts(answered(1), answered(9, result=3)),
    "a context answered twice": by_contexts(answered(1), answered(1)),
    "no maximum length": answer(APPLICATION_CONTEXT, answered(1), item(0x50, CLASS + VERSION)),
    "maximum length 0": answer(APPLICATION_CONTEXT, answered(1), item(0x50, item(0x51, bytes(4)) + CLASS + VERSION)),
    "no user information": answer(APPLICATION_CONTEXT, answered(1)),
}
