"""No input costs more than linear time: every parser of ours is fed what such things choke on, little and much."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import h11
import pytest
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from starlette.datastructures import Headers
from uvicorn.middleware.proxy_headers import _TrustedHosts

from mkiso.audit import messages as audit
from mkiso.config.disc import Identity
from mkiso.config.settings import PatientApi, Settings
from mkiso.dataset.elements import EXPLICIT_LITTLE, IMPLICIT_LITTLE, elements, elements_so_far
from mkiso.deidentify.strings import days_in
from mkiso.media import names
from mkiso.media.conforming import conforming
from mkiso.media.record_keys import Key
from mkiso.network import dimse
from mkiso.network.association import Association
from mkiso.network.negotiation import Context, decode_request
from mkiso.network.pdu import Connection, Pdv, pdvs
from mkiso.patient_api import birth_date_of, patient_of
from mkiso.publishers import epson, primera, rimage
from mkiso.publishers.robot_status import seen_in_names
from mkiso.study import accession, identity, same_person, writing
from mkiso.study.character_sets import character_set
from mkiso.study.models import Patient
from mkiso.study.selection import is_uid
from mkiso.study.text import Text
from mkiso_service.host_names import host_is_known
from mkiso_service.webhook.access.callers import Keys, Sessions, sender_of, session_of, take_request_id
from mkiso_service.webhook.discs.disc_bytes import content_disposition, span_of
from mkiso_service.webhook.questions.negotiation import preference_of
from mkiso_service.webhook.questions.query import Query, print_order
from peers.growth import check_growth

SIZE = 32_768  # nginx lets 36 KB through

Shape = tuple[str, str, str]  # what it begins with, what is repeated, what it ends with
SPACES: tuple[Shape, ...] = (
    ("", " ", ""),
    ("", "\t ", "x"),
    ("a=", " ", '"'),
    ('a="', " ", ""),
    ("a", " ", "="),
    ("a;", " ", ","),
)
LISTS: tuple[Shape, ...] = (
    *(
        ("", each, end)
        for each in (",", ", ", "a,", "a=b,", 'a="b",', '"a",', 'W/"a", ', "a;b,", ";", "=", "&", "a=b&")
        for end in ("", '"')
    ),
    *(("", each, "!") for each in ('"', '"a', '""', "W/", "\\", '\\"', "a=", 'a="', "q=0.8,", "text/html,")),
)
NUMBERS: tuple[Shape, ...] = tuple(
    (begin, each, "x") for begin in ("", "bytes=") for each in ("0", "9", "1.", "0.", "-", "0-", "+", "1-2,")
)
ADDRESSES: tuple[Shape, ...] = tuple(
    (begin, each, "")
    for begin in ("", "http://")
    for each in ("a.", ":", "::", "::1,", "[", "]", "@", "/", "127.0.0.1,", "1.")
)
ENCODED: tuple[Shape, ...] = tuple(
    ("", each, end) for each in ("%", "%2", "%41", "%E0%B8%81", "+", "a=%2C&") for end in ("", "%")
)
HEADER_SHAPES = SPACES + LISTS + NUMBERS + ADDRESSES + ENCODED
MARKS: tuple[Shape, ...] = tuple(
    ("", each, end)
    for each in (
        "\u0300",
        "\u0301\u0327",
        "\u0315\u0300",
        "A\u0300",
        "\u0f71\u0f74",
        "\u1100\u1161",
        "\u3099",
        "ก็",
        "é",
        "\uff0a",
        "\ufdfa",
        "\u200b",
        "_",
        "../",
        "x ",
    )
    for end in ("", "!", ".iso")
)
NAMES: tuple[Shape, ...] = tuple(
    ("", each, end) for each in ("^", "=", "^=", "ab^", "ab ", "=^a", "\\", "a\\", "\n") for end in ("", "a")
)
ESCAPES: tuple[Shape, ...] = tuple(("", each, "") for each in ("\x1b", "\x1b$B", "\x1b$)C^", "ก"))
TABLES: tuple[Shape, ...] = tuple(
    ("", each, end)
    for each in (
        "[a]\n",
        "[",
        "a=b\n",
        "[o]\nSTATUS=",
        "State",
        "State=",
        'State = "',
        'Message="',
        'Message = "a"',
        "Message= ",
    )
    for end in ("", '"')
)

PATIENT = Patient("HN-1", "Doe^John", "19700101", "M")
SESSIONS = Sessions(Keys(Settings().auth))
CHARACTER_SETS = (b"", b"ISO_IR 166", b"\\ISO 2022 IR 87\\ISO 2022 IR 149")
KEYWORDS = [
    "PatientName",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "NumberOfStudyRelatedInstances",
    "AcquisitionDateTime",
]


def headers_of(name: str) -> Callable[[str], object]:
    return lambda text: sender_of(
        Headers({"host": "h", "accept-language": "x", name: text}), ("https://ris.example.org",)
    )


def span_with(name: str) -> Callable[[str], object]:
    return lambda text: span_of({"range": "bytes=5-", name: text}, '"abc"', 1000)


def latin(text: str) -> bytes:
    return text.encode("latin-1", "replace")


def attribute(keyword: str) -> Callable[[str], object]:
    """An attribute of a C-FIND answer or a header, read as it came."""
    tag = BaseTag(tag_for_keyword(keyword) or 0)

    def read(text: str) -> object:
        value = text.encode()
        return str(
            Dataset({tag: RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, True, True)}).get(keyword)
        )

    return read


def cookie(text: str) -> object:
    sent = type(
        "Request",
        (),
        {"headers": Headers(raw=[(b"cookie", b"mkiso_session=" + latin(text)), (b"cookie", latin(text))])},
    )
    return SESSIONS.valid(session_of(sent))  # type: ignore[arg-type]


def request_with(line: bytes) -> object:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=65_536)
    connection.receive_data(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n")
    return connection.next_event()


def stated(terms: bytes, text: str) -> object:
    return Text(text.encode(), terms).stated


def judged(vr: str, text: str) -> object:
    return conforming(Key("StudyDescription", 0x00081030, vr, 3), Text(text.encode()))


PARSERS: dict[str, tuple[Callable[[str], object], tuple[Shape, ...]]] = {
    "Prefer": (lambda text: preference_of([text, text]), HEADER_SHAPES),
    **{name: (span_with(name), HEADER_SHAPES) for name in ("range", "if-range", "if-match", "if-none-match")},
    **{
        f"sender by {name}": (headers_of(name), HEADER_SHAPES)
        for name in ("origin", "referer", "sec-purpose", "sec-fetch-site", "accept", "host")
    },
    "Host": (lambda text: host_is_known(text, {"discs.example.org"}), HEADER_SHAPES),
    "X-Request-ID": (lambda text: take_request_id([latin(text)]), HEADER_SHAPES),
    "X-Forwarded-For": (_TrustedHosts(["127.0.0.1", "10.0.0.0/8"]).get_trusted_client_address, HEADER_SHAPES),
    "Cookie": (cookie, HEADER_SHAPES),
    "a header's value": (lambda text: request_with(b"Prefer: " + latin(text)), HEADER_SHAPES),
    "header lines": (
        lambda text: request_with(b"\r\n".join(b"a: " + latin(each) for each in text.split(","))),
        HEADER_SHAPES,
    ),
    "query": (lambda text: Query(latin(text)).one("a"), HEADER_SHAPES),
    "form": (lambda text: print_order(Query(b"", b"accession_number=" + latin(text)), Settings()), HEADER_SHAPES),
    "accession number": (accession.parse_accession_number, HEADER_SHAPES + MARKS),
    "accession numbers": (lambda text: accession.parse_accession_numbers(text, 50), HEADER_SHAPES + MARKS),
    "Content-Disposition": (content_disposition, MARKS + NAMES),
    "a download's name": (names.filename, MARKS + NAMES),
    "file-set ID": (names.file_set_id, MARKS + NAMES),
    "words without the patient": (lambda text: identity.without_patient(text, PATIENT), MARKS + NAMES + SPACES),
    "words without a patient of any name": (
        lambda text: identity.without_patient(text, Patient("", text, "", "")),
        MARKS + NAMES,
    ),
    "two persons": (
        lambda text: same_person.are_one(same_person.Person(text), same_person.Person(f"{text}x"), Identity()),
        tuple(shape for shape in MARKS + NAMES if shape[1] != "\ufdfa"),  # which is 18 letters
    ),
    "what a label carries": (lambda text: writing.written(text, str.isascii), MARKS + NAMES),
    "a line": (identity.one_line, MARKS + SPACES),
    "XML of the audit trail": (audit._plain, MARKS + NAMES),
    "patient API": (
        lambda text: patient_of(dict.fromkeys(("hn", "name", "birth_date", "sex"), text), PatientApi()),
        MARKS + NUMBERS,
    ),
    "birth date": (birth_date_of, NUMBERS + SPACES + (("", "T", ""), ("", "T\n", ""))),
    "rimage": (lambda text: rimage.parse_status(f'"o" {text}', "o"), TABLES + SPACES),
    "epson": (lambda text: epson.parse_status(text, "o"), TABLES + SPACES),
    "primera": (lambda text: primera.parse_status(text, "o"), TABLES + SPACES),
    "names in a watched folder": (lambda text: seen_in_names(text.split(","), "o", {".DON": "done"}), LISTS),
    "UID": (is_uid, NUMBERS),
    "a day in words": (days_in, (*NUMBERS, *MARKS, ("", "May ", ""), ("", "1 May 50", ""), ("", "J", "a"))),
    "character set": (
        lambda text: character_set(text.encode()),
        NAMES + SPACES + (("ISO_IR ", "\\", ""), ("", "ISO", "")),
    ),
    **{f"text in {terms!r}": (partial(stated, terms), ESCAPES + NAMES) for terms in CHARACTER_SETS},
    **{
        f"VR {vr}": (
            partial(judged, vr),
            NUMBERS + SPACES + NAMES,
        )
        for vr in ("CS", "DA", "IS", "TM", "UI", "LO", "PN", "LT", "UR")
    },
    **{keyword: (attribute(keyword), NUMBERS + NAMES) for keyword in KEYWORDS},
}


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def association_request(items: bytes) -> bytes:
    return struct.pack(">HH16s16s32x", 1, 0, b"A", b"B") + items


def nested(size: int) -> bytes:
    """Sequences of undefined length in each other, as deep as there is room."""
    return struct.pack("<HHI", 0x0040, 0xA730, 0xFFFFFFFF) * 1 + struct.pack(
        "<HHIHHI", 0xFFFE, 0xE000, 0xFFFFFFFF, 0x0040, 0xA730, 0xFFFFFFFF
    ) * (size // 16)


def fragments_of_a_command(size: int) -> None:
    """A command that says of each fragment that it is its last, and that an identifier follows."""
    connection: Connection = object.__new__(Connection)
    association = Association(connection, {1: Context("1.2", "1.2.840.10008.1.2")}, 0)
    command = dimse.encode_command({dimse.COMMAND_FIELD: 0x8020, dimse.STATUS: 0, dimse.COMMAND_DATA_SET_TYPE: 1})
    association._take(Pdv(1, True, True, memoryview(command)))
    for _ in range(size // 8):
        association._take(Pdv(1, True, True, memoryview(struct.pack("<HHI", 0, 9, 0))))


def fragments_without_an_end(size: int) -> None:
    connection: Connection = object.__new__(Connection)
    association = Association(connection, {1: Context("1.2", "1.2.840.10008.1.2")}, 0)
    for _ in range(size // 8):
        association._take(Pdv(1, True, False, memoryview(struct.pack("<HHI", 0, 9, 0))))


def words_of_a_patient_with_many_names(size: int) -> str:
    names_ = "^".join(f"{number:x}x" for number in range(size // 5))
    return identity.without_patient("y z " * (size // 4), Patient("", names_, "", ""))


SHAPES: dict[str, Callable[[int], Any]] = {
    "words of a patient with many names": words_of_a_patient_with_many_names,
    "JSON of the patient API, deep": lambda size: json.loads("[" * size),
    "JSON of the patient API, wide": lambda size: json.loads('{"a":1,' * size),
    "JSON of the patient API, a long number": lambda size: json.loads("9" * size),
    "an association request of many contexts": lambda size: decode_request(
        association_request(item(0x20, b"\1\0\0\0") * (size // 8))
    ),
    "an association request of many syntaxes": lambda size: decode_request(
        association_request(item(0x20, b"\1\0\0\0" + item(0x40, b"1.2") * (min(size, 60_000) // 7)))
    ),
    "an association request of much user information": lambda size: decode_request(
        association_request(item(0x50, item(0x56, b"\0\0\0\0") * (min(size, 60_000) // 8)))
    ),
    "a command of many elements": lambda size: dimse.parse_command(struct.pack("<HHI", 0, 9, 0) * (size // 8)),
    "a command that goes on after its end": fragments_of_a_command,
    "a command without an end": fragments_without_an_end,
    "PDVs of a byte": lambda size: list(pdvs(memoryview(struct.pack(">IBBx", 3, 1, 0) * (size // 7)))),
    "a data set of many elements": lambda size: elements(
        struct.pack("<HHI", 8, 9, 0) * (size // 8), 0, size // 8 * 8, IMPLICIT_LITTLE, frozenset()
    ),
    "a data set of nested sequences": lambda size: elements(
        nested(size), 0, len(nested(size)), IMPLICIT_LITTLE, frozenset({0x0040A730})
    ),
    "the beginning of one": lambda size: elements_so_far(nested(size), EXPLICIT_LITTLE, frozenset({0x0040A730})),
}


def answered(parse: Callable[[Any], object], given: object) -> None:
    """Whatever it raises is its answer."""
    with suppress(Exception):
        parse(given)


def grown(shape: Shape, size: int) -> str:
    begin, repeated, end = shape
    return (begin + repeated * (size // len(repeated)))[: size - len(end)] + end


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.filterwarnings("ignore")
def test_sixteen_times_the_text_takes_sixteen_times_as_long(name: str) -> None:
    parse, shapes = PARSERS[name]
    for shape in shapes:
        check_growth(partial(answered, parse), SIZE, partial(grown, shape), (name, shape))


@pytest.mark.parametrize("name", SHAPES)
def test_sixteen_times_the_structure_takes_sixteen_times_as_long(name: str) -> None:
    check_growth(partial(answered, SHAPES[name]), SIZE, what=name)
